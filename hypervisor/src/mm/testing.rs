//! Host tests: an arena of memory with a frame table and an M2P, one per test thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests may

use super::domain_memory::forget_domain;
use super::frame::{self, Frame};
use super::{alloc, phys};
use pv_abi::ids::Mfn;
use std::vec::Vec;

/// The allocator and the table of owners are one for all threads, so tests with a machine run one after the other.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

std::thread_local! {
    /// Held from the first [`machine`] to the end of the test's thread.
    static TURN: core::cell::RefCell<Option<std::sync::MutexGuard<'static, ()>>> = const { core::cell::RefCell::new(None) };
    static M2P: core::cell::RefCell<Vec<u64>> = const { core::cell::RefCell::new(Vec::new()) };
}

/// Gives this thread `pages` pages of memory; frame 0 is not handed out. Leaks, as tests may.
pub fn machine(pages: usize) {
    TURN.with(|t| {
        let mut t = t.borrow_mut();
        if t.is_none() {
            *t = Some(ONE_AT_A_TIME.lock().unwrap_or_else(|failed| failed.into_inner()));
        }
    });
    alloc::forget_everything();
    let layout = std::alloc::Layout::from_size_align(pages * 4096, 4096).unwrap();
    // SAFETY: a non-zero size; leaked on purpose.
    let mem = unsafe { std::alloc::alloc_zeroed(layout) };
    phys::ARENA.with(|a| a.set(mem as usize));
    let layout = std::alloc::Layout::array::<Frame>(pages).unwrap();
    // SAFETY: as above; all-zero frames are frames of class None.
    let table = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Frame>();
    frame::TEST_TABLE.with(|t| t.set((table, pages as u64)));
    M2P.with(|m| *m.borrow_mut() = std::vec![u64::MAX; pages]);
    alloc::add_range(Mfn(1), Mfn(pages as u64));
}

/// Makes the thread's machine of `pages` pages as new, in the same memory.
pub fn again(pages: usize) {
    alloc::forget_everything();
    let (table, count) = frame::TEST_TABLE.with(|t| t.get());
    assert_eq!(count, pages as u64, "another machine");
    // SAFETY: this thread's arena and table, of that size (see `machine`); no object of an earlier test lives on.
    unsafe {
        core::ptr::write_bytes(phys::ARENA.with(|a| a.get()) as *mut u8, 0, pages * 4096);
        core::ptr::write_bytes(table.cast_mut().cast::<u8>(), 0, pages * size_of::<Frame>());
    }
    M2P.with(|m| m.borrow_mut().fill(u64::MAX));
    alloc::add_range(Mfn(1), Mfn(pages as u64));
}

/// Domain `id` has no memory any more.
pub fn forget(id: u16) {
    forget_domain(id);
}

pub(super) fn m2p_slot(mfn: Mfn) -> *mut u64 {
    M2P.with(|m| m.borrow_mut().as_mut_ptr().wrapping_add(mfn.0 as usize))
}

/// A domain's memory that its frames can find. Leaks.
pub fn domain(id: u16, max: u64) -> &'static super::domain_memory::DomainMemory {
    let mem = std::boxed::Box::leak(std::boxed::Box::new(super::domain_memory::DomainMemory::new(
        pv_abi::ids::DomId(id),
        max,
        false,
    )));
    forget_domain(id);
    mem.register().unwrap();
    mem
}
