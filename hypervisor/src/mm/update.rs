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
