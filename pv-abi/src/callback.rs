//! callback_op (xen/callback.h).
#![allow(missing_docs)]

pub const TYPE_EVENT: u16 = 0;
pub const TYPE_FAILSAFE: u16 = 1;
pub const TYPE_SYSCALL: u16 = 2;
pub const TYPE_SYSENTER_DEPRECATED: u16 = 3;
pub const TYPE_NMI: u16 = 4;
pub const TYPE_SYSENTER: u16 = 5;
pub const TYPE_SYSCALL32: u16 = 7;
pub const F_MASK_EVENTS: u16 = 1;
pub const OP_REGISTER: u64 = 0;
pub const OP_UNREGISTER: u64 = 1;
/// nmi_op's commands (xen/nmi.h).
pub const NMI_OP_REGISTER: u64 = 0;
pub const NMI_OP_UNREGISTER: u64 = 1;

abi_struct! {
    pub struct CallbackRegister { pub kind: u16 = 0, pub flags: u16 = 2, pub pad: u32 = 4, pub address: u64 = 8, } size 16;
    pub struct NmiCallback { pub address: u64 = 0, pub pad: u64 = 8, } size 16;
    pub struct CallbackUnregister { pub kind: u16 = 0, pub pad: u16 = 2, } size 4;
}
