//! Exceptions of guests: what the hypervisor does itself, and what the guest gets.

use super::bounce::{self, Target};
use super::{emulate, ptwrite};
use crate::arch::layout::{DOMAIN_WINDOW, DOMAIN_WINDOW_PER_VCPU, is_hypervisor};
use crate::domain::Cx;
use crate::hypercall::Reason;
use bitflags::bitflags;

/// Vectors with a meaning here (SDM vol. 3 §6.3.1).
#[allow(missing_docs)]
pub mod vector {
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const INT80: u8 = 0x80;
}

bitflags! {
    /// Error code of a page fault (SDM vol. 3 §4.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Fault: u32 {
        /// The page was there; the access was not allowed.
        const PRESENT = 1 << 0;
        const WRITE = 1 << 1;
        /// From user mode: for the hardware always, for the guest only from its own user mode.
        const USER = 1 << 2;
        /// A reserved bit was set in an entry.
        const RESERVED = 1 << 3;
        const FETCH = 1 << 4;
    }
}

/// Whether the CPU pushes an error code for `vector`.
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// Gives the guest exception `vector`.
///
/// # Errors
/// The domain has no handler for it, or no stack.
pub fn inject(cx: &mut Cx, vector: u8, error_code: u32) -> Result<(), Reason> {
    let Some(t) = cx.arch.traps.get(usize::from(vector)).copied() else {
        return Err(Reason::Because("no trap table"));
    };
    if t.address == 0 {
        log::error!("d{}v{}: no handler for exception {vector}, error {error_code:#x}", cx.domain().id, cx.vcpu.id);
    }
    let error_code = has_error_code(vector).then_some(error_code);
    bounce::deliver(cx, Target { address: t.address, mask_events: t.flags & 4 != 0, error_code })
}

/// An exception of the running vCPU.
///
/// # Errors
/// The domain cannot go on.
pub fn exception(cx: &mut Cx, vector: u8, cr2: u64) -> Result<(), Reason> {
    let error = cx.regs.error_code;
    match vector {
        vector::PF => page_fault(cx, error, cr2),
        vector::GP => general_protection(cx, error),
        vector::UD => {
            if emulate::forced(cx) {
                return Ok(());
            }
            inject(cx, vector, 0)
        }
        vector::INT80 => match cx.arch.traps.get(0x80).copied() {
            // It has a gate of its own that everybody may use, whatever the guest's table says.
            Some(t) if t.address != 0 => {
                bounce::deliver(cx, Target { address: t.address, mask_events: t.flags & 4 != 0, error_code: None })
            }
            _ => {
                cx.regs.rip = cx.regs.rip.wrapping_sub(2);
                inject(cx, vector::GP, 0x80 << 3 | 2)
            }
        },
        vector::NM => {
            cx.arch.ts = false;
            #[cfg(target_os = "none")]
            crate::arch::cr::set_ts(false);
            inject(cx, vector, 0)
        }
        vector::DB => {
            #[cfg(target_os = "none")]
            {
                cx.arch.debugreg[6] = crate::arch::debugreg::dr6() & 0xffff_efff | 0xffff_0ff0;
            }
            inject(cx, vector, 0)
        }
        _ => inject(cx, vector, error),
    }
}

fn page_fault(cx: &mut Cx, error: u32, cr2: u64) -> Result<(), Reason> {
    #[cfg(target_os = "none")]
    if crate::arch::xpti::missed(cr2) {
        return Ok(());
    }
    let mut address = cr2;
    if is_hypervisor(cr2) {
        // The CPU looked for a descriptor in the window: an LDT page that is not there yet.
        if let Some(page) = ldt_page(cx, cr2) {
            let mem = &cx.domain().mem;
            if cx.arch.tables.map_ldt_page(mem, cx.vcpu.id, page) {
                return Ok(());
            }
            address = cx.arch.tables.ldt_base.wrapping_add(page as u64 * 4096 + (cr2 & 0xfff));
        }
    } else if cx.arch.in_kernel
        && Fault::from_bits_truncate(error).difference(Fault::USER) == Fault::PRESENT.union(Fault::WRITE)
        && ptwrite::emulate(cx, cr2)
    {
        return Ok(());
    }
    let mut fault = Fault::from_bits_retain(error);
    fault.set(Fault::USER, !cx.arch.in_kernel);
    cx.shared().info.set_cr2(address);
    inject(cx, vector::PF, fault.bits())
}

/// The LDT page of the vCPU that window address `va` belongs to.
fn ldt_page(cx: &Cx, va: u64) -> Option<usize> {
    let offset = va.checked_sub(DOMAIN_WINDOW)?.checked_sub(u64::from(cx.vcpu.id.0) * DOMAIN_WINDOW_PER_VCPU)?;
    let page = (offset >> 12) as usize;
    (16..32).contains(&page).then(|| page - 16)
}

/// INT n, two bytes long, with RIP behind it: for whoever the guest's trap table lets raise it, a #GP otherwise.
fn software(cx: &mut Cx, n: u8, error: u32) -> Result<(), Reason> {
    let t = cx.arch.traps.get(usize::from(n)).copied().unwrap_or_default();
    let level = if cx.arch.in_kernel { 1 } else { 3 };
    if t.address != 0 && t.flags & 3 >= level {
        let target = Target { address: t.address, mask_events: t.flags & 4 != 0, error_code: None };
        return bounce::deliver(cx, target);
    }
    cx.regs.rip = cx.regs.rip.wrapping_sub(2);
    inject(cx, vector::GP, error)
}

/// Gives the guest kernel or user the page fault of an access the hypervisor made for it.
///
/// # Errors
/// As [`inject`].
pub fn access_fault(cx: &mut Cx, va: u64, write: bool) -> Result<(), Reason> {
    cx.shared().info.set_cr2(va);
    let mut fault = Fault::empty();
    fault.set(Fault::WRITE, write);
    fault.set(Fault::USER, !cx.arch.in_kernel);
    inject(cx, vector::PF, fault.bits())
}

fn general_protection(cx: &mut Cx, error: u32) -> Result<(), Reason> {
    // INT n through a gate that only ring 0 may use: the guest's trap table says who may.
    if error & 2 != 0 && error & 1 == 0 {
        cx.regs.rip = cx.regs.rip.wrapping_add(2);
        return software(cx, (error >> 3) as u8, error);
    }
    if error == 0 && emulate::privileged(cx) {
        return Ok(());
    }
    inject(cx, vector::GP, error)
}
