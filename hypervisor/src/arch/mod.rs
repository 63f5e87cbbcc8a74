//! Floor 0: instructions. Entry and exit, descriptor tables, MSRs, page-table entries, per-CPU base.

#[cfg(target_os = "none")]
pub mod ap;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod boot_memory;
pub mod build_id;
#[cfg(target_os = "none")]
pub mod cpu;
pub mod cpumask;
#[cfg(target_os = "none")]
pub mod cr;
#[cfg(target_os = "none")]
pub mod debugreg;
pub mod dump;
#[cfg(target_os = "none")]
pub mod early;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod extable;
pub mod fpu;
pub mod instruments;
pub mod layout;
#[cfg(target_os = "none")]
pub mod msr;
pub mod nospec;
#[cfg(target_os = "none")]
pub mod paging;
pub mod patch;
pub mod percpu;
#[cfg(target_os = "none")]
pub mod probe;
pub mod regs;
#[cfg(all(target_os = "none", debug_assertions))]
pub mod sabotage;
#[cfg(target_os = "none")]
pub mod segments;
pub mod spec;
#[cfg(target_os = "none")]
pub mod symbols;
#[cfg(target_os = "none")]
pub mod tables;
pub mod trace;
#[cfg(target_os = "none")]
pub mod uaccess;
#[cfg(target_os = "none")]
pub mod xpti;

/// Whether an interrupt that would preempt the running vCPU is due, though interrupts are off.
#[inline(always)]
pub fn interrupt_waiting() -> bool {
    crate::platform::timer::deadline_passed()
}

/// Halts until an interrupt; interrupts are open only here.
#[cfg(target_os = "none")]
pub fn halt_idle() {
    // SAFETY: STI takes effect after HLT has begun, so no wake-up is lost; the interrupt comes and goes on this stack.
    unsafe { core::arch::asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Host tests do not wait, but for those that model several CPUs.
#[cfg(not(target_os = "none"))]
pub fn halt_idle() {
    #[cfg(test)]
    crate::model::halt();
}
