//! The registers of an interrupted guest, as the entry assembly lays them on the CPU's stack.

/// Everything the entry code saves of a guest: the same order as the ABI's `cpu_user_regs` up to `ss`
/// (arch-x86/xen-x86_64.h), so that copying to and from a `vcpu_guest_context` is a field-by-field affair.
///
/// The frame always stands at the same place: directly below [`super::percpu::CpuLocal`] at the top of the CPU's stack.
/// It is a plain value: at a vCPU switch it is copied out to the vCPU and the next vCPU's is copied in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Hardware error code of the exception, 0 where it has none.
    pub error_code: u32,
    /// Vector that entered the hypervisor; [`GuestRegs::SYSCALL`] for the SYSCALL instruction. The exit path
    /// returns with SYSRET only while this still says so, and with IRETQ otherwise.
    pub entry_vector: u32,
    pub rip: u64,
    /// Selector as hardware pushed it (upper bits zero).
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl GuestRegs {
    /// `entry_vector` of an entry by SYSCALL. Whoever changes rip, cs, rflags, rsp, ss, rcx or r11 of such a frame
    /// in a way SYSRET cannot return to must call [`GuestRegs::force_iret`].
    pub const SYSCALL: u32 = 0x100;

    /// Makes the exit path use IRETQ: the frame no longer is what SYSCALL left.
    pub fn force_iret(&mut self) {
        self.entry_vector = 0;
    }
}

/// RFLAGS bits (SDM vol. 1 §3.4.3).
#[allow(missing_docs)]
pub mod rflags {
    pub const CF: u64 = 1 << 0;
    pub const FIXED: u64 = 1 << 1;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
}
