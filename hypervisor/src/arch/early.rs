//! Memory before there is a page allocator: a bump pointer over one free range below 4 GiB (all that the boot page
//! tables reach). What is left goes to the page allocator.

use super::paging::direct;
use crate::sync::{Lock, Rank};
use pv_abi::ids::{MachineAddr, PAGE_SIZE};

static RANGE: Lock<(u64, u64)> = Lock::new(Rank::Allocator, (0, 0));

/// Takes pages from `[start, end)` (machine addresses, page aligned) from now on.
pub fn init(start: u64, end: u64) {
    *RANGE.lock() = (start, end);
}

/// A zeroed page.
///
/// # Panics
/// When the range is used up: the machine has too little memory to start.
pub fn page() -> MachineAddr {
    pages(1)
}

/// `n` contiguous zeroed pages.
///
/// # Panics
/// As [`page`].
pub fn pages(n: u64) -> MachineAddr {
    let mut range = RANGE.lock();
    let start = range.0;
    let end = start + n * PAGE_SIZE;
    assert!(end <= range.1, "not enough memory below 4 GiB to start the hypervisor");
    range.0 = end;
    drop(range);
    // SAFETY: the range is free RAM in the direct map, and these pages are handed out once.
    unsafe { core::ptr::write_bytes(direct(MachineAddr(start)) as *mut u8, 0, (n * PAGE_SIZE) as usize) };
    MachineAddr(start)
}

/// Ends early allocation: the range that is left.
pub fn finish() -> (u64, u64) {
    core::mem::take(&mut *RANGE.lock())
}

/// `len` bytes (a multiple of 2 MiB) aligned to 2 MiB, zeroed. What the alignment skips is lost to early users and
/// given to the page allocator as a part of the range in front.
///
/// # Panics
/// As [`page`].
pub fn aligned_2m(len: u64) -> MachineAddr {
    let mut range = RANGE.lock();
    // From the top: the skipped tail is less than 2 MiB and stays unused.
    let start = range.1.saturating_sub(len) & !((2 << 20) - 1);
    assert!(start >= range.0, "not enough memory below 4 GiB to start the hypervisor");
    range.1 = start;
    drop(range);
    // SAFETY: as in `pages`.
    unsafe { core::ptr::write_bytes(direct(MachineAddr(start)) as *mut u8, 0, len as usize) };
    MachineAddr(start)
}
