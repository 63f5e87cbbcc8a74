//! The frame table: one [`Frame`] for each page of RAM, and the one truth about it.
//!
//! Two words, each changed by compare-and-swap only:
//!
//! *reference word*: how often the frame is used at all, and whose it is
//! ```text
//!  63   54 53      52      51    48 47        32 31              0
//! |  -   | foreign | claim | class   | owner      | references    |
//! ```
//! *type word*: what it may be used as ([`super::page_type`])
//! ```text
//!  63     52 51   50     49..46  45..43  42         32 31             0
//! |  -      | lock | pin | type | state | progress    | type references |
//! ```
//!
//! A frame of a domain is born with the owner's claim, which holds one reference; giving the page back takes the claim
//! off, once. When the last reference goes, the frame is freed.

use crate::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use pv_abi::ids::{DomId, Mfn};

/// What kind of frame this is at all.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No RAM, or RAM that is not ours to give (firmware's).
    None = 0,
    /// In the allocator.
    Free = 1,
    /// The hypervisor's own.
    Hypervisor = 2,
    /// A domain's page.
    Domain = 3,
    /// The hypervisor's page, shown to a domain (shared_info, grant table): the domain may map it, but neither free it
    /// nor make it a page table.
    Shared = 4,
}

/// One page of RAM.
#[repr(C)]
pub struct Frame {
    pub(super) type_word: AtomicU64,
    ref_word: AtomicU64,
    /// Links of the list the frame is on (a domain's pages, or a free list).
    pub(super) next: AtomicU32,
    pub(super) prev: AtomicU32,
    /// Flush clock when the frame last stopped being what it was: a new use must not begin before every CPU that may
    /// hold a stale translation has flushed since.
    pub(super) stamp: AtomicU64,
}
const _: () = assert!(size_of::<Frame>() == 32);

/// End of a list.
pub(super) const NIL: u32 = u32::MAX;

const REF_MASK: u64 = 0xffff_ffff;
const OWNER_SHIFT: u32 = 32;
const CLASS_SHIFT: u32 = 48;
const CLASS: u64 = 0xf << CLASS_SHIFT;
const OWNER: u64 = 0xffff << OWNER_SHIFT;
/// The owner's own claim, which holds one reference.
const ALLOCATED: u64 = 1 << 52;
/// Another domain has had the page mapped writable.
const FOREIGN: u64 = 1 << 53;
/// Counts stop here: a guest that wants more references gets an error instead of an overflow.
const REF_MAX: u64 = 0x7fff_ffff;

static TABLE: AtomicPtr<Frame> = AtomicPtr::new(core::ptr::null_mut());
static COUNT: AtomicU64 = AtomicU64::new(0);

#[cfg(not(target_os = "none"))]
std::thread_local! {
    /// Host tests: each test thread has its own table.
    pub(crate) static TEST_TABLE: core::cell::Cell<(*const Frame, u64)> = const { core::cell::Cell::new((core::ptr::null(), 0)) };
}

/// Makes `table` the frame table. Boot, once.
///
/// # Safety
/// `table` points to at least `count` frames, zero-filled where they describe RAM, mapped for ever.
pub(super) unsafe fn install(table: *mut Frame, count: u64) {
    TABLE.store(table, Ordering::Release);
    COUNT.store(count, Ordering::Release);
}

/// Frames the table describes: MFNs below this.
pub fn count() -> u64 {
    #[cfg(not(target_os = "none"))]
    return TEST_TABLE.with(|t| t.get().1);
    #[cfg(target_os = "none")]
    COUNT.load(Ordering::Relaxed)
}

/// The frame `mfn`; `None` if the table does not reach that far. Holes below are frames of class `None`, which nobody
/// can take a reference to: where no RAM is near, the table is read-only zeroes (`init`).
#[inline(always)]
pub fn get(mfn: Mfn) -> Option<&'static Frame> {
    #[cfg(not(target_os = "none"))]
    let (base, n) = TEST_TABLE.with(|t| t.get());
    #[cfg(target_os = "none")]
    let (base, n) = (TABLE.load(Ordering::Relaxed).cast_const(), COUNT.load(Ordering::Relaxed));
    if mfn.0 >= n {
        return None;
    }
    // SAFETY: below the count, so mapped.
    Some(unsafe { &*base.add(mfn.0 as usize) })
}

impl Frame {
    /// Its number.
    #[inline(always)]
    pub fn mfn(&self) -> Mfn {
        #[cfg(not(target_os = "none"))]
        let base = TEST_TABLE.with(|t| t.get().0);
        #[cfg(target_os = "none")]
        let base = TABLE.load(Ordering::Relaxed).cast_const();
        Mfn((core::ptr::from_ref(self) as u64 - base as u64) / size_of::<Frame>() as u64)
    }

    /// What kind of frame it is.
    #[inline(always)]
    pub fn class(&self) -> Class {
        class_of(self.ref_word.load(Ordering::Acquire))
    }

    /// Its owner and class, if a domain may use it at all.
    #[inline(always)]
    pub fn owner(&self) -> Option<DomId> {
        let w = self.ref_word.load(Ordering::Acquire);
        matches!(class_of(w), Class::Domain | Class::Shared).then_some(DomId((w >> OWNER_SHIFT) as u16))
    }

    /// References now.
    pub fn references(&self) -> u32 {
        self.ref_word.load(Ordering::Acquire) as u32
    }

    /// Takes a reference if the frame belongs to `owner` and is in use.
    #[inline(always)]
    pub(super) fn get_ref(&self, owner: DomId) -> bool {
        let mut w = self.ref_word.load(Ordering::Relaxed);
        loop {
            let identity = w & (CLASS | OWNER);
            if identity != identity_of(Class::Domain, owner) && identity != identity_of(Class::Shared, owner) {
                return false;
            }
            // In use, and not so often that the count could run over.
            if (w & REF_MASK).wrapping_sub(1) >= REF_MAX - 1 {
                return false;
            }
            match self.ref_word.compare_exchange_weak(w, w + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => w = now,
            }
        }
    }

    /// Another reference to a frame the caller already holds one of; false when the count is at its limit.
    pub(super) fn get_another(&self) -> bool {
        let mut w = self.ref_word.load(Ordering::Relaxed);
        loop {
            if w & REF_MASK == 0 || w & REF_MASK >= REF_MAX {
                return false;
            }
            match self.ref_word.compare_exchange_weak(w, w + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => w = now,
            }
        }
    }

    /// Whether the owner has not given the page back.
    pub(super) fn allocated(&self) -> bool {
        self.ref_word.load(Ordering::Acquire) & ALLOCATED != 0
    }

    /// Takes the owner's claim off; true exactly once. The claim's reference is then the caller's to drop.
    pub(super) fn clear_allocated(&self) -> bool {
        self.ref_word.fetch_and(!ALLOCATED, Ordering::AcqRel) & ALLOCATED != 0
    }

    /// Takes a page that nothing uses, nor ever stopped half-way, from `owner`: only the owner's claim may be left. The
    /// frame is the hypervisor's then; that others had it mapped is not forgotten ([`Frame::foreign`]).
    pub(super) fn try_detach(&self, owner: DomId) -> bool {
        let unused = ALLOCATED | identity_of(Class::Domain, owner) | 1;
        let taken = (Class::Hypervisor as u64) << CLASS_SHIFT;
        let swap = |more: u64| {
            self.ref_word.compare_exchange(unused | more, taken | more, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        self.type_count() == 0 && (swap(0) || swap(FOREIGN))
    }

    /// Gives a detached page back to the domain it was taken from.
    pub(super) fn reattach(&self, owner: DomId) {
        let foreign = self.ref_word.load(Ordering::Acquire) & FOREIGN;
        self.set_identity(Class::Domain, owner, 1);
        self.ref_word.fetch_or(foreign, Ordering::AcqRel);
    }

    /// Records that another domain maps the page writable: when it becomes a table, CPUs that never ran its owner may
    /// hold a translation too.
    pub(super) fn mark_foreign(&self) {
        self.ref_word.fetch_or(FOREIGN, Ordering::AcqRel);
    }

    /// Whether that happened.
    pub(super) fn foreign(&self) -> bool {
        self.ref_word.load(Ordering::Acquire) & FOREIGN != 0
    }

    /// Drops a reference; true when it was the last one, and the caller must free the frame.
    #[inline(always)]
    #[must_use]
    pub(super) fn put_ref(&self) -> bool {
        let old = self.ref_word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(old & REF_MASK != 0, "reference of frame {:#x} dropped too often", self.mfn());
        old & REF_MASK == 1
    }

    /// Gives a frame nobody uses a new identity with `references`.
    pub(super) fn set_identity(&self, class: Class, owner: DomId, references: u32) {
        let claim = if class == Class::Domain { ALLOCATED } else { 0 };
        self.ref_word.store(claim | identity_of(class, owner) | u64::from(references), Ordering::Release);
    }
}

/// Class and owner as the reference word has them.
#[inline(always)]
const fn identity_of(class: Class, owner: DomId) -> u64 {
    (class as u64) << CLASS_SHIFT | (owner.0 as u64) << OWNER_SHIFT
}

#[inline(always)]
fn class_of(w: u64) -> Class {
    match w >> CLASS_SHIFT & 0xf {
        1 => Class::Free,
        2 => Class::Hypervisor,
        3 => Class::Domain,
        4 => Class::Shared,
        _ => Class::None,
    }
}
