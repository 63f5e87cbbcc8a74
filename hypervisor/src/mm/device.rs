//! Which device memory a domain may map.
//!
//! Only domains with hardware rights may map frames that are not RAM of the allocator (device registers, firmware
//! tables, the low megabyte). LAPIC pages are never given; IOAPIC pages are read-only. Such mappings hold no
//! references: the frames never become anything else.

use super::page_type::{Owner, Refused};
use super::pte::{Pte, bit};
use crate::fallible::OutOfMemory;
use crate::sync::{Lock, Rank};
use ::alloc::vec::Vec;
use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

struct Guarded {
    hidden: ArrayVec<u64, 8>,
    /// First and last frame of each range, sorted, apart from each other.
    read_only: Vec<(u64, u64)>,
}

static GUARDED: Lock<Guarded> =
    Lock::new(Rank::Memory, Guarded { hidden: ArrayVec::new_const(), read_only: Vec::new() });
/// End of the machine's E820 RAM, in frames: what is beyond is a device's.
static RAM_END: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Nobody may map `mfn` (local APIC). Boot only; more than eight are a machine we do not know, and the log says so.
pub fn hide(mfn: Mfn) {
    if GUARDED.lock().hidden.try_push(mfn.0).is_err() {
        log::error!("frame {mfn:#x} should be hidden, but too many are");
    }
}

/// Frames `first` to `last` may only be read from now on (IOAPIC, tables of MSI-X). Mappings that are there already
/// stay as they are, as on Xen: a domain with hardware is trusted with its devices, and the entry it once made was right
/// then.
///
/// # Errors
/// Out of memory; nothing has changed then.
pub fn read_only(first: Mfn, last: Mfn) -> Result<(), OutOfMemory> {
    let mut g = GUARDED.lock();
    insert(&mut g.read_only, (first.0, last.0))
}

/// Adds a range to a sorted list of ranges that do not touch.
fn insert(list: &mut Vec<(u64, u64)>, (mut first, mut last): (u64, u64)) -> Result<(), OutOfMemory> {
    list.try_reserve(1).map_err(|_| OutOfMemory)?;
    let from = list.partition_point(|r| r.1 < first);
    let to = list.partition_point(|r| r.0 <= last);
    for r in list.drain(from..to.max(from)) {
        (first, last) = (first.min(r.0), last.max(r.1));
    }
    list.insert(from, (first, last));
    Ok(())
}

/// For tests.
#[cfg(test)]
pub fn is_read_only(mfn: Mfn) -> bool {
    within(&GUARDED.lock().read_only, mfn.0)
}

fn within(list: &[(u64, u64)], mfn: u64) -> bool {
    list.get(list.partition_point(|r| r.1 < mfn)).is_some_and(|r| r.0 <= mfn)
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
    if within(&g.read_only, mfn) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_none_is_lost() {
        let mut list = Vec::new();
        for i in (0..100).rev() {
            insert(&mut list, (10 * i, 10 * i + 3)).unwrap();
        }
        assert_eq!(list.len(), 100);
        for mfn in 0..1000 {
            assert_eq!(within(&list, mfn), mfn % 10 < 4, "{mfn}");
        }
        insert(&mut list, (15, 52)).unwrap();
        insert(&mut list, (20, 21)).unwrap();
        insert(&mut list, (2000, 2000)).unwrap();
        assert_eq!(list.get(..4), Some(&[(0, 3), (10, 13), (15, 53), (60, 63)][..]));
        assert!(within(&list, 2000) && !within(&list, 2001) && !within(&list, 14) && within(&list, 35));
        assert!(list.is_sorted());
    }
}
