//! Which device memory a domain may map.
//!
//! Only domains with hardware rights may map frames that are not RAM of the allocator (device registers, firmware
//! tables, the low megabyte). LAPIC pages are never given; IOAPIC pages are read-only. Such mappings hold no
//! references: the frames never become anything else.

use super::page_type::{Owner, Refused};
use super::pte::{Pte, bit};
use crate::sync::{Lock, Rank};
use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

struct Guarded {
    hidden: ArrayVec<u64, 8>,
    read_only: ArrayVec<u64, 32>,
}

static GUARDED: Lock<Guarded> = Lock::new(
    Rank::Memory,
    Guarded {
        hidden: ArrayVec::new_const(),
        read_only: ArrayVec::new_const(),
    },
);
/// End of the machine's E820 RAM, in frames: what is beyond is a device's.
static RAM_END: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Nobody may map `mfn` (local APIC). Boot only; more than eight are a machine we do not know.
pub fn hide(mfn: Mfn) {
    let _ = GUARDED.lock().hidden.try_push(mfn.0);
}

/// `mfn` may only be read (IOAPIC).
pub fn read_only(mfn: Mfn) {
    let _ = GUARDED.lock().read_only.try_push(mfn.0);
}

/// Frames at and behind this are not RAM.
pub fn set_ram_end(mfn: Mfn) {
    RAM_END.store(mfn.0, core::sync::atomic::Ordering::Relaxed);
}

/// The entry as it is stored, or why not.
pub(super) fn map_entry(pte: Pte, owner: Owner) -> Result<Pte, Refused> {
    if !owner.hardware {
        return Err(Errno::EINVAL.into());
    }
    let mfn = pte.mfn().0;
    if mfn >> (phys_bits() - 12) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // The top 12 GiB below 2^40 are HyperTransport's on AMD-type machines: no device answers there.
    if amd() && (0xfd0_0000..0x1000_0000).contains(&mfn) {
        return Err(Errno::EPERM.into());
    }
    let g = GUARDED.lock();
    if g.hidden.contains(&mfn) {
        return Err(Errno::EPERM.into());
    }
    let mut pte = pte;
    if g.read_only.contains(&mfn) {
        pte = Pte(pte.0 & !bit::RW);
    }
    drop(g);
    if super::init::is_device(pte.mfn()) {
        pte = Pte(pte.0 | bit::PCD | bit::PWT);
    }
    Ok(pte.adjust_l1())
}

fn amd() -> bool {
    #[cfg(target_os = "none")]
    return !crate::arch::cpu::is_intel();
    #[cfg(not(target_os = "none"))]
    true
}

fn phys_bits() -> u32 {
    #[cfg(target_os = "none")]
    return crate::arch::cpu::phys_bits();
    #[cfg(not(target_os = "none"))]
    40
}
