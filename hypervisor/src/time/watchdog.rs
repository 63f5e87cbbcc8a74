//! Watchdogs of domains (SCHEDOP_watchdog): a domain that does not pet one in time is shut down, whatever its vCPUs do.
//!
//! All of them stand in one queue; [`NEXT`] is its first deadline, which every CPU takes into account when it programs
//! its timer. Watchdogs are few and their times are seconds, so the queue's lock is not contended, and nothing of this
//! is on a hot path but the load of [`NEXT`].

use super::now;
use crate::domain::{DomainRef, ShutdownReason, lifecycle};
use crate::platform::timer::NEVER;
use crate::sched::queue::SortedQueue;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::errno::Errno;

/// Watchdogs a domain may have.
pub const PER_DOMAIN: u32 = 2;
const NANOS: u64 = 1_000_000_000;

struct Bark {
    domain: DomainRef,
    slot: u32,
}

static QUEUE: Lock<SortedQueue<Bark>> = Lock::new(Rank::Timers, SortedQueue::new());
static NEXT: AtomicU64 = AtomicU64::new(NEVER);

/// The first deadline, or [`NEVER`].
#[inline(always)]
pub fn next() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

fn note_next(q: &SortedQueue<Bark>) {
    NEXT.store(q.first_key().unwrap_or(NEVER), Ordering::Relaxed);
}

impl Bark {
    fn is(&self, d: &DomainRef, slot: u32) -> bool {
        self.slot == slot && DomainRef::ptr_eq(&self.domain, d)
    }
}

/// Sets the watchdog `id` of `d` (1 or 2; 0: a free one) to bark in `seconds`, or stops it with 0 seconds. Gives the
/// number of a new one, 0 otherwise. The caller reprograms its CPU's timer.
///
/// # Errors
/// `EINVAL` for a number that is none or not in use; `ENOSPC` when all are in use; `ENOMEM`.
pub fn set(d: &DomainRef, id: u32, seconds: u32) -> Result<u32, Errno> {
    if id > PER_DOMAIN {
        return Err(Errno::EINVAL);
    }
    let at = now().saturating_add(u64::from(seconds).saturating_mul(NANOS));
    let (result, old) = {
        let mut q = QUEUE.lock();
        let slot = match id {
            0 => {
                let used = |slot| q.iter().any(|b| b.is(d, slot));
                (1..=PER_DOMAIN).find(|&s| !used(s)).ok_or(Errno::ENOSPC)?
            }
            id => id,
        };
        // Before the old one goes: without room it stays.
        let total = q.len().saturating_add(1);
        q.try_reserve(total).map_err(|_| Errno::ENOMEM)?;
        let old = q.take(|b| b.is(d, slot));
        if id != 0 && old.is_none() {
            return Err(Errno::EINVAL);
        }
        if seconds != 0 || id == 0 {
            let room = q
                .insert(
                    at,
                    Bark {
                        domain: d.clone(),
                        slot,
                    },
                )
                .is_ok();
            debug_assert!(room, "room was reserved");
        }
        note_next(&q);
        (if id == 0 { slot } else { 0 }, old)
    };
    // The reference goes outside of the lock.
    drop(old);
    Ok(result)
}

/// Stops all watchdogs of a domain that dies.
pub fn forget(d: &DomainRef) {
    for slot in 1..=PER_DOMAIN {
        let old = {
            let mut q = QUEUE.lock();
            let old = q.take(|b| b.is(d, slot));
            note_next(&q);
            old
        };
        drop(old);
    }
}

/// Lets what is due bark. Called with a CPU's other timers.
pub fn run(now: u64) {
    while next() <= now {
        let bark = {
            let mut q = QUEUE.lock();
            let due = q.first_key().is_some_and(|at| at <= now);
            let bark = if due { q.pop() } else { None };
            note_next(&q);
            bark
        };
        let Some((_, Bark { domain, slot })) = bark else {
            return;
        };
        log::warn!(
            "domain {}: watchdog {slot} was not petted in time",
            domain.id
        );
        lifecycle::shutdown(&domain, ShutdownReason::Watchdog);
    }
}
