//! vcpu_op (xen/vcpu.h).
#![allow(missing_docs)]

pub const OP_INITIALISE: u64 = 0;
pub const OP_UP: u64 = 1;
pub const OP_DOWN: u64 = 2;
pub const OP_IS_UP: u64 = 3;
pub const OP_GET_RUNSTATE_INFO: u64 = 4;
pub const OP_REGISTER_RUNSTATE_MEMORY_AREA: u64 = 5;
pub const OP_SET_PERIODIC_TIMER: u64 = 6;
pub const OP_STOP_PERIODIC_TIMER: u64 = 7;
pub const OP_SET_SINGLESHOT_TIMER: u64 = 8;
pub const OP_STOP_SINGLESHOT_TIMER: u64 = 9;
pub const OP_REGISTER_VCPU_INFO: u64 = 10;
pub const OP_SEND_NMI: u64 = 11;
pub const OP_GET_PHYSID: u64 = 12;
pub const OP_REGISTER_VCPU_TIME_MEMORY_AREA: u64 = 13;

abi_struct! {
    pub struct RunstateInfo { pub state: u32 = 0, pub pad: u32 = 4, pub state_entry_time: u64 = 8, pub time: [u64; 4] = 16, } size 48;
    pub struct MemoryArea { pub addr: u64 = 0, } size 8;
    pub struct SetPeriodicTimer { pub period_ns: u64 = 0, } size 8;
    pub struct SetSingleshotTimer { pub timeout_abs_ns: u64 = 0, pub flags: u32 = 8, pub pad: u32 = 12, } size 16;
    pub struct RegisterVcpuInfo { pub mfn: u64 = 0, pub offset: u32 = 8, pub rsvd: u32 = 12, } size 16;
}
