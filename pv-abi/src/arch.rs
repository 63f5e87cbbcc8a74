//! The x86-64 PV CPU (arch-x86/xen.h, arch-x86/xen-x86_64.h).

/// First address of the hypervisor's part.
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// First address behind it.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
/// Machine-to-phys table as guests see it.
pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// End of the window kept for it.
pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;

/// Selectors every PV guest has.
#[allow(missing_docs)]
pub mod sel {
    pub const FLAT_RING3_CS32: u16 = 0xe023;
    pub const FLAT_RING3_DS: u16 = 0xe02b;
    pub const FLAT_RING3_CS64: u16 = 0xe033;
    /// Entry of the GDT where the reserved descriptors begin.
    pub const FIRST_RESERVED_GDT_ENTRY: u16 = 7168;
}

/// `vcpu_guest_context.flags`.
#[allow(missing_docs)]
pub mod vgcf {
    pub const I387_VALID: u64 = 1 << 0;
    pub const IN_KERNEL: u64 = 1 << 2;
    pub const FAILSAFE_DISABLES_EVENTS: u64 = 1 << 3;
    pub const SYSCALL_DISABLES_EVENTS: u64 = 1 << 4;
    pub const ONLINE: u64 = 1 << 5;
    /// In the flags word of an iret frame: return as from a system call.
    pub const IN_SYSCALL: u64 = 1 << 8;
}

/// Bytes of the iret hypercall's frame.
pub const IRET_FRAME_SIZE: u64 = 72;

abi_struct! {
    /// One line of a trap table (`trap_info`).
    pub struct TrapInfo {
        pub vector: u8 = 0,
        /// Bits 0–1: lowest privilege that may raise it by software; bit 2: mask events on entry.
        pub flags: u8 = 1,
        pub cs: u16 = 2,
        pub pad: u32 = 4,
        pub address: u64 = 8,
    } size 16;

    /// Registers in the ABI's order (`cpu_user_regs`).
    pub struct CpuUserRegs {
        pub r15: u64 = 0, pub r14: u64 = 8, pub r13: u64 = 16, pub r12: u64 = 24, pub rbp: u64 = 32,
        pub rbx: u64 = 40, pub r11: u64 = 48, pub r10: u64 = 56, pub r9: u64 = 64, pub r8: u64 = 72,
        pub rax: u64 = 80, pub rcx: u64 = 88, pub rdx: u64 = 96, pub rsi: u64 = 104, pub rdi: u64 = 112,
        pub error_code: u32 = 120, pub entry_vector: u32 = 124, pub rip: u64 = 128,
        pub cs: u16 = 136, pub pad0: u16 = 138, pub saved_upcall_mask: u8 = 140, pub pad1: [u8; 3] = 141,
        pub rflags: u64 = 144, pub rsp: u64 = 152,
        pub ss: u16 = 160, pub pad2: [u16; 3] = 162, pub es: u16 = 168, pub pad3: [u16; 3] = 170,
        pub ds: u16 = 176, pub pad4: [u16; 3] = 178, pub fs: u16 = 184, pub pad5: [u16; 3] = 186,
        pub gs: u16 = 192, pub pad6: [u16; 3] = 194,
    } size 200;

    /// What the iret hypercall finds on the guest's stack (`iret_context`).
    pub struct IretContext {
        pub rax: u64 = 0, pub r11: u64 = 8, pub rcx: u64 = 16, pub flags: u64 = 24, pub rip: u64 = 32,
        pub cs: u64 = 40, pub rflags: u64 = 48, pub rsp: u64 = 56, pub ss: u64 = 64,
    } size 72;

    /// State of a whole vCPU (`vcpu_guest_context`).
    pub struct VcpuGuestContext {
        pub fpu: [u8; 512] = 0,
        pub flags: u64 = 512,
        pub user_regs: CpuUserRegs = 520,
        pub trap_ctxt: [TrapInfo; 256] = 720,
        pub ldt_base: u64 = 4816, pub ldt_ents: u64 = 4824,
        pub gdt_frames: [u64; 16] = 4832, pub gdt_ents: u64 = 4960,
        pub kernel_ss: u64 = 4968, pub kernel_sp: u64 = 4976,
        pub ctrlreg: [u64; 8] = 4984, pub debugreg: [u64; 8] = 5048,
        pub event_callback_eip: u64 = 5112, pub failsafe_callback_eip: u64 = 5120, pub syscall_callback_eip: u64 = 5128,
        pub vm_assist: u64 = 5136,
        pub fs_base: u64 = 5144, pub gs_base_kernel: u64 = 5152, pub gs_base_user: u64 = 5160,
    } size 5168;
}
