//! Blocks of pages made ready for a domain: taken from the allocator and zeroed, stopping where something more urgent
//! waits.
//!
//! Zeroing 4 MiB takes half a million instructions, more than may pass between two preemption points. What a stopped
//! request has so far stays on the domain's workbench, where the repetition finds it. A guest that asks for something
//! else instead only loses it: a batch of another kind goes back to the allocator, and so does what lies there when
//! the domain dies.

use super::alloc;
use super::frame;
use super::page_type::Refused;
use super::phys;
use crate::domain::current::should_preempt;
use crate::sync::{Lock, Rank};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

/// End of a batch's chain, which runs through the frames' `next`.
const NIL: u32 = frame::NIL;

/// Blocks of one size that are nobody's yet. What is left in it goes back when it is dropped.
pub(super) struct Batch {
    order: u32,
    below: u64,
    /// The newest block.
    head: u32,
    blocks: u64,
    /// Pages of the newest block that are zero; all of the others are.
    zeroed: u64,
}

impl Batch {
    /// Takes a block out: its first frame.
    pub(super) fn pop(&mut self) -> Option<Mfn> {
        let mfn = Mfn(u64::from(self.head));
        let f = frame::get(mfn)?;
        self.head = f.next.load(Ordering::Relaxed);
        self.blocks -= 1;
        Some(mfn)
    }

    fn add(&mut self) -> Result<(), Errno> {
        let mfn = alloc::take_unzeroed(self.order, self.below).ok_or(Errno::ENOMEM)?;
        if let Some(f) = frame::get(mfn) {
            f.next.store(self.head, Ordering::Relaxed);
            self.head = mfn.0 as u32;
            self.blocks += 1;
            self.zeroed = 0;
        }
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        while let Some(mfn) = self.pop() {
            // SAFETY: taken from the allocator by `add` and seen by nobody since.
            unsafe { alloc::give_back(mfn, self.order) };
        }
    }
}

/// Where a domain's unfinished batch waits.
pub(super) struct Workbench(Lock<Option<Batch>>);

impl Workbench {
    /// Empty.
    pub(super) const fn new() -> Self {
        Workbench(Lock::new(Rank::Memory, None))
    }

    /// `blocks` blocks of 2^`order` zeroed pages, all below frame `below`.
    ///
    /// # Errors
    /// `ENOMEM`; `Preempted` (only if `preemptible`): ask again for the same.
    pub(super) fn blocks(&self, blocks: u64, order: u32, below: u64, preemptible: bool) -> Result<Batch, Refused> {
        let kept = self.0.lock().take().filter(|b| b.order == order && b.below == below && b.blocks <= blocks);
        let mut batch = kept.unwrap_or(Batch { order, below, head: NIL, blocks: 0, zeroed: 0 });
        loop {
            while batch.blocks != 0 && batch.zeroed < 1 << order {
                // SAFETY: a page of our own block.
                unsafe { phys::zero(Mfn(u64::from(batch.head) + batch.zeroed)) };
                batch.zeroed += 1;
                if preemptible && should_preempt() {
                    // Of two vCPUs that ask at once one loses what it has done.
                    let lost = self.0.lock().replace(batch);
                    drop(lost);
                    return Err(Refused::Preempted);
                }
            }
            if batch.blocks == blocks {
                return Ok(batch);
            }
            batch.add()?;
        }
    }

    /// Gives back what lies here.
    pub(super) fn clear(&self) {
        let lost = self.0.lock().take();
        drop(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::percpu::{pending, this_cpu};
    use crate::mm::testing;

    /// Asks until it is done; how often that was, with something urgent there all the time.
    fn persist(bench: &Workbench, blocks: u64, order: u32) -> (u32, Batch) {
        this_cpu().raise(pending::SOFTIRQ);
        let mut tries = 1;
        loop {
            match bench.blocks(blocks, order, u64::MAX, true) {
                Ok(b) => {
                    this_cpu().pending.store(0, Ordering::Relaxed);
                    return (tries, b);
                }
                Err(e) => assert_eq!(e, Refused::Preempted),
            }
            tries += 1;
        }
    }

    #[test]
    fn a_stopped_request_goes_on_where_it_was() {
        testing::machine(256);
        let (bench, free) = (Workbench::new(), alloc::free_pages());
        let (tries, mut b) = persist(&bench, 3, 2);
        assert_eq!(tries, 13, "one page each time");
        assert_eq!(alloc::free_pages(), free - 12);
        let all: std::vec::Vec<_> = core::iter::from_fn(|| b.pop()).collect();
        assert_eq!(all.len(), 3);
        for mfn in all {
            assert_eq!(mfn.0 % 4, 0);
            // SAFETY: taken above.
            unsafe { alloc::give_back(mfn, 2) };
        }
        assert_eq!(alloc::free_pages(), free);
    }

    #[test]
    fn what_is_abandoned_goes_back() {
        testing::machine(256);
        let (bench, free) = (Workbench::new(), alloc::free_pages());
        this_cpu().raise(pending::SOFTIRQ);
        assert_eq!(bench.blocks(2, 3, u64::MAX, true).err(), Some(Refused::Preempted));
        assert_eq!(alloc::free_pages(), free - 8);
        assert_eq!(bench.blocks(1, 1, u64::MAX, true).err(), Some(Refused::Preempted), "another kind");
        assert_eq!(alloc::free_pages(), free - 2);
        this_cpu().pending.store(0, Ordering::Relaxed);
        assert_eq!(bench.blocks(1, 1, u64::MAX, true).unwrap().pop().map(|m| m.0 % 2), Some(0), "the stopped one");
        assert_eq!(alloc::free_pages(), free - 2);
        assert_eq!(bench.blocks(100, 3, u64::MAX, true).err(), Some(Refused::Error(Errno::ENOMEM)));
        assert_eq!(alloc::free_pages(), free - 2, "nothing kept of what cannot be had");
        this_cpu().raise(pending::SOFTIRQ);
        let _ = bench.blocks(1, 4, u64::MAX, true);
        this_cpu().pending.store(0, Ordering::Relaxed);
        bench.clear();
        assert_eq!(alloc::free_pages(), free - 2);
    }
}
