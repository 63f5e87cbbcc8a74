//! Watchdogs of domains (SCHEDOP_watchdog): a domain that does not pet one in time is shut down, whatever its vCPUs do.
//!
//! A watchdog is a deadline of its domain. The domain's earliest one stands at its vCPU 0 and counts among that vCPU's
//! timers, whether it runs, waits or is down ([`super::timers`]). So setting one costs what setting a timer costs,
//! however many domains have some, and no lock is shared between domains.

use super::now;
use crate::domain::{Domain, DomainRef, ShutdownReason, lifecycle};
use crate::sync::{Lock, Rank};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::VcpuId;

/// Watchdogs a domain may have.
pub const PER_DOMAIN: usize = 2;
const NANOS: u64 = 1_000_000_000;

/// The watchdogs of one domain: system time, ns, at which each barks; 0 = off.
pub struct Watchdogs(Lock<[u64; PER_DOMAIN]>);

impl Watchdogs {
    /// All off.
    pub const fn new() -> Self {
        Watchdogs(Lock::new(Rank::Timers, [0; PER_DOMAIN]))
    }
}

impl Default for Watchdogs {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells vCPU 0 of the earliest of them. Under their lock, so that the newest word stays.
fn publish(d: &Domain, dogs: &[u64; PER_DOMAIN]) {
    if let Some(v) = d.vcpu(VcpuId(0)) {
        let first = dogs.iter().copied().filter(|at| *at != 0).min();
        v.watchdog.store(first.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Sets the watchdog `id` of `d` (1 or 2; 0: a free one) to bark in `seconds`, or stops it with 0 seconds (a new one
/// barks then). Gives the number of a new one, 0 otherwise. The caller sees to the timers of vCPU 0.
///
/// # Errors
/// `EINVAL` for a number that is none or not in use; `ENOSPC` when all are in use.
pub fn set(d: &Domain, id: u32, seconds: u32) -> Result<u32, Errno> {
    let at = now().saturating_add(u64::from(seconds).saturating_mul(NANOS)).max(1);
    let mut dogs = d.watchdogs.0.lock();
    let result = match (id as usize).checked_sub(1) {
        None => {
            let free = dogs.iter_mut().zip(1..).find(|(at, _)| **at == 0);
            let (slot, number) = free.ok_or(Errno::ENOSPC)?;
            *slot = at;
            number
        }
        Some(i) => {
            let slot = dogs.get_mut(i).filter(|at| **at != 0).ok_or(Errno::EINVAL)?;
            *slot = if seconds == 0 { 0 } else { at };
            0
        }
    };
    publish(d, &dogs);
    Ok(result)
}

/// Stops all watchdogs of a domain that dies.
pub fn forget(d: &Domain) {
    let mut dogs = d.watchdogs.0.lock();
    *dogs = [0; PER_DOMAIN];
    publish(d, &dogs);
}

/// Lets what is due at `now` bark: called with the other timers of vCPU 0 when the deadline it was told has passed.
pub fn run(d: &DomainRef, now: u64) {
    let due = {
        let mut dogs = d.watchdogs.0.lock();
        let mut due = None;
        for (at, number) in dogs.iter_mut().zip(1..).filter(|(at, _)| **at != 0 && **at <= now) {
            *at = 0;
            due = due.or(Some(number));
        }
        publish(d, &dogs);
        due
    };
    let Some(number): Option<u32> = due else {
        return;
    };
    log::warn!("domain {}: watchdog {number} was not petted in time", d.id);
    lifecycle::shutdown(d, ShutdownReason::Watchdog);
}
