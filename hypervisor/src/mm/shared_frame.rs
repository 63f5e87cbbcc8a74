//! Pages the hypervisor and a guest both use at any time: shared_info, grant tables, registered vcpu_info.
//!
//! A guest may write them at any moment, so every access is one atomic or volatile access, offsets are checked, and
//! what was read is used, never read again.

use super::domain_memory::{self, DomainMemory};
use super::frame::{self, Class, Frame};
use super::page_type::{self, Kind, Owner};
use super::{alloc, phys};
use crate::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn, PAGE_SIZE};
use pv_abi::shared_info::{VcpuTimeInfo, vcpu_info};

/// A page shared with a guest. Dropping it gives up the hypervisor's reference.
pub struct SharedFrame {
    frame: &'static Frame,
    /// A reference to a guest's page also holds a writable type reference.
    typed: Option<Owner>,
}

macro_rules! accessors {
    ($($load:ident $store:ident $t:ty, $a:ty;)*) => {$(
        /// Reads the aligned word at `offset`; 0 when that is not inside the page.
        #[inline(always)]
        pub fn $load(&self, offset: usize) -> $t {
            self.at(offset, size_of::<$t>()).map_or(0, |p| {
                // SAFETY: aligned, inside a page this object keeps alive; guests' writes are why it is atomic.
                unsafe { &*p.cast::<$a>() }.load(Ordering::Acquire)
            })
        }
        /// Writes it; nothing when that is not inside the page.
        #[inline(always)]
        pub fn $store(&self, offset: usize, value: $t) {
            if let Some(p) = self.at(offset, size_of::<$t>()) {
                // SAFETY: as above.
                unsafe { &*p.cast::<$a>() }.store(value, Ordering::Release);
            }
        }
    )*};
}

impl SharedFrame {
    /// A fresh zeroed page of the hypervisor's that domain `id` may map.
    pub fn try_new(id: DomId) -> Result<Self, Errno> {
        let mfn = alloc::page().ok_or(Errno::ENOMEM)?;
        let frame = frame::get(mfn).ok_or(Errno::ENOMEM)?;
        frame.set_identity(Class::Shared, id, 1);
        Ok(SharedFrame { frame, typed: None })
    }

    /// The guest's own page `mfn`, kept writable for the hypervisor.
    ///
    /// # Errors
    /// `EINVAL` when it is not the domain's, or is a page table.
    pub fn of_guest(mem: &DomainMemory, mfn: Mfn) -> Result<Self, Errno> {
        let owner = mem.owner();
        let frame = page_type::get_page_and_type(mfn, Kind::Writable, owner, false).map_err(|_| Errno::EINVAL)?;
        Ok(SharedFrame { frame, typed: Some(owner) })
    }

    /// Which frame.
    pub fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<*mut u8> {
        if !offset.is_multiple_of(size) || offset >= PAGE_SIZE as usize {
            return None;
        }
        // SAFETY: inside the page.
        Some(unsafe { phys::ptr(self.frame.mfn()).add(offset) })
    }

    accessors! {
        load_u8 store_u8 u8, AtomicU8;
        load_u32 store_u32 u32, AtomicU32;
        load_u64 store_u64 u64, AtomicU64;
    }

    /// Sets bits of the word at `offset`; returns what it was.
    #[inline(always)]
    pub fn fetch_or_u64(&self, offset: usize, bits: u64) -> u64 {
        self.at(offset, 8).map_or(0, |p| {
            // SAFETY: as in the accessors.
            unsafe { &*p.cast::<AtomicU64>() }.fetch_or(bits, Ordering::SeqCst)
        })
    }

    /// Clears bits of the word at `offset`; returns what it was.
    #[inline(always)]
    pub fn fetch_and_u64(&self, offset: usize, bits: u64) -> u64 {
        self.at(offset, 8).map_or(0, |p| {
            // SAFETY: as in the accessors.
            unsafe { &*p.cast::<AtomicU64>() }.fetch_and(bits, Ordering::SeqCst)
        })
    }

    /// Exchanges the 32-bit word at `offset` if it still is `old`; false (and what it is) otherwise.
    pub fn compare_exchange_u32(&self, offset: usize, old: u32, new: u32) -> Result<(), u32> {
        let Some(p) = self.at(offset, 4) else {
            return Err(0);
        };
        // SAFETY: as in the accessors.
        unsafe { &*p.cast::<AtomicU32>() }.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

impl Drop for SharedFrame {
    fn drop(&mut self) {
        match self.typed {
            Some(owner) => {
                let _ = page_type::put_page_and_type(self.frame, owner, false);
            }
            None => domain_memory::put_frame(self.frame),
        }
    }
}

/// Where a vCPU's `vcpu_info` stands: in shared_info at first, in a page the guest registered later. It moves once.
pub struct InfoPage {
    place: AtomicPtr<u8>,
    registered: spin::Once<SharedFrame>,
}

/// A vcpu_info for vCPUs that have none yet: nothing is ever pending there, and everything is masked.
static ABSENT: [AtomicU64; 8] = [
    AtomicU64::new(0x0100),
    AtomicU64::new(0),
    AtomicU64::new(0),
    AtomicU64::new(0),
    AtomicU64::new(0),
    AtomicU64::new(0),
    AtomicU64::new(0),
    AtomicU64::new(0),
];

impl InfoPage {
    /// `vcpu_info[index]` of the shared_info page, which outlives the vCPU (both belong to the domain).
    pub fn in_shared_info(shared: &SharedFrame, index: usize) -> Self {
        let p = shared.at(index * vcpu_info::SIZE, 8).unwrap_or(ABSENT.as_ptr().cast_mut().cast());
        InfoPage { place: AtomicPtr::new(p), registered: spin::Once::new() }
    }

    /// No place yet.
    pub fn absent() -> Self {
        InfoPage { place: AtomicPtr::new(ABSENT.as_ptr().cast_mut().cast()), registered: spin::Once::new() }
    }

    /// The guest's page it was moved to, if it was; this object holds a writable reference to it.
    pub fn registered(&self) -> Option<Mfn> {
        self.registered.get().map(SharedFrame::mfn)
    }

    fn p(&self) -> *mut u8 {
        self.place.load(Ordering::Acquire)
    }

    fn is_absent(&self) -> bool {
        core::ptr::eq(self.p(), ABSENT.as_ptr().cast())
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: `place` points to 64 aligned bytes inside a page that lives as long as the domain; a guest may write
        // them at any time, which an atomic allows. Offsets are the constants of this module.
        unsafe { &*self.p().add(offset).cast::<AtomicU8>() }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { &*self.p().add(offset).cast::<AtomicU64>() }
    }

    /// Address of the pending and mask bytes, for the exit path.
    pub fn upcall_ptr(&self) -> *const u8 {
        self.p()
    }

    /// Whether an upcall is pending.
    pub fn pending(&self) -> bool {
        self.byte(vcpu_info::UPCALL_PENDING).load(Ordering::SeqCst) != 0
    }
    /// Marks an upcall pending; whether it was already.
    pub fn set_pending(&self) -> bool {
        !self.is_absent() && self.byte(vcpu_info::UPCALL_PENDING).swap(1, Ordering::SeqCst) != 0
    }
    /// Whether the guest masks upcalls.
    pub fn masked(&self) -> bool {
        self.byte(vcpu_info::UPCALL_MASK).load(Ordering::SeqCst) != 0
    }
    /// The mask byte as the guest wrote it.
    pub fn mask_byte(&self) -> u8 {
        self.byte(vcpu_info::UPCALL_MASK).load(Ordering::SeqCst)
    }
    /// Masks or unmasks upcalls. Who waits for events behind this publishes that with a stronger store; a running vCPU
    /// is interrupted by whoever makes something pending for it.
    #[inline]
    pub fn set_mask(&self, masked: bool) {
        if !self.is_absent() {
            self.byte(vcpu_info::UPCALL_MASK).store(u8::from(masked), Ordering::Release);
        }
    }
    /// Sets bits of the selector word; returns what it was.
    pub fn select(&self, bits: u64) -> u64 {
        if self.is_absent() { 0 } else { self.word(vcpu_info::PENDING_SEL).fetch_or(bits, Ordering::SeqCst) }
    }
    /// Stores the address of a page fault.
    pub fn set_cr2(&self, va: u64) {
        if !self.is_absent() {
            self.word(vcpu_info::CR2).store(va, Ordering::Release);
        }
    }
    /// The guest's CR2.
    pub fn cr2(&self) -> u64 {
        self.word(vcpu_info::CR2).load(Ordering::Acquire)
    }

    /// Publishes clock data: version odd while it changes.
    pub fn write_time(&self, t: &VcpuTimeInfo) {
        if self.is_absent() {
            return;
        }
        let base = vcpu_info::TIME;
        // SAFETY: as in `byte`.
        let version = unsafe { &*self.p().add(base).cast::<AtomicU32>() };
        let v = version.load(Ordering::Relaxed) | 1;
        version.store(v, Ordering::SeqCst);
        self.word(base + 8).store(t.tsc_timestamp, Ordering::Release);
        self.word(base + 16).store(t.system_time, Ordering::Release);
        let tail = u64::from(t.tsc_to_system_mul) | u64::from(t.tsc_shift as u8) << 32 | u64::from(t.flags) << 40;
        self.word(base + 24).store(tail, Ordering::Release);
        version.store(v.wrapping_add(1), Ordering::SeqCst);
    }

    /// Whether a vcpu_info may stand at `offset` of a page.
    ///
    /// # Errors
    /// `ENXIO` for an offset that is unaligned or leaves the page.
    pub fn check_place(offset: u32) -> Result<(), Errno> {
        let offset = offset as usize;
        if offset > PAGE_SIZE as usize - vcpu_info::SIZE || !offset.is_multiple_of(8) {
            return Err(Errno::ENXIO);
        }
        Ok(())
    }

    /// Moves the vcpu_info to `offset` of the guest's page `mfn`: the old contents are copied, then everything is
    /// marked pending, so that no event is lost on the way.
    ///
    /// # Errors
    /// As [`Self::check_place`]; `EINVAL` for a bad frame or a second call.
    pub fn relocate(&self, mem: &DomainMemory, mfn: Mfn, offset: u32) -> Result<(), Errno> {
        Self::check_place(offset)?;
        let offset = offset as usize;
        if self.registered.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let page = SharedFrame::of_guest(mem, mfn)?;
        for i in 0..vcpu_info::SIZE / 8 {
            page.store_u64(offset + i * 8, self.word(i * 8).load(Ordering::Acquire));
        }
        self.adopt(page, offset)
    }

    /// From here on the vcpu_info stands at `offset` of `page`, unless another vCPU was faster to move it.
    fn adopt(&self, page: SharedFrame, offset: usize) -> Result<(), Errno> {
        let mut first = false;
        let kept = self.registered.call_once(|| {
            first = true;
            page
        });
        // A page that came too late is given up: nothing may ever point into it.
        if !first {
            return Err(Errno::EINVAL);
        }
        let to = kept.at(offset, 8).ok_or(Errno::ENXIO)?;
        self.place.store(to, Ordering::SeqCst);
        self.select(u64::MAX);
        self.set_pending();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    #[test]
    fn two_vcpus_that_move_a_vcpu_info_at_once_leave_one_page_in_use() {
        testing::machine(64);
        let mem = testing::domain(1, 16);
        let shared = SharedFrame::try_new(mem.id).unwrap();
        let info = InfoPage::in_shared_info(&shared, 0);
        let (a, b) = (mem.allocate(0, u64::MAX).unwrap(), mem.allocate(0, u64::MAX).unwrap());
        // Both have seen that it was not moved yet.
        let (first, second) = (SharedFrame::of_guest(mem, a).unwrap(), SharedFrame::of_guest(mem, b).unwrap());
        assert_eq!(info.adopt(first, 64), Ok(()));
        assert_eq!(info.adopt(second, 128), Err(Errno::EINVAL));
        assert_eq!(info.registered(), Some(a));
        info.set_cr2(0x1234);
        assert_eq!(info.registered.get().unwrap().load_u64(64 + 16), 0x1234, "it stands in the first page");
        let late = frame::get(b).unwrap();
        assert_eq!((late.references(), late.type_count()), (1, 0), "the second page is the guest's alone");
        assert_eq!(info.relocate(mem, b, 0), Err(Errno::EINVAL), "it moves once");
    }
}
