//! The page allocator: a buddy allocator whose lists live in the frame table.
//!
//! There is a set of lists for each bit width of frame numbers, so that a request with an address limit looks at no
//! block in vain, and requests without one leave low memory to those who need it.
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
/// Bit widths of frame numbers: a frame's number has 32 bits at most, as the links have.
const WIDTHS: usize = 33;

struct Lists {
    /// By order and bit width of the block's frame numbers (all the same: a block is aligned to its size).
    head: [[u32; WIDTHS]; MAX_ORDER as usize + 1],
    /// Which widths have a block of an order.
    some: [u64; MAX_ORDER as usize + 1],
}

impl Lists {
    const EMPTY: Lists = Lists { head: [[NIL; WIDTHS]; MAX_ORDER as usize + 1], some: [0; MAX_ORDER as usize + 1] };
}

static LISTS: Lock<Lists> = Lock::new(Rank::Allocator, Lists::EMPTY);
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
    *LISTS.lock() = Lists::EMPTY;
    FREE.store(0, Ordering::Relaxed);
    TOTAL.store(0, Ordering::Relaxed);
}

fn order_of(f: &Frame) -> u32 {
    f.type_word.load(Ordering::Relaxed) as u32
}

/// Bits of a frame's number.
const fn width(mfn: Mfn) -> usize {
    let bits = (u64::BITS - mfn.0.leading_zeros()) as usize;
    if bits < WIDTHS { bits } else { WIDTHS - 1 }
}

/// The widths of which all frames are below `below`.
const fn widths_below(below: u64) -> u64 {
    let bits = below.ilog2();
    if bits >= WIDTHS as u32 { u64::MAX } else { (1 << (bits + 1)) - 1 }
}

impl Lists {
    fn set_head(&mut self, order: u32, width: usize, mfn: u32) {
        let (Some(head), Some(some)) =
            (self.head.get_mut(order as usize).and_then(|h| h.get_mut(width)), self.some.get_mut(order as usize))
        else {
            return;
        };
        *head = mfn;
        if mfn == NIL {
            *some &= !(1 << width);
        } else {
            *some |= 1 << width;
        }
    }

    fn head(&self, order: u32, width: usize) -> u32 {
        self.head.get(order as usize).and_then(|h| h.get(width)).copied().unwrap_or(NIL)
    }

    fn push(&mut self, mfn: Mfn, order: u32) {
        let Some(f) = frame::get(mfn) else { return };
        f.set_identity(Class::Free, DomId(0), 0);
        f.type_word.store(u64::from(order), Ordering::Relaxed);
        let head = self.head(order, width(mfn));
        f.prev.store(NIL, Ordering::Relaxed);
        f.next.store(head, Ordering::Relaxed);
        if let Some(h) = frame::get(Mfn(u64::from(head))) {
            h.prev.store(mfn.0 as u32, Ordering::Relaxed);
        }
        self.set_head(order, width(mfn), mfn.0 as u32);
    }

    fn unlink(&mut self, f: &Frame, order: u32) {
        let (next, prev) = (f.next.load(Ordering::Relaxed), f.prev.load(Ordering::Relaxed));
        if let Some(n) = frame::get(Mfn(u64::from(next))) {
            n.prev.store(prev, Ordering::Relaxed);
        }
        match frame::get(Mfn(u64::from(prev))) {
            Some(p) => p.next.store(next, Ordering::Relaxed),
            None => self.set_head(order, width(f.mfn()), next),
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

    /// The smallest block of the highest memory allowed.
    fn take(&mut self, order: u32, below: u64) -> Option<Mfn> {
        if below == 0 {
            return None;
        }
        let mut best = None;
        for o in order..=MAX_ORDER {
            let at = self.some.get(o as usize)? & widths_below(below);
            if at != 0 && best.is_none_or(|(w, _)| at.ilog2() > w) {
                best = Some((at.ilog2(), o));
            }
        }
        let (width, from) = best?;
        let mfn = Mfn(u64::from(self.head(from, width as usize)));
        self.unlink(frame::get(mfn)?, from);
        for half in (order..from).rev() {
            self.push(Mfn(mfn.0 + (1 << half)), half);
        }
        Some(mfn)
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

/// A block of 2^order zeroed frames, all below frame `below` (rounded down to a power of two), class `Hypervisor`.
/// `None` when there is none.
pub fn take(order: u32, below: u64) -> Option<Mfn> {
    let mfn = take_unzeroed(order, below)?;
    for i in 0..1u64 << order {
        // SAFETY: the frame came off the free list; nobody else has it.
        unsafe { phys::zero(Mfn(mfn.0 + i)) };
    }
    Some(mfn)
}

/// [`take`] for a caller that zeroes the pages before anybody sees them.
pub(super) fn take_unzeroed(order: u32, below: u64) -> Option<Mfn> {
    if crate::arch::instruments::fails() { None } else { take_for_sure(order, below) }
}

/// [`take_unzeroed`] for the heap, where injected failures have had their chance.
pub(super) fn take_for_sure(order: u32, below: u64) -> Option<Mfn> {
    if order > MAX_ORDER {
        return None;
    }
    let mfn = LISTS.lock().take(order, below)?;
    FREE.fetch_sub(1 << order, Ordering::Relaxed);
    let frames = || (0..1u64 << order).filter_map(|i| frame::get(Mfn(mfn.0 + i)));
    let stamp = frames().map(|f| f.stamp.load(Ordering::Acquire)).max().unwrap_or(0);
    if stamp != 0 {
        let stale = tlb::needs_flush(tlb::online(), stamp);
        if !stale.is_empty() {
            tlb::flush_cpus(stale, tlb::Flush::All);
        }
        debug_assert!(
            tlb::needs_flush(stale, stamp).is_empty(),
            "a frame gets a new owner before all CPUs have flushed"
        );
    }
    for f in frames() {
        f.stamp.store(0, Ordering::Release);
        f.reset_type();
        f.set_identity(Class::Hypervisor, DomId(0), 0);
    }
    Some(mfn)
}

/// One zeroed page for the hypervisor.
pub fn page() -> Option<Mfn> {
    take(0, u64::MAX)
}

/// What debug builds fill memory with that is nobody's.
pub const POISON: u8 = 0xdb;

/// Debug builds: what is read of a page without being written first is to be seen, zeros as well.
fn poison(mfn: Mfn) {
    if cfg!(all(debug_assertions, target_os = "none")) {
        // SAFETY: a page that is nobody's any more.
        unsafe { super::phys::fill(mfn, POISON) };
    }
}

/// Gives single pages back, as they are: it is done in one step.
///
/// # Safety
/// As for [`give_back`].
pub unsafe fn give_back_pages(pages: &[Mfn]) {
    let mut lists = LISTS.lock();
    pages.iter().for_each(|&mfn| lists.free(mfn, 0));
    FREE.fetch_add(pages.len() as u64, Ordering::Relaxed);
}

/// Gives a block back.
///
/// # Safety
/// Nobody uses the block any more, but for stale translations recorded in its frames' stamps.
pub unsafe fn give_back(mfn: Mfn, order: u32) {
    if order == 0 {
        poison(mfn);
    }
    let mut lists = LISTS.lock();
    for i in 0..1u64 << order {
        if let Some(f) = frame::get(Mfn(mfn.0 + i)) {
            f.set_identity(Class::Hypervisor, DomId(0), 0);
        }
    }
    lists.free(mfn, order);
    FREE.fetch_add(1 << order, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    #[test]
    fn a_limit_is_kept_and_low_memory_is_used_last() {
        testing::machine(256);
        let all = free_pages();
        assert_eq!(take(0, 1), None, "frame 0 is not given");
        let low = take(0, 4).unwrap();
        assert!(low.0 < 4);
        let free = take(0, u64::MAX).unwrap();
        assert!(free.0 >= 128, "{free:?}");
        let limited = take(2, 100).unwrap();
        assert!(limited.0 + 4 <= 64 && limited.0.is_multiple_of(4), "a limit is rounded down: {limited:?}");
        let mut got = std::vec::Vec::new();
        while let Some(m) = take(0, 16) {
            assert!(m.0 < 16);
            got.push(m);
        }
        // SAFETY: taken above.
        unsafe {
            got.into_iter().for_each(|m| give_back(m, 0));
            give_back(low, 0);
            give_back(free, 0);
            give_back(limited, 2);
        }
        assert_eq!(free_pages(), all);
        let block = take(6, u64::MAX).unwrap();
        assert!(block.0 >= 128, "all joined again: {block:?}");
    }
}
