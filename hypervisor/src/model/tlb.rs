//! The mailbox of flush requests, and the flush clock.

use super::{Work, explore_both, run};
use crate::arch::cpumask::CpuMask;
use crate::arch::percpu::{CpuId, host};
use crate::mm::testing;
use crate::platform::tlb::{self, Flush};
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU32, AtomicU64};
use std::boxed::Box;
use std::sync::Arc;
use std::vec;

std::thread_local! {
    /// Whether each CPU holds a stale translation.
    pub static STALE: [AtomicU32; 4] = const { [const { AtomicU32::new(0) }; 4] };
    /// Flushes each CPU has done.
    static FLUSHES: [AtomicU64; 4] = const { [const { AtomicU64::new(0) }; 4] };
}

/// This CPU flushes everything: what `platform::tlb` does on the machine by a control register.
pub fn flushed() {
    super::point();
    let me = host::me() as usize;
    STALE.with(|s| s[me].store(0, SeqCst));
    FLUSHES.with(|f| f[me].fetch_add(1, SeqCst));
}

/// This CPU uses a translation.
pub fn caches() {
    STALE.with(|s| s[host::me() as usize].store(1, SeqCst));
}

/// Whether any CPU holds a translation.
pub fn cached() -> bool {
    STALE.with(|s| s.iter().any(|s| s.load(SeqCst) != 0))
}

/// Nobody holds any.
pub fn forget() {
    STALE.with(|s| s.iter().for_each(|s| s.store(0, SeqCst)));
}

fn flushes(cpu: usize) -> u64 {
    FLUSHES.with(|f| f[cpu].load(SeqCst))
}

/// All CPUs ask all others at the same time. Whoever's request returns finds that each CPU has begun and ended a flush
/// since it asked; and nobody waits for ever.
#[test]
fn a_flush_is_done_when_its_request_returns() {
    testing::machine(16);
    explore_both("TLB: three CPUs flush each other", 500, 50_000, || {
        let work = |me: usize, rounds: u32| -> Work {
            Box::new(move || {
                for _ in 0..rounds {
                    let before: vec::Vec<u64> = (0..3).map(flushes).collect();
                    tlb::flush_cpus(CpuMask::from_bits(7), Flush::All);
                    for (cpu, before) in before.into_iter().enumerate() {
                        assert!(flushes(cpu) > before, "CPU {me} goes on, and CPU {cpu} has not flushed");
                    }
                }
                // It leaves for a guest: what is asked of it is done on the way.
                while ENDS.with(|e| e.load(SeqCst)) & !(1 << me) != 7 & !(1 << me) {
                    ENDS.with(|e| e.fetch_or(1 << me, SeqCst));
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
                ENDS.with(|e| e.fetch_or(1 << me, SeqCst));
            })
        };
        ENDS.with(|e| e.store(0, SeqCst));
        run(vec![work(0, 2), work(1, 1), work(2, 1)]);
    });
}

/// Two CPUs ask a third that works off requests between other things: each finds a flush that began after it asked.
#[test]
fn a_request_is_not_answered_by_an_older_flush() {
    testing::machine(16);
    explore_both("TLB: two CPUs ask a third", 1000, 50_000, || {
        ENDS.with(|e| e.store(0, SeqCst));
        let asks = |me: usize| -> Work {
            Box::new(move || {
                for _ in 0..2 {
                    let before = flushes(2);
                    tlb::flush_cpus(CpuMask::only(CpuId(2)), Flush::All);
                    assert!(flushes(2) > before, "CPU {me} goes on, and CPU 2 has not flushed since it asked");
                }
                ENDS.with(|e| e.fetch_or(1 << me, SeqCst));
            })
        };
        let answers: Work = Box::new(|| {
            while ENDS.with(|e| e.load(SeqCst)) != 3 {
                crate::atomic::spin_loop();
                crate::sync::serve_requests();
            }
        });
        run(vec![asks(0), asks(1), answers]);
    });
}

std::thread_local! {
    static ENDS: AtomicU32 = const { AtomicU32::new(0) };
}

/// The clock: where it says that a CPU need not flush for what ended at `stamp`, that CPU has flushed since.
#[test]
fn the_clock_never_saves_a_flush_that_is_needed() {
    testing::machine(16);
    explore_both("TLB: the flush clock", 1000, 20_000, || {
        // CPU 1 flushes now and then; CPU 0 stamps something that CPU 1 may hold, and asks later.
        let saved = Arc::new(AtomicU32::new(0));
        let asker: Work = {
            let saved = saved.clone();
            Box::new(move || {
                for _ in 0..2 {
                    let before = flushes(1);
                    let stamp = tlb::clock();
                    for _ in 0..3 {
                        crate::atomic::spin_loop();
                        if tlb::needs_flush(CpuMask::only(CpuId(1)), stamp).is_empty() {
                            saved.fetch_add(1, SeqCst);
                            assert!(flushes(1) > before, "a flush was saved that is needed");
                        }
                    }
                }
            })
        };
        let flusher: Work = Box::new(|| (0..3).for_each(|_| tlb::flush_local(Flush::All)));
        run(vec![asker, flusher]);
    });
}
