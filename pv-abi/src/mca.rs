//! mca (arch-x86/xen-mca.h): machine checks as dom0 hears of them.
#![allow(missing_docs)]

/// `interface_version`; another one is answered with -EACCES.
pub const INTERFACE_VERSION: u32 = 0x01ec_c003;

pub const OP_FETCH: u32 = 1;
pub const OP_NOTIFYDOMAIN: u32 = 2;
pub const OP_PHYSCPUINFO: u32 = 3;
pub const OP_MSRINJECT: u32 = 4;
pub const OP_MCEINJECT: u32 = 5;
pub const OP_INJECT_V2: u32 = 6;

pub const FETCH_NONURGENT: u32 = 1;
pub const FETCH_URGENT: u32 = 2;
pub const FETCH_ACK: u32 = 4;
pub const FETCH_NODATA: u32 = 2;

/// Where the operation's structure begins, behind [`Head`].
pub const PAYLOAD: u64 = 8;
/// IA32_MCG_CAP, the one register that is reported of each CPU.
pub const MSR_MCG_CAP: u64 = 0x179;

abi_struct! {
    pub struct Head { pub cmd: u32 = 0, pub interface_version: u32 = 4, } size 8;
    pub struct Fetch { pub flags: u32 = 0, pub pad: u32 = 4, pub fetch_id: u64 = 8, pub data: u64 = 16, } size 24;
    pub struct PhysCpuInfo { pub ncpus: u32 = 0, pub pad: u32 = 4, pub info: u64 = 8, } size 16;
    /// One CPU (`mcinfo_logical_cpu`).
    pub struct LogicalCpu {
        pub cpunr: u32 = 0, pub chipid: u32 = 4, pub coreid: u16 = 8, pub threadid: u16 = 10, pub apicid: u32 = 12,
        pub clusterid: u32 = 16, pub ncores: u32 = 20, pub ncores_active: u32 = 24, pub nthreads: u32 = 28,
        pub cpuid_level: u32 = 32, pub family: u32 = 36, pub vendor: u32 = 40, pub model: u32 = 44, pub step: u32 = 48,
        pub vendorid: [u8; 16] = 52, pub brandid: [u8; 64] = 68, pub cpu_caps: [u32; 7] = 132,
        pub cache_size: u32 = 160, pub cache_alignment: u32 = 164, pub nmsrvals: u32 = 168, pub pad: u32 = 172,
        pub msrvalues: [u64; 16] = 176,
    } size 304;
}
