//! Checked updates of entries in validated tables: take the references the new entry stands for, store it, drop those
//! of the old one.

use super::domain_memory::{self, DomainMemory};
use super::frame::{self, Frame};
use super::page_type::{self, ENTRIES, Kind, Refused, is_hypervisor_slot};
use super::pte::{Pte, bit};
use super::{phys, tables};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// How an entry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// As it is.
    Plain,
    /// With the accessed and dirty bits the CPU may have set meanwhile.
    PreserveAd,
    /// Only if the entry still is this (as it reads in the table).
    IfStill(u64),
}

/// A page the guest updates as a table, kept over the updates of a batch that hit the same page.
pub struct Table {
    frame: &'static Frame,
    /// Whether it is a table at all; otherwise it is plain data, held by a writable type reference.
    data: bool,
    mem_owner: page_type::Owner,
}

impl Table {
    /// Takes page `mfn` of the domain for updating.
    ///
    /// # Errors
    /// `EINVAL` when it is not the domain's or is a descriptor page.
    pub fn open(mem: &DomainMemory, mfn: Mfn) -> Result<Table, Errno> {
        let owner = mem.owner();
        let frame = frame::get(mfn).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
        if frame.kind().is_table() {
            return Ok(Table { frame, data: false, mem_owner: owner });
        }
        if page_type::get_type(frame, Kind::Writable, owner, false).is_err() {
            domain_memory::put_frame(frame);
            return Err(Errno::EINVAL);
        }
        Ok(Table { frame, data: true, mem_owner: owner })
    }

    /// Which page.
    pub fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Updates entry `index`. `frames_of` owns the frames that new L1 entries map.
    ///
    /// # Errors
    /// Of the entry's check; `EAGAIN` when the entry was not what [`Store::IfStill`] said; `Preempted`.
    #[inline(always)]
    pub fn update(&self, index: usize, new: Pte, frames_of: DomId, store: Store) -> Result<(), Refused> {
        let _lock = self.frame.lock_table();
        // Looked at under the lock: the last type reference may have gone since `open`.
        let kind = self.frame.kind();
        if self.data || !self.frame.is_valid(kind) || !kind.is_table() {
            if self.data && kind == Kind::Writable {
                // SAFETY: the domain's data page, index below 512.
                unsafe { phys::entry(self.frame.mfn(), index) }.store(new.0, Ordering::Release);
                return Ok(());
            }
            return Err(Errno::EINVAL.into());
        }
        self.update_table(kind, index, new, frames_of, store)
    }

    #[inline(always)]
    fn update_table(&self, kind: Kind, index: usize, new: Pte, frames_of: DomId, store: Store) -> Result<(), Refused> {
        if index >= ENTRIES || (kind == Kind::L4 && is_hypervisor_slot(index)) {
            return Err(Errno::EINVAL.into());
        }
        // SAFETY: a valid table of the domain, under its entry lock.
        let slot = unsafe { phys::entry(self.frame.mfn(), index) };
        let old = Pte(slot.load(Ordering::Acquire));
        if let Store::IfStill(expected) = store
            && old.0 != expected
        {
            return Err(Errno::EAGAIN.into());
        }
        // The same frame with the same rights: no reference changes hands.
        const SAME: u64 = bit::ADDR | bit::P | bit::RW | bit::PWT | bit::PCD | bit::PSE;
        if kind == Kind::L1 && new.present() && (old.0 ^ new.0) & SAME == 0 && frames_of == self.mem_owner.id {
            exchange(slot, old, new.adjust_l1(), store);
            return Ok(());
        }
        let stored = page_type::get_entry(new, kind, self.mem_owner, frames_of, true)?;
        let stored = if kind == Kind::L4 && stored.present() { Pte(stored.0 | bit::A) } else { stored };
        let replaced = exchange(slot, old, stored, store);
        if page_type::put_entry(replaced, kind, self.mem_owner, false).is_err() {
            debug_assert!(false, "an unpreemptible release does not stop");
        }
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.data {
            let _ = page_type::put_type(self.frame, self.mem_owner, false);
        }
        domain_memory::put_frame(self.frame);
    }
}

/// Stores; the CPU may set A and D in the old entry at any time, so it is exchanged, never overwritten. Returns what
/// was replaced.
#[inline(always)]
fn exchange(slot: &core::sync::atomic::AtomicU64, old: Pte, new: Pte, store: Store) -> Pte {
    if store != Store::PreserveAd {
        return Pte(slot.swap(new.0, Ordering::AcqRel));
    }
    let mut seen = old.0;
    loop {
        let value = if new.present() { new.0 | seen & (bit::A | bit::D) } else { new.0 };
        match slot.compare_exchange(seen, value, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Pte(seen),
            Err(now) => seen = now,
        }
    }
}

/// update_va_mapping: the L1 entry that maps `va` under `l4` becomes `new`.
///
/// # Errors
/// `EINVAL` when there is no L1 there; else of the entry's check.
#[inline(always)]
pub fn update_va(mem: &DomainMemory, l4: Mfn, va: u64, new: Pte, frames_of: DomId) -> Result<(), Refused> {
    let (l1, index) = tables::walk_to_l1(l4, va).ok_or(Errno::EINVAL)?;
    let table = Table::open(mem, l1)?;
    if table.data || table.frame.kind() != Kind::L1 {
        return Err(Errno::EINVAL.into());
    }
    table.update(index, new, frames_of, Store::Plain)
}

/// A guest-kernel store to a page it maps read-only: if that page is one of its valid L1 tables, the store is done as a
/// checked update of the entry it falls into.
///
/// `va` is where it stores, `size` 1, 2, 4 or 8 bytes (within one entry), `f` makes the new bytes from the old ones, or
/// `None` to leave the entry alone (a failed compare). Returns the old bytes.
///
/// # Errors
/// `EFAULT` when it is no such page; else of the entry's check: then the guest gets its page fault.
pub fn emulate_store(
    mem: &DomainMemory,
    l4: Mfn,
    va: u64,
    size: usize,
    mut f: impl FnMut(u64) -> Option<u64>,
) -> Result<u64, Errno> {
    let offset = (va & 0xfff) as usize;
    if !matches!(size, 1 | 2 | 4 | 8) || offset % size != 0 {
        return Err(Errno::EFAULT);
    }
    let mfn = tables::walk(l4, va).ok_or(Errno::EFAULT)?;
    let table = Table::open(mem, mfn).map_err(|_| Errno::EFAULT)?;
    if table.data || !table.frame.is_valid(Kind::L1) {
        return Err(Errno::EFAULT);
    }
    let index = offset / 8;
    let shift = (offset % 8) * 8;
    let mask = if size == 8 { u64::MAX } else { (1u64 << (size * 8)) - 1 };
    // The guest compares and exchanges against what it sees; what it sees may change under us by the CPU's A and D.
    for _ in 0..64 {
        // SAFETY: a valid L1 of the domain under a reference.
        let whole = unsafe { phys::load(mfn, index) };
        let seen = whole >> shift & mask;
        let Some(new) = f(seen) else { return Ok(seen) };
        let value = whole & !(mask << shift) | (new & mask) << shift;
        match table.update(index, Pte(value), mem.id, Store::IfStill(whole)) {
            Ok(()) => return Ok(seen),
            Err(Refused::Error(Errno::EAGAIN)) => {}
            Err(Refused::Error(e)) => return Err(e),
            Err(Refused::Preempted) => return Err(Errno::EAGAIN),
        }
    }
    Err(Errno::EAGAIN)
}

/// Stores a checked descriptor into a descriptor page or a plain data page of the domain.
///
/// # Errors
/// `EINVAL` for any other page.
pub fn write_descriptor(mem: &DomainMemory, mfn: Mfn, index: usize, desc: u64) -> Result<(), Errno> {
    let owner = mem.owner();
    let f = frame::get(mfn).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
    let kind = if f.kind() == Kind::SegDesc { Kind::SegDesc } else { Kind::Writable };
    let got = page_type::get_type(f, kind, owner, false);
    if got.is_ok() {
        // SAFETY: the domain's page, held as what it is; the descriptor is one a guest may have.
        unsafe { phys::entry(mfn, index) }.store(desc, Ordering::Release);
        let _ = page_type::put_type(f, owner, false);
    }
    domain_memory::put_frame(f);
    got.map_err(|_| Errno::EINVAL)
}
