//! What runs on this CPU, and the vCPU switch.

use crate::arch::percpu::{self, CpuLocal, this_cpu};
use crate::arch::regs::GuestRegs;
use crate::domain::DomainRef;
use crate::domain::vcpu::{Vcpu, VcpuArch, VcpuRef};
use alloc::boxed::Box;
use core::sync::atomic::Ordering;

/// The vCPU a CPU runs, with its state, which the CPU owns meanwhile.
pub struct Running {
    /// Which.
    pub vcpu: VcpuRef,
    /// Its CPU state (registers, segments and FPU are in the hardware and on the stack).
    pub arch: Box<VcpuArch>,
}

/// Everything a handler may touch of the vCPU that entered the hypervisor: the exclusive right to its CPU state.
pub struct Cx<'a> {
    /// Its registers, on this CPU's stack.
    pub regs: &'a mut GuestRegs,
    /// The rest of its CPU state.
    pub arch: &'a mut VcpuArch,
    /// Its shared part.
    pub vcpu: &'a VcpuRef,
}

impl<'a> Cx<'a> {
    /// The vCPU's domain.
    pub fn domain(&self) -> &'a DomainRef {
        self.vcpu.domain()
    }

    /// The shared part, with the context's lifetime.
    pub fn shared(&self) -> &'a Vcpu {
        self.vcpu
    }

    /// Whether a long operation should stop at its next safe point: this CPU has something else to do.
    #[inline(always)]
    pub fn should_preempt(&self) -> bool {
        should_preempt()
    }
}

/// See [`Cx::should_preempt`].
#[inline(always)]
pub fn should_preempt() -> bool {
    crate::arch::instruments::point();
    use percpu::pending::{FLUSH, RESCHED, SOFTIRQ, TIMER};
    this_cpu().pending.load(Ordering::Relaxed) & (RESCHED | TIMER | FLUSH | SOFTIRQ) != 0
        || crate::arch::interrupt_waiting()
}

/// Runs `f` with the context of the vCPU on this CPU. `None` when the CPU idles.
pub fn with_current<R>(regs: &mut GuestRegs, f: impl FnOnce(&mut Cx) -> R) -> Option<R> {
    let mut slot = this_cpu().current.borrow_mut();
    let running = slot.as_mut()?;
    Some(f(&mut Cx { regs, arch: &mut running.arch, vcpu: &running.vcpu }))
}

/// The vCPU this CPU runs, if any.
pub fn current_vcpu(cpu: &CpuLocal) -> Option<VcpuRef> {
    cpu.current.borrow().as_ref().map(|r| r.vcpu.clone())
}
