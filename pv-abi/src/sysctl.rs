//! sysctl (xen/sysctl.h), interface version 0x15: what Xen 4.17's tools speak. dom0 only.
#![allow(missing_docs)]

use zerocopy::{Immutable, IntoBytes};

/// `interface_version` of these layouts. Another one is answered with -EACCES.
pub const INTERFACE_VERSION: u32 = 0x15;

pub const OP_READCONSOLE: u32 = 1;
pub const OP_TBUF_OP: u32 = 2;
pub const OP_PHYSINFO: u32 = 3;
pub const OP_SCHED_ID: u32 = 4;
pub const OP_PERFC_OP: u32 = 5;
pub const OP_GETDOMAININFOLIST: u32 = 6;
pub const OP_DEBUG_KEYS: u32 = 7;
pub const OP_GETCPUINFO: u32 = 8;
pub const OP_AVAILHEAP: u32 = 9;
pub const OP_GET_PMSTAT: u32 = 10;
pub const OP_CPU_HOTPLUG: u32 = 11;
pub const OP_PM_OP: u32 = 12;
pub const OP_PAGE_OFFLINE_OP: u32 = 14;
pub const OP_LOCKPROF_OP: u32 = 15;
pub const OP_CPUTOPOINFO: u32 = 16;
pub const OP_NUMAINFO: u32 = 17;
pub const OP_CPUPOOL_OP: u32 = 18;
pub const OP_SCHEDULER_OP: u32 = 19;
pub const OP_COVERAGE_OP: u32 = 20;
pub const OP_PSR_CMT_OP: u32 = 21;
pub const OP_PCITOPOINFO: u32 = 22;
pub const OP_PSR_ALLOC: u32 = 23;
pub const OP_GET_CPU_LEVELLING_CAPS: u32 = 25;
pub const OP_GET_CPU_FEATURESET: u32 = 26;
pub const OP_LIVEPATCH_OP: u32 = 27;
pub const OP_GET_CPU_POLICY: u32 = 29;

/// physinfo capabilities (`XEN_SYSCTL_PHYSCAP_*`).
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
    /// Without it libxl creates domains that ask for no grant table.
    pub const GNTTAB_V1: u32 = 1 << 8;
    pub const GNTTAB_V2: u32 = 1 << 9;
}

/// [`policy::PV_DEFAULT`].
pub const CPU_POLICY_PV_DEFAULT: u32 = policy::PV_DEFAULT;
/// A line of a policy; the same for domctl and sysctl.
pub use crate::cpuid::Leaf as CpuidLeaf;

/// In topology and NUMA answers.
pub const INVALID_ID: u32 = u32::MAX;

pub const CPUPOOL_OP_CREATE: u32 = 1;
pub const CPUPOOL_OP_DESTROY: u32 = 2;
pub const CPUPOOL_OP_INFO: u32 = 3;
pub const CPUPOOL_OP_ADDCPU: u32 = 4;
pub const CPUPOOL_OP_RMCPU: u32 = 5;
pub const CPUPOOL_OP_MOVEDOMAIN: u32 = 6;
pub const CPUPOOL_OP_FREEINFO: u32 = 7;

pub const PERFCOP_RESET: u32 = 1;
pub const PERFCOP_QUERY: u32 = 2;

/// Which policy or feature set get_cpu_policy is asked for (`XEN_SYSCTL_cpu_policy_*`).
pub mod policy {
    #![allow(missing_docs)]
    pub const RAW: u32 = 0;
    pub const HOST: u32 = 1;
    pub const PV_MAX: u32 = 2;
    pub const HVM_MAX: u32 = 3;
    pub const PV_DEFAULT: u32 = 4;
    pub const HVM_DEFAULT: u32 = 5;
}
/// Which get_cpu_featureset is asked for (`XEN_SYSCTL_cpu_featureset_*`); the numbers differ from [`policy`].
pub mod featureset {
    #![allow(missing_docs)]
    pub const RAW: u32 = 0;
    pub const HOST: u32 = 1;
    pub const PV: u32 = 2;
    pub const HVM: u32 = 3;
    pub const PV_MAX: u32 = 4;
    pub const HVM_MAX: u32 = 5;
}

abi_struct! {
    /// The envelope (`xen_sysctl`).
    pub struct Sysctl {
        pub cmd: u32 = 0, pub interface_version: u32 = 4,
        /// The union. See [`Sysctl::payload`].
        pub u: [u64; 16] = 8,
    } size 136;

    /// S1. `index` is where reading goes on when `incremental`; `count` is the buffer's size in, the bytes written out.
    pub struct Readconsole { pub clear: u8 = 0, pub incremental: u8 = 1, pub pad: u16 = 2, pub index: u32 = 4, pub buffer: u64 = 8, pub count: u32 = 16, pub pad2: u32 = 20, } size 24;
    /// S3. Memory in 4 KiB pages.
    pub struct Physinfo {
        pub threads_per_core: u32 = 0, pub cores_per_socket: u32 = 4, pub nr_cpus: u32 = 8, pub max_cpu_id: u32 = 12,
        pub nr_nodes: u32 = 16, pub max_node_id: u32 = 20, pub cpu_khz: u32 = 24, pub capabilities: u32 = 28,
        pub arch_capabilities: u32 = 32, pub pad: u32 = 36, pub total_pages: u64 = 40, pub free_pages: u64 = 48,
        pub scrub_pages: u64 = 56, pub outstanding_pages: u64 = 64, pub max_mfn: u64 = 72,
        /// CPUID words 1d, 1c, e1d, e1c, Da1, 7b0, 7c0, e7d.
        pub hw_cap: [u32; 8] = 80,
    } size 112;
    /// S4.
    pub struct SchedId { pub sched_id: u32 = 0, } size 4;
    /// S5. Hospes' counters: `desc` an array of [`PerfcDesc`], `val` of u32.
    pub struct PerfcOp { pub cmd: u32 = 0, pub nr_counters: u32 = 4, pub nr_vals: u32 = 8, pub pad: u32 = 12, pub desc: u64 = 16, pub val: u64 = 24, } size 32;
    /// S6. Fills `buffer` with [`crate::domctl::Getdomaininfo`] of domains from `first_domain` on, in rising id.
    pub struct Getdomaininfolist {
        pub first_domain: u16 = 0, pub pad: u16 = 2, pub max_domains: u32 = 4, pub buffer: u64 = 8, pub num_domains: u32 = 16, pub pad2: u32 = 20,
    } size 24;
    /// S7.
    pub struct DebugKeys { pub keys: u64 = 0, pub nr_keys: u32 = 8, pub pad: u32 = 12, } size 16;
    /// S8: `info` is an array of u64 idle times, ns.
    pub struct Getcpuinfo { pub max_cpus: u32 = 0, pub pad: u32 = 4, pub info: u64 = 8, pub nr_cpus: u32 = 16, pub pad2: u32 = 20, } size 24;
    /// S9.
    pub struct AvailHeap { pub min_bitwidth: u32 = 0, pub max_bitwidth: u32 = 4, pub node: i32 = 8, pub pad: u32 = 12, pub avail_bytes: u64 = 16, } size 24;
    /// S11.
    pub struct CpuHotplug { pub cpu: u32 = 0, pub op: u32 = 4, } size 8;
    /// S16; a null `cputopo` asks for the count.
    pub struct Cputopoinfo { pub num_cpus: u32 = 0, pub pad: u32 = 4, pub cputopo: u64 = 8, } size 16;
    /// Element of [`Cputopoinfo`].
    pub struct Cputopo { pub core: u32 = 0, pub socket: u32 = 4, pub node: u32 = 8, } size 12;
    /// S17; a null `meminfo` and `distance` ask for the count. Distances: u32, row length = the returned count.
    pub struct Numainfo { pub num_nodes: u32 = 0, pub pad: u32 = 4, pub meminfo: u64 = 8, pub distance: u64 = 16, } size 24;
    /// Element of [`Numainfo`], bytes.
    pub struct Meminfo { pub memsize: u64 = 0, pub memfree: u64 = 8, } size 16;
    /// S18.
    pub struct CpupoolOp {
        pub op: u32 = 0, pub cpupool_id: u32 = 4, pub sched_id: u32 = 8, pub domid: u32 = 12, pub cpu: u32 = 16, pub n_dom: u32 = 20,
        pub cpumap: crate::domctl::CtlBitmap = 24,
    } size 40;
    /// S19.
    pub struct SchedulerOp { pub cpupool_id: u32 = 0, pub sched_id: u32 = 4, pub cmd: u32 = 8, pub pad: u32 = 12, pub u: [u64; 2] = 16, } size 32;
    /// S22.
    pub struct Pcitopoinfo { pub num_devs: u32 = 0, pub pad: u32 = 4, pub devs: u64 = 8, pub nodes: u64 = 16, } size 24;
    /// S25.
    pub struct CpuLevellingCaps { pub caps: u32 = 0, } size 4;
    /// S26: `features` is an array of u32 words.
    pub struct CpuFeatureset { pub index: u32 = 0, pub nr_features: u32 = 4, pub features: u64 = 8, } size 16;
    /// S29. Null arrays ask for the sizes.
    pub struct CpuPolicy { pub index: u32 = 0, pub nr_leaves: u32 = 4, pub nr_msrs: u32 = 8, pub rsvd: u32 = 12, pub leaves: u64 = 16, pub msrs: u64 = 24, } size 32;
}
union_payload!(Sysctl);

/// Name and number of values of a counter (`xen_sysctl_perfc_desc`).
#[repr(C)]
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
pub struct PerfcDesc {
    pub name: [u8; 80],
    pub nr_vals: u32,
}
abi_layout!(PerfcDesc, 84, name @ 0, nr_vals @ 80);

impl Sysctl {
    /// An operation without a structure of its own.
    pub fn new(cmd: u32) -> Self {
        Sysctl { cmd, interface_version: INTERFACE_VERSION, ..Sysctl::default() }
    }

    /// An operation with its structure.
    pub fn with<T: IntoBytes + Immutable>(cmd: u32, payload: &T) -> Self {
        let mut ctl = Self::new(cmd);
        ctl.set_payload(payload);
        ctl
    }
}
