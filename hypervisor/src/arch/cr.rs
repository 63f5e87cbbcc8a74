//! Control registers and descriptor-table registers.

use core::arch::asm;

/// CR4 bits (SDM vol. 3 §2.5).
#[allow(missing_docs)]
pub mod cr4 {
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
}

macro_rules! read {
    ($($(#[$m:meta])* $f:ident = $insn:literal;)*) => {$(
        $(#[$m])*
        #[inline(always)]
        pub fn $f() -> u64 {
            let v: u64;
            // SAFETY: reads a control register.
            unsafe { asm!($insn, out(reg) v, options(nomem, nostack, preserves_flags)) };
            v
        }
    )*};
}
read! {
    /// CR0.
    read_cr0 = "mov {}, cr0";
    /// Address of the last page fault.
    read_cr2 = "mov {}, cr2";
    /// Page-table base.
    read_cr3 = "mov {}, cr3";
    /// CR4.
    read_cr4 = "mov {}, cr4";
}

/// Writes CR0.
///
/// # Safety
/// Only TS may differ from what boot set.
#[inline(always)]
pub unsafe fn write_cr0(v: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("mov cr0, {}", in(reg) v, options(nostack, preserves_flags)) };
}

/// Loads a page-table base; flushes all but global translations.
///
/// # Safety
/// `v` is the address of an L4 whose hypervisor slots are those of the root table.
#[inline(always)]
pub unsafe fn write_cr3(v: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("mov cr3, {}", in(reg) v, options(nostack, preserves_flags)) };
}

/// Writes CR4.
///
/// # Safety
/// Paging and protection bits the hypervisor relies on stay set; bits the CPU lacks stay clear.
#[inline(always)]
pub unsafe fn write_cr4(v: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("mov cr4, {}", in(reg) v, options(nostack, preserves_flags)) };
}

/// Forgets the translation of one page on this CPU, global or not.
#[inline(always)]
pub fn invlpg(va: u64) {
    // SAFETY: forgetting a translation is always sound; non-canonical addresses are ignored by the CPU.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

/// Sets or clears CR0.TS.
#[inline(always)]
pub fn set_ts(on: bool) {
    if on {
        // SAFETY: only TS changes; the hypervisor itself uses no FPU.
        unsafe { write_cr0(read_cr0() | 8) };
    } else {
        // SAFETY: clears TS.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
}

/// Sets XCR0.
///
/// # Safety
/// `v` is a legal combination of features this CPU has, and CR4.OSXSAVE is set.
#[inline(always)]
pub unsafe fn write_xcr0(v: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") v as u32, in("edx") (v >> 32) as u32, options(nomem, nostack, preserves_flags))
    };
}

/// Loads GDTR.
///
/// # Safety
/// A GDT with the reserved descriptors in its page 14 is and stays mapped at `base`.
#[inline(always)]
pub unsafe fn load_gdt(base: u64) {
    let p = TablePointer { limit: super::layout::sel::GDT_LIMIT, base };
    // SAFETY: the caller's.
    unsafe { asm!("lgdt [{}]", in(reg) &p, options(readonly, nostack, preserves_flags)) };
}

/// Loads IDTR.
///
/// # Safety
/// `base` is a filled table of 256 gates that is never freed.
pub unsafe fn load_idt(base: u64) {
    let p = TablePointer { limit: 4095, base };
    // SAFETY: the caller's.
    unsafe { asm!("lidt [{}]", in(reg) &p, options(readonly, nostack, preserves_flags)) };
}

/// Loads LDTR from the selector `sel` (0 = none).
///
/// # Safety
/// The descriptor, if any, is an LDT whose pages only hold descriptors a guest may have.
#[inline(always)]
pub unsafe fn load_ldt(sel: u16) {
    // SAFETY: the caller's.
    unsafe { asm!("lldt {0:x}", in(reg) sel, options(nostack, preserves_flags)) };
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}
