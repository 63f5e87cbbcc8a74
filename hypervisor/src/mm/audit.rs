//! Counting everything again: which references *should* every frame have?
//!
//! A [`Recount`] is told of every owner of references (page tables, pins, vCPU bases, grants, shared pages), adds up
//! what that makes for each frame, and compares it with the frame table. Nothing may change meanwhile: the caller keeps
//! all other CPUs from page tables.

use super::domain_memory::DomainMemory;
use super::entries::is_hypervisor_slot;
use super::frame::{self, Class, Frame};
use super::page_type::{ENTRIES, Kind};
use super::pte::Pte;
use super::{alloc, phys};
use crate::atomic::{AtomicU64, Ordering};
use crate::fallible::try_push;
use arrayvec::ArrayVec;
use core::fmt;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// Differences that are kept; the rest is only counted.
pub const KEPT: usize = 16;
/// Frames whose sums fit into a page.
const PER_PAGE: u64 = 512;
/// Sums of a frame: general references in the low half, type references in the high half.
const TYPED: u64 = 1 << 32;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It has another number of references than there are owners of such.
    References,
    /// The same of type references.
    TypeReferences,
    /// Somebody uses it as something else than what it is.
    Kind(Kind),
    /// It stands in the list of a domain that does not own it.
    Owner(DomId),
    /// A domain's count of pages is not the length of its list.
    Pages(DomId),
}

/// A frame (for [`Wrong::Pages`]: a domain) that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub mfn: Mfn,
    /// What.
    pub wrong: Wrong,
    /// By the owners of references.
    pub expected: u64,
    /// By the frame table.
    pub found: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (e, n) = (self.expected, self.found);
        match self.wrong {
            Wrong::Pages(d) => return write!(f, "domain {d}: {n} pages counted, {e} in its list"),
            Wrong::References => write!(f, "frame {:#x}: {n} references, {e} owners of one", self.mfn)?,
            Wrong::TypeReferences => write!(f, "frame {:#x}: {n} type references, {e} owners of one", self.mfn)?,
            Wrong::Kind(k) => write!(f, "frame {:#x}: used as {k:?}", self.mfn)?,
            Wrong::Owner(d) => write!(f, "frame {:#x}: in the list of domain {d}", self.mfn)?,
        }
        match frame::get(self.mfn) {
            Some(fr) => write!(
                f,
                " ({:?} of {}, {:?}{}{})",
                fr.class(),
                fr.owner().unwrap_or(DomId::INVALID),
                fr.kind(),
                if fr.pinned() { ", pinned" } else { "" },
                if fr.partial() { ", partial" } else { "" },
            ),
            None => Ok(()),
        }
    }
}

/// What a recount found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Frames compared.
    pub frames: u64,
    /// Page tables walked.
    pub tables: u64,
    /// Frames without an owner.
    pub free: u64,
    /// Frames of the hypervisor's own, as far as they came from the allocator.
    pub own: u64,
    /// References added up.
    pub references: u64,
    /// How many differences there are.
    pub total: u64,
    /// The first of them.
    pub differences: ArrayVec<Difference, KEPT>,
}

impl Report {
    /// Whether all is as it should be.
    pub fn clean(&self) -> bool {
        self.total == 0
    }

    fn differ(&mut self, d: Difference) {
        self.total = self.total.saturating_add(1);
        let _ = self.differences.try_push(d);
    }
}

/// The sums so far.
pub struct Recount {
    pages: ::alloc::vec::Vec<Mfn>,
    report: Report,
}

impl Drop for Recount {
    fn drop(&mut self) {
        for &mfn in &self.pages {
            // SAFETY: taken in `try_new`, seen by nobody else.
            unsafe { alloc::give_back(mfn, 0) };
        }
    }
}

impl Recount {
    /// All sums zero.
    ///
    /// # Errors
    /// `ENOMEM`: it takes a page for each 512 frames.
    pub fn try_new() -> Result<Recount, Errno> {
        let mut r = Recount { pages: ::alloc::vec::Vec::new(), report: Report::default() };
        let n = frame::count().div_ceil(PER_PAGE);
        r.pages.try_reserve_exact(n as usize).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..n {
            try_push(&mut r.pages, alloc::page().ok_or(Errno::ENOMEM)?)?;
        }
        Ok(r)
    }

    fn sum(&self, mfn: Mfn) -> Option<&AtomicU64> {
        let page = *self.pages.get((mfn.0 / PER_PAGE) as usize)?;
        // SAFETY: our own page.
        Some(unsafe { phys::entry(page, (mfn.0 % PER_PAGE) as usize) })
    }

    fn add(&mut self, mfn: Mfn, what: u64) {
        self.report.references = self.report.references.saturating_add(1);
        if let Some(s) = self.sum(mfn) {
            s.store(s.load(Ordering::Relaxed).wrapping_add(what), Ordering::Relaxed);
        }
    }

    /// Somebody owns a general reference to `mfn`.
    pub fn reference(&mut self, mfn: Mfn) {
        self.add(mfn, 1);
    }

    /// Somebody owns a general and a type reference to `mfn`, as `kind`.
    pub fn typed(&mut self, mfn: Mfn, kind: Kind) {
        self.add(mfn, 1 + TYPED);
        let is = frame::get(mfn).map_or(Kind::None, Frame::kind);
        if is != kind {
            let (expected, found) = (kind as u64, is as u64);
            self.report.differ(Difference { mfn, wrong: Wrong::Kind(kind), expected, found });
        }
    }

    /// Adds what a domain's frames own: the claims on them, pins, half-done operations, and the entries of its tables.
    pub fn domain(&mut self, mem: &DomainMemory) {
        let mut listed = 0;
        mem.for_each_frame(|f| {
            listed += 1;
            self.frame(f, mem.id);
        });
        if listed != mem.pages() {
            let wrong = Wrong::Pages(mem.id);
            self.report.differ(Difference { mfn: Mfn(0), wrong, expected: listed, found: mem.pages() });
        }
    }

    fn frame(&mut self, f: &Frame, owner: DomId) {
        let mfn = f.mfn();
        if f.owner() != Some(owner) || f.class() != Class::Domain {
            let found = f.owner().map_or(u64::MAX, |d| u64::from(d.0));
            let wrong = Wrong::Owner(owner);
            self.report.differ(Difference { mfn, wrong, expected: u64::from(owner.0), found });
        }
        if f.allocated() {
            self.reference(mfn);
        }
        let kind = f.kind();
        if f.pinned() {
            self.typed(mfn, kind);
        }
        let held = if f.partial() {
            // A half-done operation owns both.
            self.typed(mfn, kind);
            f.progress()
        } else if f.is_valid(kind) {
            ENTRIES
        } else {
            0
        };
        if kind.is_table() {
            self.table(mfn, kind, held);
        }
    }

    /// The first `held` entries of a table.
    fn table(&mut self, mfn: Mfn, kind: Kind, held: usize) {
        self.report.tables += 1;
        for i in 0..held.min(ENTRIES) {
            if kind == Kind::L4 && is_hypervisor_slot(i) {
                continue;
            }
            // SAFETY: a table of a domain; nothing changes during a recount.
            let pte = Pte(unsafe { phys::load(mfn, i) });
            if !pte.present() {
                continue;
            }
            match kind.child() {
                Some(child) => self.typed(pte.mfn(), child),
                // Device memory holds no references.
                None if frame::get(pte.mfn()).is_none_or(|f| f.class() == Class::None) => {}
                None if pte.writable() => self.typed(pte.mfn(), Kind::Writable),
                None => self.reference(pte.mfn()),
            }
        }
    }

    /// Compares the sums with the frame table.
    pub fn compare(mut self) -> Report {
        let mut given = 0;
        for n in 0..frame::count() {
            let mfn = Mfn(n);
            let Some(f) = frame::get(mfn).filter(|f| f.class() != Class::None) else {
                continue;
            };
            let Some(sum) = self.sum(mfn).map(|s| s.load(Ordering::Relaxed)) else {
                continue;
            };
            self.report.frames += 1;
            // A free block's order stands where others have their type.
            let used = matches!(f.class(), Class::Domain | Class::Shared);
            given += u64::from(used);
            let types = if used { u64::from(f.type_count()) } else { 0 };
            let (expected, found) = (sum & (TYPED - 1), u64::from(f.references()));
            if expected != found {
                self.report.differ(Difference { mfn, wrong: Wrong::References, expected, found });
            }
            if sum >> 32 != types {
                let wrong = Wrong::TypeReferences;
                self.report.differ(Difference { mfn, wrong, expected: sum >> 32, found: types });
            }
        }
        // The pages of the sums are free again in a moment.
        self.report.free = alloc::free_pages() + self.pages.len() as u64;
        // Not by class: a free block's inner frames are of the hypervisor's class too.
        self.report.own = self.report.frames.saturating_sub(given + self.report.free);
        core::mem::take(&mut self.report)
    }
}
