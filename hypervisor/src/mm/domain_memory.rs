//! The memory of one domain: which frames it has, how many it may have, and giving all of it back.

use super::frame::{self, Class, Frame, NIL};
use super::page_type::{self, Owner, Refused};
use super::prepare::{Batch, Workbench};
use super::unfinished::Unfinished;
use super::window::Window;
use super::{alloc, m2p};
use crate::arch::cpumask::AtomicCpuMask;
use crate::arch::percpu::{pending, this_cpu};
use crate::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::domain::current::should_preempt;
use crate::sync::{Lock, Rank};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// A domain's memory.
pub struct DomainMemory {
    /// Whose.
    pub id: DomId,
    /// Whether it may map device memory.
    pub hardware: AtomicBool,
    list: Lock<List>,
    pages: AtomicU64,
    max: AtomicU64,
    /// CPUs that may hold translations of this domain.
    pub dirty_cpus: AtomicCpuMask,
    /// Being torn down: gets no more pages.
    pub dying: AtomicBool,
    /// Everything that can be taken from it was; what is left is mapped by others.
    torn_down: AtomicBool,
    /// CPUs at operations that may leave tables half-done ([`DomainMemory::operate`]).
    operations: AtomicU32,
    /// GDT and LDT windows.
    pub window: Window,
    /// Tables whose release stopped half-way.
    pub unfinished: Unfinished,
    /// Blocks that are being made ready for it.
    bench: Workbench,
    /// Pages in a row that [`DomainMemory::relinquish`] could take nothing from. Only the destroyer uses it.
    passed: AtomicU64,
}

/// A domain's frames, linked through the frame table.
struct List {
    head: u32,
    tail: u32,
}

fn linked(at: u32) -> Option<&'static Frame> {
    frame::get(Mfn(u64::from(at)))
}

impl List {
    fn push_front(&mut self, f: &Frame) {
        let me = f.mfn().0 as u32;
        f.prev.store(NIL, Ordering::Relaxed);
        f.next.store(self.head, Ordering::Relaxed);
        match linked(self.head) {
            Some(h) => h.prev.store(me, Ordering::Relaxed),
            None => self.tail = me,
        }
        self.head = me;
    }

    fn unlink(&mut self, f: &Frame) {
        let (next, prev) = (f.next.load(Ordering::Relaxed), f.prev.load(Ordering::Relaxed));
        match linked(next) {
            Some(n) => n.prev.store(prev, Ordering::Relaxed),
            None => self.tail = prev,
        }
        match linked(prev) {
            Some(p) => p.next.store(next, Ordering::Relaxed),
            None => self.head = next,
        }
    }

    /// The first becomes the last.
    fn rotate(&mut self) {
        let Some(f) = linked(self.head) else { return };
        self.unlink(f);
        let me = f.mfn().0 as u32;
        f.prev.store(self.tail, Ordering::Relaxed);
        f.next.store(NIL, Ordering::Relaxed);
        match linked(self.tail) {
            Some(t) => t.next.store(me, Ordering::Relaxed),
            None => self.head = me,
        }
        self.tail = me;
    }
}

/// See [`DomainMemory::operate`].
pub(super) struct Operation<'a>(&'a DomainMemory);

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.0.operations.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where [`DomainMemory::relinquish`] looks next.
enum Next {
    /// There is something to take from this frame.
    Victim(&'static Frame),
    /// Not among the frames looked at.
    Perhaps,
    /// Nowhere.
    Nothing,
}

/// Frames looked at with the list locked.
const LOOK: usize = 64;

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
            list: Lock::new(Rank::Memory, List { head: NIL, tail: NIL }),
            pages: AtomicU64::new(0),
            max: AtomicU64::new(max),
            dirty_cpus: AtomicCpuMask::empty(),
            dying: AtomicBool::new(false),
            torn_down: AtomicBool::new(false),
            operations: AtomicU32::new(0),
            window: Window::new(),
            unfinished: Unfinished::new(),
            bench: Workbench::new(),
            passed: AtomicU64::new(0),
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

    /// A block of 2^order zeroed pages for the domain, below frame `below`. May take long: [`Self::allocate_or_stop`] is
    /// for guests.
    ///
    /// # Errors
    /// `ENOMEM` when the domain has all it may have, is dying, or the machine has none left.
    pub fn allocate(&self, order: u32, below: u64) -> Result<Mfn, Errno> {
        self.take_block(order, below, false).map_err(|e| match e {
            Refused::Error(e) => e,
            Refused::Preempted => Errno::EAGAIN,
        })
    }

    /// The same, with preemption points.
    ///
    /// # Errors
    /// As [`Self::allocate`]; `Preempted`: ask again for the same.
    pub fn allocate_or_stop(&self, order: u32, below: u64) -> Result<Mfn, Refused> {
        self.take_block(order, below, true)
    }

    fn may_have(&self, n: u64) -> bool {
        !self.dying.load(Ordering::Acquire) && self.pages().saturating_add(n) <= self.max_pages()
    }

    fn take_block(&self, order: u32, below: u64, preemptible: bool) -> Result<Mfn, Refused> {
        let n = 1u64 << order;
        if !self.may_have(n) {
            return Err(Errno::ENOMEM.into());
        }
        let mut batch = self.prepare(1, order, below, preemptible)?;
        let mut list = self.list.lock();
        // Others may have come first, or destroyed the domain.
        let mfn = if self.may_have(n) { batch.pop() } else { None };
        let Some(mfn) = mfn else {
            drop(list);
            return Err(Errno::ENOMEM.into());
        };
        for i in 0..n {
            if let Some(f) = frame::get(Mfn(mfn.0 + i)) {
                list.push_front(f);
                f.set_identity(Class::Domain, self.id, 1);
            }
        }
        self.pages.fetch_add(n, Ordering::Relaxed);
        Ok(mfn)
    }

    /// Blocks of zeroed pages that are nobody's yet.
    ///
    /// # Errors
    /// `ENOMEM`; `Preempted` (only if `preemptible`): ask again for the same.
    pub(super) fn prepare(&self, blocks: u64, order: u32, below: u64, preemptible: bool) -> Result<Batch, Refused> {
        self.bench.blocks(blocks, order, below, preemptible)
    }

    fn unlink(&self, f: &Frame) {
        let mut list = self.list.lock();
        list.unlink(f);
        // It may be one of those passed, or not: then one is looked at twice.
        let _ = self.passed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        self.pages.fetch_sub(1, Ordering::Relaxed);
        if self.torn_down.load(Ordering::Acquire) {
            // Others may have kept the domain waiting for just this page.
            EMPTIED.store(true, Ordering::Release);
            this_cpu().raise(pending::SOFTIRQ);
        }
    }

    /// Takes pages that nothing uses away from the domain, for an exchange; false, and nothing is changed, when one is not
    /// of those.
    pub(super) fn detach(&self, pages: &[Mfn]) -> bool {
        let mut list = self.list.lock();
        for (done, &mfn) in pages.iter().enumerate() {
            match frame::get(mfn).filter(|f| f.try_detach(self.id)) {
                Some(f) => list.unlink(f),
                None => {
                    // Back as they were, in the domain's list and with their old numbers.
                    for f in pages.iter().take(done).filter_map(|m| frame::get(*m)) {
                        list.push_front(f);
                        f.reattach(self.id);
                    }
                    return false;
                }
            }
        }
        self.pages.fetch_sub(pages.len() as u64, Ordering::Relaxed);
        true
    }

    /// Gives the domain blocks of the hypervisor's, `n` pages each.
    pub(super) fn attach(&self, blocks: &[Mfn], n: u64) {
        let mut list = self.list.lock();
        for f in blocks.iter().flat_map(|b| (0..n).filter_map(|i| frame::get(Mfn(b.0.wrapping_add(i))))) {
            list.push_front(f);
            f.set_identity(Class::Domain, self.id, 1);
        }
        self.pages.fetch_add(n.saturating_mul(blocks.len() as u64), Ordering::Relaxed);
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
        let list = self.list.lock();
        let mut at = list.head;
        while let Some(fr) = linked(at) {
            f(fr);
            at = fr.next.load(Ordering::Relaxed);
        }
    }

    /// Begins an operation that may leave tables pinned or half-done; `None` when the domain is dying. Those that go on are
    /// waited for: whoever takes the domain apart might have passed such a table already, and nobody would give it up.
    pub(super) fn operate(&self) -> Option<Operation<'_>> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        let operation = Operation(self);
        if self.dying.load(Ordering::SeqCst) { None } else { Some(operation) }
    }

    /// Takes everything from a dying domain: unpins, finishes half-done tables, drops allocations. The vCPUs' own
    /// references must be gone. True when no page is left but such as other domains still map; false to be called
    /// again.
    pub fn relinquish(&self) -> bool {
        self.dying.store(true, Ordering::SeqCst);
        if self.operations.load(Ordering::SeqCst) != 0 {
            return false;
        }
        self.bench.clear();
        let owner = self.owner();
        loop {
            match self.next_victim() {
                Next::Nothing => {
                    self.torn_down.store(true, Ordering::SeqCst);
                    return true;
                }
                Next::Perhaps => {}
                Next::Victim(f) => {
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
                }
            }
            if should_preempt() {
                return false;
            }
        }
    }

    /// A frame to take something from. Those that only others still hold go to the end of the list, and when all have
    /// been passed in a row since the last victim, there is nothing left.
    fn next_victim(&self) -> Next {
        let mut list = self.list.lock();
        for _ in 0..LOOK {
            let Some(f) = linked(list.head).filter(|_| self.passed.load(Ordering::Relaxed) < self.pages()) else {
                return Next::Nothing;
            };
            if f.partial() || f.pinned() || f.allocated() {
                self.passed.store(0, Ordering::Relaxed);
                return Next::Victim(f);
            }
            list.rotate();
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        Next::Perhaps
    }
}

impl Drop for DomainMemory {
    fn drop(&mut self) {
        self.unregister();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    #[test]
    fn a_page_is_given_back_once() {
        testing::machine(16);
        let free = alloc::free_pages();
        let mem = testing::domain(1, 4);
        let mfn = mem.allocate(0, u64::MAX).unwrap();
        let f = frame::get(mfn).unwrap();
        assert!(f.get_ref(mem.id), "a mapping keeps the page");
        assert_eq!(mem.give_back(mfn), Ok(()));
        assert_eq!(mem.give_back(mfn), Err(Errno::EINVAL));
        assert_eq!((f.owner(), mem.pages()), (Some(mem.id), 1), "the mapping's page still");
        put_frame(f);
        assert_eq!((mem.pages(), alloc::free_pages()), (0, free));
    }

    #[test]
    fn what_others_hold_is_passed_and_the_rest_comes_back() {
        testing::machine(512);
        let free = alloc::free_pages();
        let mem = testing::domain(1, 300);
        let pages: std::vec::Vec<_> = (0..300).map(|_| mem.allocate(0, u64::MAX).unwrap()).collect();
        assert_eq!(mem.allocate(0, u64::MAX), Err(Errno::ENOMEM), "no more than it may have");
        let held = || pages.iter().step_by(2).filter_map(|m| frame::get(*m));
        held().for_each(|f| assert!(f.get_ref(mem.id)));
        this_cpu().raise(pending::SOFTIRQ);
        let mut calls = 1;
        while !mem.relinquish() {
            calls += 1;
            if calls == 200 {
                // One that was passed goes meanwhile: the others must not be forgotten for it.
                held().take(1).for_each(put_frame);
            }
        }
        this_cpu().pending.store(0, Ordering::Relaxed);
        assert!((300..330).contains(&calls), "a victim each, then the others 64 at a time: {calls}");
        assert_eq!(mem.pages(), 149);
        assert_eq!(mem.allocate(0, u64::MAX), Err(Errno::ENOMEM), "dying");
        held().skip(1).for_each(put_frame);
        assert!(take_emptied());
        this_cpu().pending.store(0, Ordering::Relaxed);
        assert_eq!((mem.pages(), alloc::free_pages()), (0, free));
    }
}
