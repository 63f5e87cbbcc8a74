//! The way of an application processor from its start-up message to Rust.
//!
//! A start-up message (SIPI) lets a CPU begin in real mode at a page below 1 MiB. A copy of the trampoline stands there,
//! with a block of parameters behind it. It goes from real mode straight to long mode, on an L4 of its own that also maps
//! the first 2 MiB at their own addresses, takes the stack it was given, and calls Rust, which loads the root L4.
//! Register contract: none; the CPU comes with nothing.

use super::early;
use super::layout::{FIRST_SLOT, LAST_SLOT};
use super::paging::{self, flag};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{MachineAddr, PAGE_SIZE};

global_asm!(
    r#"
    .section .rodata.ap, "a"
    .code16
    .balign 16
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    movl %cr4, %eax
    orl $0x20, %eax                          /* PAE */
    movl %eax, %cr4
    movl ap_cr3 - ap_trampoline, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax                         /* LME, NXE */
    wrmsr
    lgdtl ap_gdt_ptr - ap_trampoline
    movl %cr0, %eax
    andl $0x9fffffff, %eax                   /* caches on: CD and NW clear */
    orl $0x80010001, %eax                    /* PG, WP, PE: long mode */
    movl %eax, %cr0
    ljmpl *(ap_far - ap_trampoline)

    .code64
ap_long:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movq ap_stack(%rip), %rsp
    movl ap_cpu(%rip), %edi
    xorl %ebp, %ebp
    callq *ap_entry(%rip)
    ud2

    .balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
ap_gdt_ptr:
    .word 23
    .long 0
ap_far:
    .long 0
    .word 8
    .balign 8
ap_stack: .quad 0
ap_entry: .quad 0
ap_cr3:   .long 0
ap_cpu:   .long 0
ap_trampoline_end:

    .globl ap_trampoline, ap_trampoline_end, ap_long, ap_gdt, ap_gdt_ptr, ap_far, ap_stack, ap_entry, ap_cr3, ap_cpu
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static ap_long: u8;
    static ap_gdt: u8;
    static ap_gdt_ptr: u8;
    static ap_far: u8;
    static ap_stack: u8;
    static ap_entry: u8;
    static ap_cr3: u8;
    static ap_cpu: u8;
}

/// Physical address of the trampoline's page; 0 = there is none.
static PAGE: AtomicU64 = AtomicU64::new(0);
/// The L4 an application processor starts on.
static L4: AtomicU64 = AtomicU64::new(0);

/// Builds the start-up page tables; `low` is a page of RAM below 640 KiB that is free until [`finish`]. Boot CPU, once,
/// while early memory comes from below 4 GiB (CR3 is loaded from 32-bit code).
pub fn prepare(low: MachineAddr) {
    let (l4, l3, l2) = (early::page(), early::page(), early::page());
    let put = |table: MachineAddr, index: usize, entry: u64| {
        // SAFETY: fresh pages of early memory; the index is below 512.
        unsafe { (paging::direct(table) as *mut u64).add(index).write(entry) };
    };
    for slot in FIRST_SLOT..=LAST_SLOT {
        put(l4, slot, paging::root_entry(slot));
    }
    put(l4, 0, l3.0 | flag::P | flag::RW | flag::A);
    put(l3, 0, l2.0 | flag::P | flag::RW | flag::A);
    // Read-only: nothing writes through this mapping, so it is no way around W^X.
    put(l2, 0, flag::P | flag::A | flag::PSE);
    L4.store(l4.0, Ordering::Relaxed);
    PAGE.store(low.0, Ordering::Release);
}

/// Number of the trampoline's page, for the start-up message. `None` before [`prepare`].
pub fn page_number() -> Option<u8> {
    let p = PAGE.load(Ordering::Acquire);
    (p != 0).then_some((p / PAGE_SIZE) as u8)
}

/// Puts the trampoline into its page, with the parameters of the CPU that is to be started next: its number, the top of
/// its stack, and where it goes.
///
/// # Safety
/// No CPU is on its way through the trampoline; `stack` is the free stack of CPU `cpu`, mapped in the root tables.
pub unsafe fn arm(cpu: u32, stack: u64, entry: extern "C" fn(u32) -> !) {
    let phys = PAGE.load(Ordering::Acquire);
    let start = &raw const ap_trampoline;
    let len = (&raw const ap_trampoline_end) as usize - start as usize;
    assert!(phys != 0 && len <= PAGE_SIZE as usize);
    let page = paging::direct(MachineAddr(phys)) as *mut u8;
    let offset = |symbol: *const u8| symbol as usize - start as usize;
    // SAFETY: the page is RAM kept for this, and in the direct map; the symbols lie inside the copied code.
    unsafe {
        core::ptr::copy_nonoverlapping(start, page, len);
        let put32 = |at: usize, v: u64| page.add(at).cast::<u32>().write_unaligned(v as u32);
        let put64 = |at: usize, v: u64| page.add(at).cast::<u64>().write_unaligned(v);
        put32(offset(&raw const ap_gdt_ptr) + 2, phys + offset(&raw const ap_gdt) as u64);
        put32(offset(&raw const ap_far), phys + offset(&raw const ap_long) as u64);
        put32(offset(&raw const ap_cr3), L4.load(Ordering::Relaxed));
        put32(offset(&raw const ap_cpu), cpu.into());
        put64(offset(&raw const ap_stack), stack & !15);
        put64(offset(&raw const ap_entry), entry as usize as u64);
    }
}

/// All CPUs are up: the trampoline's page is clean again.
pub fn finish() {
    let phys = PAGE.swap(0, Ordering::AcqRel);
    if phys != 0 {
        // SAFETY: as in `arm`.
        unsafe { core::ptr::write_bytes(paging::direct(MachineAddr(phys)) as *mut u8, 0, PAGE_SIZE as usize) };
    }
}
