//! memory_op (xen/memory.h).
#![allow(missing_docs)]

/// Low bits of the command; the rest is the first extent of a continued operation.
pub const CMD_BITS: u32 = 6;
pub const OP_INCREASE_RESERVATION: u64 = 0;
pub const OP_DECREASE_RESERVATION: u64 = 1;
pub const OP_MAXIMUM_RAM_PAGE: u64 = 2;
pub const OP_CURRENT_RESERVATION: u64 = 3;
pub const OP_MAXIMUM_RESERVATION: u64 = 4;
pub const OP_MACHPHYS_MFN_LIST: u64 = 5;
pub const OP_POPULATE_PHYSMAP: u64 = 6;
pub const OP_ADD_TO_PHYSMAP: u64 = 7;
pub const OP_MEMORY_MAP: u64 = 9;
pub const OP_MACHINE_MEMORY_MAP: u64 = 10;
pub const OP_EXCHANGE: u64 = 11;
pub const OP_MACHPHYS_MAPPING: u64 = 12;
pub const OP_SET_MEMORY_MAP: u64 = 13;
pub const OP_MAXIMUM_GPFN: u64 = 14;
pub const OP_REMOVE_FROM_PHYSMAP: u64 = 15;
pub const OP_SET_POD_TARGET: u64 = 16;
pub const OP_GET_POD_TARGET: u64 = 17;
pub const OP_GET_SHARING_FREED_PAGES: u64 = 18;
pub const OP_GET_SHARING_SHARED_PAGES: u64 = 19;
pub const OP_PAGING: u64 = 20;
pub const OP_ACCESS: u64 = 21;
pub const OP_SHARING: u64 = 22;
pub const OP_ADD_TO_PHYSMAP_BATCH: u64 = 23;
pub const OP_CLAIM_PAGES: u64 = 24;
pub const OP_RESERVED_DEVICE_MEMORY_MAP: u64 = 27;
pub const OP_GET_VNUMAINFO: u64 = 26;
pub const OP_ACQUIRE_RESOURCE: u64 = 28;

pub const MEMF_ADDRESS_BITS_MASK: u32 = 0xff;

pub const E820_RAM: u32 = 1;
pub const E820_RESERVED: u32 = 2;
pub const RESOURCE_IOREQ_SERVER: u16 = 0;
pub const RESOURCE_GRANT_TABLE: u16 = 1;
pub const RESOURCE_VMTRACE_BUF: u16 = 2;
/// acquire_resource id of the grant table proper.
pub const GRANT_TABLE_SHARED: u32 = 0;

abi_struct! {
    /// `flags` holds address bits (0–7) and a node.
    pub struct Reservation { pub extent_start: u64 = 0, pub nr_extents: u64 = 8, pub extent_order: u32 = 16, pub flags: u32 = 20, pub domid: u16 = 24, pub pad: [u16; 3] = 26, } size 32;
    pub struct Exchange { pub input: Reservation = 0, pub output: Reservation = 32, pub nr_exchanged: u64 = 64, } size 72;
    pub struct MachphysMfnList { pub max_extents: u32 = 0, pub pad: u32 = 4, pub extent_start: u64 = 8, pub nr_extents: u32 = 16, pub pad2: u32 = 20, } size 24;
    pub struct MachphysMapping { pub v_start: u64 = 0, pub v_end: u64 = 8, pub max_mfn: u64 = 16, } size 24;
    pub struct MemoryMap { pub nr_entries: u32 = 0, pub pad: u32 = 4, pub buffer: u64 = 8, } size 16;
    pub struct ForeignMemoryMap { pub domid: u16 = 0, pub pad: [u16; 3] = 2, pub map: MemoryMap = 8, } size 24;
    pub struct AcquireResource { pub domid: u16 = 0, pub kind: u16 = 2, pub id: u32 = 4, pub nr_frames: u32 = 8, pub pad: u32 = 12, pub frame: u64 = 16, pub frame_list: u64 = 24, } size 32;
}

/// One range of an E820 map; packed in the ABI, hence bytes.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct E820Entry {
    addr: [u8; 8],
    size: [u8; 8],
    kind: [u8; 4],
}
abi_layout!(E820Entry, 20, addr @ 0, size @ 8, kind @ 16);

impl E820Entry {
    pub const fn new(addr: u64, size: u64, kind: u32) -> Self {
        E820Entry { addr: addr.to_le_bytes(), size: size.to_le_bytes(), kind: kind.to_le_bytes() }
    }
    pub const fn addr(&self) -> u64 {
        u64::from_le_bytes(self.addr)
    }
    pub const fn size(&self) -> u64 {
        u64::from_le_bytes(self.size)
    }
    pub const fn kind(&self) -> u32 {
        u32::from_le_bytes(self.kind)
    }
}
