//! Whatever traps inside a step ends the step: the handlers go back to where it began.

use core::arch::global_asm;
use guests::mem::Racy;
use guests::prelude::*;
use guests::start::MAX_CPUS;
use pv_abi::arch::{TrapInfo, VcpuGuestContext, sel};
use pv_abi::callback;

/// Each vCPU's stack pointer at the start of its step; 0 = not in one.
static BACK: Racy<[u64; MAX_CPUS]> = Racy::new([0; MAX_CPUS]);

#[cfg(target_os = "none")]
global_asm!(
    ".text",
    ".globl fuzz_run, fuzz_stubs, fuzz_nmi, fuzz_event, fuzz_failsafe",
    // rdi = function, rsi = its argument; rax = whether it was cut short.
    "fuzz_run:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov rax, gs:[0]",
    "lea rcx, [rip + {back}]",
    "mov [rcx + rax*8], rsp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "xor eax, eax",
    "jmp 3f",
    "fuzz_back:",
    "mov eax, 1",
    "3:",
    "cld",
    "mov rdx, gs:[0]",
    "lea rcx, [rip + {back}]",
    "mov qword ptr [rcx + rdx*8], 0",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    // Stubs for the vectors and the runtime's pseudo-vectors: outside of steps the runtime's own stub is next.
    ".balign 64",
    "fuzz_stubs:",
    ".set fuzz_i, 0",
    ".rept 261",
    ".balign 64",
    "mov rax, gs:[0]",
    "lea rcx, [rip + {back}]",
    "mov rcx, [rcx + rax*8]",
    "test rcx, rcx",
    "jz trap_stubs + 16*fuzz_i",
    "mov rsp, rcx",
    "jmp fuzz_back",
    ".set fuzz_i, fuzz_i + 1",
    ".endr",
    // NMI: user code of a step ends, anything else goes on. The frame is rcx r11 rip cs rflags rsp ss.
    "fuzz_nmi:",
    "test byte ptr [rsp + 24], 3",
    "jnz fuzz_stubs + 64*2",
    "pop rcx; pop r11; push 0; push rcx; push r11; push rax",
    "mov eax, 23",
    "syscall",
    "ud2",
    // Failsafe: selectors that user code left can fail later, between two steps: they are null then, and it goes on. The
    // frame is rcx r11 ds es fs gs rip cs rflags rsp ss.
    "fuzz_failsafe:",
    "push rax; push rcx",
    "mov rax, gs:[0]",
    "lea rcx, [rip + {back}]",
    "cmp qword ptr [rcx + rax*8], 0",
    "pop rcx; pop rax",
    "jne fuzz_stubs + 64*{failsafe}",
    "pop rcx; pop r11; add rsp, 32; push 0; push rcx; push r11; push rax",
    "mov eax, 23",
    "syscall",
    "ud2",
    // Events: user code of a step ends (another event will come), the kernel takes them.
    "fuzz_event:",
    "test byte ptr [rsp + 24], 3",
    "jnz fuzz_stubs + 64*2",
    "jmp trap_stubs + 16*256",
    back = sym BACK,
    failsafe = const trap::FAILSAFE,
);

unsafe extern "C" {
    fn fuzz_run(f: extern "C" fn(u64), arg: u64) -> u64;
    fn fuzz_nmi();
    fn fuzz_event();
    fn fuzz_failsafe();
    static fuzz_stubs: u8;
}

/// Runs `f` until it ends or traps; true when it came to its end. What it owned is forgotten otherwise.
pub fn run(f: &mut dyn FnMut()) -> bool {
    extern "C" fn thunk(f: u64) {
        // SAFETY: `run` passes the address of its own argument.
        unsafe { (*(f as *mut &mut dyn FnMut()))() }
    }
    let mut f = f;
    // SAFETY: registers the compiler wants kept are; `f` only owns plain data.
    unsafe { fuzz_run(thunk, (&raw mut f) as u64) == 0 }
}

/// The handler that ends a step, for `vector`.
pub fn stub(vector: u64) -> u64 {
    (&raw const fuzz_stubs) as u64 + 64 * vector
}

/// Trap table: the exceptions and INT 0x80.
pub fn table() -> [TrapInfo; 34] {
    let mut t = [TrapInfo::default(); 34];
    for (i, slot) in t.iter_mut().enumerate().take(33) {
        let vector = if i == 32 { 0x80 } else { i as u8 };
        let flags = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        let address = if vector == 2 { fuzz_nmi as *const () as u64 } else { stub(u64::from(vector)) };
        *slot = TrapInfo { vector, flags, cs: sel::FLAT_RING3_CS64, pad: 0, address };
    }
    t
}

/// Trap table and callbacks of the calling vCPU, as they must be for a step.
pub fn install() {
    let t = table();
    call(nr::SET_TRAP_TABLE, &[t.as_ptr() as u64]).must("set_trap_table");
    trap::register(callback::TYPE_EVENT, 0, fuzz_event as *const () as u64).must("event callback");
    trap::register(callback::TYPE_FAILSAFE, 0, fuzz_failsafe as *const () as u64).must("failsafe callback");
    trap::register(callback::TYPE_SYSCALL, callback::F_MASK_EVENTS, stub(trap::SYSCALL)).must("syscall callback");
}

/// vCPU 0.
pub fn init_first() {
    install();
}

/// Another vCPU, on itself.
pub fn init_other() {
    install();
    call(nr::VCPU_OP, &[pv_abi::vcpu::OP_STOP_PERIODIC_TIMER, smp::cpu() as u64, 0]);
}

/// A context that could run.
pub fn sound_context(cpu: usize) -> &'static mut VcpuGuestContext {
    fn nothing() {}
    let c = smp::context(cpu, nothing);
    // Should it ever run: NMIs go to everybody.
    c.trap_ctxt[2] = table()[2];
    c
}
