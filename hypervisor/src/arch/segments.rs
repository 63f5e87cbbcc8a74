//! The guest's data segments and segment bases, in the CPU.

use super::layout::is_canonical;
use super::msr::{self, nr};
use core::arch::asm;

macro_rules! selector {
    ($($get:ident, $load:ident, $seg:literal;)*) => {$(
        /// Reads the selector.
        #[inline(always)]
        pub fn $get() -> u16 {
            let v: u64;
            // SAFETY: reads a selector.
            unsafe { asm!(concat!("mov {0:e}, ", $seg), out(reg) v, options(nomem, nostack, preserves_flags)) };
            v as u16
        }
        /// Loads the selector; false (and a null selector) when the descriptor does not allow it.
        #[inline(always)]
        pub fn $load(sel: u16) -> bool {
            let bad: u64;
            // SAFETY: data segments mean nothing to the hypervisor; a fault resumes at 3 with `bad` still 1.
            unsafe {
                asm!(
                    "mov {bad:e}, 1",
                    concat!("2: mov ", $seg, ", {sel:x}"),
                    "xor {bad:e}, {bad:e}",
                    "3:",
                    ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
                    sel = in(reg) u64::from(sel), bad = out(reg) bad, options(nostack)
                );
            }
            bad == 0
        }
    )*};
}
selector! {
    ds, load_ds, "ds";
    es, load_es, "es";
    fs, load_fs, "fs";
    gs, load_gs, "gs";
}

macro_rules! base {
    ($($get:ident, $set:ident, $msr:expr;)*) => {$(
        /// Reads the base.
        #[inline(always)]
        pub fn $get() -> u64 {
            // SAFETY: architectural in long mode.
            unsafe { msr::rdmsr($msr) }
        }
        /// Sets the base; false when the address is not canonical (the CPU would fault).
        #[inline(always)]
        pub fn $set(base: u64) -> bool {
            if !is_canonical(base) {
                return false;
            }
            // SAFETY: canonical; the hypervisor uses neither FS nor GS.
            unsafe { msr::wrmsr($msr, base) };
            true
        }
    )*};
}
base! {
    fs_base, set_fs_base, nr::FS_BASE;
    gs_base, set_gs_base, nr::GS_BASE;
    gs_base_inactive, set_gs_base_inactive, nr::KERNEL_GS_BASE;
}

/// Exchanges the active and the inactive GS base: what a guest's mode switch does.
#[inline(always)]
pub fn swap_gs() {
    // SAFETY: the hypervisor does not use GS.
    unsafe { asm!("swapgs", options(nomem, nostack, preserves_flags)) };
}
