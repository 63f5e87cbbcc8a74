//! Hypercalls that set up the paravirtual CPU.

use super::{Args, Outcome};
use crate::arch::layout::is_canonical;
use crate::domain::vcpu::Callback;
use crate::domain::{Cx, VcpuArch, debugreg};
use crate::mm::descriptor::sanitise;
use crate::mm::guest;
use crate::mm::tables::GDT_PAGES;
use crate::pv::{emulate, iret as pv_iret};
use core::sync::atomic::Ordering;
use pv_abi::arch::TrapInfo;
use pv_abi::callback as cb;
use pv_abi::errno::Errno;
use pv_abi::ids::{GuestHandle, Mfn};

/// set_trap_table(table): entries until one with address 0; a null pointer clears all.
pub fn set_trap_table(cx: &mut Cx, a: Args) -> Outcome {
    if a.a1() == 0 {
        cx.arch.traps.clear();
        return Outcome::Return(0);
    }
    let table = GuestHandle::<TrapInfo>::new(a.a1());
    for i in 0..=256 {
        let Ok(mut t) = guest::copy_element_from_guest(table, i) else {
            return Errno::EFAULT.into();
        };
        if t.address == 0 {
            break;
        }
        if !is_canonical(t.address) {
            return Errno::EINVAL.into();
        }
        t.cs |= 3;
        if cx.arch.traps.set(t.vector, t).is_err() {
            return Errno::ENOMEM.into();
        }
    }
    Outcome::Return(0)
}

/// stack_switch(ss, sp).
#[inline]
pub fn stack_switch(cx: &mut Cx, a: Args) -> Outcome {
    cx.arch.kernel_ss = a.a1() & 0xffff | 3;
    cx.arch.kernel_sp = a.a2();
    Outcome::Return(0)
}

/// set_callbacks(event, failsafe, syscall): the old form of callback_op. It has no errors: an address that cannot be
/// is not taken.
pub fn set_callbacks(cx: &mut Cx, a: Args) -> Outcome {
    let arch = &mut *cx.arch;
    for (slot, address) in [
        (&mut arch.event_callback, a.a1()),
        (&mut arch.failsafe_callback, a.a2()),
        (&mut arch.syscall_callback, a.a3()),
    ] {
        if is_canonical(address) {
            slot.address = address;
        }
    }
    cx.arch.event_callback.mask_events = true;
    Outcome::Return(0)
}

fn callback(arch: &mut VcpuArch, kind: u16) -> Option<&mut Callback> {
    Some(match kind {
        cb::TYPE_EVENT => &mut arch.event_callback,
        cb::TYPE_FAILSAFE => &mut arch.failsafe_callback,
        cb::TYPE_SYSCALL => &mut arch.syscall_callback,
        cb::TYPE_SYSCALL32 => &mut arch.syscall32_callback,
        cb::TYPE_SYSENTER => &mut arch.sysenter_callback,
        _ => return None,
    })
}

/// callback_op(cmd, arg).
pub fn callback_op(cx: &mut Cx, a: Args) -> Outcome {
    match a.int(0) {
        cb::OP_REGISTER => {
            let Ok(r) = guest::copy_from_guest(GuestHandle::<cb::CallbackRegister>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            if !is_canonical(r.address) {
                return Errno::EINVAL.into();
            }
            if r.kind == cb::TYPE_NMI {
                return set_nmi_handler(cx, r.address);
            }
            let Some(slot) = callback(cx.arch, r.kind) else {
                return Errno::ENOSYS.into();
            };
            *slot = Callback { address: r.address, mask_events: r.flags & cb::F_MASK_EVENTS != 0 };
            Outcome::Return(0)
        }
        cb::OP_UNREGISTER => {
            let Ok(r) = guest::copy_from_guest(GuestHandle::<cb::CallbackUnregister>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            match r.kind {
                cb::TYPE_EVENT | cb::TYPE_FAILSAFE | cb::TYPE_SYSCALL | cb::TYPE_SYSCALL32 => Errno::EINVAL.into(),
                // What has been registered once stays, as with the others; AMD-type CPUs never enter there.
                cb::TYPE_SYSENTER => Errno::EINVAL.into(),
                cb::TYPE_NMI => set_nmi_handler(cx, 0),
                _ => Errno::ENOSYS.into(),
            }
        }
        _ => Errno::ENOSYS.into(),
    }
}

/// The handler of NMIs is the trap table's, by another door; 0 takes it away.
fn set_nmi_handler(cx: &mut Cx, address: u64) -> Outcome {
    let t = if address == 0 {
        TrapInfo::default()
    } else {
        TrapInfo { vector: 2, flags: 4, address, ..TrapInfo::default() }
    };
    cx.arch.traps.set(2, t).map_err(Errno::from).into()
}

/// nmi_op(cmd, arg): the oldest way to say where NMIs go.
pub fn nmi_op(cx: &mut Cx, a: Args) -> Outcome {
    match a.int(0) {
        cb::NMI_OP_REGISTER => {
            let Ok(nmi) = guest::copy_from_guest(GuestHandle::<cb::NmiCallback>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            if !is_canonical(nmi.address) {
                return Errno::EINVAL.into();
            }
            set_nmi_handler(cx, nmi.address)
        }
        cb::NMI_OP_UNREGISTER => set_nmi_handler(cx, 0),
        _ => Errno::ENOSYS.into(),
    }
}

/// fpu_taskswitch(set): the virtual CR0.TS.
pub fn fpu_taskswitch(cx: &mut Cx, a: Args) -> Outcome {
    emulate::set_ts(cx, a.int(0) != 0);
    Outcome::Return(0)
}

/// iret(): see `pv::iret`.
pub fn iret(cx: &mut Cx, _: Args) -> Outcome {
    pv_iret::iret(cx)
}

/// set_segment_base(which, base).
pub fn set_segment_base(cx: &mut Cx, a: Args) -> Outcome {
    #[cfg(target_os = "none")]
    {
        use crate::arch::segments as s;
        let ok = match a.int(0) {
            0 => s::set_fs_base(a.a2()),
            // The guest's user GS base is the inactive one while its kernel runs, and the other way round.
            1 => s::set_gs_base_inactive(a.a2()),
            2 => s::set_gs_base(a.a2()),
            3 => {
                // Loads a selector into the user GS.
                s::swap_gs();
                let sel = (a.a2() & 0xffff) as u16;
                if !s::load_gs(if sel >= 4 { sel | 3 } else { sel }) {
                    s::load_gs(0);
                }
                s::swap_gs();
                true
            }
            _ => false,
        };
        let _ = &cx;
        if ok { Outcome::Return(0) } else { Errno::EINVAL.into() }
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = (cx, a);
        Outcome::Return(0)
    }
}

/// Reads a debug register as the guest set it.
///
/// # Errors
/// `ENODEV` for one that does not exist.
pub fn read_debugreg(cx: &Cx, n: u64) -> Result<u64, Errno> {
    let n = match n {
        4 => 6,
        5 => 7,
        n => n,
    };
    usize::try_from(n).ok().and_then(|n| cx.arch.debugreg.get(n)).copied().ok_or(Errno::ENODEV)
}

/// Sets a debug register.
///
/// # Errors
/// As [`debugreg::write`].
pub fn write_debugreg(cx: &mut Cx, n: u64, v: u64) -> Result<(), Errno> {
    debugreg::write(&mut cx.arch.debugreg, n, v)?;
    #[cfg(target_os = "none")]
    crate::arch::debugreg::set(&cx.arch.debugreg);
    Ok(())
}

/// set_debugreg(reg, value).
pub fn set_debugreg(cx: &mut Cx, a: Args) -> Outcome {
    write_debugreg(cx, a.a1() & 0xffff_ffff, a.a2()).into()
}

/// get_debugreg(reg).
pub fn get_debugreg(cx: &mut Cx, a: Args) -> Outcome {
    match read_debugreg(cx, a.a1() & 0xffff_ffff) {
        Ok(v) => Outcome::Return(v as i64),
        Err(e) => e.into(),
    }
}

/// set_gdt(frame list, entries).
pub fn set_gdt(cx: &mut Cx, a: Args) -> Outcome {
    let entries = (a.a2() & 0xffff_ffff) as u32;
    if entries > u32::from(pv_abi::arch::sel::FIRST_RESERVED_GDT_ENTRY) {
        return Errno::EINVAL.into();
    }
    let n = (entries as usize).div_ceil(512).min(GDT_PAGES);
    let mut frames = [Mfn(0); GDT_PAGES];
    let list = GuestHandle::<u64>::new(a.a1());
    for (i, f) in frames.iter_mut().take(n).enumerate() {
        match guest::copy_element_from_guest(list, i as u64) {
            Ok(v) => *f = Mfn(v),
            Err(e) => return e.into(),
        }
    }
    let mem = &cx.domain().mem;
    let r = cx.arch.tables.set_gdt(mem, cx.vcpu.id, frames.get(..n).unwrap_or(&[]), entries);
    reload_descriptors(cx);
    r.into()
}

/// Makes the CPU see changed descriptor tables.
pub fn reload_descriptors(cx: &Cx) {
    #[cfg(target_os = "none")]
    crate::mm::window::use_descriptors(cx.vcpu.id, cx.arch.tables.ldt_entries);
    let _ = cx;
}

/// update_descriptor(machine address, descriptor).
pub fn update_descriptor(cx: &mut Cx, a: Args) -> Outcome {
    let (address, desc) = (a.a1(), a.a2());
    if address % 8 != 0 {
        return Errno::EINVAL.into();
    }
    let desc = match sanitise(desc) {
        Ok(d) => d,
        Err(e) => return e.into(),
    };
    crate::mm::update::write_descriptor(&cx.domain().mem, Mfn(address >> 12), (address as usize & 0xfff) / 8, desc)
        .into()
}

/// vm_assist(cmd, type).
pub fn vm_assist(cx: &mut Cx, a: Args) -> Outcome {
    use pv_abi::mmu as m;
    let kind = a.int(1);
    if !matches!(
        kind,
        m::VMASST_4GB_SEGMENTS
            | m::VMASST_4GB_SEGMENTS_NOTIFY
            | m::VMASST_WRITABLE_PAGETABLES
            | m::VMASST_PAE_EXTENDED_CR3
            | m::VMASST_ARCHITECTURAL_IOPL
            | m::VMASST_RUNSTATE_UPDATE_FLAG
            | m::VMASST_M2P_STRICT
    ) {
        return Errno::EINVAL.into();
    }
    match a.int(0) {
        m::VMASST_CMD_ENABLE => cx.domain().vm_assist.fetch_or(1 << kind, Ordering::AcqRel),
        m::VMASST_CMD_DISABLE => cx.domain().vm_assist.fetch_and(!(1 << kind), Ordering::AcqRel),
        _ => return Errno::ENOSYS.into(),
    };
    Outcome::Return(0)
}
