//! The page-table bases and descriptor tables of one vCPU, and loading them.

use super::domain_memory::{self, DomainMemory};
use super::entries;
use super::frame::{self, Frame};
use super::page_type::{self, Kind, Refused};
use super::phys;
use crate::arch::layout::{DOMAIN_WINDOW, FIRST_SLOT, LAST_SLOT, M2P_RO};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn, VcpuId};

/// Pages of a GDT a guest may set (the rest is reserved).
pub const GDT_PAGES: usize = 14;

/// What a vCPU's CR3, GDTR and LDTR stand for. Holds counted references: a base an L4 reference, each descriptor page
/// a descriptor reference.
pub struct VcpuTables {
    kernel: Option<&'static Frame>,
    user: Option<&'static Frame>,
    gdt: [Option<&'static Frame>; GDT_PAGES],
    ldt: [Option<&'static Frame>; 16],
    /// Linear address and entries of the LDT; 0 entries = none.
    pub ldt_base: u64,
    /// See `ldt_base`.
    pub ldt_entries: u32,
    /// Entries of the GDT as the guest gave them.
    pub gdt_entries: u32,
}

/// A base that a vCPU has just left, with the reference it held.
#[must_use = "to be given up when no CPU has it loaded any more"]
pub struct OldBase(Option<&'static Frame>);

impl OldBase {
    /// Drops the reference. The vCPU is parked, or has loaded its new base.
    pub fn give_up(self, mem: &DomainMemory) {
        VcpuTables::drop_base(mem, self.0);
    }
}

impl VcpuTables {
    /// None of anything.
    pub const fn new() -> Self {
        VcpuTables {
            kernel: None,
            user: None,
            gdt: [None; GDT_PAGES],
            ldt: [None; 16],
            ldt_base: 0,
            ldt_entries: 0,
            gdt_entries: 0,
        }
    }

    /// The L4 guest-kernel mode uses.
    pub fn kernel_base(&self) -> Option<Mfn> {
        self.kernel.map(Frame::mfn)
    }

    /// The L4 guest-user mode uses.
    pub fn user_base(&self) -> Option<Mfn> {
        self.user.map(Frame::mfn)
    }

    /// Frames of the GDT.
    pub fn gdt_frames(&self) -> impl Iterator<Item = Option<Mfn>> + '_ {
        self.gdt.iter().map(|f| f.map(Frame::mfn))
    }

    /// The references held, for the audit: (frame, kind).
    pub fn references(&self) -> impl Iterator<Item = (Mfn, Kind)> + '_ {
        let bases = self.kernel.iter().chain(self.user.iter()).map(|f| (f.mfn(), Kind::L4));
        let pages = self.gdt.iter().chain(self.ldt.iter()).flatten().map(|f| (f.mfn(), Kind::SegDesc));
        bases.chain(pages)
    }

    /// Makes `mfn` the kernel base (0 is refused). The caller loads it if the vCPU runs in kernel mode, and gives the
    /// old one up only then: without its reference the old table may be anybody's page at once, under a CPU that
    /// still walks it.
    ///
    /// # Errors
    /// `EINVAL` when the frame is not the domain's or cannot be an L4.
    pub fn set_kernel_base(&mut self, mem: &DomainMemory, mfn: Mfn) -> Result<OldBase, Refused> {
        if self.kernel.is_some_and(|f| f.mfn() == mfn) {
            return Ok(OldBase(None));
        }
        let new = base_ref(mem, mfn)?;
        show_m2p(new.mfn(), true);
        Ok(OldBase(self.kernel.replace(new)))
    }

    /// Makes `mfn` the user base; frame 0 means none.
    ///
    /// # Errors
    /// As [`VcpuTables::set_kernel_base`].
    pub fn set_user_base(&mut self, mem: &DomainMemory, mfn: Mfn) -> Result<(), Refused> {
        if self.user.is_some_and(|f| f.mfn() == mfn) {
            return Ok(());
        }
        let new = if mfn.0 == 0 { None } else { Some(base_ref(mem, mfn)?) };
        let old = core::mem::replace(&mut self.user, new);
        Self::drop_base(mem, old);
        Ok(())
    }

    fn drop_base(mem: &DomainMemory, old: Option<&'static Frame>) {
        if let Some(f) = old {
            // Bases are nearly always pinned, so this rarely is the last reference.
            if page_type::put_page_and_type(f, mem.owner(), true).is_err() {
                super::unfinished::remember(mem.id, f.mfn());
            }
        }
    }

    /// Replaces the GDT by `frames` (at most [`GDT_PAGES`]). On an error nothing has changed.
    ///
    /// # Errors
    /// `EINVAL` when a frame is not the domain's, is writable somewhere, or holds a descriptor guests may not have.
    pub fn set_gdt(&mut self, mem: &DomainMemory, vcpu: VcpuId, frames: &[Mfn], entries: u32) -> Result<(), Errno> {
        let mut new = [None; GDT_PAGES];
        for (slot, &mfn) in new.iter_mut().zip(frames) {
            match page_type::get_page_and_type(mfn, Kind::SegDesc, mem.owner(), false) {
                Ok(f) => *slot = Some(f),
                Err(_) => {
                    for f in new.iter().flatten() {
                        let _ = page_type::put_page_and_type(f, mem.owner(), false);
                    }
                    return Err(Errno::EINVAL);
                }
            }
        }
        let old = core::mem::replace(&mut self.gdt, new);
        self.gdt_entries = entries;
        for (i, f) in self.gdt.iter().enumerate() {
            mem.window.set_gdt_page(vcpu.0, i, f.map(Frame::mfn));
        }
        flush_window();
        for f in old.iter().flatten() {
            let _ = page_type::put_page_and_type(f, mem.owner(), false);
        }
        Ok(())
    }

    /// Forgets the mapped LDT pages; they come back one by one as they are touched.
    pub fn drop_ldt_pages(&mut self, mem: &DomainMemory, vcpu: VcpuId) {
        if self.ldt.iter().all(Option::is_none) {
            return;
        }
        let old = core::mem::take(&mut self.ldt);
        for i in 0..16 {
            mem.window.set(vcpu.0, 16 + i, None);
        }
        flush_window();
        for f in old.iter().flatten() {
            let _ = page_type::put_page_and_type(f, mem.owner(), false);
        }
    }

    /// Maps page `page` of the LDT after a fault in its window; false when there is no such page or it may not be one.
    pub fn map_ldt_page(&mut self, mem: &DomainMemory, vcpu: VcpuId, page: usize) -> bool {
        if page >= (self.ldt_entries as usize * 8).div_ceil(4096) {
            return false;
        }
        let Some(l4) = self.kernel_base() else {
            return false;
        };
        let Some(pte) = walk(l4, self.ldt_base.wrapping_add(page as u64 * 4096)) else {
            return false;
        };
        let Ok(f) = page_type::get_page_and_type(pte, Kind::SegDesc, mem.owner(), false) else {
            return false;
        };
        match self.ldt.get_mut(page) {
            Some(slot) if slot.is_none() => {
                *slot = Some(f);
                mem.window.set(vcpu.0, 16 + page, Some(f.mfn()));
                true
            }
            _ => {
                let _ = page_type::put_page_and_type(f, mem.owner(), false);
                false
            }
        }
    }

    /// Gives up everything. The tables must not be loaded on any CPU.
    pub fn clear(&mut self, mem: &DomainMemory, vcpu: VcpuId) {
        let _ = self.set_gdt(mem, vcpu, &[], 0);
        self.drop_ldt_pages(mem, vcpu);
        self.ldt_entries = 0;
        Self::drop_base(mem, self.kernel.take());
        Self::drop_base(mem, self.user.take());
    }

    /// Reads a byte of the guest kernel's memory whatever tables are loaded; `None` when it is not mapped there.
    pub fn read_kernel_byte(&self, mem: &DomainMemory, va: u64) -> Option<u8> {
        let mfn = walk(self.kernel_base()?, va)?;
        let f = frame::get(mfn).filter(|f| f.get_ref(mem.id))?;
        let mut byte = [0u8; 1];
        // SAFETY: the domain's own page, held by a reference, shown to the domain itself.
        unsafe { phys::read(mfn, (va & 0xfff) as usize, &mut byte) };
        domain_memory::put_frame(f);
        Some(byte[0])
    }

    /// Loads the base of the mode the vCPU is in. `flush_global` also forgets pages of guest user mode, which carry G.
    #[cfg(target_os = "none")]
    pub fn load(&self, kernel_mode: bool, flush_global: bool) {
        use crate::arch::cr;
        let base = if kernel_mode { self.kernel } else { self.user };
        debug_assert!(base.is_some(), "a vCPU runs on the tables of its mode");
        let Some(f) = base else { return };
        let v = f.mfn().0 << 12;
        // SAFETY: a validated L4 with the hypervisor's slots filled in; the reference held keeps it one.
        unsafe {
            if flush_global {
                crate::platform::tlb::tick_then(|| {
                    let c = cr::read_cr4();
                    cr::write_cr4(c & !cr::cr4::PGE);
                    cr::write_cr3(v);
                    cr::write_cr4(c);
                });
            } else {
                cr::write_cr3(v);
            }
        }
        crate::arch::xpti::loaded(crate::arch::percpu::this_cpu(), v, true);
    }
}

fn flush_window() {
    // Descriptor pages are global neither in the window nor elsewhere, but other pages of the window are not touched
    // by INVLPG; a reload of CR3 is the simple way and rare.
    #[cfg(target_os = "none")]
    {
        use crate::arch::cr;
        // SAFETY: reloads what is loaded.
        unsafe { cr::write_cr3(cr::read_cr3()) };
    }
}

fn base_ref(mem: &DomainMemory, mfn: Mfn) -> Result<&'static Frame, Refused> {
    page_type::get_page_and_type(mfn, Kind::L4, mem.owner(), true).map_err(|e| match e {
        Refused::Preempted => Refused::Preempted,
        Refused::Error(_) => Refused::Error(Errno::EINVAL),
    })
}

/// An entry of an L4 has changed; should it be the one this CPU has loaded, its copy (`arch::xpti`) follows. Other CPUs'
/// copies follow at their next flush, or when they miss the entry.
pub(super) fn l4_changed() {
    #[cfg(target_os = "none")]
    crate::arch::xpti::outdated();
}

/// Writes the hypervisor's slots into an L4 that is being validated.
pub(super) fn fill_hypervisor_slots(l4: Mfn, domain: DomId) {
    let window = domain_memory::with(domain, |m| m.window.l4_entry()).unwrap_or(0);
    for slot in FIRST_SLOT..=LAST_SLOT {
        let v = match slot {
            // The M2P is for guest kernels: it comes when the table is loaded as a kernel base.
            s if s == slot_of(M2P_RO) => 0,
            s if s == slot_of(DOMAIN_WINDOW) => window,
            s => root_entry(s),
        };
        // SAFETY: the table is being validated; its hypervisor slots are ours.
        unsafe { phys::entry(l4, slot) }.store(v, Ordering::Relaxed);
    }
}

fn show_m2p(l4: Mfn, show: bool) {
    let v = if show { root_entry(slot_of(M2P_RO)) & !2 | super::pte::bit::NX } else { 0 };
    // SAFETY: a validated L4; its hypervisor slots are ours.
    unsafe { phys::entry(l4, slot_of(M2P_RO)) }.store(v, Ordering::Relaxed);
}

const fn slot_of(va: u64) -> usize {
    (va >> 39) as usize & 511
}

fn root_entry(slot: usize) -> u64 {
    #[cfg(target_os = "none")]
    return crate::arch::paging::root_entry(slot);
    #[cfg(not(target_os = "none"))]
    {
        let _ = slot;
        0
    }
}

/// The L1 table and index that map `va` under `l4`, if there is an L1. Reads live tables of a domain: what it finds
/// must be checked again under a reference.
#[inline(always)]
pub fn walk_to_l1(l4: Mfn, va: u64) -> Option<(Mfn, usize)> {
    if !crate::arch::layout::is_canonical(va) {
        return None;
    }
    let slot = slot_of(va);
    if entries::is_hypervisor_slot(slot) {
        return None;
    }
    // SAFETY: `l4` is a validated L4 under a reference; tables below it are kept by its entries, and a table that
    // another vCPU takes out meanwhile still is RAM: a stale read is checked by the caller.
    unsafe {
        let mut e = phys::load(l4, slot);
        for shift in [30, 21] {
            if e & 1 == 0 {
                return None;
            }
            e = phys::load(Mfn((e & super::pte::bit::ADDR) >> 12), (va >> shift) as usize & 511);
        }
        (e & 1 != 0).then_some((Mfn((e & super::pte::bit::ADDR) >> 12), (va >> 12) as usize & 511))
    }
}

/// The frame `va` maps to under `l4`.
pub fn walk(l4: Mfn, va: u64) -> Option<Mfn> {
    let (l1, i) = walk_to_l1(l4, va)?;
    frame::get(l1)?;
    // SAFETY: as in walk_to_l1.
    let e = unsafe { phys::load(l1, i) };
    (e & 1 != 0).then_some(Mfn((e & super::pte::bit::ADDR) >> 12))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    /// Its large pages and its tables must not be taken for a guest's L1, whatever a guest wrote where they lead.
    #[test]
    fn the_hypervisors_part_is_not_walked() {
        testing::machine(16);
        let mem = testing::domain(1, 8);
        let [l4, l3, l2, l1, page] = core::array::from_fn(|_| mem.allocate(0, u64::MAX).unwrap());
        let guest = slot_of(0xffff_8880_0000_0000);
        for slot in [0, FIRST_SLOT, slot_of(crate::arch::layout::DIRECT_MAP), LAST_SLOT, guest] {
            for (table, index, below) in [(l4, slot, l3), (l3, 0, l2), (l2, 0, l1), (l1, 5, page)] {
                // SAFETY: pages of this test.
                unsafe { phys::entry(table, index) }.store(below.0 << 12 | 7, Ordering::Relaxed);
            }
            let va = ((slot as u64) << 39 | 5 << 12) | if slot >= 256 { 0xffff << 48 } else { 0 };
            let theirs = slot == 0 || slot == guest;
            assert_eq!(walk_to_l1(l4, va), theirs.then_some((l1, 5)), "slot {slot}");
            assert_eq!(walk(l4, va), theirs.then_some(page), "slot {slot}");
        }
        assert_eq!(walk_to_l1(l4, 5 << 12 | 1 << 63), None, "no address");
    }
}
