//! The page allocator: a buddy allocator whose lists live in the frame table.
//!
//! Freed frames keep their flush stamp; [`take`] flushes the CPUs that may still see a frame before it gets a new
//! owner. Pages are zeroed here, so nobody sees what was in them.

use super::frame::{self, Class, Frame, NIL};
use super::phys;
use crate::platform::tlb;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{DomId, Mfn};

/// Largest block: 2^MAX_ORDER pages (4 MiB).
pub const MAX_ORDER: u32 = 10;
/// Free blocks looked at when an address limit is given.
const LIMITED_SEARCH: usize = 4096;

struct Lists {
    head: [u32; MAX_ORDER as usize + 1],
}

static LISTS: Lock<Lists> = Lock::new(Rank::Allocator, Lists { head: [NIL; MAX_ORDER as usize + 1] });
static FREE: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Pages nobody uses.
pub fn free_pages() -> u64 {
    FREE.load(Ordering::Relaxed)
}

/// Pages the allocator was ever given.
pub fn total_pages() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Host tests: a new machine has a new table, and what the lists name is gone.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_everything() {
    LISTS.lock().head = [NIL; MAX_ORDER as usize + 1];
    FREE.store(0, Ordering::Relaxed);
    TOTAL.store(0, Ordering::Relaxed);
}

fn order_of(f: &Frame) -> u32 {
    f.type_word.load(Ordering::Relaxed) as u32
}

impl Lists {
    fn push(&mut self, mfn: Mfn, order: u32) {
        let Some(f) = frame::get(mfn) else { return };
        f.set_identity(Class::Free, DomId(0), 0);
        f.type_word.store(u64::from(order), Ordering::Relaxed);
        let Some(head) = self.head.get_mut(order as usize) else { return };
        f.prev.store(NIL, Ordering::Relaxed);
        f.next.store(*head, Ordering::Relaxed);
        if let Some(h) = frame::get(Mfn(u64::from(*head))) {
            h.prev.store(mfn.0 as u32, Ordering::Relaxed);
        }
        *head = mfn.0 as u32;
    }

    fn unlink(&mut self, f: &Frame, order: u32) {
        let (next, prev) = (f.next.load(Ordering::Relaxed), f.prev.load(Ordering::Relaxed));
        if let Some(n) = frame::get(Mfn(u64::from(next))) {
            n.prev.store(prev, Ordering::Relaxed);
        }
        match frame::get(Mfn(u64::from(prev))) {
            Some(p) => p.next.store(next, Ordering::Relaxed),
            None => {
                if let Some(h) = self.head.get_mut(order as usize) {
                    *h = next;
                }
            }
        }
        f.set_identity(Class::Hypervisor, DomId(0), 0);
    }

    /// Puts a block back, joined with its free buddies.
    fn free(&mut self, mut mfn: Mfn, mut order: u32) {
        while order < MAX_ORDER {
            let buddy = Mfn(mfn.0 ^ 1 << order);
            let Some(b) = frame::get(buddy) else { break };
            // Only a block's first frame has class Free; the order says whether all of it is free.
            if b.class() != Class::Free || order_of(b) != order {
                break;
            }
            self.unlink(b, order);
            mfn = Mfn(mfn.0 & !(1 << order));
            order += 1;
        }
        self.push(mfn, order);
    }

    fn take(&mut self, order: u32, below: u64) -> Option<Mfn> {
        for o in order..=MAX_ORDER {
            let mut at = *self.head.get(o as usize)?;
            for _ in 0..LIMITED_SEARCH {
                let mfn = Mfn(u64::from(at));
                let Some(f) = frame::get(mfn) else { break };
                // A larger block is used from its low end.
                if mfn.0 + (1 << order) <= below {
                    self.unlink(f, o);
                    for half in (order..o).rev() {
                        self.push(Mfn(mfn.0 + (1 << half)), half);
                    }
                    return Some(mfn);
                }
                at = f.next.load(Ordering::Relaxed);
            }
        }
        None
    }
}

/// Adds free RAM, `[start, end)` in frames. Boot only.
pub fn add_range(start: Mfn, end: Mfn) {
    let (mut at, end) = (start.0, end.0);
    TOTAL.fetch_add(end.saturating_sub(at), Ordering::Relaxed);
    FREE.fetch_add(end.saturating_sub(at), Ordering::Relaxed);
    let mut lists = LISTS.lock();
    while at < end {
        let order = at.trailing_zeros().min((end - at).ilog2()).min(MAX_ORDER);
        // Frames inside a block are the hypervisor's until the block is split.
        for i in 1..1u64 << order {
            if let Some(f) = frame::get(Mfn(at + i)) {
                f.set_identity(Class::Hypervisor, DomId(0), 0);
            }
        }
        lists.free(Mfn(at), order);
        at += 1 << order;
    }
}

/// A block of 2^order zeroed frames, all below frame `below`, class `Hypervisor`. `None` when there is none.
pub fn take(order: u32, below: u64) -> Option<Mfn> {
    if order > MAX_ORDER {
        return None;
    }
    let mfn = LISTS.lock().take(order, below)?;
    FREE.fetch_sub(1 << order, Ordering::Relaxed);
    for i in 0..1u64 << order {
        let page = Mfn(mfn.0 + i);
        if let Some(f) = frame::get(page) {
            let stale = tlb::needs_flush(tlb::online(), f.stamp.load(Ordering::Acquire));
            if f.stamp.load(Ordering::Acquire) != 0 && !stale.is_empty() {
                tlb::flush_cpus(stale, tlb::Flush::All);
            }
            f.stamp.store(0, Ordering::Release);
            f.reset_type();
            f.set_identity(Class::Hypervisor, DomId(0), 0);
        }
        // SAFETY: the frame came off the free list; nobody else has it.
        unsafe { phys::zero(page) };
    }
    Some(mfn)
}

/// One zeroed page for the hypervisor.
pub fn page() -> Option<Mfn> {
    take(0, u64::MAX)
}

/// Gives a block back.
///
/// # Safety
/// Nobody uses the block any more, but for stale translations recorded in its frames' stamps.
pub unsafe fn give_back(mfn: Mfn, order: u32) {
    let mut lists = LISTS.lock();
    for i in 0..1u64 << order {
        if let Some(f) = frame::get(Mfn(mfn.0 + i)) {
            f.set_identity(Class::Hypervisor, DomId(0), 0);
        }
    }
    lists.free(mfn, order);
    FREE.fetch_add(1 << order, Ordering::Relaxed);
}
