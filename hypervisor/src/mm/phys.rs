//! The only place that reads and writes machine memory by frame number.
//!
//! On the machine frames are reached through the direct map; host tests install an arena instead, so that everything
//! above runs there unchanged.

use crate::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{Mfn, PAGE_SIZE};

#[cfg(not(target_os = "none"))]
std::thread_local! {
    /// Base of this test's memory.
    pub static ARENA: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// First byte of a frame.
#[inline(always)]
pub(crate) fn ptr(mfn: Mfn) -> *mut u8 {
    #[cfg(target_os = "none")]
    return crate::arch::layout::DIRECT_MAP.wrapping_add(mfn.0 << 12) as *mut u8;
    #[cfg(not(target_os = "none"))]
    return (ARENA.with(|a| a.get()) + mfn.0 as usize * PAGE_SIZE as usize) as *mut u8;
}

/// The frame of an address in the direct map.
#[cfg(target_os = "none")]
pub(crate) fn mfn(p: *mut u8) -> Mfn {
    Mfn((p as u64).wrapping_sub(crate::arch::layout::DIRECT_MAP) >> 12)
}

/// Entry `index` (below 512) of the table in `mfn`, as an atomic word.
///
/// # Safety
/// `mfn` is RAM, and stays what the caller takes it for while the reference lives; a guest may write the word at any
/// time, which an atomic allows.
#[inline(always)]
pub(crate) unsafe fn entry<'a>(mfn: Mfn, index: usize) -> &'a AtomicU64 {
    debug_assert!(index < 512);
    // SAFETY: the caller's; the index is masked into the page.
    unsafe { &*ptr(mfn).cast::<AtomicU64>().add(index & 511) }
}

/// All entries of the table in `mfn`.
///
/// # Safety
/// As [`entry`].
#[inline(always)]
pub(crate) unsafe fn table<'a>(mfn: Mfn) -> &'a [AtomicU64; 512] {
    // SAFETY: the caller's; a frame is that many words.
    unsafe { &*ptr(mfn).cast() }
}

/// Fills a frame with zeroes.
///
/// # Safety
/// `mfn` is RAM that nobody else uses.
pub(crate) unsafe fn zero(mfn: Mfn) {
    // SAFETY: the caller's.
    unsafe { core::ptr::write_bytes(ptr(mfn).cast::<u64>(), 0, (PAGE_SIZE / 8) as usize) };
}

/// Fills frame `mfn` with one byte.
///
/// # Safety
/// As [`zero`].
pub(crate) unsafe fn fill(mfn: Mfn, byte: u8) {
    // SAFETY: the caller's.
    unsafe { core::ptr::write_bytes(ptr(mfn).cast::<u8>(), byte, PAGE_SIZE as usize) };
}

/// Copies `src` into frame `mfn` at `offset`, clipped to the frame.
///
/// # Safety
/// `mfn` is RAM whose contents are the caller's to change (a guest may race; it only harms itself).
pub(crate) unsafe fn write(mfn: Mfn, offset: usize, src: &[u8]) {
    let offset = offset.min(PAGE_SIZE as usize);
    let len = src.len().min(PAGE_SIZE as usize - offset);
    // SAFETY: the caller's, clipped.
    unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), ptr(mfn).add(offset), len) };
}

/// Copies out of frame `mfn` at `offset`, clipped to the frame.
///
/// # Safety
/// `mfn` is RAM the caller may show to whoever sees `dst`.
pub(crate) unsafe fn read(mfn: Mfn, offset: usize, dst: &mut [u8]) {
    let offset = offset.min(PAGE_SIZE as usize);
    let len = dst.len().min(PAGE_SIZE as usize - offset);
    // SAFETY: the caller's, clipped.
    unsafe { core::ptr::copy_nonoverlapping(ptr(mfn).add(offset), dst.as_mut_ptr(), len) };
}

/// Copies between two frames, possibly the same one.
///
/// # Safety
/// As [`read`] for the source and [`write`] for the destination.
pub(crate) unsafe fn copy(dst: Mfn, dst_offset: usize, src: Mfn, src_offset: usize, len: usize) {
    let page = PAGE_SIZE as usize;
    let len = len.min(page - dst_offset.min(page)).min(page - src_offset.min(page));
    // SAFETY: the caller's, clipped; `copy` allows overlap.
    unsafe { core::ptr::copy(ptr(src).add(src_offset.min(page)), ptr(dst).add(dst_offset.min(page)), len) };
}

/// Reads an aligned word of a frame.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn load(mfn: Mfn, index: usize) -> u64 {
    // SAFETY: the caller's.
    unsafe { entry(mfn, index) }.load(Ordering::Relaxed)
}
