//! Where everything lies in a PV guest's first memory image. Pure arithmetic; nothing is written here.
//!
//! The guest's pages are numbered by PFN from 0. At start the kernel finds PFN *n* at virtual address
//! `VIRT_BASE + n × 4 KiB`, without a gap, up to [`Layout::mapped`]'s end. In ascending order (public/xen.h, "start of
//! day memory layout"):
//!
//! | what | mapped at VIRT_BASE? |
//! |---|---|
//! | PFN 0 to the kernel (low memory, free for the kernel) | yes |
//! | kernel with its bss | yes |
//! | initrd, only for kernels without MOD_START_PFN | yes |
//! | p2m list, only for kernels without INIT_P2M | yes |
//! | start_info, one page (dom0: console information behind it) | yes |
//! | domU: xenstore page, console page | yes |
//! | page tables, contiguous, L4 first | yes, read-only |
//! | boot stack, one page | yes |
//! | pad of at least 512 KiB, up to a multiple of 4 MiB | yes |
//! | initrd, for kernels with MOD_START_PFN | no: its place is given as a PFN |
//! | p2m region: tables that map the p2m list at INIT_P2M, then the list | at INIT_P2M |
//!
//! Linux insists on the last two being outside of the initial mapping only in that it would otherwise waste it.

use core::ops::Range;

use crate::PAGE_SIZE;
use crate::kernel::KernelImage;
use pv_abi::ids::Pfn;
use pv_abi::start_info::CMDLINE_SIZE;

/// The least pad after the boot stack (public/xen.h).
const MIN_PAD: u64 = 512 << 10;
/// The initial mapping ends at a multiple of this.
const MAP_ALIGN: u64 = 4 << 20;
/// What the initial mapping may take at most: Linux's image and what is mapped with it ends where its modules begin.
const MAX_MAPPED: u64 = 1 << 30;
/// The highest number of pages we plan for: 64 TiB, the most Linux's direct map of four-level page tables holds.
const MAX_PAGES: u64 = 1 << 34;

/// What the builder has to know of a domain to place things.
#[derive(Debug, Clone, Copy)]
pub struct DomainPlan<'a> {
    /// Pages the domain has (start_info.nr_pages): the number of entries of its p2m.
    pub nr_pages: u64,
    /// Bytes of its initrd, 0 for none.
    pub ramdisk_len: u64,
    /// Built by the hypervisor as the first domain: no xenstore and console pages.
    pub is_dom0: bool,
    /// Its kernel command line.
    pub cmdline: &'a str,
}

/// Why a domain cannot be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too little memory.
    #[error("not enough memory for the domain: kernel, initrd and page tables need {} MiB and it has {} MiB; give it more memory", mib_up(*.needed), mib(*.have))]
    NotEnoughMemory {
        /// Pages needed at the least.
        needed: u64,
        /// Pages the plan has.
        have: u64,
    },
    /// More than is supported.
    #[error("a domain of {} MiB is larger than supported; give it less memory", mib(*.0))]
    TooLarge(u64),
    /// The initial mapping does not fit.
    #[error("kernel and initrd need {} MiB of initial mapping, more than the 1024 MiB there are; use a smaller initrd or a kernel with the MOD_START_PFN note", mib_up(*.0))]
    MappingTooLarge(u64),
    /// The command line does not fit into start_info.
    #[error("the kernel command line has {0} bytes and may have 1023 at most; shorten it")]
    CmdlineTooLong(usize),
    /// The command line holds a NUL.
    #[error("the kernel command line contains a NUL character; remove it")]
    CmdlineNul,
    /// INIT_P2M and VIRT_BASE meet.
    #[error(
        "the kernel wants its p2m list at {init_p2m:#x}, in the same 512 GiB as its own image at {virt_base:#x}; that is not supported"
    )]
    P2mMeetsKernel {
        /// Where the p2m is wanted.
        init_p2m: u64,
        /// Where the kernel is.
        virt_base: u64,
    },
    /// The p2m list does not fit behind INIT_P2M.
    #[error("the p2m list of {0} pages does not fit at the address the kernel wants it; give the domain less memory")]
    P2mTooLarge(u64),
}

fn mib(pages: u64) -> u64 {
    pages / 256
}

fn mib_up(pages: u64) -> u64 {
    pages.div_ceil(256)
}

/// A run of page tables of one level that map a contiguous range of virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRun {
    /// 1 to 4.
    pub level: u32,
    /// The tables' own frames.
    pub pfns: Range<u64>,
    /// `va >> shift(level)` of the first table, where `shift` is that of one whole table.
    pub first: u64,
}

/// Bits of virtual address that one table of `level` covers: 21 for L1, 30 for L2, 39 for L3, 48 for L4.
pub(crate) fn table_shift(level: u32) -> u32 {
    12 + 9 * level
}

/// A virtual address as the page tables count it: the sign extension is dropped.
pub(crate) fn table_va(va: u64) -> u64 {
    va & ((1 << 48) - 1)
}

/// A stretch of virtual addresses and the tables that map it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First virtual address.
    pub va: u64,
    /// The frames mapped there, in order.
    pub pfns: Range<u64>,
    /// Its tables from L4 down to L1; the p2m's mapping has no L4 of its own.
    pub tables: arrayvec::ArrayVec<TableRun, 4>,
}

impl Mapping {
    /// Plans the tables for `count` pages at `va`, placed from `table_pfn` on, levels `top` down to 1.
    fn plan(va: u64, pfns: Range<u64>, top: u32, table_pfn: u64) -> Self {
        let mut tables = arrayvec::ArrayVec::new();
        let first = table_va(va);
        let last = first + (pfns.end - pfns.start).max(1) * PAGE_SIZE - 1;
        let mut next = table_pfn;
        for level in (1..=top).rev() {
            let shift = table_shift(level);
            let count = (last >> shift) - (first >> shift) + 1;
            tables.push(TableRun { level, pfns: next..next + count, first: first >> shift });
            next += count;
        }
        Mapping { va, pfns, tables }
    }

    /// Frames of all its tables.
    pub fn table_count(&self) -> u64 {
        self.tables.iter().map(|run| run.pfns.end - run.pfns.start).sum()
    }
}

/// Where everything lies. Ranges are of PFNs unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Pages the domain has.
    pub nr_pages: u64,
    /// Built as the first domain?
    pub is_dom0: bool,
    /// Virtual address of PFN 0.
    pub virt_base: u64,
    /// The kernel's own pages, bss included.
    pub kernel: Range<u64>,
    /// The initrd's pages; empty where there is none.
    pub ramdisk: Range<u64>,
    /// Bytes of the initrd.
    pub ramdisk_len: u64,
    /// The initrd's place is told as a PFN (else as a virtual address).
    pub ramdisk_by_pfn: bool,
    /// The start_info page.
    pub start_info: Pfn,
    /// domU's xenstore page.
    pub xenstore: Option<Pfn>,
    /// domU's console page.
    pub console: Option<Pfn>,
    /// The page tables of the initial mapping; the first is the L4.
    pub page_tables: Range<u64>,
    /// The boot stack's page.
    pub stack: Pfn,
    /// What is mapped at `virt_base`, always from PFN 0.
    pub initial: Mapping,
    /// The pages of the p2m list itself.
    pub p2m: Range<u64>,
    /// Virtual address of the p2m list.
    pub p2m_va: u64,
    /// For kernels with INIT_P2M: the list's mapping there, L3 to L1. Its tables lie directly before the list.
    pub p2m_mapping: Option<Mapping>,
    /// Everything from here to `nr_pages` is free.
    pub end: Pfn,
}

impl Layout {
    /// Decides where everything goes. Reads nothing but the kernel's headers.
    pub fn plan(kernel: &KernelImage<'_>, plan: &DomainPlan<'_>) -> Result<Self, LayoutError> {
        check_cmdline(plan.cmdline)?;
        if plan.nr_pages > MAX_PAGES {
            return Err(LayoutError::TooLarge(plan.nr_pages));
        }
        let notes = kernel.notes();
        let virt_base = kernel.virt_base();
        let span = kernel.span();
        let pages = |bytes: u64| bytes.div_ceil(PAGE_SIZE);
        let ramdisk_pages = pages(plan.ramdisk_len);
        if ramdisk_pages > plan.nr_pages {
            // Also keeps every sum below far from overflowing.
            return Err(LayoutError::NotEnoughMemory {
                needed: ramdisk_pages.saturating_add(pages(span.end)),
                have: plan.nr_pages,
            });
        }
        let p2m_pages = pages(plan.nr_pages * 8).max(1);

        // The part that is mapped at VIRT_BASE, a cursor over PFNs.
        let mut next = Cursor(pages(span.end));
        let kernel_pages = span.start / PAGE_SIZE..next.0;
        let mapped_ramdisk = if notes.mod_start_pfn { 0..0 } else { next.take(ramdisk_pages) };
        let mapped_p2m = if notes.init_p2m.is_some() { 0..0 } else { next.take(p2m_pages) };
        let start_info = Pfn(next.take(1).start);
        let domu_page = |next: &mut Cursor| (!plan.is_dom0).then(|| Pfn(next.take(1).start));
        let xenstore = domu_page(&mut next);
        let console = domu_page(&mut next);
        if next.0 > MAX_MAPPED / PAGE_SIZE {
            return Err(LayoutError::MappingTooLarge(next.0));
        }
        let initial = plan_initial(virt_base, next.0);
        let page_tables = next.take(initial.table_count());
        let stack = Pfn(next.take(1).start);
        if initial.pfns.end > MAX_MAPPED / PAGE_SIZE {
            return Err(LayoutError::MappingTooLarge(initial.pfns.end));
        }

        // The part behind the initial mapping.
        let mut next = Cursor(initial.pfns.end);
        let ramdisk = if notes.mod_start_pfn { next.take(ramdisk_pages) } else { mapped_ramdisk };
        let (p2m, p2m_va, p2m_mapping) = match notes.init_p2m {
            None => (mapped_p2m.clone(), virt_base.wrapping_add(mapped_p2m.start * PAGE_SIZE), None),
            Some(va) => {
                let mapping = plan_p2m(va, p2m_pages, virt_base, next.0)?;
                next.take(mapping.table_count());
                (next.take(p2m_pages), va, Some(mapping))
            }
        };
        if next.0 > plan.nr_pages {
            return Err(LayoutError::NotEnoughMemory { needed: next.0, have: plan.nr_pages });
        }
        Ok(Layout {
            nr_pages: plan.nr_pages,
            is_dom0: plan.is_dom0,
            virt_base,
            kernel: kernel_pages,
            ramdisk,
            ramdisk_len: plan.ramdisk_len,
            ramdisk_by_pfn: notes.mod_start_pfn,
            start_info,
            xenstore,
            console,
            page_tables,
            stack,
            initial,
            p2m,
            p2m_va,
            p2m_mapping,
            end: Pfn(next.0),
        })
    }

    /// Virtual address of a page of the initial mapping.
    pub fn va(&self, pfn: Pfn) -> u64 {
        self.virt_base.wrapping_add(pfn.0 * PAGE_SIZE)
    }

    /// PFNs that are mapped at `virt_base`.
    pub fn mapped(&self) -> Range<u64> {
        self.initial.pfns.clone()
    }

    /// The p2m region as start_info tells it (first_p2m_pfn, nr_p2m_frames): list and tables together; `None` for
    /// kernels without INIT_P2M.
    pub fn p2m_region(&self) -> Option<Range<u64>> {
        let mapping = self.p2m_mapping.as_ref()?;
        Some(mapping.tables.first()?.pfns.start..self.p2m.end)
    }

    /// PFNs that Linux as dom0 cannot move: the kernel and the page tables. The *machine's* memory map must have RAM at
    /// these frame numbers, since dom0 takes the machine's map for its own.
    pub fn immovable(&self) -> Range<u64> {
        self.kernel.start..self.stack.0 + 1
    }
}

/// Does the command line fit into start_info?
pub(crate) fn check_cmdline(cmdline: &str) -> Result<(), LayoutError> {
    if cmdline.len() >= CMDLINE_SIZE {
        Err(LayoutError::CmdlineTooLong(cmdline.len()))
    } else if cmdline.contains('\0') {
        Err(LayoutError::CmdlineNul)
    } else {
        Ok(())
    }
}

/// Takes frames one after the other.
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, count: u64) -> Range<u64> {
        let start = self.0;
        self.0 += count;
        start..self.0
    }
}

/// The initial mapping has to cover its own tables, whose number depends on what it covers: starts with what is fixed
/// and grows until it fits. More pages never need fewer tables, so this ends.
fn plan_initial(virt_base: u64, fixed: u64) -> Mapping {
    let mut mapping = Mapping::plan(virt_base, 0..fixed, 4, fixed);
    loop {
        let stack_end = (fixed + mapping.table_count() + 1) * PAGE_SIZE;
        let end = (virt_base.wrapping_add(stack_end + MIN_PAD)).next_multiple_of(MAP_ALIGN).wrapping_sub(virt_base);
        let next = Mapping::plan(virt_base, 0..end / PAGE_SIZE, 4, fixed);
        if next == mapping {
            return mapping;
        }
        mapping = next;
    }
}

/// The mapping of the p2m list at INIT_P2M. It shares the L4 and nothing else with the initial mapping.
fn plan_p2m(va: u64, p2m_pages: u64, virt_base: u64, table_pfn: u64) -> Result<Mapping, LayoutError> {
    const SLOT: u32 = 39;
    let slot = table_va(va) >> SLOT;
    let last = table_va(va).saturating_add(p2m_pages * PAGE_SIZE - 1);
    if last >> SLOT != slot {
        return Err(LayoutError::P2mTooLarge(p2m_pages));
    }
    let kernel_slots = table_va(virt_base) >> SLOT..=(table_va(virt_base) + MAX_MAPPED - 1) >> SLOT;
    if kernel_slots.contains(&slot) {
        return Err(LayoutError::P2mMeetsKernel { init_p2m: va, virt_base });
    }
    let mut mapping = Mapping::plan(va, 0..p2m_pages, 3, table_pfn);
    let list = table_pfn + mapping.table_count();
    mapping.pfns = list..list + p2m_pages;
    Ok(mapping)
}
