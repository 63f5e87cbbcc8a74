//! The hypervisor's heap: `linked_list_allocator` over a window of its own that grows page by page, for small objects;
//! what is larger than three quarters of a page is a block of the page allocator's.
//!
//! So what a guest's use of grants adds up to comes back whole when it goes: the window keeps what it has grown by, and
//! holes in it cost time, but only small objects, of which each domain has few, are in it.
//!
//! Nothing on a hot path allocates; domains, vCPUs and tables do when they are made. A failed allocation is an error of
//! the caller's ([`crate::fallible`]), never an abort on a guest's account.

use super::{alloc, phys};
use crate::arch::layout::HEAP;
use crate::sync::{Lock, Rank};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use linked_list_allocator::Heap;
use pv_abi::ids::MachineAddr;

/// Pages the heap grows by at least.
const STEP: u64 = 4;

/// Where the window may grow to: the rest of its slot (`arch::layout`).
const WINDOW: core::ops::Range<u64> = HEAP..HEAP + (448 << 30);

/// Larger objects than this, in bytes, are whole pages where such a block can be had; a domain, and the x87 to AVX-512 state
/// of a vCPU, are smaller.
const SMALL: usize = 3072;

/// Bytes in the heap's window, and of these the ones in use: written under the heap's lock, read by the audit.
static SIZE: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);

/// The block of pages for a large object: 2^order of them.
fn order(layout: Layout) -> Option<u32> {
    let size = layout.size().max(layout.align());
    (size > SMALL).then(|| size.div_ceil(4096).next_power_of_two().ilog2())
}

/// Bytes the window has, and bytes of them that are in use. What it has once grown by it keeps.
pub fn usage() -> (u64, u64) {
    (SIZE.load(Ordering::Relaxed) as u64, USED.load(Ordering::Relaxed) as u64)
}

/// The allocator object; the binary declares the one static of it.
pub struct HypervisorHeap(Lock<Inner>);

struct Inner {
    heap: Heap,
    end: u64,
}

impl HypervisorHeap {
    /// An empty heap.
    pub const fn new() -> Self {
        HypervisorHeap(Lock::new(Rank::Heap, Inner { heap: Heap::empty(), end: HEAP }))
    }
}

impl Inner {
    fn publish(&self) {
        SIZE.store(self.heap.size(), Ordering::Relaxed);
        USED.store(self.heap.used(), Ordering::Relaxed);
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let pages = bytes.div_ceil(4096).max(STEP);
        let start = self.end;
        for _ in 0..pages {
            let Some(mfn) = alloc::page() else { break };
            // SAFETY: the window behind `end` is the heap's and unused.
            let mapped = unsafe {
                crate::arch::paging::map(self.end, mfn.0 << 12, 4096, crate::arch::paging::flag::DATA, || {
                    alloc::page().and_then(|m| m.to_addr()).map(|a| MachineAddr(a.0))
                })
            };
            if mapped.is_err() {
                // SAFETY: it never was mapped.
                unsafe { alloc::give_back(mfn, 0) };
                break;
            }
            self.end += 4096;
        }
        let got = self.end - start;
        if got == 0 {
            return false;
        }
        // SAFETY: freshly mapped memory right behind the old end.
        unsafe {
            if start == HEAP {
                self.heap.init(HEAP as *mut u8, got as usize);
            } else {
                self.heap.extend(got as usize);
            }
        }
        true
    }
}

// SAFETY: the inner heap hands out disjoint blocks, and the lock makes it one at a time; so does the page allocator. An
// address says which of the two it was.
unsafe impl GlobalAlloc for HypervisorHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if crate::arch::instruments::fails() {
            return core::ptr::null_mut();
        }
        if let Some(p) = order(layout).and_then(|order| alloc::take_for_sure(order, u64::MAX)).map(phys::ptr) {
            if cfg!(debug_assertions) {
                // SAFETY: the block was just taken.
                unsafe { p.write_bytes(alloc::POISON, layout.size()) };
            }
            return p;
        }
        // Small, or memory is too scattered for a block.
        let mut inner = self.0.lock();
        loop {
            if let Ok(p) = inner.heap.allocate_first_fit(layout) {
                inner.publish();
                if cfg!(debug_assertions) {
                    // SAFETY: the block was just allocated.
                    unsafe { p.as_ptr().write_bytes(alloc::POISON, layout.size()) };
                }
                return p.as_ptr();
            }
            if !inner.grow(layout.size() as u64 + layout.align() as u64 + 64) {
                return core::ptr::null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        if let Some(order) = order(layout)
            && !WINDOW.contains(&(p as u64))
        {
            // SAFETY: the caller's: a block of `alloc`'s with this layout that it does not use any more; where it is, in the
            // direct map, nothing is ever stale.
            unsafe { alloc::give_back(phys::mfn(p), order) };
        } else if let Some(p) = NonNull::new(p) {
            if cfg!(debug_assertions) {
                // SAFETY: the caller's: a block of this size that it does not use any more.
                unsafe { p.as_ptr().write_bytes(alloc::POISON, layout.size()) };
            }
            // SAFETY: the caller's: allocated here with this layout.
            unsafe {
                let mut inner = self.0.lock();
                inner.heap.deallocate(p, layout);
                inner.publish();
            }
        }
    }
}
