//! The house's locks.

use super::{Work, explore_both, run};
use crate::arch::cpumask::CpuMask;
use crate::mm::testing;
use crate::platform::tlb::{self, Flush};
use crate::sync::{Lock, Rank};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::boxed::Box;
use std::sync::Arc;
use std::vec;

/// Who holds a lock is alone, and whoever comes next sees all it did. While CPUs wait for it they do what others ask: the
/// holder flushes their translations with the lock held.
#[test]
fn who_waits_for_a_lock_serves_flush_requests() {
    testing::machine(16);
    explore_both("locks: three CPUs, one of which flushes the others", 500, 50_000, || {
        let lock = Arc::new(Lock::new(Rank::Memory, 0u32));
        // A word that only the lock protects: read, then written.
        let word = Arc::new(crate::atomic::AtomicU32::new(0));
        let left = Arc::new(AtomicU32::new(3));
        let work = |flushes: bool| -> Work {
            let (lock, word, left) = (lock.clone(), word.clone(), left.clone());
            Box::new(move || {
                for _ in 0..2 {
                    let mut guard = lock.lock();
                    *guard += 1;
                    let v = word.load(Relaxed);
                    if flushes {
                        tlb::flush_cpus(CpuMask::from_bits(7), Flush::All);
                    }
                    word.store(v + 1, Relaxed);
                }
                left.fetch_sub(1, SeqCst);
                while left.load(SeqCst) != 0 {
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
            })
        };
        run(vec![work(true), work(false), work(false)]);
        assert_eq!((*lock.lock(), word.load(SeqCst)), (6, 6), "two were inside at once");
    });
}

/// The same with two locks of different rank: the inner one's holder flushes with both, while one CPU waits for the outer, and
/// one holds the inner or waits for it.
#[test]
fn a_flush_under_two_locks() {
    testing::machine(16);
    explore_both("locks: a flush under two locks", 400, 50_000, || {
        let outer = Arc::new(Lock::new(Rank::Memory, 0u32));
        let inner = Arc::new(Lock::new(Rank::RunQueue, 0u32));
        let left = Arc::new(AtomicU32::new(3));
        let work = |takes_outer: bool, flushes: bool| -> Work {
            let (outer, inner, left) = (outer.clone(), inner.clone(), left.clone());
            Box::new(move || {
                for _ in 0..2 {
                    let first = takes_outer.then(|| outer.lock());
                    let mut second = inner.lock();
                    *second += 1;
                    if flushes {
                        tlb::flush_cpus(CpuMask::from_bits(7), Flush::All);
                    }
                    drop(second);
                    if let Some(mut first) = first {
                        *first += 1;
                    }
                }
                left.fetch_sub(1, SeqCst);
                while left.load(SeqCst) != 0 {
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
            })
        };
        run(vec![work(true, true), work(true, false), work(false, true)]);
        assert_eq!((*outer.lock(), *inner.lock()), (4, 6), "two were inside at once");
    });
}

/// Two locks of one rank, taken in the order of their domains by both sides.
#[test]
fn pairs_of_locks_do_not_meet() {
    testing::machine(16);
    explore_both("locks: pairs", 500, 20_000, || {
        let locks = Arc::new([Lock::new(Rank::Events, 0u32), Lock::new(Rank::Events, 0u32)]);
        let work = || -> Work {
            let locks = locks.clone();
            Box::new(move || {
                for _ in 0..2 {
                    let mut first = locks[0].lock();
                    let mut second = locks[1].lock_pair(&first);
                    *first += 1;
                    *second += 1;
                }
                *locks[1].lock() += 1;
            })
        };
        run(vec![work(), work()]);
        let first = *locks[0].lock();
        assert_eq!((first, *locks[1].lock()), (4, 6));
    });
}

/// The order of ranks is checked for each CPU by itself.
#[test]
#[cfg(debug_assertions)]
fn an_order_that_is_broken_is_noticed() {
    testing::machine(16);
    let inner = Arc::new(Lock::new(Rank::Grants, ()));
    let outer = Arc::new(Lock::new(Rank::Memory, ()));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _outer = outer.lock();
        let _inner = inner.lock();
    }));
    let text = caught.unwrap_err().downcast_ref::<std::string::String>().cloned().unwrap_or_default();
    assert!(text.contains("lock order: taking Grants"), "{text}");
}
