//! What a PV kernel finds in rsi (xen/xen.h `start_info`).
#![allow(missing_docs)]

pub const SIF_PRIVILEGED: u32 = 1 << 0;
pub const SIF_INITDOMAIN: u32 = 1 << 1;
pub const SIF_MULTIBOOT_MOD: u32 = 1 << 2;
pub const SIF_MOD_START_PFN: u32 = 1 << 3;
pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4;

/// Bytes of the command line, NUL included.
pub const CMDLINE_SIZE: usize = 1024;

abi_struct! {
    /// For a domU `console0` is the ring's MFN and `console1` its port; for dom0 `console0` holds {info_off u32, info_size u32}.
    pub struct StartInfo {
        pub magic: [u8; 32] = 0, pub nr_pages: u64 = 0x20, pub shared_info: u64 = 0x28, pub flags: u32 = 0x30, pub pad0: u32 = 0x34,
        pub store_mfn: u64 = 0x38, pub store_evtchn: u32 = 0x40, pub pad1: u32 = 0x44,
        pub console0: u64 = 0x48, pub console1: u32 = 0x50, pub pad2: u32 = 0x54,
        pub pt_base: u64 = 0x58, pub nr_pt_frames: u64 = 0x60, pub mfn_list: u64 = 0x68, pub mod_start: u64 = 0x70, pub mod_len: u64 = 0x78,
        pub cmd_line: [u8; 1024] = 0x80, pub first_p2m_pfn: u64 = 0x480, pub nr_p2m_frames: u64 = 0x488,
    } size 0x490;
}
