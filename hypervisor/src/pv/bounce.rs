//! Putting a frame on the guest kernel's stack and sending the vCPU to a handler of its.
//!
//! Upwards from the new stack pointer: `rcx | r11 | [error code] | rip | cs + upcall mask << 32 | rflags | rsp | ss`.
//! A frame from guest-kernel mode shows a CS with RPL 0, one from user mode RPL 3: that is how the guest tells.

use super::mode;
use crate::arch::layout::sel;
use crate::arch::regs::rflags as f;
use crate::domain::Cx;
use crate::hypercall::Reason;
use crate::mm::guest;
use pv_abi::errno::Errno;
use zerocopy::IntoBytes;

/// Where to send the vCPU, and with what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target {
    /// Handler.
    pub address: u64,
    /// Mask events on entry.
    pub mask_events: bool,
    /// Error code, for traps that have one.
    pub error_code: Option<u32>,
}

/// Delivers. From user mode the vCPU changes to kernel mode first.
///
/// # Errors
/// The domain cannot go on: no handler, or no stack to put the frame on.
pub fn deliver(cx: &mut Cx, t: Target) -> Result<(), Reason> {
    if t.address == 0 {
        return Err(Reason::Because("a trap or event has no handler"));
    }
    let from_kernel = cx.arch.in_kernel;
    let (rsp, ss) = (cx.regs.rsp, cx.regs.ss);
    let stack = if from_kernel {
        rsp & !15
    } else {
        if !mode::toggle(cx) {
            return Err(Reason::Because("no kernel page tables to handle a trap of user mode"));
        }
        cx.arch.kernel_sp & !15
    };
    let info = &cx.shared().info;
    let mask = info.mask_byte();
    let cs = (cx.regs.cs & 0xffff) & if from_kernel { !3 } else { !0 };
    let flags = cx.regs.rflags & !(f::IF | f::IOPL) | if mask == 0 { f::IF } else { 0 };
    let (rcx, r11, rip, cs) = (cx.regs.rcx, cx.regs.r11, cx.regs.rip, cs | u64::from(mask) << 32);
    let (sp, written) = match t.error_code {
        Some(code) => push(stack, [rcx, r11, u64::from(code), rip, cs, flags, rsp, ss]),
        None => push(stack, [rcx, r11, rip, cs, flags, rsp, ss]),
    };
    if written.is_err() {
        return Err(Reason::Because("the guest kernel's stack is not mapped"));
    }
    if t.mask_events {
        info.set_mask(true);
    }
    let r = &mut *cx.regs;
    r.force_iret();
    r.rsp = sp;
    r.ss = u64::from(sel::GUEST_DS);
    r.cs = u64::from(sel::GUEST_CS64);
    r.rip = t.address;
    r.rflags = super::registers::flags_of_entry(r.rflags);
    Ok(())
}

/// Puts `words` below `stack`; returns the new stack pointer.
#[inline(always)]
fn push<const N: usize>(stack: u64, words: [u64; N]) -> (u64, Result<(), Errno>) {
    let sp = stack.wrapping_sub(N as u64 * 8);
    (sp, guest::write_bytes(sp, words.as_bytes()))
}

/// Delivers the failsafe callback: a data segment of the guest could not be reloaded.
///
/// # Errors
/// As [`deliver`].
pub fn failsafe(cx: &mut Cx) -> Result<(), Reason> {
    let s = cx.arch.seg;
    let c = cx.arch.failsafe_callback;
    let target = Target { address: c.address, mask_events: c.mask_events, error_code: None };
    deliver(cx, target)?;
    // The four selectors stand between r11 and rip: rewrite the two words and put the selectors in.
    let sp = cx.regs.rsp.wrapping_sub(32);
    let mut head = [0u64; 2];
    let words = [0, 0, u64::from(s.ds), u64::from(s.es), u64::from(s.fs), u64::from(s.gs)];
    let moved = guest::read_bytes(cx.regs.rsp, head.as_mut_bytes()).and_then(|()| {
        let w = [head[0], head[1], words[2], words[3], words[4], words[5]];
        guest::write_bytes(sp, w.as_bytes())
    });
    if moved.is_err() {
        return Err(Reason::Because("the guest kernel's stack is not mapped"));
    }
    cx.regs.rsp = sp;
    Ok(())
}
