//! Traps: one stub per vector records the frame exactly as it was pushed. A probe that waits for a trap gets it;
//! any other ends the test as an error. Events go to the default callback unless a probe asked for them.
use crate::hypercall::call;
use crate::mem::Racy;
use crate::probe::Gprs;
use crate::ret::Ret;
use crate::{events, probe, report};
use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::Ordering;
use pv_abi::arch::{TrapInfo, sel};
use pv_abi::callback::{self, CallbackRegister};
use pv_abi::hypercall::nr;

/// Pseudo-vector of the event callback.
pub const EVENT: u64 = 256;
/// Pseudo-vector of the syscall callback.
pub const SYSCALL: u64 = 257;
/// Pseudo-vector of the failsafe callback.
pub const FAILSAFE: u64 = 258;
/// Pseudo-vector of the sysenter callback.
pub const SYSENTER: u64 = 259;
/// Pseudo-vector of the compatibility-mode syscall callback.
pub const SYSCALL32: u64 = 260;

/// trap_info: mask events on entry.
pub const MASK_EVENTS: u8 = 4;

/// A trap as the handler found it.
#[derive(Clone, Copy)]
pub struct Trap {
    /// Vector, or pseudo-vector.
    pub vector: u64,
    /// Registers in the handler; rcx and r11 are those of the frame below.
    pub gprs: Gprs,
    /// The frame's words.
    pub rcx: u64,
    /// r11 of the frame.
    pub r11: u64,
    /// Error code, where the vector has one.
    pub err: Option<u64>,
    /// rip.
    pub rip: u64,
    /// The whole word: selector, saved mask in bits 32 to 39.
    pub cs: u64,
    /// rflags.
    pub rflags: u64,
    /// rsp.
    pub rsp: u64,
    /// ss.
    pub ss: u64,
    /// Where the frame starts.
    pub at: u64,
    /// vcpu_info's cr2.
    pub cr2: u64,
    /// vcpu_info's mask, in the handler.
    pub mask: u8,
    /// rflags in the handler.
    pub handler_rflags: u64,
}

impl Trap {
    const NONE: Trap = Trap {
        vector: 0,
        gprs: Gprs::ZERO,
        rcx: 0,
        r11: 0,
        err: None,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
        at: 0,
        cr2: 0,
        mask: 0,
        handler_rflags: 0,
    };
}

impl fmt::Display for Trap {
    /// Vector and error code: `#14(0x3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vector {
            EVENT => write!(f, "event")?,
            SYSCALL => write!(f, "syscall")?,
            FAILSAFE => write!(f, "failsafe")?,
            SYSENTER => write!(f, "sysenter")?,
            SYSCALL32 => write!(f, "syscall32")?,
            v => write!(f, "#{v}")?,
        }
        match self.err {
            Some(e) => write!(f, "({e:#x})"),
            None => Ok(()),
        }
    }
}

/// The trap the last probe caught.
pub static LAST: Racy<Trap> = Racy::new(Trap::NONE);

const fn has_error(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

global_asm!(
    ".text",
    ".balign 16",
    ".globl trap_stubs",
    "trap_stubs:",
    ".set trap_i, 0",
    ".rept 261",
    ".balign 16",
    "push trap_i",
    "jmp trap_common",
    ".set trap_i, trap_i + 1",
    ".endr",
    // Stack: vector, then the frame as pushed. Registers go below it in the order of `Gprs`.
    "trap_common:",
    "push rdi; push rsi; push rdx; push rcx; push rax; push r8; push r9; push r10; push r11; push rbx; push rbp; push r12; push r13; push r14; push r15",
    "pushfq",
    "pop rsi",
    "cld",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {entry}",
    // Only from events: back by the iret hypercall, whose frame is rax r11 rcx flags rip cs rflags rsp ss.
    "mov rsp, rbx",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; pop r11; pop r10; pop r9; pop r8; pop rax; pop rcx; pop rdx; pop rsi; pop rdi",
    "add rsp, 8",
    "pop rcx",
    "pop r11",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    "ud2",
    entry = sym trap_entry,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// Entry of a vector or pseudo-vector.
pub fn stub(vector: u64) -> u64 {
    (&raw const trap_stubs) as u64 + 16 * vector
}

/// Whose entry starts at `rip`.
pub fn stub_at(rip: u64) -> Option<u64> {
    let offset = rip.checked_sub(stub(0))?;
    (offset % 16 == 0 && offset / 16 <= SYSCALL32).then_some(offset / 16)
}

/// Entry of the event callback.
pub fn event_entry() -> u64 {
    stub(EVENT)
}

/// Entry of the syscall callback.
pub fn syscall_entry() -> u64 {
    stub(SYSCALL)
}

/// Entry of the failsafe callback.
pub fn failsafe_entry() -> u64 {
    stub(FAILSAFE)
}

extern "C" fn trap_entry(at: *const u64, handler_rflags: u64) {
    // SAFETY: the stub's stack: 15 registers, vector, frame of at most 8 words.
    let word = |i: usize| unsafe { at.add(i).read_volatile() };
    let vector = word(15);
    let e = usize::from(has_error(vector));
    // SAFETY: `at` holds registers in the order of `Gprs`.
    let gprs = unsafe { at.cast::<Gprs>().read_volatile() };
    let t = Trap {
        vector,
        gprs,
        rcx: word(16),
        r11: word(17),
        err: (e == 1).then(|| word(18)),
        rip: word(18 + e),
        cs: word(19 + e),
        rflags: word(20 + e),
        rsp: word(21 + e),
        ss: word(22 + e),
        at: at as u64 + 16 * 8,
        cr2: crate::mem::read64(events::info(crate::smp::cpu()) + 16),
        mask: events::mask().load(Ordering::SeqCst),
        handler_rflags,
    };
    if probe::wants(vector) {
        // SAFETY: this vCPU's probe waits for it and nobody else writes.
        unsafe { LAST.get().write(t) };
        probe::recover();
    }
    if vector == EVENT {
        events::take_all();
        return;
    }
    report::error(f_args(&t))
}

fn f_args(t: &Trap) -> fmt::Arguments<'static> {
    report::keep(format_args!("trap {t} at {:#x} rsp {:#x} cr2 {:#x} rflags {:#x}", t.rip, t.rsp, t.cr2, t.rflags));
    crate::console::line(format_args!(
        "trap {t} nobody asked for: rip {:#x} cs {:#x} rflags {:#x} rsp {:#x} cr2 {:#x} rax {:#x} rdi {:#x}",
        t.rip, t.cs, t.rflags, t.rsp, t.cr2, t.gprs.rax, t.gprs.rdi
    ));
    format_args!("unexpected trap")
}

/// DPL the default table gives a vector: what user mode may raise.
const fn dpl(vector: u8) -> u8 {
    match vector {
        3 | 4 | 0x80 => 3,
        _ => 0,
    }
}

fn info_for(vector: u8) -> TrapInfo {
    TrapInfo { vector, flags: dpl(vector), cs: sel::FLAT_RING3_CS64, pad: 0, address: stub(u64::from(vector)) }
}

/// A whole vCPU's table.
pub fn fill_context(table: &mut [TrapInfo; 256]) {
    for (i, t) in table.iter_mut().enumerate().filter(|(i, _)| *i < 32 || *i == 0x80) {
        *t = info_for(i as u8);
    }
}

/// Sets one vector of this vCPU.
pub fn set(vector: u8, flags: u8, cs: u16, address: u64) -> Ret {
    let table = [TrapInfo { vector, flags, cs, pad: 0, address }, TrapInfo::default()];
    call(nr::SET_TRAP_TABLE, &[table.as_ptr() as u64])
}

/// Sets one vector back to the default, with `flags` (DPL, [`MASK_EVENTS`]).
pub fn set_flags(vector: u8, flags: u8) -> Ret {
    set(vector, flags, sel::FLAT_RING3_CS64, stub(u64::from(vector)))
}

/// callback_op register.
pub fn register(kind: u16, flags: u16, address: u64) -> Ret {
    let mut r = CallbackRegister { kind, flags, pad: 0, address };
    call(nr::CALLBACK_OP, &[callback::OP_REGISTER, core::ptr::from_mut(&mut r) as u64])
}

/// Event, failsafe and syscall callbacks of the calling vCPU.
pub fn register_callbacks() {
    register(callback::TYPE_EVENT, 0, event_entry()).must("register the event callback");
    register(callback::TYPE_FAILSAFE, 0, failsafe_entry()).must("register the failsafe callback");
    register(callback::TYPE_SYSCALL, callback::F_MASK_EVENTS, syscall_entry()).must("register the syscall callback");
}

/// Trap table and callbacks of vCPU 0.
pub fn init() {
    let mut table = [TrapInfo::default(); 34];
    for (i, t) in table.iter_mut().enumerate().take(32) {
        *t = info_for(i as u8);
    }
    table[32] = info_for(0x80);
    call(nr::SET_TRAP_TABLE, &[table.as_ptr() as u64]).must("set_trap_table");
    register_callbacks();
}
