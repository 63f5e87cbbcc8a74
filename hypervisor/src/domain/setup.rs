//! Giving a vCPU its first state: VCPUOP_initialise and the toolstack's setvcpucontext.

use super::{Callback, DomainRef, VcpuArch, VcpuRef};
use crate::arch::layout::{is_canonical, is_guest_range};
use crate::mm::page_type::Refused;
use crate::mm::tables::GDT_PAGES;
use core::sync::atomic::Ordering;
use pv_abi::arch::{TrapInfo, VcpuGuestContext, vgcf};
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

/// A page-table base as contexts carry it: the frame number turned by 12 bits.
pub const fn base_of(ctrlreg: u64) -> Mfn {
    Mfn(ctrlreg.rotate_right(12))
}

/// Sets a parked vCPU to what `c` says. On an error the vCPU stays uninitialised.
///
/// # Errors
/// `EINVAL` for a bad page-table base, descriptor page or address; `EAGAIN`: there was more urgent work, repeat.
pub fn apply(d: &DomainRef, v: &VcpuRef, arch: &mut VcpuArch, c: &VcpuGuestContext) -> Result<(), Errno> {
    let u = &c.user_regs;
    let callbacks = [c.event_callback_eip, c.failsafe_callback_eip, c.syscall_callback_eip];
    if !callbacks.iter().chain([&u.rip, &c.fs_base, &c.gs_base_kernel, &c.gs_base_user]).all(|&a| is_canonical(a)) {
        return Err(Errno::EINVAL);
    }
    if !c.trap_ctxt.iter().all(|t| is_canonical(t.address)) {
        return Err(Errno::EINVAL);
    }
    let errno = |e: Refused| match e {
        Refused::Error(_) => Errno::EINVAL,
        Refused::Preempted => Errno::EAGAIN,
    };
    arch.tables.set_kernel_base(&d.mem, base_of(c.ctrlreg[3])).map_err(errno)?.give_up(&d.mem);
    if c.ctrlreg[1] != 0 {
        // The tools mark a user base with bit 0.
        arch.tables.set_user_base(&d.mem, base_of(c.ctrlreg[1] & !1)).map_err(errno)?;
    }
    // A vCPU runs on the tables of its mode; one that starts in user mode without any would run on nobody's.
    if c.flags & vgcf::IN_KERNEL == 0 && arch.tables.user_base().is_none() {
        return Err(Errno::EINVAL);
    }
    let entries = u32::try_from(c.gdt_ents).map_err(|_| Errno::EINVAL)?;
    if entries > u32::from(pv_abi::arch::sel::FIRST_RESERVED_GDT_ENTRY) {
        return Err(Errno::EINVAL);
    }
    let mut frames = [Mfn(0); GDT_PAGES];
    let n = (entries as usize).div_ceil(512).min(GDT_PAGES);
    for (m, g) in frames.iter_mut().zip(&c.gdt_frames).take(n) {
        *m = Mfn(*g);
    }
    arch.tables.set_gdt(&d.mem, v.id, frames.get(..n).unwrap_or(&[]), entries)?;
    let no_ldt = c.ldt_ents == 0;
    if c.ldt_ents > 8192 || !(no_ldt || c.ldt_base & 0xfff == 0 && is_guest_range(c.ldt_base, 0)) {
        return Err(Errno::EINVAL);
    }
    arch.tables.drop_ldt_pages(&d.mem, v.id);
    arch.tables.ldt_base = c.ldt_base;
    arch.tables.ldt_entries = c.ldt_ents as u32;

    let r = &mut arch.regs;
    (r.r15, r.r14, r.r13, r.r12) = (u.r15, u.r14, u.r13, u.r12);
    (r.r11, r.r10, r.r9, r.r8) = (u.r11, u.r10, u.r9, u.r8);
    (r.rax, r.rbx, r.rcx, r.rdx) = (u.rax, u.rbx, u.rcx, u.rdx);
    (r.rsi, r.rdi, r.rbp, r.rsp) = (u.rsi, u.rdi, u.rbp, u.rsp);
    r.rip = u.rip;
    r.cs = u64::from(u.cs | 3);
    r.ss = u64::from(u.ss | 3);
    r.rflags = crate::pv::registers::flags_of_context(u.rflags);
    r.entry_vector = 0;
    // The IOPL in the flags is the virtual one.
    arch.iopl = (u.rflags >> 12 & 3) as u8;
    let s = &mut arch.seg;
    (s.ds, s.es, s.fs, s.gs) = (u.ds, u.es, u.fs, u.gs);
    s.fs_base = c.fs_base;
    arch.in_kernel = c.flags & vgcf::IN_KERNEL != 0;
    (s.gs_base_active, s.gs_base_inactive) =
        if arch.in_kernel { (c.gs_base_kernel, c.gs_base_user) } else { (c.gs_base_user, c.gs_base_kernel) };
    for (vector, t) in (0..=255).zip(&c.trap_ctxt) {
        arch.traps.set(vector, TrapInfo { cs: t.cs | 3, ..*t })?;
    }
    arch.debugreg = super::debugreg::from_context(&c.debugreg);
    arch.kernel_ss = c.kernel_ss & 0xffff | 3;
    arch.kernel_sp = c.kernel_sp;
    arch.event_callback = Callback { address: c.event_callback_eip, mask_events: true };
    arch.failsafe_callback =
        Callback { address: c.failsafe_callback_eip, mask_events: c.flags & vgcf::FAILSAFE_DISABLES_EVENTS != 0 };
    arch.syscall_callback =
        Callback { address: c.syscall_callback_eip, mask_events: c.flags & vgcf::SYSCALL_DISABLES_EVENTS != 0 };
    if c.flags & vgcf::I387_VALID != 0 {
        arch.fpu.set_fxsave(&c.fpu);
    } else {
        arch.fpu.reset();
    }
    v.initialised.store(true, Ordering::SeqCst);
    Ok(())
}

/// The frame a base register names.
pub const fn ctrlreg_of(mfn: Mfn) -> u64 {
    mfn.0.rotate_left(12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_turn_both_ways() {
        for m in [1u64, 0x12345, 0xf_ffff_ffff] {
            assert_eq!(base_of(ctrlreg_of(Mfn(m))), Mfn(m));
        }
    }
}
