//! Writes a PV guest's first memory image into its pages, as [`Layout`] has decided.
//!
//! What is left to the caller: allocating the pages (zeroed, or at least with nothing secret in them: the pad and low
//! memory are not touched here), pinning the L4 named in [`StartOfDay`], filling the shared_info page, starting the vCPU.
//! Page tables are written as plain data; the hypervisor checks them like any guest's when they are pinned.

use arrayvec::ArrayVec;

use crate::PAGE_SIZE;
use crate::hypercall_page;
use crate::kernel::{KernelImage, Segment};
use crate::layout::{Layout, LayoutError, Mapping, TableRun, check_cmdline, table_shift, table_va};
use crate::start_info;
use pv_abi::ids::{MachineAddr, Mfn, Pfn};

/// A domain's memory, as far as its builder needs it.
///
/// The hypervisor implements it with its own mapping of all memory, the tools with foreign mappings. `write` gets long
/// runs of consecutive PFNs (a whole kernel segment, the whole initrd), so that an implementer who has to map pages can
/// map many at a time.
pub trait GuestMemory {
    /// Why memory could not be written.
    type Error;

    /// The machine frame behind `pfn`; `None` where the domain has none.
    fn mfn(&self, pfn: Pfn) -> Option<Mfn>;

    /// Writes `data` from byte `offset` (below 4096) of `pfn` on, running over into the following PFNs.
    fn write(&mut self, pfn: Pfn, offset: usize, data: &[u8]) -> Result<(), Self::Error>;

    /// Zeroes `count` pages from `pfn` on.
    fn zero(&mut self, pfn: Pfn, count: u64) -> Result<(), Self::Error>;
}

/// What goes into start_info besides the layout.
#[derive(Debug, Clone, Copy)]
pub struct BuildParams<'a> {
    /// The kernel's command line, as in the plan.
    pub cmdline: &'a str,
    /// The initrd, as long as in the plan; empty for none.
    pub ramdisk: &'a [u8],
    /// Machine address of the shared_info page.
    pub shared_info: MachineAddr,
    /// start_info flags besides those the layout gives (SIF_PRIVILEGED and SIF_INITDOMAIN for dom0,
    /// SIF_MOD_START_PFN): dom0's power-management bits.
    pub extra_flags: u32,
    /// domU: the port of its xenstore.
    pub store_evtchn: u32,
    /// domU: the port of its console.
    pub console_evtchn: u32,
    /// dom0: what the boot loader said of the screen, a `dom0_vga_console_info`; empty for none.
    pub dom0_console: &'a [u8],
}

/// What a domain's creator has to know to start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartOfDay {
    /// First instruction (rip).
    pub entry: u64,
    /// Top of the boot stack (rsp).
    pub stack_va: u64,
    /// Virtual address of start_info (rsi).
    pub start_info_va: u64,
    /// The start_info page.
    pub start_info_mfn: Mfn,
    /// The L4 table as the guest numbers it.
    pub pt_base_pfn: Pfn,
    /// The L4 table's frame: pin it, and load it as CR3.
    pub cr3_mfn: Mfn,
    /// domU's xenstore page.
    pub xenstore_mfn: Option<Mfn>,
    /// domU's console page.
    pub console_mfn: Option<Mfn>,
    /// The page with hypercall stubs, for kernels that asked for one. It has been filled.
    pub hypercall_page_mfn: Option<Mfn>,
}

/// Why a domain could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// The domain has no usable frame for a page the layout needs.
    #[error("the domain has no memory behind page {0:#x}, which its start needs (a bug of the caller)")]
    NoFrame(u64),
    /// Memory could not be written.
    #[error("writing the domain's {what} failed: {source}")]
    Memory {
        /// What was being written.
        what: &'static str,
        /// The memory's own error.
        source: E,
    },
    /// The command line does not fit.
    #[error(transparent)]
    Cmdline(LayoutError),
    /// The initrd is not the one that was planned for.
    #[error("the initrd has {have} bytes and {planned} were planned for (a bug of the caller)")]
    RamdiskChanged {
        /// Bytes given.
        have: u64,
        /// Bytes in the plan.
        planned: u64,
    },
}

/// PTE of a page in an L1: present, writable, accessed, dirty. Not user: the hypervisor then marks it as a page of the
/// guest kernel. RW and D are taken away for page tables.
const L1_FLAGS: u64 = 0x63;
/// The writable bit and the dirty bit.
const RW: u64 = 0x42;
/// Entry of an L2, L3 or L4: the same and dirty, as Xen's own builder leaves them.
const TABLE_FLAGS: u64 = 0x67;
/// Frames beyond this do not fit into a PTE.
const MAX_MFN: u64 = 1 << 40;
/// A p2m entry for a PFN without a frame.
const INVALID_P2M_ENTRY: u64 = u64::MAX;

/// Writes kernel, initrd, page tables, p2m list and start_info into the domain's memory.
///
/// `kernel` must be the one the layout was planned for. On an error the domain's memory is in no defined state and the
/// domain is to be destroyed.
pub fn build<M: GuestMemory>(
    kernel: &KernelImage<'_>,
    layout: &Layout,
    memory: &mut M,
    params: &BuildParams<'_>,
) -> Result<StartOfDay, BuildError<M::Error>> {
    check_cmdline(params.cmdline).map_err(BuildError::Cmdline)?;
    if params.ramdisk.len() as u64 != layout.ramdisk_len {
        return Err(BuildError::RamdiskChanged { have: params.ramdisk.len() as u64, planned: layout.ramdisk_len });
    }
    for segment in kernel.segments() {
        write_segment(memory, segment).map_err(|source| BuildError::Memory { what: "kernel", source })?;
    }
    let hypercall_page_mfn = match kernel.notes().hypercall_page {
        None => None,
        Some(va) => {
            let pfn = Pfn(va.wrapping_sub(layout.virt_base) / PAGE_SIZE);
            memory
                .write(pfn, 0, &hypercall_page::contents())
                .map_err(|source| BuildError::Memory { what: "hypercall page", source })?;
            Some(frame(memory, pfn.0)?)
        }
    };
    if !params.ramdisk.is_empty() {
        write_padded(memory, layout.ramdisk.start, params.ramdisk)
            .map_err(|source| BuildError::Memory { what: "initrd", source })?;
    }
    for page in [layout.xenstore, layout.console, Some(layout.stack)].into_iter().flatten() {
        memory.zero(page, 1).map_err(|source| BuildError::Memory { what: "special pages", source })?;
    }
    write_p2m(memory, layout)?;
    write_tables(memory, layout)?;

    let special = |page: Option<Pfn>| page.map(|pfn| frame(memory, pfn.0)).transpose();
    let xenstore_mfn = special(layout.xenstore)?;
    let console_mfn = special(layout.console)?;
    let page = start_info::page(kernel, layout, params, xenstore_mfn, console_mfn);
    let what = "start_info page";
    memory.write(layout.start_info, 0, &page).map_err(|source| BuildError::Memory { what, source })?;
    Ok(StartOfDay {
        entry: kernel.entry(),
        stack_va: layout.va(Pfn(layout.stack.0 + 1)),
        start_info_va: layout.va(layout.start_info),
        start_info_mfn: frame(memory, layout.start_info.0)?,
        pt_base_pfn: Pfn(layout.page_tables.start),
        cr3_mfn: frame(memory, layout.page_tables.start)?,
        xenstore_mfn,
        console_mfn,
        hypercall_page_mfn,
    })
}

/// The frame behind `pfn`, if a PTE can name it.
fn frame<M: GuestMemory>(memory: &M, pfn: u64) -> Result<Mfn, BuildError<M::Error>> {
    memory.mfn(Pfn(pfn)).filter(|mfn| mfn.0 < MAX_MFN).ok_or(BuildError::NoFrame(pfn))
}

/// A segment's bytes, then zeroes up to its size in memory.
fn write_segment<M: GuestMemory>(memory: &mut M, segment: &Segment<'_>) -> Result<(), M::Error> {
    let place = |paddr: u64| (Pfn(paddr / PAGE_SIZE), (paddr % PAGE_SIZE) as usize);
    if !segment.data.is_empty() {
        let (pfn, offset) = place(segment.paddr);
        memory.write(pfn, offset, segment.data)?;
    }
    let zeroes = [0u8; PAGE_SIZE as usize];
    let end = segment.range().end;
    let mut at = segment.paddr.saturating_add(segment.data.len() as u64);
    while at < end {
        let (pfn, offset) = place(at);
        let whole = (end - at) / PAGE_SIZE;
        if offset == 0 && whole > 0 {
            memory.zero(pfn, whole)?;
            at += whole * PAGE_SIZE;
        } else {
            let len = (PAGE_SIZE - offset as u64).min(end - at);
            memory.write(pfn, offset, zeroes.get(..len as usize).unwrap_or(&zeroes))?;
            at += len;
        }
    }
    Ok(())
}

/// Bytes from the start of `pfn` on, and zeroes to the end of their last page.
fn write_padded<M: GuestMemory>(memory: &mut M, pfn: u64, data: &[u8]) -> Result<(), M::Error> {
    memory.write(Pfn(pfn), 0, data)?;
    let zeroes = [0u8; PAGE_SIZE as usize];
    let used = data.len() % PAGE_SIZE as usize;
    match zeroes.get(used..) {
        Some(rest) if used != 0 => memory.write(Pfn(pfn + data.len() as u64 / PAGE_SIZE), used, rest),
        _ => Ok(()),
    }
}

/// One page of eight-byte entries, collected before it is written.
struct EntryPage {
    bytes: ArrayVec<u8, { PAGE_SIZE as usize }>,
}

impl EntryPage {
    /// 512 entries, each from its index.
    fn fill<E>(mut entry: impl FnMut(u64) -> Result<u64, E>) -> Result<Self, E> {
        let mut page = EntryPage { bytes: ArrayVec::new() };
        for index in 0..PAGE_SIZE / 8 {
            // There is room for exactly 512.
            let _ = page.bytes.try_extend_from_slice(&entry(index)?.to_le_bytes());
        }
        Ok(page)
    }

    fn write<M: GuestMemory>(&self, memory: &mut M, pfn: u64, what: &'static str) -> Result<(), BuildError<M::Error>> {
        memory.write(Pfn(pfn), 0, &self.bytes).map_err(|source| BuildError::Memory { what, source })
    }
}

/// The list of machine frames. What its last page has beyond `nr_pages` is invalid, as Linux expects.
fn write_p2m<M: GuestMemory>(memory: &mut M, layout: &Layout) -> Result<(), BuildError<M::Error>> {
    for (page, pfn) in layout.p2m.clone().enumerate() {
        let entries = EntryPage::fill(|index| {
            let described = page as u64 * (PAGE_SIZE / 8) + index;
            let mfn = if described < layout.nr_pages { memory.mfn(Pfn(described)) } else { None };
            Ok(mfn.map_or(INVALID_P2M_ENTRY, |mfn| mfn.0))
        })?;
        entries.write(memory, pfn, "p2m list")?;
    }
    Ok(())
}

/// All tables of both mappings.
fn write_tables<M: GuestMemory>(memory: &mut M, layout: &Layout) -> Result<(), BuildError<M::Error>> {
    let p2m_top = layout.p2m_mapping.as_ref().and_then(|mapping| mapping.tables.first());
    for mapping in core::iter::once(&layout.initial).chain(layout.p2m_mapping.as_ref()) {
        for (index, run) in mapping.tables.iter().enumerate() {
            let below = mapping.tables.get(index + 1);
            for (n, pfn) in run.pfns.clone().enumerate() {
                let table = run.first + n as u64;
                let entries = EntryPage::fill(|slot| {
                    let key = table << 9 | slot;
                    match below {
                        None => l1_entry(memory, layout, mapping, key),
                        Some(below) => match table_entry(memory, below, key)? {
                            0 if run.level == 4 => p2m_top.map_or(Ok(0), |top| table_entry(memory, top, key)),
                            entry => Ok(entry),
                        },
                    }
                })?;
                entries.write(memory, pfn, "page tables")?;
            }
        }
    }
    Ok(())
}

/// The entry that leads to table `key` of `below`, 0 if it has no such table.
fn table_entry<M: GuestMemory>(memory: &M, below: &TableRun, key: u64) -> Result<u64, BuildError<M::Error>> {
    debug_assert!(table_shift(below.level) <= 39);
    match key.checked_sub(below.first) {
        Some(n) if n < below.pfns.end - below.pfns.start => {
            Ok(frame(memory, below.pfns.start + n)?.0 << 12 | TABLE_FLAGS)
        }
        _ => Ok(0),
    }
}

/// The entry for virtual page number `key`, 0 outside of the mapping.
fn l1_entry<M: GuestMemory>(
    memory: &M,
    layout: &Layout,
    mapping: &Mapping,
    key: u64,
) -> Result<u64, BuildError<M::Error>> {
    match key.checked_sub(table_va(mapping.va) / PAGE_SIZE) {
        Some(n) if n < mapping.pfns.end - mapping.pfns.start => {
            let pfn = mapping.pfns.start + n;
            let flags = if layout.page_tables.contains(&pfn) { L1_FLAGS & !RW } else { L1_FLAGS };
            Ok(frame(memory, pfn)?.0 << 12 | flags)
        }
        _ => Ok(0),
    }
}
