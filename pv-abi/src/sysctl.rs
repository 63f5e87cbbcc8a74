//! sysctl, version 0x15 (xen/sysctl.h of 4.17): what a control domain asks about and of the whole machine.
#![allow(missing_docs)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What 4.17's tools send; anything else is answered with -EACCES.
pub const INTERFACE_VERSION: u32 = 0x15;

pub const OP_READCONSOLE: u32 = 1;
pub const OP_PHYSINFO: u32 = 3;
pub const OP_SCHED_ID: u32 = 4;
pub const OP_GETDOMAININFOLIST: u32 = 6;
pub const OP_GETCPUINFO: u32 = 8;
pub const OP_CPUTOPOINFO: u32 = 16;
pub const OP_NUMAINFO: u32 = 17;
pub const OP_CPUPOOL_OP: u32 = 18;
pub const OP_SCHEDULER_OP: u32 = 19;
pub const OP_PCITOPOINFO: u32 = 22;
pub const OP_GET_CPU_FEATURESET: u32 = 26;
pub const OP_GET_CPU_POLICY: u32 = 29;

/// `Physinfo::capabilities`.
pub mod physcap {
    #![allow(missing_docs)]
    pub const HVM: u32 = 1 << 0;
    pub const PV: u32 = 1 << 1;
    pub const DIRECTIO: u32 = 1 << 2;
    pub const HAP: u32 = 1 << 3;
    pub const SHADOW: u32 = 1 << 4;
    pub const IOMMU_HAP_PT_SHARE: u32 = 1 << 5;
    pub const VMTRACE: u32 = 1 << 6;
    pub const VPMU: u32 = 1 << 7;
    pub const GNTTAB_V1: u32 = 1 << 8;
    pub const GNTTAB_V2: u32 = 1 << 9;
}

/// `CpupoolOp::op`.
pub const CPUPOOL_OP_INFO: u32 = 4;
pub const CPUPOOL_OP_FREEINFO: u32 = 7;
/// Index of `CpuPolicy`.
pub const CPU_POLICY_PV_DEFAULT: u32 = 4;

abi_struct! {
    /// The envelope. `u` is the operation's union.
    pub struct Sysctl { pub cmd: u32 = 0, pub interface_version: u32 = 4, pub u: [u64; 16] = 8, } size 136;
    /// Reads the message ring into `buffer`; `count` is its size and then the bytes read, `index` where to go on.
    pub struct Readconsole { pub clear: u8 = 0, pub incremental: u8 = 1, pub pad: u16 = 2, pub index: u32 = 4, pub buffer: u64 = 8, pub count: u32 = 16, pub pad2: u32 = 20, } size 24;
    /// Page counts; `cpu_khz` in kHz.
    pub struct Physinfo {
        pub threads_per_core: u32 = 0, pub cores_per_socket: u32 = 4, pub nr_cpus: u32 = 8, pub max_cpu_id: u32 = 12,
        pub nr_nodes: u32 = 16, pub max_node_id: u32 = 20, pub cpu_khz: u32 = 24, pub capabilities: u32 = 28, pub arch_capabilities: u32 = 32, pub pad: u32 = 36,
        pub total_pages: u64 = 40, pub free_pages: u64 = 48, pub scrub_pages: u64 = 56, pub outstanding_pages: u64 = 64,
        pub max_mfn: u64 = 72, pub hw_cap: [u32; 8] = 80,
    } size 112;
    pub struct SchedId { pub sched_id: u32 = 0, } size 4;
    /// `buffer` is an array of `domctl::Getdomaininfo`; the answer is ascending and begins at the first domain ≥ `first_domain`.
    pub struct Getdomaininfolist { pub first_domain: u16 = 0, pub pad: u16 = 2, pub max_domains: u32 = 4, pub buffer: u64 = 8, pub num_domains: u32 = 16, pub pad2: u32 = 20, } size 24;
    pub struct Cputopo { pub core: u32 = 0, pub socket: u32 = 4, pub node: u32 = 8, } size 12;
    pub struct Cputopoinfo { pub num_cpus: u32 = 0, pub pad: u32 = 4, pub cputopo: u64 = 8, } size 16;
    pub struct Meminfo { pub memsize: u64 = 0, pub memfree: u64 = 8, } size 16;
    pub struct Numainfo { pub num_nodes: u32 = 0, pub pad: u32 = 4, pub meminfo: u64 = 8, pub distance: u64 = 16, } size 24;
    pub struct SchedulerOp { pub cpupool_id: u32 = 0, pub sched_id: u32 = 4, pub cmd: u32 = 8, pub pad: u32 = 12, pub u: [u64; 2] = 16, } size 32;
    pub struct CpupoolOp {
        pub op: u32 = 0, pub cpupool_id: u32 = 4, pub sched_id: u32 = 8, pub domid: u32 = 12, pub cpu: u32 = 16, pub n_dom: u32 = 20,
        pub cpumap: crate::domctl::CtlBitmap = 24,
    } size 40;
    pub struct CpuFeatureset { pub index: u32 = 0, pub nr_features: u32 = 4, pub features: u64 = 8, } size 16;
    pub struct CpuPolicy { pub index: u32 = 0, pub nr_leaves: u32 = 4, pub nr_msrs: u32 = 8, pub rsvd: u32 = 12, pub leaves: u64 = 16, pub msrs: u64 = 24, } size 32;
    /// One CPUID leaf of a policy; no subleaf is `0xffff_ffff`.
    pub struct CpuidLeaf { pub leaf: u32 = 0, pub subleaf: u32 = 4, pub a: u32 = 8, pub b: u32 = 12, pub c: u32 = 16, pub d: u32 = 20, } size 24;
}

impl Sysctl {
    /// An operation with its structure.
    pub fn with<T: IntoBytes + Immutable>(cmd: u32, payload: &T) -> Self {
        let mut ctl = Sysctl { cmd, interface_version: INTERFACE_VERSION, ..Sysctl::default() };
        ctl.set_payload(payload);
        ctl
    }

    /// The structure in `u`. `T` must be one of this module's (all of them fit).
    pub fn payload<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.u.as_bytes()).ok().map(|(value, _)| value)
    }

    /// Writes the structure into `u`.
    pub fn set_payload<T: IntoBytes + Immutable>(&mut self, payload: &T) {
        let _ = payload.write_to_prefix(self.u.as_mut_bytes());
    }
}
