//! Page tables without the hypervisor, for CPUs on which ring 3 can read whatever is mapped (Meltdown; `xpti=`).
//!
//! Each CPU has an L4 of its own that is loaded while a guest runs, in guest-kernel mode as in guest-user mode: both are
//! ring 3. It shows the guest's own slots, copied from the guest's L4, the M2P and the domain's descriptors; and of the
//! hypervisor only what an entry needs before it can load the full tables: the entry code, the IDT, this CPU's TSS and
//! SYSCALL stub, the page with its register frame and `CpuLocal`, and the topmost page of each IST stack. Neither the
//! direct map nor the heap, the image's data, the frame table or another CPU's pages.
//!
//! # When the copy is made anew
//! When another L4 is loaded, and whenever the CPU flushes its translations: a frame that was a table is something else
//! only after such a flush, so no copied entry leads to a table that is none any more. The copy is made in the exit path
//! ([`pending::ROOT`]), from the live L4. An entry that another CPU has *added* is found when it is missed:
//! [`missed`] compares at a page fault.
//!
//! Global translations would outlive the change of tables, so CR4.PGE stays off.

use super::entry;
use super::layout::{DOMAIN_WINDOW, FIRST_SLOT, LAST_SLOT, M2P_RO, STACK_SIZE};
use super::paging::{self, NoTable, flag, slot_of};
use super::percpu::{CpuId, CpuLocal, REGS_OFFSET, pending, this_cpu};
use super::spec;
use super::tables;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{MachineAddr, PAGE_SIZE};

/// Builds the tables of CPU `cpu`, whose other pages are mapped in the root; `None` where XPTI is not in use.
///
/// # Errors
/// When `alloc` runs out.
pub fn build(cpu: CpuId, mut alloc: impl FnMut() -> Option<MachineAddr>) -> Result<Option<MachineAddr>, NoTable> {
    if !spec::policy().xpti() {
        return Ok(None);
    }
    let root = alloc().ok_or(NoTable)?;
    let mut show = |va: u64, flags: u64| {
        let (entry, size) = paging::lookup(va).ok_or(NoTable)?;
        let pa = (entry & flag::ADDR & !(size - 1)) | (va & (size - 1) & !(PAGE_SIZE - 1));
        // SAFETY: a tree nobody has loaded yet; it shows what the root shows there, with the same rights or less.
        unsafe { paging::map_in(root.0, va, pa, PAGE_SIZE, flags & !flag::G, &mut alloc) }
    };
    for va in entry::text().step_by(PAGE_SIZE as usize) {
        show(va, flag::CODE)?;
    }
    show(tables::stub(cpu), flag::CODE)?;
    show(tables::idt(), flag::RODATA)?;
    show(tables::tss_page(cpu), flag::RODATA)?;
    let block = tables::stack_block(cpu);
    show(block + (REGS_OFFSET & !(PAGE_SIZE - 1)), flag::DATA)?;
    for top in tables::ist_tops(block) {
        show(top - PAGE_SIZE, flag::DATA)?;
    }
    Ok(Some(root))
}
const _: () = assert!(REGS_OFFSET > STACK_SIZE - PAGE_SIZE);

/// The CPU has loaded the L4 at `cr3` for the guest it runs, or the root while it runs none.
#[inline(always)]
pub fn loaded(cpu: &CpuLocal, cr3: u64, guest: bool) {
    cpu.full_cr3.set(cr3);
    cpu.exposed_cr3.set(cr3);
    if guest && cpu.xpti.get() {
        cpu.exposed_cr3.set(cpu.exposed_l4.get());
        cpu.raise(pending::ROOT);
    }
}

/// The CPU has flushed its translations, or an entry of the L4 it has loaded has changed: the copy is made anew before
/// the guest runs again.
#[inline(always)]
pub fn outdated() {
    let cpu = this_cpu();
    if cpu.xpti.get() {
        cpu.raise(pending::ROOT);
    }
}

fn entries(table: u64) -> *mut u64 {
    paging::direct(MachineAddr(table)) as *mut u64
}

/// Whether slot `i` of a guest's L4 is shown as it is.
fn is_shown(i: usize) -> bool {
    !(FIRST_SLOT..=LAST_SLOT).contains(&i) || i == slot_of(M2P_RO) || i == slot_of(DOMAIN_WINDOW)
}

/// Makes the copy. In the exit path, for [`pending::ROOT`].
#[cold]
pub fn refresh() {
    let cpu = this_cpu();
    let (from, to) = (cpu.full_cr3.get(), cpu.exposed_cr3.get());
    if from == to {
        return;
    }
    for i in (0..512).filter(|i| is_shown(*i)) {
        // SAFETY: the L4 that is loaded, kept by its reference, of which others change entries at most; and this CPU's own.
        unsafe {
            let e = (*entries(from).add(i).cast::<AtomicU64>()).load(Ordering::Relaxed);
            ptr::write_volatile(entries(to).add(i), e);
        }
    }
}

/// A page fault of the guest at `va`: true if the copy lacked what the guest's own L4 has by now. The access is to be
/// tried again.
#[inline(always)]
pub fn missed(va: u64) -> bool {
    let cpu = this_cpu();
    cpu.xpti.get() && differs(cpu, va)
}

#[cold]
fn differs(cpu: &CpuLocal, va: u64) -> bool {
    let i = slot_of(va);
    let (from, to) = (cpu.full_cr3.get(), cpu.exposed_cr3.get());
    if from == to || !is_shown(i) {
        return false;
    }
    // SAFETY: as in `refresh`.
    let (live, copy) = unsafe {
        ((*entries(from).add(i).cast::<AtomicU64>()).load(Ordering::Relaxed), ptr::read_volatile(entries(to).add(i)))
    };
    // The CPU sets accessed bits in the copy only.
    let differs = (live ^ copy) & !(flag::A | flag::D) != 0;
    if differs {
        cpu.raise(pending::ROOT);
    }
    differs
}
