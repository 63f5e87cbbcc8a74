//! The domain window (L4 slot 258): where the hypervisor sees each vCPU's GDT and LDT pages.
//!
//! vCPU *n* has 32 pages at `DOMAIN_WINDOW + n * 128 KiB`: 14 for the GDT, one for the CPU's reserved descriptors, one
//! unused, 16 for the LDT. Tables are made when the domain gets its vCPUs.

use super::frame::{self, Class, Frame};
use super::{alloc, phys};
use crate::arch::layout::{DOMAIN_WINDOW, DOMAIN_WINDOW_PER_VCPU};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

const FLAGS_TABLE: u64 = 0x63;
/// Descriptor pages: present, accessed, dirty; the CPU writes accessed bits of descriptors, so they are writable for
/// the hypervisor's mapping. NX.
const FLAGS_PAGE: u64 = 0x63 | 1 << 63;

/// Read-only, for the page of empty descriptors all domains share.
const FLAGS_EMPTY: u64 = 0x21 | 1 << 63;
/// A page of zeroes.
static EMPTY: spin::Once<Mfn> = spin::Once::new();

/// The window's tables.
pub struct Window {
    /// L3 table; 0 until made. The L2 is its entry 0, the L1s are the L2's entries.
    l3: AtomicU64,
}

impl Window {
    /// No tables yet.
    pub const fn new() -> Self {
        Window { l3: AtomicU64::new(0) }
    }

    /// Makes the tables for `n` vCPUs.
    ///
    /// # Errors
    /// `ENOMEM`; what was made is kept for the next try.
    pub fn try_reserve_vcpus(&self, n: usize) -> Result<(), Errno> {
        if self.l3.load(Ordering::Acquire) == 0 {
            let l3 = alloc::page().ok_or(Errno::ENOMEM)?;
            self.l3.store(l3.0, Ordering::Release);
        }
        let l3 = Mfn(self.l3.load(Ordering::Acquire));
        let l2 = child(l3, 0).ok_or(Errno::ENOMEM)?;
        for i in 0..n.div_ceil(16) {
            child(l2, i).ok_or(Errno::ENOMEM)?;
        }
        if EMPTY.get().is_none() {
            let page = alloc::page().ok_or(Errno::ENOMEM)?;
            EMPTY.call_once(|| page);
        }
        Ok(())
    }

    /// vCPU `vcpu` has no GDT of its own yet: empty descriptors. The tables are made.
    pub fn clear_gdt(&self, vcpu: u32) {
        for page in 0..super::tables::GDT_PAGES {
            self.set_gdt_page(vcpu, page, None);
        }
    }

    /// What goes into slot 258 of the domain's L4 tables.
    pub fn l4_entry(&self) -> u64 {
        match self.l3.load(Ordering::Acquire) {
            0 => 0,
            l3 => l3 << 12 | FLAGS_TABLE,
        }
    }

    /// Address of page `page` (0 to 31) of vCPU `vcpu`.
    pub const fn address(vcpu: u32, page: usize) -> u64 {
        DOMAIN_WINDOW + vcpu as u64 * DOMAIN_WINDOW_PER_VCPU + page as u64 * 4096
    }

    /// Shows `mfn` as page `page` of the GDT, or a page of empty descriptors: a selector in a part of the GDT that the
    /// guest did not set is a #GP, not a fault on the window.
    pub(super) fn set_gdt_page(&self, vcpu: u32, page: usize, mfn: Option<Mfn>) {
        match mfn {
            Some(_) => self.set(vcpu, page, mfn),
            None => self.store(vcpu, page, EMPTY.get().map_or(0, |m| m.0 << 12 | FLAGS_EMPTY)),
        }
    }

    /// Shows the reserved descriptors of the CPU a vCPU is about to run on.
    pub fn set_reserved_page(&self, vcpu: u32, mfn: Option<Mfn>) {
        self.set(vcpu, crate::arch::layout::sel::RESERVED_PAGE, mfn);
    }

    /// Shows `mfn` in page `page` of vCPU `vcpu`, or nothing. The caller flushes the page where it may be cached.
    pub(super) fn set(&self, vcpu: u32, page: usize, mfn: Option<Mfn>) {
        self.store(vcpu, page, mfn.map_or(0, |m| m.0 << 12 | FLAGS_PAGE));
    }

    fn store(&self, vcpu: u32, page: usize, entry: u64) {
        let l3 = self.l3.load(Ordering::Acquire);
        if l3 == 0 || page >= 32 {
            return;
        }
        // SAFETY: the window's own tables, made by try_reserve_vcpus.
        unsafe {
            let l2 = Mfn(phys::load(Mfn(l3), 0) >> 12 & 0xff_ffff_ffff);
            let e = phys::load(l2, vcpu as usize / 16);
            if e & 1 == 0 {
                return;
            }
            let l1 = Mfn(e >> 12 & 0xff_ffff_ffff);
            let index = (vcpu as usize % 16) * 32 + page;
            phys::entry(l1, index).store(entry, Ordering::Release);
        }
    }
}

fn child(table: Mfn, i: usize) -> Option<Mfn> {
    // SAFETY: a table of the window.
    let slot = unsafe { phys::entry(table, i) };
    let e = slot.load(Ordering::Acquire);
    if e & 1 != 0 {
        return Some(Mfn(e >> 12 & 0xff_ffff_ffff));
    }
    let new = alloc::page()?;
    slot.store(new.0 << 12 | FLAGS_TABLE, Ordering::Release);
    Some(new)
}

impl Drop for Window {
    fn drop(&mut self) {
        let l3 = *self.l3.get_mut();
        if l3 == 0 {
            return;
        }
        let free = |mfn: Mfn| {
            if let Some(f) = frame::get(mfn) {
                f.set_identity(Class::Hypervisor, DomId(0), 0);
                f.stamp.store(crate::platform::tlb::clock(), Ordering::Release);
                let _: &Frame = f;
            }
            // SAFETY: the domain is gone, no L4 of it is loaded; stale entries are covered by the stamp.
            unsafe { alloc::give_back(mfn, 0) };
        };
        // SAFETY: the window's own tables.
        unsafe {
            let l2e = phys::load(Mfn(l3), 0);
            if l2e & 1 != 0 {
                let l2 = Mfn(l2e >> 12 & 0xff_ffff_ffff);
                for i in 0..512 {
                    let e = phys::load(l2, i);
                    if e & 1 != 0 {
                        free(Mfn(e >> 12 & 0xff_ffff_ffff));
                    }
                }
                free(l2);
            }
        }
        free(Mfn(l3));
    }
}

/// Makes this CPU use the descriptor tables in vCPU `vcpu`'s window, with an LDT of `ldt_entries`. The vCPU's domain's
/// page tables are loaded and its reserved page shows this CPU ([`Window::set_reserved_page`]).
#[cfg(target_os = "none")]
pub fn use_descriptors(vcpu: pv_abi::ids::VcpuId, ldt_entries: u32) {
    let cpu = crate::arch::percpu::this_cpu().id;
    // SAFETY: window addresses; what they show are descriptor pages that were validated, or nothing (a fault).
    unsafe {
        crate::arch::tables::use_guest_descriptors(
            cpu,
            Window::address(vcpu.0, 0),
            Window::address(vcpu.0, 16),
            ldt_entries.min(8192),
        );
    }
}
