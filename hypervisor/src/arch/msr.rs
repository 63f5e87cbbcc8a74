//! Model-specific registers.

use core::arch::asm;

/// MSR numbers (SDM vol. 4, AMD APM vol. 2).
#[allow(missing_docs)]
pub mod nr {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const UCODE_REV: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    /// Bank 0; four registers a bank.
    pub const MC0_CTL: u32 = 0x400;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// Reads an MSR.
///
/// # Safety
/// The MSR exists on this CPU (else #GP, which here is a hypervisor bug).
#[inline(always)]
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (lo, hi): (u32, u32);
    // SAFETY: the caller's.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") lo, out("edx") hi, options(nomem, nostack, preserves_flags)) };
    u64::from(hi) << 32 | u64::from(lo)
}

/// Writes an MSR.
///
/// # Safety
/// The MSR exists, the value is legal (base addresses canonical), and the hypervisor stays sound with it.
#[inline(always)]
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
}

/// Reads an MSR that may not exist.
///
/// # Safety
/// Reading it has no side effect the hypervisor cannot bear.
pub unsafe fn rdmsr_safe(msr: u32) -> Option<u64> {
    let (lo, hi, bad): (u32, u32, u64);
    // SAFETY: a #GP resumes at label 3 by the exception table, with rsi still 1.
    unsafe {
        asm!(
            "mov esi, 1",
            "2: rdmsr",
            "xor esi, esi",
            "3:",
            ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
            in("ecx") msr, out("eax") lo, out("edx") hi, out("rsi") bad, options(nostack)
        );
    }
    (bad == 0).then_some(u64::from(hi) << 32 | u64::from(lo))
}

/// The state of the machine-check architecture (SDM vol. 3 §16.3): its global status, and how many banks there are.
pub fn machine_check() -> (Option<u64>, u32) {
    // SAFETY: reading these has no side effect.
    let (cap, status) = unsafe { (rdmsr_safe(nr::MCG_CAP), rdmsr_safe(nr::MCG_STATUS)) };
    (status, cap.map_or(0, |c| (c & 0xff) as u32).min(64))
}

/// What bank `bank` (below the number of banks) has to say, if anything: status, address and miscellaneous word, the
/// latter two 0 where the status says that there are none.
pub fn machine_check_bank(bank: u32) -> Option<(u64, u64, u64)> {
    const VALID: u64 = 1 << 63;
    const HAS_MISC: u64 = 1 << 59;
    const HAS_ADDRESS: u64 = 1 << 58;
    // SAFETY: reading a bank changes nothing.
    let read = |n: u32| unsafe { rdmsr_safe(nr::MC0_CTL + bank * 4 + n) };
    let status = read(1).filter(|s| s & VALID != 0)?;
    let word = |has: u64, n: u32| {
        if status & has != 0 { read(n).unwrap_or(0) } else { 0 }
    };
    Some((status, word(HAS_ADDRESS, 2), word(HAS_MISC, 3)))
}

/// Reads one of the MSRs that show how the CPU is set up and have no other effect; `None` for others and where the CPU
/// does not have it.
pub fn harmless(msr: u32) -> Option<u64> {
    const DE_CFG: u32 = 0xc001_1029;
    if !matches!(msr, nr::MISC_ENABLE | DE_CFG) {
        return None;
    }
    // SAFETY: configuration registers; reading them has no side effect.
    unsafe { rdmsr_safe(msr) }
}
