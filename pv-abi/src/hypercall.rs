//! Hypercalls as data: the one list that gives numbers, names, dispatch, counters and the coverage page.

/// Entries of the dispatch table; numbers from here on are -ENOSYS.
pub const NR_ENTRIES: usize = 64;

/// How far Hospes is with a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All operations a Linux guest or the stock tools use.
    Implemented,
    /// Some of them.
    Partial,
    /// Known, and answered with an error.
    Absent,
}

/// Calls `$m!` with every hypercall: `(number, constant, "name", arguments, status, "note");`.
#[macro_export]
macro_rules! for_each_hypercall {
    ($m:ident) => {
        $m! {
            (0, SET_TRAP_TABLE, "set_trap_table", 1, Implemented, "trap table of the calling vCPU");
            (1, MMU_UPDATE, "mmu_update", 4, Implemented, "checked page-table and M2P updates");
            (2, SET_GDT, "set_gdt", 2, Implemented, "");
            (3, STACK_SWITCH, "stack_switch", 2, Implemented, "");
            (4, SET_CALLBACKS, "set_callbacks", 3, Implemented, "old form of callback_op");
            (5, FPU_TASKSWITCH, "fpu_taskswitch", 1, Implemented, "");
            (6, SCHED_OP_COMPAT, "sched_op_compat", 2, Implemented, "yield, block and shutdown");
            (7, PLATFORM_OP, "platform_op", 1, Partial, "dom0 only");
            (8, SET_DEBUGREG, "set_debugreg", 2, Implemented, "");
            (9, GET_DEBUGREG, "get_debugreg", 1, Implemented, "");
            (10, UPDATE_DESCRIPTOR, "update_descriptor", 2, Implemented, "");
            (12, MEMORY_OP, "memory_op", 2, Partial, "");
            (13, MULTICALL, "multicall", 2, Implemented, "");
            (14, UPDATE_VA_MAPPING, "update_va_mapping", 3, Implemented, "");
            (15, SET_TIMER_OP, "set_timer_op", 1, Implemented, "");
            (16, EVENT_CHANNEL_OP_COMPAT, "event_channel_op_compat", 1, Implemented, "old form of event_channel_op, for commands 0 to 9");
            (17, XEN_VERSION, "xen_version", 2, Implemented, "");
            (18, CONSOLE_IO, "console_io", 3, Implemented, "");
            (19, PHYSDEV_OP_COMPAT, "physdev_op_compat", 1, Implemented, "old form of physdev_op");
            (20, GRANT_TABLE_OP, "grant_table_op", 3, Partial, "version 1 tables");
            (21, VM_ASSIST, "vm_assist", 2, Implemented, "");
            (22, UPDATE_VA_MAPPING_OTHERDOMAIN, "update_va_mapping_otherdomain", 4, Implemented, "");
            (23, IRET, "iret", 0, Implemented, "");
            (24, VCPU_OP, "vcpu_op", 3, Implemented, "");
            (25, SET_SEGMENT_BASE, "set_segment_base", 2, Implemented, "");
            (26, MMUEXT_OP, "mmuext_op", 4, Implemented, "");
            (27, XSM_OP, "xsm_op", 1, Absent, "no security module: -ENOSYS");
            (28, NMI_OP, "nmi_op", 2, Implemented, "old form of callback_op for NMIs");
            (29, SCHED_OP, "sched_op", 2, Implemented, "");
            (30, CALLBACK_OP, "callback_op", 2, Implemented, "");
            (32, EVENT_CHANNEL_OP, "event_channel_op", 2, Partial, "2-level ABI");
            (33, PHYSDEV_OP, "physdev_op", 2, Partial, "");
            (34, HVM_OP, "hvm_op", 2, Absent, "PV only");
            (35, SYSCTL, "sysctl", 1, Partial, "interface version 0x15");
            (36, DOMCTL, "domctl", 1, Partial, "interface version 0x15");
            (37, KEXEC_OP, "kexec_op", 2, Absent, "");
            (39, ARGO_OP, "argo_op", 5, Absent, "");
            (40, XENPMU_OP, "xenpmu_op", 2, Absent, "-EOPNOTSUPP");
            (41, DM_OP, "dm_op", 3, Absent, "PV only");
            (42, HYPFS_OP, "hypfs_op", 5, Absent, "");
            (48, MCA, "mca", 1, Partial, "there never is a record: a machine check stops the machine");
        }
    };
}

macro_rules! declare {
    ($(($n:expr, $id:ident, $name:expr, $args:expr, $status:ident, $note:expr);)*) => {
        /// Hypercall numbers.
        #[allow(missing_docs)]
        pub mod nr { $(pub const $id: usize = $n;)* }

        /// One line of the list.
        #[derive(Clone, Copy, Debug)]
        pub struct Entry {
            /// Number, in rax.
            pub number: usize,
            /// ABI name, without `HYPERVISOR_`.
            pub name: &'static str,
            /// Number of arguments.
            pub args: usize,
            /// How far it is built.
            pub status: Status,
            /// What else there is to say.
            pub note: &'static str,
        }

        /// Every hypercall the ABI names.
        pub const LIST: &[Entry] = &[$(Entry { number: $n, name: $name, args: $args, status: Status::$status, note: $note }),*];
    };
}
for_each_hypercall!(declare);

/// The name of hypercall `number`, if the ABI has one.
pub fn name(number: usize) -> Option<&'static str> {
    LIST.iter().find(|e| e.number == number).map(|e| e.name)
}
