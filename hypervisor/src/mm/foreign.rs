//! One domain's page used by another: by a grant, for a copy, through a mapping made for a grant.
//!
//! A [`PageUse`] holds counted references of its own. A page-table entry that [`map`] makes takes over the use it is
//! given, so the entry's references and those of whoever keeps the grant open are separate: a guest that overwrites
//! the entry drops only what the entry held.

use super::domain_memory::{self, DomainMemory};
use super::entries;
use super::frame::{self, Class, Frame};
use super::page_type::{self, Kind, Owner};
use super::pte::{Pte, bit};
use super::{phys, tables};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, MachineAddr, Mfn, PAGE_SIZE};

/// Why a page cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not RAM of that domain.
    NotAPage,
    /// It is a page table or descriptor page, and was to be written.
    Busy,
}

/// A counted use of a domain's page: a general reference, and a writable type reference if it may be written.
#[must_use = "dropping it gives the page up"]
#[derive(Debug)]
pub struct PageUse {
    frame: &'static Frame,
    writable: bool,
}

impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "frame {:#x}", self.mfn())
    }
}

impl PageUse {
    /// Takes page `mfn` of domain `owner`, for writing if `writable`.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn take(owner: DomId, mfn: Mfn, writable: bool) -> Result<PageUse, Unusable> {
        let frame = frame::get(mfn).filter(|f| f.get_ref(owner)).ok_or(Unusable::NotAPage)?;
        if writable {
            let by = Owner { id: owner, hardware: false };
            if page_type::get_type(frame, Kind::Writable, by, false).is_err() {
                domain_memory::put_frame(frame);
                return Err(Unusable::Busy);
            }
            frame.mark_foreign();
        }
        Ok(PageUse { frame, writable })
    }

    /// Another use of the same page; writable only if this one is.
    ///
    /// # Errors
    /// `Busy` when the counts are at their limit.
    pub fn another(&self, writable: bool) -> Result<PageUse, Unusable> {
        if !self.frame.get_another() {
            return Err(Unusable::Busy);
        }
        // From here the general reference is the new use's: its Drop gives it back.
        let mut new = PageUse { frame: self.frame, writable: false };
        if writable {
            let by = Owner { id: self.owner(), hardware: false };
            if !self.writable || page_type::get_type(self.frame, Kind::Writable, by, false).is_err() {
                return Err(Unusable::Busy);
            }
            new.writable = true;
        }
        Ok(new)
    }

    /// Which page.
    pub fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Whether it may be written.
    pub fn writable(&self) -> bool {
        self.writable
    }

    fn owner(&self) -> DomId {
        self.frame.owner().unwrap_or(DomId::INVALID)
    }

    /// Copies `len` bytes of `from` at `from_offset` to `offset` of this page.
    ///
    /// # Errors
    /// `EINVAL` when a range leaves its page, `EPERM` when this use is not for writing.
    pub fn copy_from(&self, offset: usize, from: &PageUse, from_offset: usize, len: usize) -> Result<(), Errno> {
        let page = PAGE_SIZE as usize;
        let fits = |o: usize| o.checked_add(len).is_some_and(|end| end <= page);
        if !fits(offset) || !fits(from_offset) {
            return Err(Errno::EINVAL);
        }
        if !self.writable {
            return Err(Errno::EPERM);
        }
        // SAFETY: both are RAM kept by the uses; the destination is nobody's page table (the writable type reference);
        // guests that race with the copy see mixed bytes of pages they shared, nothing else.
        unsafe { phys::copy(self.mfn(), offset, from.mfn(), from_offset, len) };
        Ok(())
    }

    /// Gives the references to a page-table entry.
    fn into_entry(self) {
        core::mem::forget(self);
    }
}

impl Drop for PageUse {
    fn drop(&mut self) {
        if self.writable {
            // A writable type has nothing below it, so this is done at once whoever asks.
            let _ = page_type::put_type(self.frame, Owner { id: self.owner(), hardware: false }, false);
        }
        domain_memory::put_frame(self.frame);
    }
}

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The entry for a virtual address under a top-level table.
    Virtual {
        /// The vCPU's kernel base.
        l4: Mfn,
        /// Any address in the page.
        va: u64,
    },
    /// The entry itself.
    Entry(MachineAddr),
}

impl Place {
    /// The L1 table and index; what the tables say now, to be checked under a reference.
    fn find(self) -> Option<(Mfn, usize)> {
        match self {
            Place::Virtual { l4, va } => tables::walk_to_l1(l4, va),
            Place::Entry(at) if at.0 % 8 == 0 => Some((Mfn::containing(at), (at.0 % PAGE_SIZE / 8) as usize)),
            Place::Entry(_) => None,
        }
    }
}

/// How the guest wants to see the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// For user mode: global, without the kernel mark.
    pub user: bool,
    /// Entry bits 9 to 11, for the guest's own use.
    pub available: u8,
}

/// The entry that maps a page by grant (measured on Xen 4.17: linux-pv ABI notes §11).
fn entry_for(page: &PageUse, look: Look) -> Pte {
    let mut v = page.mfn().0 << 12 | bit::P | bit::US | bit::A | bit::D | bit::NX;
    if page.writable {
        v |= bit::RW;
    }
    v |= if look.user { bit::G } else { bit::KERNEL };
    Pte(v | u64::from(look.available & 7) << 9)
}

/// Runs `change` on the entry at `place` of a validated L1 of `mem`'s domain, with the table locked; returns the entry
/// it took out, whose references the caller must drop.
fn with_entry<R>(
    mem: &DomainMemory,
    place: Place,
    change: impl FnOnce(&crate::atomic::AtomicU64) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let (l1, index) = place.find().ok_or(Errno::EINVAL)?;
    let table = frame::get(l1).filter(|f| f.get_ref(mem.id)).ok_or(Errno::EINVAL)?;
    let result = {
        let _lock = table.lock_table();
        if table.class() == Class::Domain && table.is_valid(Kind::L1) {
            // SAFETY: a valid L1 of the domain, under a reference and its entry lock.
            change(unsafe { phys::entry(l1, index) })
        } else {
            Err(Errno::EINVAL)
        }
    };
    domain_memory::put_frame(table);
    result
}

/// Maps `page` at `place` in the tables of `mem`'s domain. What the entry mapped before is dropped. On an error so is
/// `page`.
///
/// # Errors
/// `EINVAL` when there is no L1 table of the domain at `place`.
pub fn map(mem: &DomainMemory, place: Place, page: PageUse, look: Look) -> Result<(), Errno> {
    let new = entry_for(&page, look);
    let old = with_entry(mem, place, |entry| Ok(Pte(entry.swap(new.0, Ordering::AcqRel))))?;
    page.into_entry();
    let _ = entries::put_entry(old, Kind::L1, mem.owner(), false);
    Ok(())
}

/// Takes the mapping of `mfn` at `place` out. CPUs that ran the domain may still see it until they flush.
///
/// # Errors
/// `EINVAL` when the entry there does not map that page in that way.
pub fn unmap(mem: &DomainMemory, place: Place, mfn: Mfn, writable: bool) -> Result<(), Errno> {
    let old = with_entry(mem, place, |entry| {
        let now = Pte(entry.load(Ordering::Acquire));
        if !now.present() || now.mfn() != mfn || now.writable() != writable {
            return Err(Errno::EINVAL);
        }
        // The CPU may set accessed and dirty meanwhile; everything else is under the lock.
        Ok(Pte(entry.swap(0, Ordering::AcqRel)))
    })?;
    let _ = entries::put_entry(old, Kind::L1, mem.owner(), false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    /// Two domains; a page of each.
    fn two() -> (&'static DomainMemory, &'static DomainMemory, Mfn, Mfn) {
        testing::machine(64);
        let a = testing::domain(1, 16);
        let b = testing::domain(2, 16);
        (a, b, a.allocate(0, u64::MAX).unwrap(), b.allocate(0, u64::MAX).unwrap())
    }

    fn l1_of(mem: &DomainMemory, mfn: Mfn) {
        let f = frame::get(mfn).unwrap();
        assert!(f.get_ref(mem.id));
        page_type::get_type(f, Kind::L1, mem.owner(), false).unwrap();
    }

    #[test]
    fn entry_and_use_hold_separate_references() {
        let (a, b, page, l1) = two();
        l1_of(b, l1);
        let f = frame::get(page).unwrap();
        let kept = PageUse::take(a.id, page, true).unwrap();
        let place = Place::Entry(MachineAddr((l1.0 << 12) + 8));
        map(b, place, kept.another(true).unwrap(), Look::default()).unwrap();
        assert_eq!((f.references(), f.type_count()), (3, 2));
        // SAFETY: a page of this test.
        let pte = Pte(unsafe { phys::load(l1, 1) });
        assert_eq!(pte.0 & !bit::ADDR, bit::NX | bit::P | bit::RW | bit::US | bit::A | bit::D | bit::KERNEL);
        drop(kept);
        assert_eq!((f.references(), f.type_count()), (2, 1), "the entry still maps it");
        assert_eq!(unmap(b, place, page, false), Err(Errno::EINVAL), "not mapped in that way");
        assert_eq!(unmap(b, place, Mfn(page.0 + 1), true), Err(Errno::EINVAL), "not that page");
        unmap(b, place, page, true).unwrap();
        assert_eq!((f.references(), f.type_count()), (1, 0));
        assert_eq!(unmap(b, place, page, true), Err(Errno::EINVAL), "gone");
    }

    #[test]
    fn each_writable_use_that_ends_is_stamped() {
        use crate::platform::tlb;
        let (a, _, page, _) = two();
        let f = frame::get(page).unwrap();
        let first = PageUse::take(a.id, page, true).unwrap();
        let second = first.another(true).unwrap();
        tlb::flush_local(tlb::Flush::All);
        drop(second);
        let now = tlb::clock();
        assert_eq!(f.stamp.load(Ordering::Relaxed), now, "though it was not the last");
        tlb::flush_local(tlb::Flush::All);
        drop(first);
        assert!(f.stamp.load(Ordering::Relaxed) > now);
    }

    #[test]
    fn a_page_table_is_only_read() {
        let (a, b, page, l1) = two();
        l1_of(b, l1);
        assert_eq!(PageUse::take(b.id, l1, true).unwrap_err(), Unusable::Busy);
        assert_eq!(PageUse::take(a.id, l1, false).unwrap_err(), Unusable::NotAPage, "another's");
        let read = PageUse::take(b.id, l1, false).unwrap();
        let write = PageUse::take(a.id, page, true).unwrap();
        assert_eq!(read.copy_from(0, &write, 0, 8), Err(Errno::EPERM));
        assert_eq!(write.copy_from(1, &read, 0, 4096), Err(Errno::EINVAL));
        write.copy_from(0, &read, 0, 4096).unwrap();
    }

    #[test]
    fn a_mapping_needs_a_table_of_the_mapper() {
        let (a, b, page, l1) = two();
        let place = Place::Entry(MachineAddr(l1.0 << 12));
        let u = || PageUse::take(a.id, page, false).unwrap();
        assert_eq!(map(b, place, u(), Look::default()), Err(Errno::EINVAL), "not a table yet");
        l1_of(b, l1);
        assert_eq!(map(a, place, u(), Look::default()), Err(Errno::EINVAL), "another's table");
        assert_eq!(map(b, Place::Entry(MachineAddr((l1.0 << 12) + 4)), u(), Look::default()), Err(Errno::EINVAL));
        map(b, place, u(), Look { user: true, available: 5 }).unwrap();
        // SAFETY: a page of this test.
        let pte = unsafe { phys::load(l1, 0) };
        assert_eq!(pte & !bit::ADDR, bit::NX | bit::P | bit::US | bit::A | bit::D | bit::G | 5 << 9);
        assert_eq!(frame::get(page).unwrap().references(), 2, "failed attempts left nothing");
    }
}
