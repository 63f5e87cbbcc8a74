//! domctl, version 0x15 (xen/domctl.h of 4.17): how a control domain makes and manages others.
//!
//! The argument is one [`Domctl`]; its `u` holds the operation's own structure, which is copied in and back.
#![allow(missing_docs)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What 4.17's tools send; anything else is answered with -EACCES.
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
pub const OP_HYPERCALL_INIT: u32 = 22;
pub const OP_SETTIMEOFFSET: u32 = 24;
pub const OP_GETVCPUAFFINITY: u32 = 25;
pub const OP_RESUMEDOMAIN: u32 = 27;
pub const OP_SET_ADDRESS_SIZE: u32 = 35;
pub const OP_GET_ADDRESS_SIZE: u32 = 36;
pub const OP_GETTSCINFO: u32 = 59;
pub const OP_SETTSCINFO: u32 = 60;
pub const OP_GETPAGEFRAMEINFO3: u32 = 61;
pub const OP_SETNODEAFFINITY: u32 = 68;
pub const OP_GETNODEAFFINITY: u32 = 69;
pub const OP_GET_CPU_POLICY: u32 = 82;
pub const OP_SET_CPU_POLICY: u32 = 83;

/// `Createdomain::flags`.
pub mod cdf {
    #![allow(missing_docs)]
    pub const HVM: u32 = 1 << 0;
    pub const HAP: u32 = 1 << 1;
    pub const XS_DOMAIN: u32 = 1 << 4;
    pub const IOMMU: u32 = 1 << 5;
}

/// `Getdomaininfo::flags`.
pub mod dominf {
    #![allow(missing_docs)]
    pub const DYING: u32 = 1 << 0;
    pub const HVM_GUEST: u32 = 1 << 1;
    pub const SHUTDOWN: u32 = 1 << 2;
    pub const PAUSED: u32 = 1 << 3;
    pub const BLOCKED: u32 = 1 << 4;
    pub const RUNNING: u32 = 1 << 5;
    pub const DEBUGGED: u32 = 1 << 6;
    pub const XS_DOMAIN: u32 = 1 << 7;
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

/// `Getdomaininfo::max_vcpu_id` of a domain without vCPUs.
pub const INVALID_MAX_VCPU_ID: u32 = u32::MAX;
/// `Vcpuaffinity::flags`.
pub const VCPUAFFINITY_HARD: u32 = 1;
pub const VCPUAFFINITY_SOFT: u32 = 2;
/// `TscInfo::mode`: what the hypervisor thinks best.
pub const TSC_MODE_DEFAULT: u32 = 0;

abi_struct! {
    /// The envelope. `u` is the operation's union.
    pub struct Domctl { pub cmd: u32 = 0, pub interface_version: u32 = 4, pub domain: u16 = 8, pub pad: [u16; 3] = 10, pub u: [u64; 16] = 16, } size 144;
    /// In and out; `grant_opts` holds the grant-table version in its low four bits. Negative maxima mean the default.
    pub struct Createdomain {
        pub ssidref: u32 = 0, pub handle: [u8; 16] = 4, pub flags: u32 = 20, pub iommu_opts: u32 = 24, pub max_vcpus: u32 = 28,
        pub max_evtchn_port: u32 = 32, pub max_grant_frames: i32 = 36, pub max_maptrack_frames: i32 = 40, pub grant_opts: u32 = 44,
        pub vmtrace_size: u32 = 48, pub cpupool_id: u32 = 52, pub emulation_flags: u32 = 56, pub misc_flags: u32 = 60,
    } size 64;
    /// `cpu_time` in ns; `shared_info_frame` is an MFN for PV domains.
    pub struct Getdomaininfo {
        pub domain: u16 = 0, pub pad1: u16 = 2, pub flags: u32 = 4, pub tot_pages: u64 = 8, pub max_pages: u64 = 16,
        pub outstanding_pages: u64 = 24, pub shr_pages: u64 = 32, pub paged_pages: u64 = 40, pub shared_info_frame: u64 = 48,
        pub cpu_time: u64 = 56, pub nr_online_vcpus: u32 = 64, pub max_vcpu_id: u32 = 68, pub ssidref: u32 = 72,
        pub handle: [u8; 16] = 76, pub cpupool: u32 = 92, pub gpaddr_bits: u8 = 96, pub pad2: [u8; 7] = 97,
        pub emulation_flags: u32 = 104, pub misc_flags: u32 = 108,
    } size 112;
    pub struct MaxMem { pub max_memkb: u64 = 0, } size 8;
    pub struct MaxVcpus { pub max: u32 = 0, } size 4;
    /// `ctxt` points to a `VcpuGuestContext`.
    pub struct Vcpucontext { pub vcpu: u32 = 0, pub pad: u32 = 4, pub ctxt: u64 = 8, } size 16;
    /// `cpu_time` in ns.
    pub struct Getvcpuinfo { pub vcpu: u32 = 0, pub online: u8 = 4, pub blocked: u8 = 5, pub running: u8 = 6, pub pad: u8 = 7, pub cpu_time: u64 = 8, pub cpu: u32 = 16, pub pad2: u32 = 20, } size 24;
    /// A bitmap in the caller's memory.
    pub struct CtlBitmap { pub bitmap: u64 = 0, pub nr_bits: u32 = 8, pub pad: u32 = 12, } size 16;
    pub struct Vcpuaffinity { pub vcpu: u32 = 0, pub flags: u32 = 4, pub hard: CtlBitmap = 8, pub soft: CtlBitmap = 24, } size 40;
    /// Bits of a guest's addresses: 64, or 32 for compat domains.
    pub struct AddressSize { pub size: u32 = 0, } size 4;
    pub struct TscInfo { pub mode: u32 = 0, pub gtsc_khz: u32 = 4, pub incarnation: u32 = 8, pub pad: u32 = 12, pub elapsed_nsec: u64 = 16, } size 24;
    /// The MFN where the hypercall page goes.
    pub struct HypercallInit { pub gmfn: u64 = 0, } size 8;
    pub struct Getpageframeinfo3 { pub num: u64 = 0, pub array: u64 = 8, } size 16;
    /// For sched_id credit2 (6): weight and cap in `u`.
    pub struct SchedulerOp { pub sched_id: u32 = 0, pub cmd: u32 = 4, pub u: [u64; 2] = 8, } size 24;
    pub struct CpuPolicy { pub nr_leaves: u32 = 0, pub nr_msrs: u32 = 4, pub leaves: u64 = 8, pub msrs: u64 = 16, pub err_leaf: u32 = 24, pub err_subleaf: u32 = 28, pub err_msr: u32 = 32, pub pad: u32 = 36, } size 40;
}

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

    /// The structure in `u`. `T` must be one of this module's (all of them fit).
    pub fn payload<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.u.as_bytes()).ok().map(|(value, _)| value)
    }

    /// Writes the structure into `u`.
    pub fn set_payload<T: IntoBytes + Immutable>(&mut self, payload: &T) {
        let _ = payload.write_to_prefix(self.u.as_mut_bytes());
    }
}
