//! Locks: `spin`'s mutex with our way of waiting and a checked order.
//!
//! Interrupts are off everywhere in the hypervisor but in the idle loop, so no lock needs to turn them off. What a
//! waiting CPU must do is serve TLB-flush requests of others ([`ServeFlush`]): the holder may be waiting for just that.
//!
//! Every lock has a [`Rank`]; a CPU takes locks in rising rank only. Debug builds check it at each acquisition.

use spin::mutex::{SpinMutex, SpinMutexGuard};
use spin::relax::RelaxStrategy;

/// How a waiting CPU waits: it keeps answering flush requests.
pub struct ServeFlush;

impl RelaxStrategy for ServeFlush {
    fn relax() {
        crate::atomic::spin_loop();
        serve_requests();
    }
}

/// Answers requests of other CPUs that must not wait for this CPU to leave the hypervisor. To be called in every loop
/// that waits for another CPU.
pub fn serve_requests() {
    #[cfg(any(target_os = "none", test))]
    crate::platform::tlb::serve();
}

/// The order of locks, outermost first. A CPU that holds one may only take one of a higher rank (never the same).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// One domain is made at a time.
    Creation = 0,
    /// One domain's administration (domctl).
    Domain = 2,
    /// A grant table. Two at once: lower domain id first, through [`Lock::lock_pair`].
    Grants = 3,
    /// A domain's event channels. Two at once: lower domain id first, through [`Lock::lock_pair`].
    Events = 4,
    /// Interrupt routing: PIRQ tables, IOAPIC and MSI programming.
    Irq = 5,
    /// A vCPU's parked state.
    Vcpu = 6,
    /// A domain's list of frames.
    Memory = 7,
    /// Scheduler run queue of one CPU.
    RunQueue = 8,
    /// A CPU's timer queue.
    Timers = 9,
    /// The page allocator.
    Allocator = 11,
    /// The small-object heap.
    Heap = 10,
    /// The console ring and the UART.
    Console = 12,
    /// One domain slot: held just to copy the reference in it, whatever else is held.
    Domains = 14,
    /// PCI configuration ports. Nothing is taken, and nothing logged, while it is held.
    Pci = 13,
}

/// A spinlock of a known rank.
pub struct Lock<T: ?Sized> {
    rank: Rank,
    inner: SpinMutex<T, ServeFlush>,
}

/// Holding a [`Lock`].
pub struct Guard<'a, T: ?Sized> {
    rank: Rank,
    guard: core::mem::ManuallyDrop<SpinMutexGuard<'a, T, ServeFlush>>,
}

impl<T> Lock<T> {
    /// A lock of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Lock { rank, inner: SpinMutex::new(value) }
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for the lock. Debug builds panic when the order of [`Rank`]s is broken.
    pub fn lock(&self) -> Guard<'_, T> {
        modelled();
        order::acquire(self.rank, false);
        Guard { rank: self.rank, guard: core::mem::ManuallyDrop::new(self.inner.lock()) }
    }

    /// The lock, if it is free now.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        modelled();
        let guard = self.inner.try_lock()?;
        order::acquire(self.rank, true);
        Some(Guard { rank: self.rank, guard: core::mem::ManuallyDrop::new(guard) })
    }

    /// Opens the lock whoever holds it.
    ///
    /// # Safety
    /// The holder never goes on (it is a CPU that panicked or was stopped).
    pub unsafe fn force_unlock(&self) {
        // SAFETY: the caller's.
        unsafe { self.inner.force_unlock() };
    }

    /// A second lock of the same rank while `_first` is held. The caller orders the two (lower domain id first).
    pub fn lock_pair<U: ?Sized>(&self, _first: &Guard<'_, U>) -> Guard<'_, T> {
        modelled();
        order::acquire(self.rank, true);
        Guard { rank: self.rank, guard: core::mem::ManuallyDrop::new(self.inner.lock()) }
    }
}

impl<T: ?Sized> core::ops::Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: ?Sized> core::ops::DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        modelled();
        // SAFETY: dropped once, here.
        unsafe { core::mem::ManuallyDrop::drop(&mut self.guard) };
        order::release(self.rank);
    }
}

/// In a model check another CPU may go first here, and sees what this one has stored: taking a lock is a locked instruction,
/// and the store that gives it back comes after all others.
#[inline(always)]
fn modelled() {
    #[cfg(test)]
    {
        crate::model::point();
        crate::model::drain();
    }
}

/// Ends the order check: for the report of a panic, which takes the console's locks whatever is held.
pub fn stop_checking_order() {
    order::STOPPED.store(true, core::sync::atomic::Ordering::Relaxed);
}

/// The order check of debug builds: one counter per rank and CPU.
mod order {
    use super::Rank;
    use core::sync::atomic::AtomicBool;

    /// See [`super::stop_checking_order`].
    pub static STOPPED: AtomicBool = AtomicBool::new(false);

    #[cfg(debug_assertions)]
    mod held {
        use crate::arch::layout::MAX_CPUS;
        use core::sync::atomic::AtomicU8;
        /// How many locks of each rank each CPU holds.
        #[cfg(target_os = "none")]
        static HELD: [[AtomicU8; 16]; MAX_CPUS] = [const { [const { AtomicU8::new(0) }; 16] }; MAX_CPUS];
        #[cfg(target_os = "none")]
        pub fn counters() -> Option<&'static [AtomicU8; 16]> {
            HELD.get(crate::arch::percpu::this_cpu().id.0 as usize)
        }
        #[cfg(not(target_os = "none"))]
        std::thread_local! {
            static HELD: &'static [[AtomicU8; 16]; 8] =
                std::boxed::Box::leak(std::boxed::Box::new([const { [const { AtomicU8::new(0) }; 16] }; 8]));
        }
        #[cfg(not(target_os = "none"))]
        pub fn counters() -> Option<&'static [AtomicU8; 16]> {
            let _ = MAX_CPUS;
            HELD.with(|h| h.get(crate::arch::percpu::host::me() as usize))
        }
    }

    #[cfg(debug_assertions)]
    pub fn acquire(rank: Rank, same_allowed: bool) {
        use core::sync::atomic::Ordering::Relaxed;
        let Some(held) = held::counters() else { return };
        if STOPPED.load(Relaxed) {
            return;
        }
        for (r, n) in held.iter().enumerate() {
            let bad = if same_allowed { false } else { r >= rank as usize };
            assert!(!(bad && n.load(Relaxed) != 0), "lock order: taking {rank:?} while holding a lock of rank {r}");
        }
        held[rank as usize].fetch_add(1, Relaxed);
    }

    #[cfg(debug_assertions)]
    pub fn release(rank: Rank) {
        if let Some(held) = held::counters() {
            held[rank as usize].fetch_sub(1, core::sync::atomic::Ordering::Relaxed);
        }
    }

    #[cfg(not(debug_assertions))]
    pub fn acquire(_: Rank, _: bool) {}
    #[cfg(not(debug_assertions))]
    pub fn release(_: Rank) {}
}
