//! Other CPUs: waking them.

use crate::arch::percpu::CpuId;

/// Makes `cpu` look at its pending word: it leaves the guest or its halt.
pub fn kick(cpu: CpuId) {
    #[cfg(target_os = "none")]
    super::lapic::send_ipi(cpu, super::lapic::VECTOR_KICK);
    let _ = cpu;
}
