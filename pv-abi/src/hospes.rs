//! What Hospes offers beyond Xen's ABI. Xen answers these with -EOPNOTSUPP or -ENOSYS.

/// sysctl: recounts every frame's references and types and compares them with what justifies them.
pub const SYSCTL_AUDIT: u32 = 0x4800_0001;

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
    } size 40;
}
