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
    /// How many: those in the list, and those that some CPU has taken out of it and works on.
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
        self.count.load(Ordering::Acquire) != 0
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
            if list.try_push(mfn.0 as u32).is_ok() {
                m.unfinished.count.fetch_add(1, Ordering::AcqRel);
            }
        }
    });
}

/// Goes on with what is left. To be called before a page-table operation of the domain begins.
///
/// What another CPU works on is not finished either: an operation that went on then would find a table in use that its
/// own vCPU has unpinned a moment ago.
///
/// # Errors
/// `Preempted`: restart the operation.
#[cold]
pub fn finish(mem: &DomainMemory) -> Result<(), Preempted> {
    // A dying domain loses them with the rest.
    let Some(_operation) = mem.operate() else { return Ok(()) };
    loop {
        let next = mem.unfinished.list.lock().pop();
        let Some(mfn) = next else {
            return if mem.unfinished.any() { Err(Preempted) } else { Ok(()) };
        };
        let mfn = Mfn(u64::from(mfn));
        // The page may be anything by now: finished, or taken over as a table again.
        let mut r = Ok(());
        if let Some(f) = frame::get(mfn).filter(|f| f.get_ref(mem.id)) {
            r = page_type::resume_release(f, mem.owner(), true);
            domain_memory::put_frame(f);
        }
        if r.is_err() {
            remember(mem.id, mfn);
        }
        mem.unfinished.count.fetch_sub(1, Ordering::AcqRel);
        r?;
    }
}
