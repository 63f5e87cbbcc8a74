//! Xen notes, the first instructions, and what the runtime sets up before the kernel's body runs.
#![cfg_attr(not(target_os = "none"), allow(unused_imports, unused_macros, reason = "only the bare target starts"))]
use crate::mem::Racy;
use crate::probe::Gprs;
use core::arch::global_asm;
use pv_abi::{elfnote, start_info::StartInfo};

/// Bytes of a vCPU's stack.
pub const STACK_SIZE: usize = 32 << 10;
/// vCPUs the runtime can run.
pub const MAX_CPUS: usize = 4;

/// One kernel stack.
#[repr(C, align(4096))]
pub struct Stack(pub [u8; STACK_SIZE]);

/// The stack of each vCPU.
pub static STACKS: Racy<[Stack; MAX_CPUS]> = Racy::new([const { Stack([0; STACK_SIZE]) }; MAX_CPUS]);

/// The registers the kernel was entered with, for the test of the start of day.
#[repr(C)]
pub struct EntryState {
    /// General registers but rsp.
    pub gprs: Gprs,
    /// rsp.
    pub rsp: u64,
    /// rflags.
    pub rflags: u64,
    /// cs, ss, ds, es, fs, gs.
    pub selectors: [u16; 6],
    /// x87 control word.
    pub fcw: u16,
    pad: u16,
    /// SSE control word.
    pub mxcsr: u32,
}

/// Filled by the first instructions.
pub static ENTRY: Racy<EntryState> =
    Racy::new(EntryState { gprs: Gprs::ZERO, rsp: 0, rflags: 0, selectors: [0; 6], fcw: 0, pad: 0, mxcsr: 0 });

static START_INFO: Racy<u64> = Racy::new(0);

/// For a child, which is not entered by the code below.
pub(crate) fn set_start_info(va: u64) {
    // SAFETY: before anybody else runs.
    unsafe { START_INFO.get().write(va) }
}

/// The start_info page.
pub fn start_info() -> &'static StartInfo {
    // SAFETY: set once by the first instructions, to the page the hypervisor made and nobody changes.
    unsafe { &*(*START_INFO.get() as *const StartInfo) }
}

macro_rules! note {
    ($kind:expr, string $text:expr) => {
        concat!(".balign 4\n.long 4, 5f-4f, ", $kind, "\n.asciz \"Xen\"\n4: .asciz \"", $text, "\"\n5:\n")
    };
    ($kind:expr, quad $value:expr) => {
        concat!(".balign 4\n.long 4, 8, ", $kind, "\n.asciz \"Xen\"\n.quad ", $value, "\n")
    };
    ($kind:expr, long $value:expr) => {
        concat!(".balign 4\n.long 4, 4, ", $kind, "\n.asciz \"Xen\"\n.long ", $value, "\n")
    };
    ($kind:expr, pair $a:expr, $b:expr) => {
        concat!(".balign 4\n.long 4, 16, ", $kind, "\n.asciz \"Xen\"\n.quad ", $a, ", ", $b, "\n")
    };
}

// The numbers of the notes as concat! wants them, held against the ABI's.
const _: () = assert!(
    elfnote::ENTRY == 1
        && elfnote::VIRT_BASE == 3
        && elfnote::PADDR_OFFSET == 4
        && elfnote::XEN_VERSION == 5
        && elfnote::GUEST_OS == 6
        && elfnote::GUEST_VERSION == 7
        && elfnote::LOADER == 8
        && elfnote::PAE_MODE == 9
        && elfnote::FEATURES == 10
        && elfnote::HV_START_LOW == 12
        && elfnote::L1_MFN_VALID == 13
        && elfnote::INIT_P2M == 15
        && elfnote::MOD_START_PFN == 16
);

#[cfg(target_os = "none")]
global_asm!(
    ".section .note.Xen, \"a\", @note",
    note!(1, quad "guest_start"),
    note!(3, quad "0xffffffff80000000"),
    note!(4, quad "0"),
    note!(5, string "xen-3.0"),
    note!(6, string "hospes-test"),
    note!(7, string "1"),
    note!(8, string "generic"),
    note!(9, string "yes"),
    note!(10, string "!writable_page_tables|pae_pgdir_above_4gb"),
    note!(12, quad "0xffff800000000000"),
    note!(13, pair "1", "1"),
    note!(15, quad "0x8000000000"),
    note!(16, long "1"),
    ".text",
    // Entered by the hypervisor: rsi = start_info, rsp = a stack of one page. Everything is kept for the test of it.
    ".globl guest_start",
    "guest_start:",
    "mov [rip + {entry} + 15*8], rsp",
    "lea rsp, [rip + {entry} + 15*8]",
    "push rdi; push rsi; push rdx; push rcx; push rax; push r8; push r9; push r10; push r11; push rbx; push rbp; push r12; push r13; push r14; push r15",
    "lea rsp, [rip + {stacks} + {stack_size}]",
    "pushfq",
    "pop rax",
    "lea rdi, [rip + {entry} + 16*8]",
    "mov [rdi], rax",
    "mov [rdi + 8], cs",
    "mov [rdi + 10], ss",
    "mov [rdi + 12], ds",
    "mov [rdi + 14], es",
    "mov [rdi + 16], fs",
    "mov [rdi + 18], gs",
    "fnstcw [rdi + 20]",
    "stmxcsr [rdi + 24]",
    "cld",
    "mov [rip + {info}], rsi",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    entry = sym ENTRY, stacks = sym STACKS, stack_size = const STACK_SIZE, info = sym START_INFO, main = sym main,
);

const _: () =
    assert!(core::mem::offset_of!(EntryState, rsp) == 15 * 8 && core::mem::offset_of!(EntryState, rflags) == 16 * 8);

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    fn kernel_body();
}

/// Runs the kernel's body on a set-up machine.
#[cfg(target_os = "none")]
extern "C" fn main() -> ! {
    crate::smp::init_first();
    crate::trap::init();
    crate::events::init();
    // SAFETY: defined by `kernel!`, an ordinary function.
    unsafe { kernel_body() };
    crate::report::finish()
}
