//! The shared_info page and what stands in it (xen/xen.h, arch-x86/xen.h).

/// vCPUs that have their `vcpu_info` here at start.
pub const LEGACY_MAX_VCPUS: usize = 32;
/// Offset of the event-pending bitmap (4096 bits).
pub const EVTCHN_PENDING: usize = 0x800;
/// Offset of the event-mask bitmap.
pub const EVTCHN_MASK: usize = 0xa00;
/// Offset of the wallclock {version u32, sec u32, nsec u32, sec_hi u32}.
pub const WALLCLOCK: usize = 0xc00;
/// Offset of `arch_shared_info`.
pub const ARCH: usize = 0xc10;
/// Size of the whole.
pub const SIZE: usize = 0xc40;

/// Offsets in `vcpu_info`.
#[allow(missing_docs)]
pub mod vcpu_info {
    pub const SIZE: usize = 64;
    pub const UPCALL_PENDING: usize = 0;
    pub const UPCALL_MASK: usize = 1;
    pub const PENDING_SEL: usize = 8;
    pub const CR2: usize = 16;
    pub const TIME: usize = 32;
}

abi_struct! {
    /// A guest clock (`vcpu_time_info`); odd version = being written.
    pub struct VcpuTimeInfo {
        pub version: u32 = 0, pub pad0: u32 = 4, pub tsc_timestamp: u64 = 8, pub system_time: u64 = 16,
        pub tsc_to_system_mul: u32 = 24, pub tsc_shift: i8 = 28, pub flags: u8 = 29, pub pad1: u16 = 30,
    } size 32;
    /// One vCPU's mailbox (`vcpu_info`).
    pub struct VcpuInfo {
        pub evtchn_upcall_pending: u8 = 0, pub evtchn_upcall_mask: u8 = 1, pub pad0: [u8; 6] = 2,
        pub evtchn_pending_sel: u64 = 8, pub cr2: u64 = 16, pub pad1: u64 = 24, pub time: VcpuTimeInfo = 32,
    } size 64;
    /// `arch_shared_info`.
    pub struct ArchSharedInfo {
        pub max_pfn: u64 = 0, pub pfn_to_mfn_frame_list_list: u64 = 8, pub nmi_reason: u64 = 16, pub p2m_cr3: u64 = 24,
        pub p2m_vaddr: u64 = 32, pub p2m_generation: u64 = 40,
    } size 48;
    /// The page (`shared_info`).
    pub struct SharedInfo {
        pub vcpu_info: [VcpuInfo; 32] = 0, pub evtchn_pending: [u64; 64] = 0x800, pub evtchn_mask: [u64; 64] = 0xa00,
        pub wc_version: u32 = 0xc00, pub wc_sec: u32 = 0xc04, pub wc_nsec: u32 = 0xc08, pub wc_sec_hi: u32 = 0xc0c,
        pub arch: ArchSharedInfo = 0xc10,
    } size 0xc40;
}
