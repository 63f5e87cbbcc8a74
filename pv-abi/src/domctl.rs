//! domctl (xen/domctl.h), interface version 0x15: what Xen 4.17's tools speak.
//!
//! One [`Domctl`] goes in and comes back. Its union is 128 bytes, read and written as one of the payload types below;
//! which one, `cmd` says. Handles inside are plain `u64` guest addresses.
#![allow(missing_docs)]

use zerocopy::{Immutable, IntoBytes};

/// `interface_version` of these layouts. Another one is answered with -EACCES.
pub const INTERFACE_VERSION: u32 = 0x15;

pub const OP_CREATEDOMAIN: u32 = 1;
pub const OP_DESTROYDOMAIN: u32 = 2;
pub const OP_PAUSEDOMAIN: u32 = 3;
pub const OP_UNPAUSEDOMAIN: u32 = 4;
pub const OP_GETDOMAININFO: u32 = 5;
pub const OP_SETVCPUAFFINITY: u32 = 9;
pub const OP_SHADOW_OP: u32 = 10;
pub const OP_MAX_MEM: u32 = 11;
pub const OP_SETVCPUCONTEXT: u32 = 12;
pub const OP_GETVCPUCONTEXT: u32 = 13;
pub const OP_GETVCPUINFO: u32 = 14;
pub const OP_MAX_VCPUS: u32 = 15;
pub const OP_SCHEDULER_OP: u32 = 16;
pub const OP_SETDOMAINHANDLE: u32 = 17;
pub const OP_SETDEBUGGING: u32 = 18;
pub const OP_IRQ_PERMISSION: u32 = 19;
pub const OP_IOMEM_PERMISSION: u32 = 20;
pub const OP_IOPORT_PERMISSION: u32 = 21;
pub const OP_HYPERCALL_INIT: u32 = 22;
pub const OP_SETTIMEOFFSET: u32 = 24;
pub const OP_GETVCPUAFFINITY: u32 = 25;
pub const OP_RESUMEDOMAIN: u32 = 27;
pub const OP_SENDTRIGGER: u32 = 28;
pub const OP_SUBSCRIBE: u32 = 29;
pub const OP_GETHVMCONTEXT: u32 = 33;
pub const OP_SETHVMCONTEXT: u32 = 34;
pub const OP_SET_ADDRESS_SIZE: u32 = 35;
pub const OP_GET_ADDRESS_SIZE: u32 = 36;
pub const OP_ASSIGN_DEVICE: u32 = 37;
pub const OP_BIND_PT_IRQ: u32 = 38;
pub const OP_MEMORY_MAPPING: u32 = 39;
pub const OP_IOPORT_MAPPING: u32 = 40;
pub const OP_SET_EXT_VCPUCONTEXT: u32 = 42;
pub const OP_GET_EXT_VCPUCONTEXT: u32 = 43;
pub const OP_TEST_ASSIGN_DEVICE: u32 = 45;
pub const OP_SET_TARGET: u32 = 46;
pub const OP_DEASSIGN_DEVICE: u32 = 47;
pub const OP_UNBIND_PT_IRQ: u32 = 48;
pub const OP_GET_DEVICE_GROUP: u32 = 50;
pub const OP_DEBUG_OP: u32 = 54;
pub const OP_VM_EVENT_OP: u32 = 56;
pub const OP_MEM_SHARING_OP: u32 = 57;
pub const OP_GETTSCINFO: u32 = 59;
pub const OP_SETTSCINFO: u32 = 60;
pub const OP_GETPAGEFRAMEINFO3: u32 = 61;
pub const OP_SETVCPUEXTSTATE: u32 = 62;
pub const OP_GETVCPUEXTSTATE: u32 = 63;
pub const OP_SET_VIRQ_HANDLER: u32 = 66;
pub const OP_SETNODEAFFINITY: u32 = 68;
pub const OP_GETNODEAFFINITY: u32 = 69;
pub const OP_GET_VCPU_MSRS: u32 = 72;
pub const OP_SET_VCPU_MSRS: u32 = 73;
pub const OP_SETVNUMAINFO: u32 = 74;
pub const OP_SOFT_RESET: u32 = 79;
pub const OP_GET_CPU_POLICY: u32 = 82;
pub const OP_SET_CPU_POLICY: u32 = 83;
pub const OP_GET_PAGING_MEMPOOL_SIZE: u32 = 85;
pub const OP_SET_PAGING_MEMPOOL_SIZE: u32 = 86;
/// Not in 4.17; 4.20's tools want 0 or -EOPNOTSUPP.
pub const OP_SET_LLC_COLORS: u32 = 89;

/// createdomain flags (`XEN_DOMCTL_CDF_*`); a PV domain has none of hvm, hap.
pub mod cdf {
    #![allow(missing_docs)]
    pub const HVM: u32 = 1 << 0;
    pub const HAP: u32 = 1 << 1;
    pub const S3_INTEGRITY: u32 = 1 << 2;
    pub const OOS_OFF: u32 = 1 << 3;
    pub const XS_DOMAIN: u32 = 1 << 4;
    pub const IOMMU: u32 = 1 << 5;
    pub const NESTED_VIRT: u32 = 1 << 6;
    pub const VPMU: u32 = 1 << 7;
}

/// getdomaininfo flags (`XEN_DOMINF_*`).
pub mod dominf {
    #![allow(missing_docs)]
    /// Set only once its teardown is complete, bar pages that others still map.
    pub const DYING: u32 = 1 << 0;
    pub const HVM_GUEST: u32 = 1 << 1;
    pub const SHUTDOWN: u32 = 1 << 2;
    pub const PAUSED: u32 = 1 << 3;
    pub const BLOCKED: u32 = 1 << 4;
    pub const RUNNING: u32 = 1 << 5;
    pub const DEBUGGED: u32 = 1 << 6;
    pub const XS_DOMAIN: u32 = 1 << 7;
    pub const HAP: u32 = 1 << 8;
    pub const SHUTDOWN_SHIFT: u32 = 16;
    pub const SHUTDOWN_MASK: u32 = 0xff;
}
/// Why a domain shut down (xen/sched.h `SHUTDOWN_*`).
pub mod shutdown {
    #![allow(missing_docs)]
    pub const POWEROFF: u32 = 0;
    pub const REBOOT: u32 = 1;
    pub const SUSPEND: u32 = 2;
    pub const CRASH: u32 = 3;
    pub const WATCHDOG: u32 = 4;
    pub const SOFT_RESET: u32 = 5;
}

/// `max_vcpu_id` of a domain without vCPUs.
pub const INVALID_MAX_VCPU_ID: u32 = u32::MAX;
/// `grant_opts`: the bits that hold the grant-table version.
pub const GRANT_VERSION_MASK: u32 = 0xf;

/// getpageframeinfo3: types in bits 28–31 of each element.
pub mod pfinfo {
    #![allow(missing_docs)]
    pub const LTAB_SHIFT: u32 = 28;
    pub const NOTAB: u32 = 0;
    pub const L1TAB: u32 = 1 << 28;
    pub const L2TAB: u32 = 2 << 28;
    pub const L3TAB: u32 = 3 << 28;
    pub const L4TAB: u32 = 4 << 28;
    pub const LPINTAB: u32 = 1 << 31;
    pub const XTAB: u32 = 0xf << 28;
    pub const XALLOC: u32 = 0xe << 28;
    pub const BROKEN: u32 = 0xd << 28;
    /// Most elements of one call; more are -E2BIG.
    pub const MAX: u64 = 1024;
}

pub const SHADOW_OP_OFF: u32 = 0;
pub const SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2;
pub const SHADOW_OP_CLEAN: u32 = 11;
pub const SHADOW_OP_PEEK: u32 = 12;
pub const SHADOW_LOGDIRTY_FINAL: u32 = 1;

pub const VCPUAFFINITY_HARD: u32 = 1;
pub const VCPUAFFINITY_SOFT: u32 = 2;
pub const VCPUAFFINITY_FORCE: u32 = 4;

pub const SCHEDULER_CREDIT: u32 = 5;
pub const SCHEDULER_CREDIT2: u32 = 6;
pub const SCHEDULER_ARINC653: u32 = 7;
pub const SCHEDULER_RTDS: u32 = 8;
/// Reported to tools that should not ask for scheduling parameters of each new domain.
pub const SCHEDULER_NULL: u32 = 9;
pub const SCHEDOP_PUTINFO: u32 = 0;
pub const SCHEDOP_GETINFO: u32 = 1;
pub const SCHEDOP_PUTVCPUINFO: u32 = 2;
pub const SCHEDOP_GETVCPUINFO: u32 = 3;

/// settscinfo: emulate where needed.
pub const TSC_MODE_DEFAULT: u32 = 0;

abi_struct! {
    /// A bitmap in the caller's memory (`xenctl_bitmap`): its address, and how many bits it has.
    pub struct CtlBitmap { pub bitmap: u64 = 0, pub nr_bits: u32 = 8, pub pad: u32 = 12, } size 16;

    /// The envelope (`xen_domctl`).
    pub struct Domctl {
        pub cmd: u32 = 0, pub interface_version: u32 = 4,
        /// Domain concerned; createdomain writes the new id here.
        pub domain: u16 = 8, pub pad: [u16; 3] = 10,
        /// The union. See [`Domctl::payload`].
        pub u: [u64; 16] = 16,
    } size 144;

    /// D1. Limits below 0 mean the default.
    pub struct Createdomain {
        pub ssidref: u32 = 0, pub handle: [u8; 16] = 4, pub flags: u32 = 20, pub iommu_opts: u32 = 24, pub max_vcpus: u32 = 28,
        pub max_evtchn_port: u32 = 32, pub max_grant_frames: i32 = 36, pub max_maptrack_frames: i32 = 40,
        pub grant_opts: u32 = 44, pub vmtrace_size: u32 = 48, pub cpupool_id: u32 = 52,
        pub emulation_flags: u32 = 56, pub misc_flags: u32 = 60,
    } size 64;

    /// D5, and the elements of sysctl getdomaininfolist. Pages are 4 KiB; `cpu_time` is ns of all vCPUs together.
    pub struct Getdomaininfo {
        pub domain: u16 = 0, pub pad1: u16 = 2, pub flags: u32 = 4, pub tot_pages: u64 = 8, pub max_pages: u64 = 16,
        pub outstanding_pages: u64 = 24, pub shr_pages: u64 = 32, pub paged_pages: u64 = 40, pub shared_info_frame: u64 = 48,
        pub cpu_time: u64 = 56, pub nr_online_vcpus: u32 = 64, pub max_vcpu_id: u32 = 68, pub ssidref: u32 = 72,
        pub handle: [u8; 16] = 76, pub cpupool: u32 = 92, pub gpaddr_bits: u8 = 96, pub pad2: [u8; 7] = 97,
        pub emulation_flags: u32 = 104, pub misc_flags: u32 = 108,
    } size 112;

    /// D61. `array` is changed in place.
    pub struct Getpageframeinfo3 { pub num: u64 = 0, pub array: u64 = 8, } size 16;
    /// D10.
    pub struct ShadowOp {
        pub op: u32 = 0, pub mode: u32 = 4, pub mb: u32 = 8, pub pad: u32 = 12, pub dirty_bitmap: u64 = 16, pub pages: u64 = 24,
        pub fault_count: u32 = 32, pub dirty_count: u32 = 36,
    } size 40;
    /// D11, KiB.
    pub struct MaxMem { pub max_memkb: u64 = 0, } size 8;
    /// D12, D13: address of a `vcpu_guest_context`.
    pub struct Vcpucontext { pub vcpu: u32 = 0, pub pad: u32 = 4, pub ctxt: u64 = 8, } size 16;
    /// D14. `cpu_time` in ns.
    pub struct Getvcpuinfo {
        pub vcpu: u32 = 0, pub online: u8 = 4, pub blocked: u8 = 5, pub running: u8 = 6, pub pad: u8 = 7, pub cpu_time: u64 = 8,
        pub cpu: u32 = 16, pub pad2: u32 = 20,
    } size 24;
    /// D68, D69.
    pub struct NodeAffinity { pub nodemap: CtlBitmap = 0, } size 16;
    /// D9, D25. The effective masks are written back.
    pub struct Vcpuaffinity { pub vcpu: u32 = 0, pub flags: u32 = 4, pub hard: CtlBitmap = 8, pub soft: CtlBitmap = 24, } size 40;
    /// D15.
    pub struct MaxVcpus { pub max: u32 = 0, } size 4;
    /// D16; for credit2 (6) `u` begins with a [`Credit2`].
    pub struct SchedulerOp { pub sched_id: u32 = 0, pub cmd: u32 = 4, pub u: [u64; 2] = 8, } size 24;
    /// Scheduling of one domain: weight (256 is normal) and cap in percent of a CPU (0 = none).
    pub struct Credit2 { pub weight: u16 = 0, pub cap: u16 = 2, } size 4;
    /// D17.
    pub struct SetDomainHandle { pub handle: [u8; 16] = 0, } size 16;
    /// D18.
    pub struct SetDebugging { pub enable: u8 = 0, } size 1;
    /// D19.
    pub struct IrqPermission { pub pirq: u32 = 0, pub allow_access: u8 = 4, pub pad: [u8; 3] = 5, } size 8;
    /// D20.
    pub struct IomemPermission { pub first_mfn: u64 = 0, pub nr_mfns: u64 = 8, pub allow_access: u8 = 16, pub pad: [u8; 7] = 17, } size 24;
    /// D21.
    pub struct IoportPermission { pub first_port: u32 = 0, pub nr_ports: u32 = 4, pub allow_access: u8 = 8, pub pad: [u8; 3] = 9, } size 12;
    /// D22.
    pub struct HypercallInit { pub gmfn: u64 = 0, } size 8;
    /// D24, seconds.
    pub struct SetTimeOffset { pub time_offset_seconds: i64 = 0, } size 8;
    /// D35, D36: 32 or 64.
    pub struct AddressSize { pub size: u32 = 0, } size 4;
    /// D28.
    pub struct SendTrigger { pub trigger: u32 = 0, pub vcpu: u32 = 4, } size 8;
    /// D29.
    pub struct Subscribe { pub port: u32 = 0, } size 4;
    /// D42, D43. `size` counts the bytes that mean something.
    pub struct ExtVcpucontext {
        pub vcpu: u32 = 0, pub size: u32 = 4, pub syscall32_callback_eip: u64 = 8, pub sysenter_callback_eip: u64 = 16,
        pub syscall32_callback_cs: u16 = 24, pub sysenter_callback_cs: u16 = 26, pub syscall32_disables_events: u8 = 28,
        pub sysenter_disables_events: u8 = 29, pub pad: u16 = 30, pub vmce: [u64; 4] = 32,
    } size 64;
    /// D59, D60. `elapsed_nsec` since the domain's TSC was 0.
    pub struct TscInfo { pub mode: u32 = 0, pub gtsc_khz: u32 = 4, pub incarnation: u32 = 8, pub pad: u32 = 12, pub elapsed_nsec: u64 = 16, } size 24;
    /// D62, D63.
    pub struct VcpuExtState { pub vcpu: u32 = 0, pub pad: u32 = 4, pub xfeature_mask: u64 = 8, pub size: u64 = 16, pub buffer: u64 = 24, } size 32;
    /// D66.
    pub struct SetVirqHandler { pub virq: u32 = 0, } size 4;
    /// D72, D73.
    pub struct VcpuMsrs { pub vcpu: u32 = 0, pub msr_count: u32 = 4, pub msrs: u64 = 8, } size 16;
    /// Element of [`VcpuMsrs`].
    pub struct VcpuMsr { pub index: u32 = 0, pub reserved: u32 = 4, pub value: u64 = 8, } size 16;
    /// D82, D83. Arrays of [`crate::cpuid::Leaf`] and [`crate::cpuid::MsrEntry`].
    pub struct CpuPolicy {
        pub nr_leaves: u32 = 0, pub nr_msrs: u32 = 4, pub leaves: u64 = 8, pub msrs: u64 = 16,
        pub err_leaf: u32 = 24, pub err_subleaf: u32 = 28, pub err_msr: u32 = 32, pub pad: u32 = 36,
    } size 40;
    /// D85, D86.
    pub struct PagingMempool { pub size: u64 = 0, } size 8;
}
union_payload!(Domctl);

impl Domctl {
    /// An operation without a structure of its own.
    pub fn new(cmd: u32, domain: u16) -> Self {
        Domctl { cmd, interface_version: INTERFACE_VERSION, domain, ..Domctl::default() }
    }

    /// An operation with its structure.
    pub fn with<T: IntoBytes + Immutable>(cmd: u32, domain: u16, payload: &T) -> Self {
        let mut ctl = Self::new(cmd, domain);
        ctl.set_payload(payload);
        ctl
    }
}
