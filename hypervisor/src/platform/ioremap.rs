//! Mappings of device registers and firmware tables in the hypervisor's own window.
//!
//! Addresses are handed out once and never taken back: what is mapped (ACPI tables, IOAPICs, MSI-X tables, PCI
//! configuration space) lives as long as the machine.

use crate::arch::layout::{HEAP, IOREMAP};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes at the start of the window that belong to the local APIC.
const LAPIC_PART: u64 = 2 << 20;
static NEXT: AtomicU64 = AtomicU64::new(IOREMAP + LAPIC_PART);

/// How the CPU may cache what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Memory: firmware tables.
    WriteBack,
    /// Registers.
    Uncached,
}

/// Maps `[pa, pa + len)` and returns the virtual address of `pa`; `None` when the window or memory is used up.
///
/// The caller is the boot CPU before others run, or holds the lock of `platform::irq`: page tables of this window are
/// changed by one CPU at a time.
///
/// # Safety
/// What is mapped is not memory that Rust objects live in, and reads of it do no harm.
#[cfg(target_os = "none")]
pub unsafe fn map(pa: u64, len: u64, caching: Caching) -> Option<u64> {
    use crate::arch::paging::{self, flag};
    let first = pa & !4095;
    let end = pa.checked_add(len)?.checked_add(4095)? & !4095;
    let size = end.checked_sub(first)?;
    // Same offset within 2 MiB on both sides, so that large ranges get large pages.
    const LARGE: u64 = 2 << 20;
    let offset = first & (LARGE - 1);
    let room = offset.checked_add(size)?.checked_next_multiple_of(LARGE)?;
    let base = NEXT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(room).filter(|end| *end <= HEAP))
        .ok()?;
    let va = base + offset;
    let flags = match caching {
        Caching::WriteBack => flag::RODATA,
        Caching::Uncached => flag::DEVICE,
    };
    // SAFETY: a part of the window nobody else has; what is mapped is the caller's.
    unsafe { paging::map(va, first, size, flags, || crate::mm::alloc::page().and_then(|m| m.to_addr())) }.ok()?;
    Some(va + (pa - first))
}

/// There are no devices in host tests.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
pub unsafe fn map(_: u64, _: u64, _: Caching) -> Option<u64> {
    let _ = (&NEXT, HEAP, Ordering::Relaxed);
    None
}
