//! The state of a parked vCPU as the tools read it: the opposite of [`super::setup`].

use super::setup::ctrlreg_of;
use super::{DomainRef, VcpuArch, VcpuRef};
use core::sync::atomic::Ordering;
use pv_abi::arch::{VcpuGuestContext, vgcf};

/// CR0 as every guest sees it, but for TS: PG, AM, WP, NE, ET, MP, PE.
pub const CR0: u64 = 0x8005_0033;

/// Fills `c` with the state of the vCPU.
pub fn context(d: &DomainRef, v: &VcpuRef, arch: &VcpuArch, c: &mut VcpuGuestContext) {
    for (to, from) in c.fpu.iter_mut().zip(arch.fpu.fxsave()) {
        *to = *from;
    }
    c.flags = vgcf::I387_VALID;
    let mut flag = |on: bool, bit: u64| c.flags |= if on { bit } else { 0 };
    flag(arch.in_kernel, vgcf::IN_KERNEL);
    flag(arch.failsafe_callback.mask_events, vgcf::FAILSAFE_DISABLES_EVENTS);
    flag(arch.syscall_callback.mask_events, vgcf::SYSCALL_DISABLES_EVENTS);
    flag(!v.down.load(Ordering::Relaxed), vgcf::ONLINE);

    let (u, r) = (&mut c.user_regs, &arch.regs);
    (u.r15, u.r14, u.r13, u.r12) = (r.r15, r.r14, r.r13, r.r12);
    (u.r11, u.r10, u.r9, u.r8) = (r.r11, r.r10, r.r9, r.r8);
    (u.rax, u.rbx, u.rcx, u.rdx) = (r.rax, r.rbx, r.rcx, r.rdx);
    (u.rsi, u.rdi, u.rbp, u.rsp) = (r.rsi, r.rdi, r.rbp, r.rsp);
    (u.rip, u.cs, u.ss) = (r.rip, r.cs as u16, r.ss as u16);
    // The virtual IOPL goes where the guest put it.
    u.rflags = r.rflags | u64::from(arch.iopl & 3) << 12;
    u.saved_upcall_mask = v.info.mask_byte();
    let s = &arch.seg;
    (u.ds, u.es, u.fs, u.gs) = (s.ds, s.es, s.fs, s.gs);
    c.fs_base = s.fs_base;
    (c.gs_base_kernel, c.gs_base_user) =
        if arch.in_kernel { (s.gs_base_active, s.gs_base_inactive) } else { (s.gs_base_inactive, s.gs_base_active) };

    for (to, from) in c.trap_ctxt.iter_mut().zip(arch.traps.iter()) {
        *to = *from;
    }
    (c.ldt_base, c.ldt_ents) = (arch.tables.ldt_base, u64::from(arch.tables.ldt_entries));
    for (to, from) in c.gdt_frames.iter_mut().zip(arch.tables.gdt_frames()) {
        *to = from.map_or(0, |m| m.0);
    }
    c.gdt_ents = u64::from(arch.tables.gdt_entries);
    (c.kernel_ss, c.kernel_sp) = (arch.kernel_ss, arch.kernel_sp);
    let [cr0, cr1, _, cr3, cr4, ..] = &mut c.ctrlreg;
    *cr0 = CR0 | u64::from(arch.ts) << 3;
    *cr1 = arch.tables.user_base().map_or(0, ctrlreg_of);
    *cr3 = arch.tables.kernel_base().map_or(0, ctrlreg_of);
    *cr4 = arch.cr4;
    c.debugreg = arch.debugreg;
    c.event_callback_eip = arch.event_callback.address;
    c.failsafe_callback_eip = arch.failsafe_callback.address;
    c.syscall_callback_eip = arch.syscall_callback.address;
    c.vm_assist = d.vm_assist.load(Ordering::Relaxed);
}
