//! CPUID as guests see it: the machine's answer without what a PV guest cannot use, plus our own leaves.

use crate::domain::Cx;
use crate::platform::timer;

/// First of our leaves.
const BASE: u32 = 0x4000_0000;

/// EAX, EBX, ECX, EDX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Regs {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Executes CPUID for the guest.
pub fn emulate(cx: &mut Cx) {
    let (leaf, sub) = (cx.regs.rax as u32, cx.regs.rcx as u32);
    let r = answer(cx, leaf, sub);
    cx.regs.rax = u64::from(r.eax);
    cx.regs.rbx = u64::from(r.ebx);
    cx.regs.rcx = u64::from(r.ecx);
    cx.regs.rdx = u64::from(r.edx);
}

pub(super) fn native(leaf: u32, sub: u32) -> Regs {
    let r = core::arch::x86_64::__cpuid_count(leaf, sub);
    Regs { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}

fn answer(cx: &Cx, leaf: u32, sub: u32) -> Regs {
    if (BASE..BASE + 0x100).contains(&leaf) {
        return ours(leaf - BASE, sub);
    }
    let max = native(leaf & 0x8000_0000, 0).eax;
    let max = if leaf & 0x8000_0000 == 0 { max.min(0xd) } else { max.min(0x8000_0021) };
    if leaf > max && leaf & 0x7fff_ffff != 0 {
        return Regs::default();
    }
    let mut r = policy(leaf, sub, native(leaf, sub));
    if leaf == 1 {
        // The APIC id is the vCPU's; OSXSAVE shows even before the guest sets CR4.OSXSAVE, where XSAVE does.
        r.ebx = r.ebx & 0x00ff_ffff | (cx.vcpu.id.0 * 2) << 24;
        if cx.domain().privileged {
            r.edx |= native(1, 0).edx & feature1d::MTRR;
        }
    }
    if leaf == 0x8000_0000 || leaf == 0 {
        r.eax = max;
    }
    // What the toolstack said hides more, never less.
    if !cx.domain().privileged && matches!(leaf, 1 | 7 | 0xd | 0x8000_0001 | 0x8000_0008) {
        let policy = cx.domain().cpuid.lock();
        let same = |l: &&crate::domain::CpuidLeaf| l.leaf == leaf && (l.subleaf == sub || l.subleaf == u32::MAX);
        if matches!(leaf, 1 | 0x8000_0001 | 7)
            && let Some(l) = policy.iter().find(same)
        {
            r.ecx &= l.regs[2] | feature1c::OSXSAVE | feature1c::HYPERVISOR;
            r.edx &= l.regs[3];
            if leaf == 7 {
                r.ebx &= l.regs[1];
            }
        }
    }
    r
}

#[allow(missing_docs)]
mod feature1c {
    pub const DTES64: u32 = 1 << 2;
    pub const MONITOR: u32 = 1 << 3;
    pub const DSCPL: u32 = 1 << 4;
    pub const VMX: u32 = 1 << 5;
    pub const SMX: u32 = 1 << 6;
    pub const EIST: u32 = 1 << 7;
    pub const TM2: u32 = 1 << 8;
    pub const XTPR: u32 = 1 << 14;
    pub const PDCM: u32 = 1 << 15;
    pub const PCID: u32 = 1 << 17;
    pub const DCA: u32 = 1 << 18;
    pub const X2APIC: u32 = 1 << 21;
    pub const TSC_DEADLINE: u32 = 1 << 24;
    pub const XSAVE: u32 = 1 << 26;
    pub const OSXSAVE: u32 = 1 << 27;
    pub const HYPERVISOR: u32 = 1 << 31;
}
#[allow(missing_docs)]
mod feature1d {
    pub const VME: u32 = 1 << 1;
    pub const PSE: u32 = 1 << 3;
    pub const MTRR: u32 = 1 << 12;
    pub const SEP: u32 = 1 << 11;
    pub const PGE: u32 = 1 << 13;
    pub const PSE36: u32 = 1 << 17;
    pub const DS: u32 = 1 << 21;
    pub const TM1: u32 = 1 << 29;
    pub const PBE: u32 = 1 << 31;
}

/// The machine's leaf without what a PV guest must not see.
pub(super) fn policy(leaf: u32, sub: u32, mut r: Regs) -> Regs {
    use {feature1c as c, feature1d as d};
    match leaf {
        1 => {
            r.ecx &= !(c::DTES64
                | c::MONITOR
                | c::DSCPL
                | c::VMX
                | c::SMX
                | c::EIST
                | c::TM2
                | c::XTPR
                | c::PDCM
                | c::PCID
                | c::DCA
                | c::X2APIC
                | c::TSC_DEADLINE
                | c::OSXSAVE);
            r.ecx |= c::HYPERVISOR;
            if r.ecx & c::XSAVE != 0 {
                r.ecx |= c::OSXSAVE;
            }
            // Machine checks are the hypervisor's: the feature shows, as kernels expect, and there are no banks.
            r.edx &= !(d::VME | d::PSE | d::MTRR | d::PGE | d::PSE36 | d::DS | d::TM1 | d::PBE);
            if r_is_amd() {
                r.edx &= !d::SEP;
            }
        }
        2 | 5 | 6 | 9 | 0xa | 0xc => r = Regs::default(),
        7 if sub == 0 => {
            r.eax = r.eax.min(1);
            // FSGSBASE, BMI1, AVX2, BMI2, ERMS, AVX-512 family, RDSEED, ADX, CLFLUSHOPT, CLWB, SHA.
            const B: u32 = 1
                | 1 << 3
                | 1 << 5
                | 1 << 6
                | 1 << 8
                | 1 << 9
                | AVX512_B
                | 1 << 18
                | 1 << 19
                | 1 << 23
                | 1 << 24
                | 1 << 29;
            const AVX512_B: u32 = 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31;
            r.ebx &= if crate::arch::fpu::mask() & 0xe0 == 0 { B & !AVX512_B } else { B };
            // AVX512_VBMI, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID.
            r.ecx &= 1 << 1 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 22;
            // FSRM.
            r.edx &= 1 << 4;
        }
        7 if sub == 1 => {
            r = Regs { eax: r.eax & (1 << 4 | 1 << 5 | 1 << 10 | 1 << 11 | 1 << 12), ..Regs::default() };
        }
        7 => r = Regs::default(),
        0xb => {}
        0xd => r = xsave(sub, r),
        0x8000_0001 => {
            // LAHF, CMP_LEGACY off, ABM, SSE4A, MISALIGNSSE, 3DNOWPREFETCH, XOP, FMA4, TBM.
            r.ecx &= 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 16 | 1 << 21;
            // PSE, PGE, MTRR, PSE36, PAGE1GB off.
            r.edx &= !(1 << 3 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 26);
        }
        0x8000_0007 => r = Regs { edx: r.edx & (1 << 8), ..Regs::default() },
        0x8000_0008 => {
            r.eax &= 0xffff;
            r.ebx &= 1 | 1 << 2;
            r.ecx = 0;
            r.edx = 0;
        }
        0x8000_000a | 0x8000_0019..=0x8000_001d | 0x8000_001f..=0x8000_0020 => r = Regs::default(),
        0x8000_0021 => r = Regs::default(),
        _ => {}
    }
    r
}

fn r_is_amd() -> bool {
    native(0, 0).ebx != 0x756e_6547
}

fn xsave(sub: u32, mut r: Regs) -> Regs {
    let mask = crate::arch::fpu::mask();
    match sub {
        0 => {
            r.eax = mask as u32;
            r.edx = (mask >> 32) as u32;
            r.ecx = crate::arch::fpu::area_size() as u32;
            // EBX: the size for the guest's XCR0, which is in force now.
        }
        1 => r = Regs { eax: r.eax & 0b111, ..Regs::default() },
        n if n < 63 && mask >> n & 1 != 0 => {}
        _ => r = Regs::default(),
    }
    r
}

fn ours(leaf: u32, sub: u32) -> Regs {
    match leaf {
        0 => Regs { eax: BASE + 5, ebx: 0x566e_6558, ecx: 0x6558_4d4d, edx: 0x4d4d_566e },
        1 => Regs { eax: crate::hypercall::version::reported(), ..Regs::default() },
        // One hypercall page, its MSR, and MMU_PT_UPDATE_PRESERVE_AD.
        2 => Regs { eax: 1, ebx: BASE, ecx: 1, edx: 0 },
        3 => {
            match sub {
                // Native TSC; its frequency is told where it does not change under the guest.
                0 => Regs { eax: 4, ..Regs::default() },
                2 => Regs { eax: timer::tsc_khz() as u32, ..Regs::default() },
                _ => Regs::default(),
            }
        }
        5 => Regs { ebx: machine_address_bits(), ..Regs::default() },
        _ => Regs::default(),
    }
}

fn machine_address_bits() -> u32 {
    let top = crate::mm::frame::count().max(2) - 1;
    64 - top.leading_zeros() + 12
}
