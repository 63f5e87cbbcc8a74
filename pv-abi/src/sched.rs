//! sched_op (xen/sched.h).
#![allow(missing_docs)]

pub const OP_YIELD: u64 = 0;
pub const OP_BLOCK: u64 = 1;
pub const OP_SHUTDOWN: u64 = 2;
pub const OP_POLL: u64 = 3;
pub const OP_REMOTE_SHUTDOWN: u64 = 4;
pub const OP_SHUTDOWN_CODE: u64 = 5;
pub const OP_WATCHDOG: u64 = 6;
pub const OP_PIN_OVERRIDE: u64 = 7;

abi_struct! {
    pub struct Shutdown { pub reason: u32 = 0, } size 4;
    pub struct Poll { pub ports: u64 = 0, pub nr_ports: u32 = 8, pub pad: u32 = 12, pub timeout: u64 = 16, } size 24;
    pub struct RemoteShutdown { pub domid: u16 = 0, pub pad: u16 = 2, pub reason: u32 = 4, } size 8;
    pub struct Watchdog { pub id: u32 = 0, pub timeout: u32 = 4, } size 8;
    pub struct PinOverride { pub pcpu: i32 = 0, } size 4;
}
