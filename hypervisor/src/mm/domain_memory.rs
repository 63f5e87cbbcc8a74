//! The memory of one domain: which frames it has, how many it may have, and giving all of it back.

use super::frame::{self, Class, Frame, NIL};
use super::page_type::{self, Owner};
use super::unfinished::Unfinished;
use super::window::Window;
use super::{alloc, m2p};
use crate::arch::cpumask::AtomicCpuMask;
use crate::arch::percpu::{pending, this_cpu};
use crate::domain::current::should_preempt;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// A domain's memory.
pub struct DomainMemory {
    /// Whose.
    pub id: DomId,
    /// Whether it may map device memory.
    pub hardware: AtomicBool,
    head: Lock<u32>,
    pages: AtomicU64,
    max: AtomicU64,
    /// CPUs that may hold translations of this domain.
    pub dirty_cpus: AtomicCpuMask,
    /// Being torn down: gets no more pages.
    pub dying: AtomicBool,
    /// Everything that can be taken from it was; what is left is mapped by others.
    torn_down: AtomicBool,
    /// GDT and LDT windows.
    pub window: Window,
    /// Tables whose release stopped half-way.
    pub unfinished: Unfinished,
}

/// A domain that was torn down lost a page that others had kept: perhaps its last, somebody should look.
static EMPTIED: AtomicBool = AtomicBool::new(false);

/// Whether such a domain lost a page since this was last asked.
pub fn take_emptied() -> bool {
    EMPTIED.load(Ordering::Relaxed) && EMPTIED.swap(false, Ordering::AcqRel)
}

/// Who accounts for the frames of each domain. An entry is set while the domain object lives.
static OWNERS: [AtomicPtr<DomainMemory>; crate::domain::slots::MAX_DOMAINS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; crate::domain::slots::MAX_DOMAINS];

/// Host tests: each starts with domains of its own.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_domain(id: u16) {
    if let Some(slot) = OWNERS.get(usize::from(id)) {
        slot.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// Runs `f` with the memory of domain `id`, which owns at least one frame or is otherwise known to exist.
pub(super) fn with<R>(id: DomId, f: impl FnOnce(&DomainMemory) -> R) -> Option<R> {
    let p = OWNERS.get(id.0 as usize)?.load(Ordering::Acquire);
    if p.is_null() {
        return None;
    }
    // SAFETY: registered by `register` and taken out before the domain object goes; a domain object outlives all its
    // frames, and callers come here through one of those frames or through the domain itself.
    Some(f(unsafe { &*p }))
}

/// Drops a general reference; the last one frees the frame.
#[inline(always)]
pub(super) fn put_frame(f: &Frame) {
    if f.put_ref() {
        free(f);
    }
}

#[cold]
fn free(f: &Frame) {
    let mfn = f.mfn();
    let class = f.class();
    debug_assert!(f.type_count() == 0, "frame {mfn:#x} freed while typed");
    if class == Class::Domain
        && let Some(owner) = f.owner()
    {
        with(owner, |m| m.unlink(f));
        m2p::clear(mfn);
    }
    f.stamp.store(crate::platform::tlb::clock().max(f.stamp.load(Ordering::Relaxed)), Ordering::Release);
    // SAFETY: the last reference is gone; stale translations are covered by the stamp.
    unsafe { alloc::give_back(mfn, 0) };
}

impl DomainMemory {
    /// Of domain `id`, which may have `max` pages.
    pub fn new(id: DomId, max: u64, hardware: bool) -> Self {
        DomainMemory {
            id,
            hardware: AtomicBool::new(hardware),
            head: Lock::new(Rank::Memory, NIL),
            pages: AtomicU64::new(0),
            max: AtomicU64::new(max),
            dirty_cpus: AtomicCpuMask::empty(),
            dying: AtomicBool::new(false),
            torn_down: AtomicBool::new(false),
            window: Window::new(),
            unfinished: Unfinished::new(),
        }
    }

    /// Makes the frames of the domain find their accounts. Called when the domain has its final address: the object
    /// stays there until it is dropped, and drop takes the entry out.
    ///
    /// # Errors
    /// `EEXIST` while a domain that had the same id before still has frames.
    pub fn register(&self) -> Result<(), Errno> {
        let slot = OWNERS.get(self.id.0 as usize).ok_or(Errno::EINVAL)?;
        let me = core::ptr::from_ref(self).cast_mut();
        slot.compare_exchange(core::ptr::null_mut(), me, Ordering::AcqRel, Ordering::Relaxed)
            .map_or(Err(Errno::EEXIST), |_| Ok(()))
    }

    fn unregister(&self) {
        if let Some(slot) = OWNERS.get(self.id.0 as usize) {
            let me = core::ptr::from_ref(self).cast_mut();
            let _ = slot.compare_exchange(me, core::ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// On whose behalf its tables are validated.
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        Owner { id: self.id, hardware: self.hardware.load(Ordering::Relaxed) }
    }

    /// Pages it has.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Pages it may have.
    pub fn max_pages(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes that; pages beyond it stay.
    pub fn set_max_pages(&self, n: u64) {
        self.max.store(n, Ordering::Relaxed);
    }

    /// A block of 2^order zeroed pages for the domain, below frame `below`.
    ///
    /// # Errors
    /// `ENOMEM` when the domain has all it may have, is dying, or the machine has none left.
    pub fn allocate(&self, order: u32, below: u64) -> Result<Mfn, Errno> {
        let n = 1u64 << order;
        let mut head = self.head.lock();
        if self.dying.load(Ordering::Acquire) || self.pages().saturating_add(n) > self.max_pages() {
            return Err(Errno::ENOMEM);
        }
        let mfn = alloc::take(order, below).ok_or(Errno::ENOMEM)?;
        for i in 0..n {
            if let Some(f) = frame::get(Mfn(mfn.0 + i)) {
                self.link(f, &mut head);
            }
        }
        self.pages.fetch_add(n, Ordering::Relaxed);
        Ok(mfn)
    }

    fn link(&self, f: &Frame, head: &mut u32) {
        f.prev.store(NIL, Ordering::Relaxed);
        f.next.store(*head, Ordering::Relaxed);
        if let Some(h) = frame::get(Mfn(u64::from(*head))) {
            h.prev.store(f.mfn().0 as u32, Ordering::Relaxed);
        }
        *head = f.mfn().0 as u32;
        f.set_identity(Class::Domain, self.id, 1);
    }

    fn unlink(&self, f: &Frame) {
        let mut head = self.head.lock();
        let (next, prev) = (f.next.load(Ordering::Relaxed), f.prev.load(Ordering::Relaxed));
        if let Some(n) = frame::get(Mfn(u64::from(next))) {
            n.prev.store(prev, Ordering::Relaxed);
        }
        match frame::get(Mfn(u64::from(prev))) {
            Some(p) => p.next.store(next, Ordering::Relaxed),
            None => *head = next,
        }
        self.pages.fetch_sub(1, Ordering::Relaxed);
        if self.torn_down.load(Ordering::Acquire) {
            // Others may have kept the domain waiting for just this page.
            EMPTIED.store(true, Ordering::Release);
            this_cpu().raise(pending::SOFTIRQ);
        }
    }

    /// Takes a page that nothing uses away from the domain, for an exchange; false when it is not one of those.
    pub(super) fn detach(&self, mfn: Mfn) -> bool {
        let Some(f) = frame::get(mfn).filter(|f| f.try_detach(self.id)) else { return false };
        self.unlink(f);
        true
    }

    /// Gives the domain a page of the hypervisor's.
    pub(super) fn attach(&self, mfn: Mfn) {
        if let Some(f) = frame::get(mfn) {
            let mut head = self.head.lock();
            self.link(f, &mut head);
            self.pages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The domain gives page `mfn` back. Mappings that are left keep the page alive until they go.
    ///
    /// # Errors
    /// `EINVAL` when it does not own such a page, or gave it back before.
    pub fn give_back(&self, mfn: Mfn) -> Result<(), Errno> {
        let f = frame::get(mfn).filter(|f| f.class() == Class::Domain && f.get_ref(self.id)).ok_or(Errno::EINVAL)?;
        // The allocation's reference goes exactly once.
        let given = f.clear_allocated();
        if given {
            // A page the guest pinned stays pinned and alive; that is its own business until it is torn down.
            put_frame(f);
        }
        put_frame(f);
        if given { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Every frame the domain has, walked with the list locked; for audits and tests.
    pub fn for_each_frame(&self, mut f: impl FnMut(&Frame)) {
        let head = self.head.lock();
        let mut at = *head;
        while let Some(fr) = frame::get(Mfn(u64::from(at))) {
            f(fr);
            at = fr.next.load(Ordering::Relaxed);
        }
    }

    /// Takes everything from a dying domain: unpins, finishes half-done tables, drops allocations. The vCPUs' own
    /// references must be gone. True when no page is left but such as other domains still map; false to be called
    /// again.
    pub fn relinquish(&self) -> bool {
        self.dying.store(true, Ordering::Release);
        let owner = self.owner();
        loop {
            // The list may change under every step, so each step starts from its head; given-back frames that others
            // still hold are moved to the tail side by walking past them.
            let Some(f) = self.next_victim() else {
                self.torn_down.store(true, Ordering::SeqCst);
                return true;
            };
            if f.partial() {
                if page_type::resume_release(f, owner, true).is_err() {
                    return false;
                }
            } else if f.pinned() {
                if f.clear_pinned() && page_type::put_page_and_type(f, owner, true).is_err() {
                    return false;
                }
            } else if f.clear_allocated() {
                put_frame(f);
            }
            if should_preempt() {
                return false;
            }
        }
    }

    fn next_victim(&self) -> Option<&'static Frame> {
        let head = self.head.lock();
        let mut at = *head;
        while let Some(f) = frame::get(Mfn(u64::from(at))) {
            if f.partial() || f.pinned() || f.allocated() {
                return Some(f);
            }
            at = f.next.load(Ordering::Relaxed);
        }
        None
    }
}

impl Drop for DomainMemory {
    fn drop(&mut self) {
        self.unregister();
    }
}
