//! Tables whose release stopped half-way with nobody left who names them.
//!
//! An entry of an upper table is replaced, the subtree it led to is large, and its release meets a preemption point:
//! the entry is gone, so a repetition of the update does not come by the subtree again. The CPU remembers it here, and
//! the hypercalls that change page tables finish it before they do (or restart) anything else. A domain that dies first
//! loses such tables with the rest of its memory ([`super::domain_memory::DomainMemory::relinquish`]).

use super::domain_memory::DomainMemory;
use super::frame;
use super::page_type;
use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::this_cpu;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::Mfn;

const NONE: u64 = u64::MAX;
/// One for each CPU: the update that leaves one is followed by [`finish`] on the same CPU, for the same vCPU, within
/// the same hypercall or its restart.
static LEFT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NONE) }; MAX_CPUS];

fn mine() -> Option<&'static AtomicU64> {
    LEFT.get(this_cpu().id.0 as usize)
}

/// `mfn` is partial and nobody names it any more.
pub(super) fn remember(mfn: Mfn) {
    if let Some(slot) = mine() {
        let before = slot.swap(mfn.0, Ordering::Relaxed);
        debug_assert!(before == NONE, "two unfinished tables on one CPU");
    }
}
