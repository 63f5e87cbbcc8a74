//! Grant tables, version 1 (xen/grant_table.h).
#![allow(missing_docs)]

pub const OP_MAP_GRANT_REF: u64 = 0;
pub const OP_UNMAP_GRANT_REF: u64 = 1;
pub const OP_SETUP_TABLE: u64 = 2;
pub const OP_DUMP_TABLE: u64 = 3;
pub const OP_TRANSFER: u64 = 4;
pub const OP_COPY: u64 = 5;
pub const OP_QUERY_SIZE: u64 = 6;
pub const OP_UNMAP_AND_REPLACE: u64 = 7;
pub const OP_SET_VERSION: u64 = 8;
pub const OP_GET_STATUS_FRAMES: u64 = 9;
pub const OP_GET_VERSION: u64 = 10;
pub const OP_SWAP_GRANT_REF: u64 = 11;
pub const OP_CACHE_FLUSH: u64 = 12;

/// Entry flags.
pub const GTF_TYPE_MASK: u16 = 3;
pub const GTF_INVALID: u16 = 0;
pub const GTF_PERMIT_ACCESS: u16 = 1;
pub const GTF_ACCEPT_TRANSFER: u16 = 2;
pub const GTF_READONLY: u16 = 1 << 2;
pub const GTF_READING: u16 = 1 << 3;
pub const GTF_WRITING: u16 = 1 << 4;

/// Map flags.
pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
pub const GNTMAP_READONLY: u32 = 1 << 2;
pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;
pub const GNTMAP_CAN_FAIL: u32 = 1 << 5;
pub const GNTMAP_GUEST_AVAIL0: u32 = 16;

pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// Status of one element (`GNTST_*`).
pub const ST_OKAY: i16 = 0;
pub const ST_GENERAL_ERROR: i16 = -1;
pub const ST_BAD_DOMAIN: i16 = -2;
pub const ST_BAD_GNTREF: i16 = -3;
pub const ST_BAD_HANDLE: i16 = -4;
pub const ST_BAD_VIRT_ADDR: i16 = -5;
pub const ST_BAD_DEV_ADDR: i16 = -6;
pub const ST_NO_DEVICE_SPACE: i16 = -7;
pub const ST_PERMISSION_DENIED: i16 = -8;
pub const ST_BAD_PAGE: i16 = -9;
pub const ST_BAD_COPY_ARG: i16 = -10;
pub const ST_ADDRESS_TOO_BIG: i16 = -11;
pub const ST_EAGAIN: i16 = -12;
pub const ST_NO_SPACE: i16 = -13;

/// Entries of a grant-table frame.
pub const ENTRIES_PER_FRAME: u32 = 512;
/// Entries the toolstack fills before a guest starts.
pub const RESERVED_CONSOLE: u32 = 0;
pub const RESERVED_XENSTORE: u32 = 1;

abi_struct! {
    pub struct EntryV1 { pub flags: u16 = 0, pub domid: u16 = 2, pub frame: u32 = 4, } size 8;
    pub struct MapGrantRef {
        pub host_addr: u64 = 0, pub flags: u32 = 8, pub gref: u32 = 12, pub dom: u16 = 16, pub status: i16 = 18,
        pub handle: u32 = 20, pub dev_bus_addr: u64 = 24,
    } size 32;
    pub struct UnmapGrantRef {
        pub host_addr: u64 = 0, pub dev_bus_addr: u64 = 8, pub handle: u32 = 16, pub status: i16 = 20, pub pad: u16 = 22,
    } size 24;
    pub struct SetupTable { pub dom: u16 = 0, pub pad: u16 = 2, pub nr_frames: u32 = 4, pub status: i16 = 8, pub pad2: [u16; 3] = 10, pub frame_list: u64 = 16, } size 24;
    pub struct CopyPtr { pub reference: u64 = 0, pub domid: u16 = 8, pub offset: u16 = 10, pub pad: u32 = 12, } size 16;
    pub struct Copy { pub source: CopyPtr = 0, pub dest: CopyPtr = 16, pub len: u16 = 32, pub flags: u16 = 34, pub status: i16 = 36, pub pad: u16 = 38, } size 40;
    pub struct QuerySize { pub dom: u16 = 0, pub pad: u16 = 2, pub nr_frames: u32 = 4, pub max_nr_frames: u32 = 8, pub status: i16 = 12, pub pad2: u16 = 14, } size 16;
    pub struct SetVersion { pub version: u32 = 0, } size 4;
    pub struct GetVersion { pub dom: u16 = 0, pub pad: u16 = 2, pub version: u32 = 4, } size 8;
    pub struct Transfer { pub mfn: u64 = 0, pub domid: u16 = 8, pub pad: u16 = 10, pub gref: u32 = 12, pub status: i16 = 16, pub pad2: [u16; 3] = 18, } size 24;
}
