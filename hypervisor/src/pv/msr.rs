//! Model-specific registers as guests see them. What is not listed raises #GP in the guest (or, before it has a
//! handler, reads 0: kernels probe that early).

#[cfg(not(target_os = "none"))]
use crate::arch::layout::is_canonical;
use crate::domain::Cx;
use pv_abi::ids::Mfn;

const TSC: u32 = 0x10;
const APIC_BASE: u32 = 0x1b;
const UCODE_REV: u32 = 0x8b;
const PLATFORM_INFO: u32 = 0xce;
const MPERF: u32 = 0xe7;
const APERF: u32 = 0xe8;
const MISC_ENABLE: u32 = 0x1a0;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;
const SYSCFG: u32 = 0xc001_0010;
const HWCR: u32 = 0xc001_0015;
const AMD_PERF: core::ops::RangeInclusive<u32> = 0xc001_0000..=0xc001_0007;
const AMD_PSTATE: core::ops::RangeInclusive<u32> = 0xc001_0061..=0xc001_0063;
const DE_CFG: u32 = 0xc001_1029;
const LS_CFG: u32 = 0xc001_1020;
/// The hypercall-page MSR our CPUID leaf names.
const HYPERCALL_PAGE: u32 = 0x4000_0000;
const EFER_VALUE: u64 = 0xd01;

fn has_gp_handler(cx: &Cx) -> bool {
    cx.arch.traps.get(13).is_some_and(|t| t.address != 0)
}

/// RDMSR; `None` raises #GP.
pub fn read(cx: &mut Cx, msr: u32) -> Option<u64> {
    Some(match msr {
        FS_BASE => segments::fs_base(),
        GS_BASE => segments::gs_base(),
        KERNEL_GS_BASE => segments::gs_base_inactive(),
        EFER => EFER_VALUE,
        APIC_BASE => 0xfee0_0800 | u64::from(cx.vcpu.id.0 == 0) << 8,
        PAT => 0x0000_0501_0007_0406,
        TSC => crate::platform::timer::tsc_now(),
        TSC_AUX => cx.arch.tsc_aux,
        MISC_ENABLE => machine(MISC_ENABLE),
        // No machine-check banks, performance counters or power states: they read as nothing.
        0x179 | 0x17a | 0x400..=0x403 => 0,
        UCODE_REV | PLATFORM_INFO | HYPERCALL_PAGE => 0,
        DE_CFG if amd() => machine(DE_CFG),
        HWCR | LS_CFG | SYSCFG if amd() => 0,
        _ if AMD_PERF.contains(&msr) || AMD_PSTATE.contains(&msr) => 0,
        _ if !has_gp_handler(cx) => 0,
        _ => return None,
    })
}

/// WRMSR; false raises #GP.
pub fn write(cx: &mut Cx, msr: u32, v: u64) -> bool {
    match msr {
        FS_BASE => segments::set_fs_base(v),
        GS_BASE => segments::set_gs_base(v),
        KERNEL_GS_BASE => segments::set_gs_base_inactive(v),
        EFER => v == EFER_VALUE,
        TSC_AUX if v >> 32 == 0 => {
            cx.arch.tsc_aux = v;
            true
        }
        TSC_AUX => false,
        // Status registers only take zeroes.
        0x401 => v == 0,
        0x179 | 0x17a | 0x400 | 0x402 | 0x403 => true,
        MISC_ENABLE | HWCR | DE_CFG | LS_CFG | MPERF | APERF => true,
        HYPERCALL_PAGE => v & 0xfff == 0 && crate::hypercall::page::fill(cx.domain(), Mfn(v >> 12)),
        _ => AMD_PERF.contains(&msr) || AMD_PSTATE.contains(&msr),
    }
}

/// The machine's own value, 0 where it has none.
fn machine(msr: u32) -> u64 {
    #[cfg(target_os = "none")]
    return crate::arch::msr::harmless(msr).unwrap_or(0);
    #[cfg(not(target_os = "none"))]
    {
        let _ = msr;
        0
    }
}

fn amd() -> bool {
    #[cfg(target_os = "none")]
    return !crate::arch::cpu::is_intel();
    #[cfg(not(target_os = "none"))]
    true
}

#[cfg(target_os = "none")]
use crate::arch::segments;
/// Host tests have no segment bases.
#[cfg(not(target_os = "none"))]
mod segments {
    pub fn fs_base() -> u64 {
        0
    }
    pub fn gs_base() -> u64 {
        0
    }
    pub fn gs_base_inactive() -> u64 {
        0
    }
    pub fn set_fs_base(v: u64) -> bool {
        super::is_canonical(v)
    }
    pub fn set_gs_base(v: u64) -> bool {
        super::is_canonical(v)
    }
    pub fn set_gs_base_inactive(v: u64) -> bool {
        super::is_canonical(v)
    }
}
