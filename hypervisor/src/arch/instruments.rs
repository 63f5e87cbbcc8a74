//! Two instruments for tests, in debug builds only (the profile `checked` is one): allocations that fail when asked to,
//! and a record of the longest time without a preemption point.
//!
//! In release builds the hooks are empty and the hypercalls that steer them say -ENOSYS.

/// The longest stretch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// TSC ticks between two preemption points (or the entry and the first, or the last and the end).
    pub ticks: u64,
    /// The hypercall it was in.
    pub hypercall: u32,
    /// Its first argument.
    pub argument: u64,
}

#[cfg(all(debug_assertions, target_os = "none"))]
mod on {
    use super::Stretch;
    use crate::arch::layout::MAX_CPUS;
    use crate::arch::percpu::this_cpu;
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    /// Allocations of the CPU until one fails; 0: none does.
    static FAIL_IN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
    static FAILED: AtomicU64 = AtomicU64::new(0);

    /// Lets the `n`-th allocation of this CPU from now fail; 0 lets none. Returns how many have failed since boot.
    pub fn fail_in(n: u64) -> u64 {
        if let Some(f) = FAIL_IN.get(this_cpu().id.0 as usize) {
            f.store(n, Relaxed);
        }
        FAILED.load(Relaxed)
    }

    /// Whether the allocation that is about to be made fails.
    #[inline]
    pub fn fails() -> bool {
        let Some(f) = FAIL_IN.get(this_cpu().id.0 as usize) else {
            return false;
        };
        let n = f.load(Relaxed);
        if n == 0 {
            return false;
        }
        f.store(n - 1, Relaxed);
        if n == 1 {
            FAILED.fetch_add(1, Relaxed);
        }
        n == 1
    }

    struct Now {
        since: AtomicU64,
        hypercall: AtomicU32,
        argument: AtomicU64,
    }

    /// What each CPU is at.
    static NOW: [Now; MAX_CPUS] =
        [const { Now { since: AtomicU64::new(0), hypercall: AtomicU32::new(0), argument: AtomicU64::new(0) } };
            MAX_CPUS];
    static LONGEST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

    fn now() -> u64 {
        // SAFETY: reads a counter.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// A hypercall begins.
    #[inline]
    pub fn begin(hypercall: u64, argument: u64) {
        if let Some(n) = NOW.get(this_cpu().id.0 as usize) {
            n.hypercall.store(hypercall as u32, Relaxed);
            n.argument.store(argument, Relaxed);
            n.since.store(now(), Relaxed);
        }
    }

    /// A preemption point, or the end of a hypercall.
    #[inline]
    pub fn point() {
        let Some(n) = NOW.get(this_cpu().id.0 as usize) else {
            return;
        };
        let (since, now) = (n.since.load(Relaxed), now());
        // No hypercall runs: a CPU that comes out of its sleep.
        if since == 0 {
            return;
        }
        n.since.store(now, Relaxed);
        let [ticks, hypercall, argument] = &LONGEST;
        // Two CPUs may mix their records up; the longest time is right.
        if now.wrapping_sub(since) > ticks.load(Relaxed) {
            ticks.store(now.wrapping_sub(since), Relaxed);
            hypercall.store(u64::from(n.hypercall.load(Relaxed)), Relaxed);
            argument.store(n.argument.load(Relaxed), Relaxed);
        }
    }

    /// No hypercall any more, or one that is long on purpose.
    pub fn forget() {
        if let Some(n) = NOW.get(this_cpu().id.0 as usize) {
            n.since.store(0, Relaxed);
        }
    }

    /// The longest stretch so far.
    pub fn longest() -> Stretch {
        let [ticks, hypercall, argument] = &LONGEST;
        Stretch {
            ticks: ticks.load(Relaxed),
            hypercall: hypercall.load(Relaxed) as u32,
            argument: argument.load(Relaxed),
        }
    }

    /// Begins the record anew.
    pub fn reset() {
        LONGEST.iter().for_each(|l| l.store(0, Relaxed));
    }
}

#[cfg(not(all(debug_assertions, target_os = "none")))]
mod off {
    use super::Stretch;

    /// None fails here.
    #[inline(always)]
    pub fn fails() -> bool {
        false
    }
    /// Nothing is recorded.
    #[inline(always)]
    pub fn begin(_: u64, _: u64) {}
    /// Nothing is recorded.
    #[inline(always)]
    pub fn point() {}
    /// Nothing is recorded.
    #[inline(always)]
    pub fn forget() {}
    /// Nothing was recorded.
    pub fn longest() -> Stretch {
        Stretch::default()
    }
}

#[cfg(not(all(debug_assertions, target_os = "none")))]
pub use off::*;
#[cfg(all(debug_assertions, target_os = "none"))]
pub use on::*;
