//! Tables whose release stopped half-way with nobody left who names them.
//!
//! An entry of an upper table is replaced, the subtree it led to is large, and its release meets a preemption point:
//! the entry is gone, so repeating the update does not come by the subtree again. The same happens below a table that
//! is itself being released. The domain remembers such tables here, and the hypercalls that change page tables finish
//! them before they do anything else. A domain that dies first loses them with the rest of its memory
//! ([`DomainMemory::relinquish`]).

use super::domain_memory::{self, DomainMemory};
use super::frame;
use super::page_type::{self, Preempted};
use crate::sync::{Lock, Rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU32, Ordering};
use pv_abi::ids::{DomId, Mfn};

/// More than vCPUs times levels: each stops at one path at a time and finishes it first.
const MAX: usize = 256;

/// A domain's unfinished tables.
pub struct Unfinished {
    /// How many, for those who only want to know whether there are any.
    count: AtomicU32,
    list: Lock<ArrayVec<u32, MAX>>,
}

impl Unfinished {
    /// None.
    pub const fn new() -> Self {
        Unfinished { count: AtomicU32::new(0), list: Lock::new(Rank::Memory, ArrayVec::new_const()) }
    }

    /// Whether there are any.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }
}

/// Table `mfn` of domain `owner` is partial, and the entry that led to it is gone.
#[cold]
pub(super) fn remember(owner: DomId, mfn: Mfn) {
    domain_memory::with(owner, |m| {
        // A dying domain's frames are all gone through anyway. A full list (it cannot fill by one table a vCPU and
        // level) would leave the table to that, too.
        if !m.dying.load(Ordering::Acquire) {
            let mut list = m.unfinished.list.lock();
            let _ = list.try_push(mfn.0 as u32);
            m.unfinished.count.store(list.len() as u32, Ordering::Relaxed);
        }
    });
}

/// Goes on with what is left. To be called before a page-table operation of the domain begins.
///
/// # Errors
/// `Preempted`: restart the operation.
#[cold]
pub fn finish(mem: &DomainMemory) -> Result<(), Preempted> {
    loop {
        let next = {
            let mut list = mem.unfinished.list.lock();
            let next = list.pop();
            mem.unfinished.count.store(list.len() as u32, Ordering::Relaxed);
            next
        };
        let Some(mfn) = next else { return Ok(()) };
        let mfn = Mfn(u64::from(mfn));
        // The page may be anything by now: finished, or taken over as a table again.
        let Some(f) = frame::get(mfn).filter(|f| f.get_ref(mem.id)) else { continue };
        let r = page_type::resume_release(f, mem.owner(), true);
        domain_memory::put_frame(f);
        if r.is_err() {
            remember(mem.id, mfn);
            return Err(Preempted);
        }
    }
}
