//! The hypervisor's CPUID leaves (arch-x86/cpuid.h) and the serialised CPU policy (arch-x86/xen.h).
#![allow(missing_docs)]

/// First leaf. A PV kernel looks at 0x40000000, 0x40000100, … and finds the signature at the first.
pub const FIRST_LEAF: u32 = 0x4000_0000;
/// Leaves behind the first.
pub const MAX_NUM_LEAVES: u32 = 5;
/// "XenV", "MMXe", "nVMM": by this a PV kernel knows that its interface is here.
pub const SIGNATURE_EBX: u32 = 0x566e_6558;
pub const SIGNATURE_ECX: u32 = 0x6558_4d4d;
pub const SIGNATURE_EDX: u32 = 0x4d4d_566e;
/// Leaf 1: eax = major << 16 | minor.
pub const LEAF_VERSION: u32 = FIRST_LEAF + 1;
/// Leaf 2: eax = hypercall pages, ebx = MSR that asks for one, ecx and edx = features.
pub const LEAF_HYPERCALL: u32 = FIRST_LEAF + 2;
pub const FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1;
/// Leaf 3: TSC; leaf 4: HVM; leaf 5: PV, ebx bits 0–7 = machine address width.
pub const LEAF_TSC: u32 = FIRST_LEAF + 3;
pub const LEAF_HVM: u32 = FIRST_LEAF + 4;
pub const LEAF_PV: u32 = FIRST_LEAF + 5;
/// MSR at which a guest asks for a hypercall page: MFN << 12.
pub const MSR_HYPERCALL_PAGE: u32 = 0x4000_0000;

/// What a PV kernel puts before CPUID so that the hypervisor sees it: `ud2; .ascii "xen"`.
pub const FORCED_EMULATION_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

/// `subleaf` of a leaf that has none.
pub const NO_SUBLEAF: u32 = u32::MAX;
/// Words of a feature set in 4.17 and 4.20.
pub const FEATURESET_WORDS: usize = 19;

/// Last basic leaf a serialised policy may hold; leaves beyond are refused with -ERANGE.
pub const POLICY_BASIC_LAST: u32 = 0xd;
/// The same of the extended leaves (from 0x80000000 on).
pub const POLICY_EXTENDED_LAST: u32 = 0x8000_0021;

abi_struct! {
    /// Line of a serialised policy (`xen_cpuid_leaf`).
    pub struct Leaf { pub leaf: u32 = 0, pub subleaf: u32 = 4, pub a: u32 = 8, pub b: u32 = 12, pub c: u32 = 16, pub d: u32 = 20, } size 24;
    /// MSR of a serialised policy (`xen_msr_entry`).
    pub struct MsrEntry { pub idx: u32 = 0, pub flags: u32 = 4, pub val: u64 = 8, } size 16;
}
