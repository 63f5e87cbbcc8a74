//! Event channels (xen/event_channel.h) and virtual interrupts (xen/xen.h `VIRQ_*`).
#![allow(missing_docs)]

pub const OP_BIND_INTERDOMAIN: u64 = 0;
pub const OP_BIND_VIRQ: u64 = 1;
pub const OP_BIND_PIRQ: u64 = 2;
pub const OP_CLOSE: u64 = 3;
pub const OP_SEND: u64 = 4;
pub const OP_STATUS: u64 = 5;
pub const OP_ALLOC_UNBOUND: u64 = 6;
pub const OP_BIND_IPI: u64 = 7;
pub const OP_BIND_VCPU: u64 = 8;
pub const OP_UNMASK: u64 = 9;
pub const OP_RESET: u64 = 10;
pub const OP_INIT_CONTROL: u64 = 11;
pub const OP_EXPAND_ARRAY: u64 = 12;
pub const OP_SET_PRIORITY: u64 = 13;

pub const VIRQ_TIMER: u32 = 0;
pub const VIRQ_DEBUG: u32 = 1;
pub const VIRQ_CONSOLE: u32 = 2;
pub const VIRQ_DOM_EXC: u32 = 3;
pub const VIRQ_TBUF: u32 = 4;
pub const VIRQ_DEBUGGER: u32 = 6;
pub const VIRQ_XENOPROF: u32 = 7;
pub const VIRQ_CON_RING: u32 = 8;
pub const VIRQ_PCPU_STATE: u32 = 9;
pub const VIRQ_MEM_EVENT: u32 = 10;
pub const VIRQ_ARGO: u32 = 11;
pub const VIRQ_ENOMEM: u32 = 12;
pub const VIRQ_XENPMU: u32 = 13;
pub const VIRQ_MCA: u32 = 16;
pub const NR_VIRQS: u32 = 24;

pub const STATUS_CLOSED: u32 = 0;
pub const STATUS_UNBOUND: u32 = 1;
pub const STATUS_INTERDOMAIN: u32 = 2;
pub const STATUS_PIRQ: u32 = 3;
pub const STATUS_VIRQ: u32 = 4;
pub const STATUS_IPI: u32 = 5;

pub const BIND_PIRQ_WILL_SHARE: u32 = 1;

/// Ports of the 2-level ABI on 64-bit guests.
pub const NR_PORTS_2L: u32 = 4096;

abi_struct! {
    pub struct AllocUnbound { pub dom: u16 = 0, pub remote_dom: u16 = 2, pub port: u32 = 4, } size 8;
    pub struct BindInterdomain { pub remote_dom: u16 = 0, pub pad: u16 = 2, pub remote_port: u32 = 4, pub local_port: u32 = 8, } size 12;
    pub struct BindVirq { pub virq: u32 = 0, pub vcpu: u32 = 4, pub port: u32 = 8, } size 12;
    pub struct BindPirq { pub pirq: u32 = 0, pub flags: u32 = 4, pub port: u32 = 8, } size 12;
    pub struct BindIpi { pub vcpu: u32 = 0, pub port: u32 = 4, } size 8;
    pub struct Close { pub port: u32 = 0, } size 4;
    pub struct Send { pub port: u32 = 0, } size 4;
    pub struct Unmask { pub port: u32 = 0, } size 4;
    pub struct BindVcpu { pub port: u32 = 0, pub vcpu: u32 = 4, } size 8;
    pub struct Reset { pub dom: u16 = 0, } size 2;
    /// `u` is the union: unbound {dom u16}, interdomain {dom u16, port u32 at +4}, pirq, virq.
    pub struct Status { pub dom: u16 = 0, pub pad: u16 = 2, pub port: u32 = 4, pub status: u32 = 8, pub vcpu: u32 = 12, pub u: [u32; 2] = 16, } size 24;
}
