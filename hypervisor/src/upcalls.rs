//! Floor 6: where the entry assembly meets the rest. Thin shells: each finds the running vCPU's context and calls down.
#![cfg(target_os = "none")]

use crate::arch::percpu::{pending, this_cpu};
use crate::arch::regs::GuestRegs;
use crate::arch::trace::{self, Event};
use crate::domain::Cx;
use crate::domain::current::with_current;
use crate::hypercall::{self, Reason};
use crate::pv::bounce::{self, Target};
use crate::pv::{iret, trap};
use crate::sched::switch;
use crate::softirq;
use crate::time::runstate;
use core::sync::atomic::Ordering;

/// Runs `f` on the context of the vCPU whose frame `regs` is; a domain that cannot go on is stopped.
fn on_guest(regs: *mut GuestRegs, f: impl FnOnce(&mut Cx) -> Result<(), Reason>) {
    crate::arch::cpu::debug_check_entry();
    // SAFETY: the entry code passes this CPU's one guest frame, and no other reference to it exists.
    let regs = unsafe { &mut *regs };
    with_current(regs, |cx| {
        if let Err(Reason::Because(why)) = f(cx) {
            hypercall::crash(cx, why);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_hypercall(regs: *mut GuestRegs) {
    on_guest(regs, |cx| {
        hypercall::dispatch(cx);
        Ok(())
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_guest_syscall(regs: *mut GuestRegs) {
    on_guest(regs, |cx| {
        let c = cx.arch.syscall_callback;
        if c.address == 0 {
            cx.regs.rip = cx.regs.rip.wrapping_sub(2);
            return trap::inject(cx, trap::vector::UD, 0);
        }
        bounce::deliver(cx, Target { address: c.address, mask_events: c.mask_events, error_code: None })
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_guest_syscall32(regs: *mut GuestRegs) {
    on_guest(regs, |cx| {
        let c = cx.arch.syscall32_callback;
        if c.address == 0 || cx.arch.in_kernel {
            cx.regs.rip = cx.regs.rip.wrapping_sub(2);
            return trap::inject(cx, trap::vector::UD, 0);
        }
        // In a 64-bit guest the mask flag of the 64-bit entry counts for this one too.
        let mask_events = cx.arch.syscall_callback.mask_events;
        bounce::deliver(cx, Target { address: c.address, mask_events, error_code: None })
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_guest_sysenter(regs: *mut GuestRegs) {
    on_guest(regs, |cx| {
        let c = cx.arch.sysenter_callback;
        if c.address == 0 || cx.arch.in_kernel {
            return trap::inject(cx, trap::vector::GP, 0);
        }
        bounce::deliver(cx, Target { address: c.address, mask_events: c.mask_events, error_code: None })
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_exception(regs: *mut GuestRegs, vector: u64, cr2: u64) {
    on_guest(regs, |cx| {
        trace::note(Event::Exception(vector as u8), cx.regs.rip);
        trap::exception(cx, vector as u8, cr2)
    });
}

#[unsafe(no_mangle)]
extern "C" fn hospes_iret_fault(regs: *mut GuestRegs, vector: u64, error_code: u64) {
    on_guest(regs, |cx| iret::fault(cx, vector as u8, error_code as u32));
}

#[unsafe(no_mangle)]
extern "C" fn hospes_interrupt(vector: u64, _from_guest: u64) {
    trace::note(Event::Interrupt(vector as u8), 0);
    crate::platform::irq::handle(vector as u8);
}

/// NMI, #MC, #DF, and #DB of the hypervisor itself, on their own stacks.
#[unsafe(no_mangle)]
extern "C" fn hospes_ist(regs: *mut GuestRegs, vector: u64) {
    // SAFETY: the frame the entry code has just built.
    let regs = unsafe { &*regs };
    match vector {
        // A spurious breakpoint of the hypervisor (a guest set one up and entered): nothing to do.
        1 => {}
        2 => crate::panic::nmi(regs),
        18 => crate::panic::machine_check(regs),
        _ => crate::panic::fault(regs, crate::arch::cr::read_cr2()),
    }
}

/// A fault of the hypervisor that nothing foresaw.
#[unsafe(no_mangle)]
extern "C" fn hospes_fault(regs: *mut GuestRegs, cr2: u64) -> ! {
    // SAFETY: the frame the entry code has just built.
    crate::panic::fault(unsafe { &*regs }, cr2)
}

#[unsafe(no_mangle)]
extern "C" fn hospes_exit_work(regs: *mut GuestRegs) {
    softirq::run();
    let cpu = this_cpu();
    let bits = cpu.pending.fetch_and(!(pending::RESCHED | pending::VCPU), Ordering::AcqRel);
    if bits & pending::RESCHED != 0 {
        // SAFETY: this CPU's one guest frame.
        switch::schedule(unsafe { &mut *regs });
    }
    if cpu.pending.load(Ordering::Relaxed) & pending::ROOT != 0 {
        cpu.pending.fetch_and(!pending::ROOT, Ordering::AcqRel);
        crate::arch::xpti::refresh();
    }
    on_guest(regs, |cx| {
        // Whatever entered the guest anew has this bit set by the switch.
        if cpu.pending.fetch_and(!pending::VCPU, Ordering::AcqRel) & pending::VCPU != 0 || bits & pending::VCPU != 0 {
            resumed(cx)?;
        }
        events(cx)
    });
}

/// What a vCPU needs done in its own memory after a switch.
fn resumed(cx: &mut Cx) -> Result<(), Reason> {
    this_cpu().upcall.set(cx.vcpu.info.upcall_ptr());
    if core::mem::take(&mut cx.arch.failed_segments) && cx.arch.failsafe_callback.address != 0 {
        bounce::failsafe(cx)?;
    }
    if cx.arch.in_kernel {
        runstate::write_copies(cx.vcpu);
    }
    if cx.vcpu.nmi_pending.load(Ordering::Acquire) != 0 && !cx.arch.nmi_blocked {
        cx.vcpu.nmi_pending.store(0, Ordering::Release);
        cx.arch.nmi_blocked = true;
        trap::inject(cx, trap::vector::NMI, 0)?;
    }
    Ok(())
}

/// Delivers an event upcall if one is pending and not masked.
fn events(cx: &mut Cx) -> Result<(), Reason> {
    let info = &cx.shared().info;
    if cx.domain().shutdown_reason().is_some() || !info.pending() || info.masked() {
        return Ok(());
    }
    let c = cx.arch.event_callback;
    if c.address == 0 {
        return Err(Reason::Because("an event is pending, but there is no event callback"));
    }
    bounce::deliver(cx, Target { address: c.address, mask_events: true, error_code: None })
}
