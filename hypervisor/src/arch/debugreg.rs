//! Debug registers of guests.

use core::arch::asm;

/// Takes the guest's breakpoints off the CPU.
#[inline(always)]
pub fn leave(dr7: u64) {
    if dr7 & 0xff != 0 {
        set_dr7(0x400);
    }
}

/// Puts the guest's breakpoints on the CPU, if it has any enabled.
#[inline(always)]
pub fn enter(dr: &[u64; 8]) {
    if dr[7] & 0xff != 0 {
        set(dr);
    }
}

/// Loads all debug registers. The values were checked when the guest set them: addresses outside the hypervisor, no
/// general-detect, no I/O breakpoints.
pub fn set(dr: &[u64; 8]) {
    // SAFETY: breakpoints only on guest addresses; #DB has its own stack.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}",
            in(reg) dr[0], in(reg) dr[1], in(reg) dr[2], in(reg) dr[3], in(reg) dr[6], options(nostack)
        );
    }
    set_dr7(dr[7]);
}

/// Loads DR7.
pub fn set_dr7(v: u64) {
    // SAFETY: as in `set`.
    unsafe { asm!("mov dr7, {}", in(reg) v & !(1 << 13), options(nostack)) };
}

/// DR6 as the CPU left it after a #DB.
pub fn dr6() -> u64 {
    let v: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, dr6", out(reg) v, options(nomem, nostack)) };
    v
}
