//! The vCPU switch: only in the exit path, when no other Rust frame is left on the stack.

use super::{enqueue, keeps, may_run, next, retire, set_idle, state};
use crate::arch::percpu::{NO_UPCALL, pending, this_cpu};
use crate::arch::regs::GuestRegs;
use crate::arch::trace::Event;
use crate::domain::VcpuRef;
use crate::domain::current::Running;
use crate::domain::vcpu::{RunState, VcpuArch};
use crate::time::{self, runstate};
use core::sync::atomic::Ordering;

/// Gives the CPU to whoever should have it; returns with that vCPU's registers in `regs`. Idles here when nobody wants
/// it.
pub fn schedule(regs: &mut GuestRegs) {
    let cpu = this_cpu();
    let now = time::now();
    let previous = cpu.current.borrow_mut().take();
    if let Some(mut run) = previous {
        if keeps(&run.vcpu, now) {
            *cpu.current.borrow_mut() = Some(run);
            time::timers::program(true);
            return;
        }
        leave(&mut run, regs);
        park(run, now);
    }
    crate::domain::lifecycle::stop_machine_if_asked();
    loop {
        if let Some(v) = next(time::now()) {
            return enter(v, regs);
        }
        // Known to be idle from here on; what came before that is found now, what comes later wakes this CPU.
        set_idle(true);
        let found = next(time::now());
        if found.is_none() {
            idle();
        }
        set_idle(false);
        if let Some(v) = found {
            return enter(v, regs);
        }
    }
}

/// Takes the vCPU's state off the CPU.
fn leave(run: &mut Running, regs: &GuestRegs) {
    run.arch.regs = *regs;
    save(&mut run.arch);
}

fn park(run: Running, now: u64) {
    let cpu = this_cpu();
    cpu.upcall.set(NO_UPCALL.as_ptr());
    let Running { vcpu, arch } = run;
    load_idle_tables();
    vcpu.domain().mem.dirty_cpus.remove(cpu.id);
    time::timers::park(&vcpu);
    let runnable = may_run(&vcpu);
    // A vCPU that waits for its domain's budget wants a CPU, as far as the guest can tell.
    let to = if runnable {
        RunState::Runnable
    } else if vcpu.blocked.load(Ordering::Acquire) {
        RunState::Blocked
    } else {
        RunState::Offline
    };
    runstate::changed_at(&vcpu, to, now);
    *vcpu.parked.lock() = Some(arch);
    if runnable && vcpu.sched.capped_until.load(Ordering::SeqCst) == 0 {
        vcpu.sched.state.store(state::QUEUED, Ordering::SeqCst);
        enqueue(&vcpu);
    } else {
        retire(&vcpu);
    }
}

fn enter(next: VcpuRef, regs: &mut GuestRegs) {
    let cpu = this_cpu();
    // Whoever made the vCPU runnable left its state parked; a picked vCPU is nobody else's.
    let taken = next.parked.lock().take();
    let Some(mut arch) = taken else {
        log::error!("{}v{} was picked without state", next.domain().id, next.id);
        retire(&next);
        return schedule(regs);
    };
    let now = time::now();
    time::timers::unpark(&next);
    next.domain().mem.dirty_cpus.insert(cpu.id);
    *regs = arch.regs;
    load(&next, &mut arch);
    regs.entry_vector = 0;
    cpu.upcall.set(next.info.upcall_ptr());
    cpu.guest_kernel.set(u32::from(arch.in_kernel));
    cpu.trace.note(Event::Runs(next.domain().id.0, next.id.0 as u16), regs.rip);
    runstate::changed_at(&next, RunState::Running, now);
    time::publish_to(&next);
    *cpu.current.borrow_mut() = Some(Running { vcpu: next, arch });
    time::timers::program(true);
    // What needs the guest's memory, mapped only now (its runstate copy, a failed segment), is done in the exit path.
    cpu.raise(pending::VCPU);
}

/// Halts until something happens. Interrupts are only open here.
fn idle() {
    time::timers::program(false);
    let cpu = this_cpu();
    // What concerns a vCPU waits for one: only the exit path takes it, and a CPU that did not halt for it would never open
    // its interrupts.
    if cpu.pending.load(Ordering::Acquire) & !pending::OF_VCPU == 0 {
        crate::arch::halt_idle();
    }
    crate::softirq::run();
    cpu.pending.fetch_and(!pending::RESCHED, Ordering::AcqRel);
}

#[cfg(target_os = "none")]
fn load_idle_tables() {
    crate::arch::tables::use_idle_gdt(this_cpu().id);
    crate::arch::paging::load_root();
}

#[cfg(target_os = "none")]
fn save(arch: &mut VcpuArch) {
    use crate::arch::segments as s;
    arch.seg.ds = s::ds();
    arch.seg.es = s::es();
    arch.seg.fs = s::fs();
    arch.seg.gs = s::gs();
    arch.seg.fs_base = s::fs_base();
    arch.seg.gs_base_active = s::gs_base();
    arch.seg.gs_base_inactive = s::gs_base_inactive();
    crate::arch::cr::set_ts(false);
    arch.fpu.save();
    crate::arch::debugreg::leave(arch.debugreg[7]);
}

#[cfg(target_os = "none")]
fn load(v: &VcpuRef, arch: &mut VcpuArch) {
    use crate::arch::segments as s;
    use crate::arch::{cr, tables};
    let cpu = this_cpu().id;
    let mem = &v.domain().mem;
    if arch.last_cpu != cpu.0 {
        mem.window.set_reserved_page(v.id.0, tables::reserved_page_frame(cpu));
        arch.last_cpu = cpu.0;
    }
    let policy = crate::arch::spec::policy();
    let local = this_cpu();
    local.xpti.set(if v.domain().privileged { policy.xpti_dom0 } else { policy.xpti_domu });
    if local.last_domain.replace(v.domain().id.0) != v.domain().id.0 {
        crate::arch::spec::domain_switch();
    }
    arch.tables.load(arch.in_kernel, true);
    crate::mm::window::use_descriptors(v.id, arch.tables.ldt_entries);
    crate::arch::cpu::set_guest_cr4(arch.cr4);
    arch.fpu.restore(arch.xcr0);
    cr::set_ts(arch.ts);
    crate::arch::debugreg::enter(&arch.debugreg);
    // Null selectors first: loading one clears the base on some CPUs, so bases come last.
    // A load that fails leaves what was there: another vCPU's selector, or a descriptor that is gone.
    let or_null = |load: fn(u16) -> bool, selector| {
        load(selector) || {
            load(0);
            false
        }
    };
    let ok = or_null(s::load_ds, arch.seg.ds)
        & or_null(s::load_es, arch.seg.es)
        & or_null(s::load_fs, arch.seg.fs)
        & or_null(s::load_gs, arch.seg.gs);
    s::set_fs_base(arch.seg.fs_base);
    s::set_gs_base(arch.seg.gs_base_active);
    s::set_gs_base_inactive(arch.seg.gs_base_inactive);
    arch.failed_segments = !ok;
}

#[cfg(not(target_os = "none"))]
fn load_idle_tables() {}
#[cfg(not(target_os = "none"))]
fn save(_: &mut VcpuArch) {}
#[cfg(not(target_os = "none"))]
fn load(_: &VcpuRef, _: &mut VcpuArch) {}
