//! Speculation: what this CPU suffers from, what it offers against it, and what is done (`spec-ctrl=`, `xpti=`,
//! `pv-l1tf=`).
//!
//! The choice is a pure function of what the CPU says ([`Facts`]) and what the command line wants, tested on the host;
//! the boot log shows it. What a choice costs is only there where it was made: code for it stands in sites that boot
//! fills in ([`super::patch`]).
//!
//! What cannot be had: *retpolines* need a compiler option that is unstable in Rust (`-Zretpoline`), so indirect branches
//! of the hypervisor are protected by IBRS alone, and not at all on CPUs without it; the log says so.

use boot::cmdline::{ByDomain, SpecCtrl};
use core::fmt;

/// What CPUID and IA32_ARCH_CAPABILITIES say that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Facts {
    pub intel: bool,
    pub smep: bool,
    /// IBRS by MSR SPEC_CTRL.
    pub ibrs: bool,
    /// IBRS may stay on (Intel's IBRS_ALL, AMD's "always on").
    pub ibrs_all: bool,
    /// AMD's automatic IBRS (EFER).
    pub auto_ibrs: bool,
    /// IBPB by MSR PRED_CMD.
    pub ibpb: bool,
    pub stibp: bool,
    pub ssbd: bool,
    /// VERW clears buffers.
    pub md_clear: bool,
    /// Not vulnerable to Meltdown and L1TF.
    pub rdcl_no: bool,
    /// Not vulnerable to MDS.
    pub mds_no: bool,
    /// Not vulnerable to TAA and MMIO stale data, as far as buffers matter.
    pub taa_no: bool,
    /// Not vulnerable to speculative store bypass.
    pub ssb_no: bool,
}

/// Bits of IA32_ARCH_CAPABILITIES (SDM vol. 4, MSR 0x10a).
mod cap {
    pub const RDCL_NO: u64 = 1 << 0;
    pub const IBRS_ALL: u64 = 1 << 1;
    pub const SSB_NO: u64 = 1 << 4;
    pub const MDS_NO: u64 = 1 << 5;
    pub const TAA_NO: u64 = 1 << 8;
}

impl Facts {
    /// From CPUID leaves 7.0 EDX, 0x80000008 EBX and 0x80000021 EAX (0 where a leaf is missing), and
    /// IA32_ARCH_CAPABILITIES (0 where there is none).
    pub fn new(intel: bool, smep: bool, l7d: u32, e8b: u32, e21a: u32, caps: u64) -> Facts {
        let bit = |word: u32, n: u32| word >> n & 1 != 0;
        let cap = |c: u64| intel && caps & c != 0;
        Facts {
            intel,
            smep,
            ibrs: bit(l7d, 26) || bit(e8b, 14),
            ibrs_all: cap(cap::IBRS_ALL) || bit(e8b, 16),
            auto_ibrs: bit(e21a, 8),
            ibpb: bit(l7d, 26) || bit(e8b, 12),
            stibp: bit(l7d, 27) || bit(e8b, 15),
            ssbd: bit(l7d, 31) || bit(e8b, 24),
            md_clear: intel && bit(l7d, 10),
            rdcl_no: !intel || cap(cap::RDCL_NO),
            mds_no: !intel || cap(cap::MDS_NO),
            taa_no: !intel || cap(cap::TAA_NO),
            ssb_no: cap(cap::SSB_NO) || bit(e8b, 26),
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// dom0, and other domains, run on page tables without the hypervisor.
    pub xpti_dom0: bool,
    /// See `xpti_dom0`.
    pub xpti_domu: bool,
    /// dom0, and other domains, may have no page-table entries that are not present and name RAM.
    pub l1tf_dom0: bool,
    /// See `l1tf_dom0`.
    pub l1tf_domu: bool,
    /// Value of MSR SPEC_CTRL, in ring 0 and 3 alike; 0 = left alone.
    pub spec_ctrl: u64,
    /// SPEC_CTRL is written at each entry from ring 3: this IBRS protects only what runs after the write.
    pub ibrs_on_entry: bool,
    /// EFER.AIBRSE.
    pub auto_ibrs: bool,
    /// IBPB when a CPU changes from one domain to another.
    pub ibpb: bool,
    /// The return stack buffer is filled at each entry from ring 3.
    pub rsb: bool,
    /// VERW before each return to ring 3.
    pub verw: bool,
}

/// Bits of MSR SPEC_CTRL.
const IBRS: u64 = 1 << 0;
const STIBP: u64 = 1 << 1;
const SSBD: u64 = 1 << 2;

impl Policy {
    /// The choice.
    pub fn choose(f: &Facts, xpti: &ByDomain, l1tf: &ByDomain, wanted: &SpecCtrl) -> Policy {
        let meltdown = !f.rdcl_no;
        let mut p = Policy {
            xpti_dom0: xpti.dom0.unwrap_or(meltdown),
            xpti_domu: xpti.domu.unwrap_or(meltdown),
            // RDCL_NO means both. dom0 is trusted.
            l1tf_dom0: l1tf.dom0.unwrap_or(false),
            l1tf_domu: l1tf.domu.unwrap_or(!f.rdcl_no),
            ..Policy::default()
        };
        let all = !wanted.off;
        let ibrs = wanted.ibrs.unwrap_or(all);
        p.auto_ibrs = ibrs && f.auto_ibrs;
        if ibrs && f.ibrs && !p.auto_ibrs {
            p.spec_ctrl |= IBRS;
            p.ibrs_on_entry = !f.ibrs_all;
        }
        if wanted.stibp.unwrap_or(all) && f.stibp {
            p.spec_ctrl |= STIBP;
        }
        // Store bypass is each program's own business, so only who asks for it pays.
        if wanted.ssbd.unwrap_or(false) && f.ssbd && !f.ssb_no {
            p.spec_ctrl |= SSBD;
        }
        p.ibpb = wanted.ibpb.unwrap_or(all) && f.ibpb;
        // With SMEP, all that ring 3 can leave in the return stack buffer are addresses that ring 0 may not execute.
        p.rsb = wanted.rsb.unwrap_or(all && !f.smep);
        p.verw = wanted.md_clear.unwrap_or(all && !(f.mds_no && f.taa_no)) && f.md_clear;
        p
    }

    /// Whether any domain needs page tables without the hypervisor.
    pub fn xpti(&self) -> bool {
        self.xpti_dom0 || self.xpti_domu
    }
}

/// The lines of the boot log.
pub struct Shown<'a>(pub &'a Facts, pub &'a Policy);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(f, p) = *self;
        let word = |on: bool, text: &'static str| if on { text } else { "" };
        write!(
            out,
            "speculation: the CPU offers:{}{}{}{}{}{}{}; is safe from:{}{}{}{}",
            word(f.ibrs, " IBRS"),
            word(f.ibrs_all, " IBRS_ALL"),
            word(f.auto_ibrs, " AutoIBRS"),
            word(f.ibpb, " IBPB"),
            word(f.stibp, " STIBP"),
            word(f.ssbd, " SSBD"),
            word(f.md_clear, " MD_CLEAR"),
            word(f.rdcl_no, " Meltdown L1TF"),
            word(f.mds_no, " MDS"),
            word(f.taa_no, " TAA"),
            word(f.ssb_no, " SSB"),
        )?;
        let xpti = match (p.xpti_dom0, p.xpti_domu) {
            (true, true) => "XPTI on",
            (true, false) => "XPTI on for dom0 only",
            (false, true) => "XPTI on for domUs only",
            (false, false) => "XPTI off",
        };
        let branches = match (p.auto_ibrs, p.spec_ctrl & IBRS != 0, p.ibrs_on_entry) {
            (true, ..) => "AutoIBRS",
            (_, true, false) => "IBRS",
            (_, true, true) => "IBRS on entry",
            _ if f.intel || f.ibpb => "nothing for the hypervisor's indirect branches",
            _ => "no IBRS",
        };
        write!(
            out,
            "\nspeculation: {xpti}; {branches}{}{}{}{}{}{}",
            word(p.spec_ctrl & STIBP != 0, ", STIBP"),
            word(p.spec_ctrl & SSBD != 0, ", SSBD"),
            word(p.ibpb, ", IBPB between domains"),
            word(p.rsb, ", RSB filled on entry"),
            word(p.verw, ", VERW on exit"),
            match (p.l1tf_dom0, p.l1tf_domu) {
                (true, true) => ", L1TF entries refused",
                (true, false) => ", L1TF entries refused to dom0 only",
                (false, true) => ", L1TF entries refused to domUs",
                (false, false) => "",
            },
        )
    }
}

#[cfg(target_os = "none")]
mod machine {
    use super::{Facts, Policy, Shown};
    use crate::arch::cpu::{self, cpuid};
    use crate::arch::msr;
    use crate::arch::percpu::this_cpu;
    use boot::cmdline::{ByDomain, SpecCtrl};
    use spin::Once;

    const SPEC_CTRL: u32 = 0x48;
    const PRED_CMD: u32 = 0x49;
    const ARCH_CAPABILITIES: u32 = 0x10a;

    static CHOSEN: Once<(Facts, Policy)> = Once::new();

    /// Reads the CPU and chooses. Boot CPU, once.
    pub fn init(smep: bool, xpti: &ByDomain, l1tf: &ByDomain, wanted: &SpecCtrl) {
        let basic = cpuid(0, 0).eax;
        let ext = cpuid(0x8000_0000, 0).eax;
        let l7d = if basic >= 7 { cpuid(7, 0).edx } else { 0 };
        let e8b = if ext >= 0x8000_0008 { cpuid(0x8000_0008, 0).ebx } else { 0 };
        let e21a = if ext >= 0x8000_0021 { cpuid(0x8000_0021, 0).eax } else { 0 };
        let caps = if l7d >> 29 & 1 != 0 {
            // SAFETY: the MSR exists where CPUID says so, and reading it has no side effect.
            unsafe { msr::rdmsr(ARCH_CAPABILITIES) }
        } else {
            0
        };
        let facts = Facts::new(cpu::is_intel(), smep, l7d, e8b, e21a, caps);
        CHOSEN.call_once(|| (facts, Policy::choose(&facts, xpti, l1tf, wanted)));
    }

    /// What was chosen; nothing before [`init`].
    pub fn policy() -> Policy {
        CHOSEN.get().map_or(Policy::default(), |c| c.1)
    }

    /// Says what was chosen.
    pub fn log() {
        if let Some((facts, policy)) = CHOSEN.get() {
            log::info!("{}", Shown(facts, policy));
        }
    }

    /// Sets this CPU up: SPEC_CTRL, and the word that entries write where they have to.
    pub fn init_cpu() {
        let p = policy();
        this_cpu().spec_ctrl.set(p.spec_ctrl as u32);
        if p.spec_ctrl != 0 {
            // SAFETY: the CPU offers each bit that was chosen.
            unsafe { msr::wrmsr(SPEC_CTRL, p.spec_ctrl) };
        }
    }

    /// The CPU goes on with another domain: what the last one taught its branch predictors must not steer this one.
    pub fn domain_switch() {
        if policy().ibpb {
            // SAFETY: the CPU offers IBPB.
            unsafe { msr::wrmsr(PRED_CMD, 1) };
        }
    }
}
#[cfg(target_os = "none")]
pub use machine::{domain_switch, init, init_cpu, log, policy};

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    const IBRS_IBPB: u32 = 1 << 26;
    const STIBP_BIT: u32 = 1 << 27;
    const MD: u32 = 1 << 10;

    fn default(f: &Facts) -> Policy {
        Policy::choose(f, &ByDomain::default(), &ByDomain::default(), &SpecCtrl::default())
    }

    #[test]
    fn an_old_intel_gets_xpti_ibrs_on_entry_and_verw() {
        let f = Facts::new(true, true, IBRS_IBPB | STIBP_BIT | MD, 0, 0, 0);
        let p = default(&f);
        assert!(p.xpti_dom0 && p.xpti_domu && p.ibrs_on_entry && p.ibpb && p.verw && !p.rsb);
        assert!(p.l1tf_domu && !p.l1tf_dom0, "dom0 is trusted");
        assert_eq!(p.spec_ctrl, IBRS | STIBP);
    }

    #[test]
    fn an_intel_that_offers_nothing_still_gets_xpti() {
        let f = Facts::new(true, false, 0, 0, 0, 0);
        let p = default(&f);
        assert_eq!(p, Policy { xpti_dom0: true, xpti_domu: true, l1tf_domu: true, rsb: true, ..Policy::default() });
        assert!(format!("{}", Shown(&f, &p)).contains("XPTI on; nothing for the hypervisor's indirect branches"));
    }

    #[test]
    fn a_fixed_intel_pays_for_little() {
        let caps = cap::RDCL_NO | cap::IBRS_ALL | cap::MDS_NO | cap::TAA_NO | cap::SSB_NO;
        let f = Facts::new(true, true, IBRS_IBPB | MD | 1 << 31, 0, 0, caps);
        let p = default(&f);
        assert!(!p.xpti() && !p.ibrs_on_entry && !p.verw && !p.rsb && p.ibpb);
        assert_eq!(p.spec_ctrl, IBRS);
        // SSBD only where it is of use and asked for.
        let wanted = SpecCtrl { ssbd: Some(true), ..SpecCtrl::default() };
        let as_needed = ByDomain::default();
        assert_eq!(Policy::choose(&f, &as_needed, &as_needed, &wanted).spec_ctrl, IBRS);
        let f = Facts { ssb_no: false, ..f };
        assert_eq!(Policy::choose(&f, &as_needed, &as_needed, &wanted).spec_ctrl, IBRS | SSBD);
    }

    #[test]
    fn amd_needs_neither_xpti_nor_verw() {
        // The capabilities MSR is Intel's; the same bits elsewhere mean nothing.
        let f = Facts::new(false, true, 0, 1 << 12 | 1 << 14 | 1 << 15, 1 << 8, 0);
        let p = default(&f);
        assert!(p.auto_ibrs && p.ibpb && !p.xpti() && !p.verw && !p.ibrs_on_entry);
        assert_eq!(p.spec_ctrl, STIBP);
        let none = default(&Facts::new(false, true, 0, 0, 0, 0));
        assert_eq!(none, Policy::default());
    }

    #[test]
    fn the_command_line_decides() {
        let f = Facts::new(true, true, IBRS_IBPB | STIBP_BIT | MD, 0, 0, 0);
        let off = SpecCtrl { off: true, ..SpecCtrl::default() };
        let none = ByDomain { dom0: Some(false), domu: Some(false) };
        let p = Policy::choose(&f, &ByDomain { dom0: Some(false), domu: None }, &none, &off);
        assert_eq!(p, Policy { xpti_domu: true, ..Policy::default() });
        let all = ByDomain { dom0: Some(true), domu: Some(true) };
        assert_eq!(
            Policy::choose(&f, &none, &all, &off),
            Policy { l1tf_dom0: true, l1tf_domu: true, ..Policy::default() }
        );
        let some = SpecCtrl { off: true, ibpb: Some(true), rsb: Some(true), ..SpecCtrl::default() };
        let p = Policy::choose(&f, &none, &none, &some);
        assert_eq!(p, Policy { ibpb: true, rsb: true, ..Policy::default() });
        // What the CPU does not have cannot be wanted.
        let amd = Facts::new(false, true, 0, 0, 0, 0);
        let want = SpecCtrl { ibpb: Some(true), md_clear: Some(true), ibrs: Some(true), ..SpecCtrl::default() };
        assert_eq!(Policy::choose(&amd, &ByDomain::default(), &ByDomain::default(), &want), Policy::default());
        assert!(Policy::choose(&amd, &ByDomain { dom0: Some(true), domu: None }, &none, &want).xpti());
    }
}
