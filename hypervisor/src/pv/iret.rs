//! The iret hypercall, and faults of the real IRETQ.

use super::{mode, registers, trap};
use crate::arch::layout::sel;
use crate::arch::percpu::{pending, this_cpu};
use crate::arch::regs::rflags as f;
use crate::domain::Cx;
use crate::hypercall::{Outcome, Reason};
use crate::mm::guest;
use core::sync::atomic::Ordering;
use pv_abi::arch::{IretContext, vgcf};
use pv_abi::ids::GuestHandle;

/// iret: back to where the frame on the guest kernel's stack says, in kernel or user mode.
pub fn iret(cx: &mut Cx) -> Outcome {
    let Ok(frame) = guest::copy_from_guest(GuestHandle::<IretContext>::new(cx.regs.rsp)) else {
        return Outcome::CrashDomain(Reason::Because("the iret frame is not mapped"));
    };
    if frame.cs & 3 == 3 && !mode::toggle(cx) {
        return Outcome::CrashDomain(Reason::Because("iret to user mode without user page tables"));
    }
    let r = &mut *cx.regs;
    r.force_iret();
    r.rip = frame.rip;
    r.cs = u64::from(frame.cs as u16 | 3);
    r.rflags = registers::flags_of_return(frame.rflags);
    r.rsp = frame.rsp;
    r.ss = u64::from(frame.ss as u16 | 3);
    if frame.flags & vgcf::IN_SYSCALL != 0 {
        r.rcx = frame.rip;
        r.r11 = frame.rflags;
    } else {
        r.rcx = frame.rcx;
        r.r11 = frame.r11;
    }
    r.rax = frame.rax;
    cx.arch.nmi_blocked = false;
    if cx.vcpu.nmi_pending.load(Ordering::Acquire) != 0 {
        // One that came meanwhile is delivered where this one returns to.
        this_cpu().raise(pending::VCPU);
    }
    cx.shared().info.set_mask(frame.rflags & f::IF == 0);
    Outcome::Resume
}

/// The IRETQ of the exit path faulted on what the guest wanted (a bad selector, a non-canonical address): the guest
/// gets the exception as if the target had raised it.
///
/// # Errors
/// The domain cannot go on.
pub fn fault(cx: &mut Cx, vector: u8, error: u32) -> Result<(), Reason> {
    if cx.arch.in_kernel {
        // A frame in kernel mode shows RPL 0 whatever was asked for; deliver() clears it.
        if cx.regs.cs & !3 == 0 {
            cx.regs.cs = 3;
        }
    }
    let bad_rip = !crate::arch::layout::is_canonical(cx.regs.rip);
    let code = if bad_rip { 0 } else { error };
    let vector = if vector == trap::vector::PF { trap::vector::GP } else { vector };
    trap::inject(cx, vector, code)
}

const _: () = assert!(sel::GUEST_CS64 & 3 == 3);
