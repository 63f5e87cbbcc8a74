//! mmu_update, mmuext_op, update_va_mapping, multicall, vm_assist (xen/xen.h).
#![allow(missing_docs)]

/// Low two bits of `MmuUpdate::ptr`.
pub const NORMAL_PT_UPDATE: u64 = 0;
pub const MACHPHYS_UPDATE: u64 = 1;
pub const PT_UPDATE_PRESERVE_AD: u64 = 2;
pub const PT_UPDATE_NO_TRANSLATE: u64 = 3;
/// In the count of a continued mmu_update or mmuext_op.
pub const UPDATE_PREEMPTED: u32 = 1 << 31;

pub const EXT_PIN_L1_TABLE: u32 = 0;
pub const EXT_PIN_L2_TABLE: u32 = 1;
pub const EXT_PIN_L3_TABLE: u32 = 2;
pub const EXT_PIN_L4_TABLE: u32 = 3;
pub const EXT_UNPIN_TABLE: u32 = 4;
pub const EXT_NEW_BASEPTR: u32 = 5;
pub const EXT_TLB_FLUSH_LOCAL: u32 = 6;
pub const EXT_INVLPG_LOCAL: u32 = 7;
pub const EXT_TLB_FLUSH_MULTI: u32 = 8;
pub const EXT_INVLPG_MULTI: u32 = 9;
pub const EXT_TLB_FLUSH_ALL: u32 = 10;
pub const EXT_INVLPG_ALL: u32 = 11;
pub const EXT_FLUSH_CACHE: u32 = 12;
pub const EXT_SET_LDT: u32 = 13;
pub const EXT_NEW_USER_BASEPTR: u32 = 15;
pub const EXT_CLEAR_PAGE: u32 = 16;
pub const EXT_COPY_PAGE: u32 = 17;
pub const EXT_FLUSH_CACHE_GLOBAL: u32 = 18;
pub const EXT_MARK_SUPER: u32 = 19;
pub const EXT_UNMARK_SUPER: u32 = 20;

pub const UVMF_TLB_FLUSH: u64 = 1;
pub const UVMF_INVLPG: u64 = 2;
pub const UVMF_FLUSHTYPE_MASK: u64 = 3;
pub const UVMF_ALL: u64 = 4;
/// Any higher value is a guest address of a vCPU bitmap.
pub const UVMF_POINTER_MASK: u64 = !7;

pub const VMASST_CMD_ENABLE: u64 = 0;
pub const VMASST_CMD_DISABLE: u64 = 1;
pub const VMASST_4GB_SEGMENTS: u64 = 0;
pub const VMASST_4GB_SEGMENTS_NOTIFY: u64 = 1;
pub const VMASST_WRITABLE_PAGETABLES: u64 = 2;
pub const VMASST_PAE_EXTENDED_CR3: u64 = 3;
pub const VMASST_ARCHITECTURAL_IOPL: u64 = 4;
pub const VMASST_RUNSTATE_UPDATE_FLAG: u64 = 5;
pub const VMASST_M2P_STRICT: u64 = 32;

abi_struct! {
    pub struct MmuUpdate { pub ptr: u64 = 0, pub val: u64 = 8, } size 16;
    pub struct MmuextOp { pub cmd: u32 = 0, pub pad: u32 = 4, pub arg1: u64 = 8, pub arg2: u64 = 16, } size 24;
    pub struct MulticallEntry { pub op: u64 = 0, pub result: i64 = 8, pub args: [u64; 6] = 16, } size 64;
}
