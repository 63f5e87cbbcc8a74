//! xen_version (xen/version.h).
#![allow(missing_docs)]

pub const OP_VERSION: u64 = 0;
pub const OP_EXTRAVERSION: u64 = 1;
pub const OP_COMPILE_INFO: u64 = 2;
pub const OP_CAPABILITIES: u64 = 3;
pub const OP_CHANGESET: u64 = 4;
pub const OP_PLATFORM_PARAMETERS: u64 = 5;
pub const OP_GET_FEATURES: u64 = 6;
pub const OP_PAGESIZE: u64 = 7;
pub const OP_GUEST_HANDLE: u64 = 8;
pub const OP_COMMANDLINE: u64 = 9;
pub const OP_BUILD_ID: u64 = 10;

abi_struct! {
    pub struct CompileInfo { pub compiler: [u8; 64] = 0, pub compile_by: [u8; 16] = 64, pub compile_domain: [u8; 32] = 80, pub compile_date: [u8; 32] = 112, } size 144;
    pub struct FeatureInfo { pub submap_idx: u32 = 0, pub submap: u32 = 4, } size 8;
}
