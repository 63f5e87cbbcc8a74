//! The fault-recovering accesses to guest memory: the only instructions of the hypervisor that touch addresses a
//! guest named. `mm::guest` checks the range first and is the only caller.

use super::patch::alternative;
use core::arch::asm;

/// Lets ring 0 reach the guest's pages, until [`close`], where SMAP is in use.
#[inline(always)]
fn open() {
    // SAFETY: STAC only where SMAP is in use; AC is cleared again by `close`. (Memory is named as clobbered, so that no
    // access moves across.)
    unsafe { asm!(alternative!(smap, "stac"), options(nostack)) };
}

#[inline(always)]
fn close() {
    // SAFETY: as above.
    unsafe { asm!(alternative!(smap, "clac"), options(nostack)) };
}

/// Copies `len` bytes; returns how many were *not* copied because a page was missing.
///
/// # Safety
/// Of `dst` and `src` one is valid for `len` bytes of hypervisor memory, and the other lies wholly outside the
/// hypervisor's part of the address space.
#[inline(always)]
pub unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> usize {
    let left: usize;
    open();
    // SAFETY: the caller's; a fault resumes behind the instruction it hit with rcx = what is left.
    unsafe {
        if len & 7 == 0 {
            asm!(
                "2: rep movsq",
                "3:",
                ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
                inout("rcx") len / 8 => left, inout("rdi") dst => _, inout("rsi") src => _, options(nostack, preserves_flags)
            );
        } else {
            asm!(
                "2: rep movsb",
                "3:",
                ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
                inout("rcx") len => left, inout("rdi") dst => _, inout("rsi") src => _, options(nostack, preserves_flags)
            );
        }
    }
    close();
    if len & 7 == 0 { left * 8 } else { left }
}

/// Reads one aligned u64; `None` when the page is missing.
///
/// # Safety
/// `src` lies wholly outside the hypervisor's part of the address space.
#[inline(always)]
pub unsafe fn read_u64(src: *const u64) -> Option<u64> {
    let mut v = 0u64;
    let bad: u64;
    open();
    // SAFETY: the caller's; a fault resumes at 3 with the flag register still 1.
    unsafe {
        asm!(
            "mov {bad:e}, 1",
            "2: mov {v}, [{p}]",
            "xor {bad:e}, {bad:e}",
            "3:",
            ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
            v = inout(reg) v, p = in(reg) src, bad = out(reg) bad, options(nostack, readonly)
        );
    }
    close();
    (bad == 0).then_some(v)
}
