//! What Hospes offers beyond Xen's ABI. Xen answers these with -EOPNOTSUPP or -ENOSYS.

/// sysctl: recounts every frame's references and types and compares them with what justifies them.
pub const SYSCTL_AUDIT: u32 = 0x4800_0001;

/// sysctl: breaks the hypervisor on purpose ([`Break`]), to see what it does then. Debug builds only; others say
/// -ENOSYS.
pub const SYSCTL_BREAK: u32 = 0x4800_0002;

/// sysctl: lets one of the next allocations fail ([`Fault`]), made by whatever the calling CPU does. Debug builds only;
/// others say -ENOSYS.
pub const SYSCTL_FAULT: u32 = 0x4800_0003;

/// sysctl: the longest time without a preemption point ([`Stretch`]). Debug builds only; others say -ENOSYS.
pub const SYSCTL_STRETCH: u32 = 0x4800_0004;

abi_struct! {
    /// What [`SYSCTL_FAULT`] wants and tells.
    pub struct Fault {
        /// Which allocation from now fails, 1 = the next; 0: none.
        pub nth: u64 = 0,
        /// Result: allocations that have failed by this since boot.
        pub failed: u64 = 8,
    } size 16;
    /// What [`SYSCTL_STRETCH`] tells.
    pub struct Stretch {
        /// TSC ticks; the record begins anew with each call.
        pub ticks: u64 = 0,
        /// In which hypercall.
        pub hypercall: u64 = 8,
        /// Its first argument.
        pub argument: u64 = 16,
    } size 24;
}

/// Ways to break.
#[allow(missing_docs)]
pub mod breaks {
    /// A panic.
    pub const PANIC: u32 = 1;
    /// The CPU never leaves the hypervisor again.
    pub const HANG: u32 = 2;
    /// A recursion without end.
    pub const STACK: u32 = 3;
    /// A write to code, at its own address and through the direct map; to constants.
    pub const WRITE_TEXT: u32 = 4;
    pub const WRITE_TEXT_DIRECT: u32 = 5;
    pub const WRITE_RODATA: u32 = 6;
    /// A jump to data, and to code through the direct map.
    pub const RUN_DATA: u32 = 7;
    pub const RUN_DIRECT_MAP: u32 = 8;
    /// A jump to, and a plain read of, the guest's address given.
    pub const RUN_GUEST: u32 = 9;
    pub const READ_GUEST: u32 = 10;
    /// A write where nothing is.
    pub const WILD: u32 = 11;
    /// An access to page `at` of the CPU's stack block, where a guard page is to be.
    pub const GUARD: u32 = 12;
    /// A machine check, as far as one can be had without broken hardware: its vector.
    pub const MACHINE_CHECK: u32 = 13;
}

abi_struct! {
    /// What [`SYSCTL_BREAK`] wants.
    pub struct Break {
        /// One of [`breaks`].
        pub what: u32 = 0,
        /// Not used.
        pub pad: u32 = 4,
        /// A guest address, or a number, for the ways that want one.
        pub at: u64 = 8,
    } size 16;
}

abi_struct! {
    /// The sysctl's structure; all fields are results.
    pub struct Audit {
        /// Frames and counters that do not add up: 0 is a clean audit.
        pub errors: u64 = 0,
        /// Frames looked at.
        pub frames_checked: u64 = 8,
        /// Domains there are, dying ones included.
        pub domains: u64 = 16,
        /// Page-table pages walked.
        pub page_tables: u64 = 24,
        /// Frames without an owner.
        pub free_frames: u64 = 32,
        /// Frames of the hypervisor's own, as far as its allocator gave them: not its image.
        pub hypervisor_frames: u64 = 40,
        /// Bytes of the hypervisor's heap, which keeps the pages it has once grown by (part of `hypervisor_frames`).
        pub heap_bytes: u64 = 48,
        /// Bytes of it in use.
        pub heap_used: u64 = 56,
    } size 64;
}
