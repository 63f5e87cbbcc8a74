//! The machine-to-phys table: for each frame the number its owner gives it. Guests read it directly.

use crate::arch::layout::{M2P_RO, M2P_RW};
use pv_abi::ids::{Mfn, Pfn};

/// What non-RAM and free frames read.
pub const INVALID: u64 = u64::MAX;

/// Frames the table covers.
pub fn entries() -> u64 {
    super::frame::count()
}

/// Where guests see it: start and end address.
pub fn guest_window() -> (u64, u64) {
    (M2P_RO, pv_abi::arch::MACH2PHYS_VIRT_END)
}

fn slot(mfn: Mfn) -> Option<*mut u64> {
    // Where no RAM is near there is no table either.
    super::frame::get(mfn).filter(|f| f.class() != super::frame::Class::None)?;
    #[cfg(target_os = "none")]
    return Some((M2P_RW + mfn.0 * 8) as *mut u64);
    #[cfg(not(target_os = "none"))]
    {
        let _ = M2P_RW;
        Some(super::testing::m2p_slot(mfn))
    }
}

/// Records that `mfn` is its owner's `pfn`. Frames out of range are ignored.
pub fn set(mfn: Mfn, pfn: Pfn) {
    if let Some(p) = slot(mfn) {
        // SAFETY: inside the mapped table; guests only read it, and a torn value is impossible for an aligned word.
        unsafe { p.write_volatile(pfn.0) };
    }
}

/// Records that `mfn` is nobody's.
pub fn clear(mfn: Mfn) {
    set(mfn, Pfn(INVALID));
}

/// What the table says of `mfn`.
pub fn get(mfn: Mfn) -> Option<Pfn> {
    // SAFETY: inside the mapped table.
    let v = unsafe { slot(mfn)?.read_volatile() };
    (v != INVALID).then_some(Pfn(v))
}

/// First frame of the 2 MiB block `i` of the table, where the table lies in such blocks.
pub fn extent(i: u64) -> Option<Mfn> {
    #[cfg(target_os = "none")]
    {
        let (entry, size) = crate::arch::paging::lookup(M2P_RW + i * (2 << 20))?;
        (size >= 2 << 20).then_some(Mfn((entry & crate::arch::paging::flag::ADDR) >> 12))
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = i;
        None
    }
}
