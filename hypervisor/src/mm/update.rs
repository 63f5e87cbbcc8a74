//! Checked updates of entries in validated tables: take the references the new entry stands for, store it, drop those
//! of the old one.

use super::domain_memory::{self, DomainMemory};
use super::entries::{self, is_hypervisor_slot};
use super::frame::{self, Frame};
use super::page_type::{self, Kind, Owner, Refused};
use super::pte::{Pte, bit};
use super::{l1tf, phys, tables};
use crate::atomic::{AtomicU64, Ordering};
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
///
/// Open, it holds a general reference only; what the page is used as is looked at under its entry lock at each update,
/// and a table does not start to be released while that lock is held ([`page_type::put_type`]).
pub struct Table {
    frame: &'static Frame,
    owner: Owner,
}

/// Bits of an L1 entry that change nothing about what the entry refers to, nor who may write it.
const HARMLESS: u64 = bit::A | bit::D | bit::US | bit::G | bit::NX | 7 << 9 | 0x7ff << 52;

impl Table {
    /// Takes page `mfn` of the domain for updating.
    ///
    /// # Errors
    /// `EINVAL` when it is not the domain's.
    #[inline(always)]
    pub fn open(mem: &DomainMemory, mfn: Mfn) -> Result<Table, Errno> {
        let owner = mem.owner();
        let frame = frame::get(mfn).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
        Ok(Table { frame, owner })
    }

    /// Which page.
    #[inline(always)]
    pub fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Updates entry `index`; on a page that is no table it is a plain store. `frames_of` owns the frames that new L1
    /// entries map.
    ///
    /// # Errors
    /// Of the entry's check; `EINVAL` for a descriptor page or a hypervisor slot; `EAGAIN` when the entry was not what
    /// [`Store::IfStill`] said; `Preempted`.
    #[inline(always)]
    pub fn update(&self, index: usize, new: Pte, frames_of: DomId, store: Store) -> Result<(), Refused> {
        if self.frame.kind() == Kind::L1 {
            let mut still = true;
            self.update_l1(index, frames_of, |old| match store {
                Store::Plain => Some(new),
                Store::PreserveAd => Some(Pte(new.0 | old.0 & (bit::A | bit::D))),
                Store::IfStill(value) => {
                    still = old.0 == value;
                    still.then_some(new)
                }
            })?;
            return if still { Ok(()) } else { Err(Errno::EAGAIN.into()) };
        }
        match self.frame.kind() {
            kind @ (Kind::L2 | Kind::L3 | Kind::L4) => self.update_upper(index, kind, new, store),
            // It has become one just now.
            Kind::L1 => Err(Refused::Preempted),
            _ => self.store_data(index, new, store),
        }
    }

    /// Changes an L1 entry from what it is to what `change` makes of it (`None`: leave it). Returns what it was.
    #[inline(always)]
    fn update_l1(
        &self,
        index: usize,
        frames_of: DomId,
        mut change: impl FnMut(Pte) -> Option<Pte>,
    ) -> Result<Pte, Refused> {
        let lock = self.frame.lock_table();
        if !lock.is_valid(Kind::L1) {
            drop(lock);
            return Err(self.not_valid());
        }
        // SAFETY: a valid L1 of the domain, under a reference and its entry lock: besides us only the CPU writes it,
        // and only accessed and dirty bits.
        let slot = unsafe { phys::entry(self.frame.mfn(), index) };
        let mut old = Pte(slot.load(Ordering::Relaxed));
        loop {
            let Some(new) = change(old) else {
                return Ok(old);
            };
            let adjusted = new.adjust_l1();
            // What the entry refers to stays: nothing to check or count.
            let same = old.present() && (old.0 ^ adjusted.0) & !HARMLESS == 0;
            let stored = if same {
                adjusted
            } else if new.present() {
                entries::get_l1_entry(new, self.owner, frames_of)?
            } else {
                l1tf::check(new, self.owner)?;
                adjusted
            };
            match slot.compare_exchange(old.0, stored.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if !same {
                        self.put_l1(old);
                    }
                    return Ok(old);
                }
                Err(now) => {
                    // The CPU set an accessed or dirty bit.
                    if !same {
                        self.put_l1(stored);
                    }
                    old = Pte(now);
                }
            }
        }
    }

    /// Drops the references of an L1 entry.
    #[inline(always)]
    fn put_l1(&self, entry: Pte) {
        if entry.present()
            && let Some(f) = frame::get(entry.mfn())
        {
            entries::put_l1_entry(entry, f, self.owner);
        }
    }

    /// An entry of a higher table. The new subtree is validated before the lock, the old one released behind it: both
    /// may take long.
    fn update_upper(&self, index: usize, kind: Kind, new: Pte, store: Store) -> Result<(), Refused> {
        if kind == Kind::L4 && is_hypervisor_slot(index) {
            return Err(Errno::EINVAL.into());
        }
        let mut stored = entries::get_entry(new, kind, self.owner, self.owner.id, true)?;
        if kind == Kind::L4 && stored.present() {
            stored = Pte(stored.0 | bit::A);
        }
        let swapped = {
            let lock = self.frame.lock_table();
            if lock.is_valid(kind) {
                // SAFETY: as in `update_l1`.
                swap_entry(unsafe { phys::entry(self.frame.mfn(), index) }, stored, store)
            } else {
                Err(self.not_valid())
            }
        };
        match swapped {
            Ok(old) => {
                if kind == Kind::L4 {
                    tables::l4_changed();
                }
                if entries::put_entry(old, kind, self.owner, true).is_err() {
                    // The subtree is partial and owns what the entry owned; it is finished before the domain's next operation.
                    super::unfinished::remember(self.owner.id, old.mfn());
                }
                Ok(())
            }
            Err(e) => {
                if entries::put_entry(stored, kind, self.owner, true).is_err() {
                    super::unfinished::remember(self.owner.id, stored.mfn());
                }
                Err(e)
            }
        }
    }

    /// The page is no table (any more): what the guest writes there is data.
    fn store_data(&self, index: usize, new: Pte, store: Store) -> Result<(), Refused> {
        page_type::get_type(self.frame, Kind::Writable, self.owner, false).map_err(|e| match e {
            Refused::Error(_) => Refused::Error(Errno::EINVAL),
            Refused::Preempted => e,
        })?;
        // SAFETY: a page of the domain, held as writable data.
        let done = swap_entry(unsafe { phys::entry(self.frame.mfn(), index) }, new, store);
        let _ = page_type::put_type(self.frame, self.owner, false);
        done.map(drop)
    }

    /// Why a table that is not valid cannot be updated: somebody is at it (try again), or left it half-done.
    #[cold]
    fn not_valid(&self) -> Refused {
        if self.frame.partial() { Errno::EINVAL.into() } else { Refused::Preempted }
    }
}

impl Drop for Table {
    #[inline(always)]
    fn drop(&mut self) {
        domain_memory::put_frame(self.frame);
    }
}

/// Replaces an entry as `store` says; returns the old one.
fn swap_entry(slot: &AtomicU64, new: Pte, store: Store) -> Result<Pte, Refused> {
    let mut old = slot.load(Ordering::Relaxed);
    loop {
        let value = match store {
            Store::Plain => new.0,
            Store::PreserveAd => new.0 | old & (bit::A | bit::D),
            Store::IfStill(value) if value != old => return Err(Errno::EAGAIN.into()),
            Store::IfStill(_) => new.0,
        };
        match slot.compare_exchange(old, value, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(Pte(old)),
            Err(now) => old = now,
        }
    }
}

/// Updates the L1 entry that maps `va` under `l4`.
///
/// # Errors
/// `EINVAL` when there is no L1 table for it, otherwise as [`Table::update`].
#[inline(always)]
pub fn update_va(mem: &DomainMemory, l4: Mfn, va: u64, new: Pte, frames_of: DomId) -> Result<(), Refused> {
    let (l1, index) = tables::walk_to_l1(l4, va).ok_or(Errno::EINVAL)?;
    let table = Table::open(mem, l1)?;
    if table.frame.kind() != Kind::L1 {
        return Err(Errno::EINVAL.into());
    }
    table.update(index, new, frames_of, Store::Plain)
}

/// Does a guest kernel's store of `size` (1, 2, 4, 8) aligned bytes to `va`, which it maps read-only because the page
/// there is an L1 table. `change` makes the new value from the old one, or leaves it. Returns the old value.
///
/// # Errors
/// `EINVAL` when the page is not the domain's, what [`Table::update_l1`] says when it is no L1 table (it looks under the
/// table's lock, which is the look that counts), or the error of the entry that results.
pub fn emulate_store(
    mem: &DomainMemory,
    l4: Mfn,
    va: u64,
    size: usize,
    mut change: impl FnMut(u64) -> Option<u64>,
) -> Result<u64, Refused> {
    let offset = va % 8;
    if !matches!(size, 1 | 2 | 4 | 8) || !va.is_multiple_of(size as u64) {
        return Err(Errno::EINVAL.into());
    }
    let table = Table::open(mem, tables::walk(l4, va).ok_or(Errno::EINVAL)?)?;
    let (shift, mask) = (offset * 8, u64::MAX >> (64 - size as u64 * 8));
    let old = table.update_l1((va as usize & 0xfff) / 8, mem.id, |old| {
        let value = change(old.0 >> shift & mask)?;
        Some(Pte(old.0 & !(mask << shift) | (value & mask) << shift))
    })?;
    Ok(old.0 >> shift & mask)
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
