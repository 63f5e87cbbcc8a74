//! Probes: a few instructions run with given registers, in kernel or user mode, and what came of it.
//!
//! The bytes are copied to a page of their own; so a trap's rip is known as an offset into them, whatever the
//! compiler did. In kernel mode a jump ends them, in user mode a SYSCALL.
use crate::mem::{Page, Racy};
use crate::report;
use crate::trap::{EVENT, LAST, Trap};
use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// General registers but rsp, in the ABI's order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Gprs {
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
}

impl Gprs {
    /// All zero.
    pub const ZERO: Gprs = Gprs {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
    };
    /// A different value in each register, to see what survives.
    pub const MARKED: Gprs = Gprs {
        r15: 0x1515,
        r14: 0x1414,
        r13: 0x1313,
        r12: 0x1212,
        rbp: 0xb9b9,
        rbx: 0xb0b0,
        r11: 0x1111,
        r10: 0x1010,
        r9: 0x0909,
        r8: 0x0808,
        rax: 0xa0a0,
        rcx: 0xc0c0,
        rdx: 0xd0d0,
        rsi: 0x5151,
        rdi: 0xd1d1,
    };
}

/// How a probe ended.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// All instructions ran; the registers after them.
    Done(Gprs),
    /// Something trapped.
    Trap(Trap),
}

impl Outcome {
    /// The registers; anything but a clean end is the test's error.
    pub fn done(self, what: &str) -> Gprs {
        match self {
            Outcome::Done(g) => g,
            Outcome::Trap(t) => report::error(format_args!("{what}: trapped with {t}")),
        }
    }
    /// The trap; a clean end is the test's error.
    pub fn trap(self, what: &str) -> Trap {
        match self {
            Outcome::Trap(t) => t,
            Outcome::Done(_) => report::error(format_args!("{what}: no trap")),
        }
    }
    /// Did it run to its end?
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Done(_))
    }
    /// `rax` if it ran.
    pub fn rax(self) -> Rax {
        Rax(self)
    }
}

impl fmt::Display for Outcome {
    /// `ran`, or the trap and where in the probe it came: `#13(0x0) at +2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(_) => f.write_str("ran"),
            Outcome::Trap(t) => write!(f, "{t} at {}", At(t.rip)),
        }
    }
}

/// An outcome shown with the value that rax holds after a clean end.
pub struct Rax(Outcome);

impl fmt::Display for Rax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Done(g) => write!(f, "{:#x}", g.rax),
            Outcome::Trap(_) => self.0.fmt(f),
        }
    }
}

/// A rip as an offset into the probe.
pub struct At(pub u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for base in [CODE.addr(), crate::user::CODE_VA] {
            if (base..base + 4096).contains(&self.0) {
                return write!(f, "+{}", self.0 - base);
            }
        }
        match crate::trap::stub_at(self.0) {
            Some(vector) => write!(f, "the entry of {vector}"),
            // Where exactly changes with each build.
            None if (crate::mem::VIRT_BASE..crate::child::end_of_image()).contains(&self.0) => {
                f.write_str("the kernel's code")
            }
            None => write!(f, "{:#x}", self.0),
        }
    }
}

#[repr(C, align(4096))]
struct CodePage([u8; 4096]);

/// The probe's instructions. Mapped executable by the builder as all of the image is.
static CODE: Racy<CodePage> = Racy::new(CodePage([0; 4096]));
/// The probe's stack.
static STACK: Racy<[CodePage; 2]> = Racy::new([const { CodePage([0; 4096]) }; 2]);

#[repr(C)]
struct State {
    recover_rsp: u64,
    target: u64,
    /// Room for a frame that an event might push while rsp points at `gprs`' end.
    slack: [u64; 64],
    gprs: Gprs,
    rsp: u64,
}

static STATE: Racy<State> = Racy::new(State { recover_rsp: 0, target: 0, slack: [0; 64], gprs: Gprs::ZERO, rsp: 0 });
static ARMED: AtomicBool = AtomicBool::new(false);
static WANT_EVENTS: AtomicBool = AtomicBool::new(false);

/// Does a probe wait for this trap?
pub fn wants(vector: u64) -> bool {
    ARMED.load(Ordering::SeqCst) && (vector != EVENT || WANT_EVENTS.load(Ordering::SeqCst)) && crate::smp::cpu() == 0
}

/// Lets probes catch events too.
pub fn catch_events(on: bool) {
    WANT_EVENTS.store(on, Ordering::SeqCst);
}

/// The page the instructions are in.
pub fn code_page() -> Page {
    Page::at(CODE.addr())
}

/// Top of the stack kernel probes start with.
pub fn stack_top() -> u64 {
    STACK.addr() + 8192
}

global_asm!(
    ".text",
    // rdi = registers, rsi = where to jump, rdx = stack; rax = 0 after a clean end, 1 after a trap
    "probe_run:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15; pushfq",
    "mov [rip + {state}], rsp",
    "mov [rip + {state} + 8], rsi",
    "mov rsp, rdx",
    "mov r15, [rdi]; mov r14, [rdi+8]; mov r13, [rdi+16]; mov r12, [rdi+24]; mov rbp, [rdi+32]; mov rbx, [rdi+40]",
    "mov r11, [rdi+48]; mov r10, [rdi+56]; mov r9, [rdi+64]; mov r8, [rdi+72]; mov rax, [rdi+80]; mov rcx, [rdi+88]",
    // and the same flags every time, whatever the compiler's last addition left
    "cmp rdi, rdi",
    "mov rdx, [rdi+96]; mov rsi, [rdi+104]; mov rdi, [rdi+112]",
    "jmp [rip + {state} + 8]",
    "probe_done:",
    "mov [rip + {state} + {gprs} + 15*8], rsp",
    "lea rsp, [rip + {state} + {gprs} + 15*8]",
    "push rdi; push rsi; push rdx; push rcx; push rax; push r8; push r9; push r10; push r11; push rbx; push rbp; push r12; push r13; push r14; push r15",
    "xor eax, eax",
    "jmp 2f",
    "probe_recover:",
    "mov eax, 1",
    "2:",
    "mov rsp, [rip + {state}]",
    "popfq; pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    state = sym STATE, gprs = const core::mem::offset_of!(State, gprs),
);

unsafe extern "C" {
    fn probe_run(gprs: *const Gprs, target: u64, stack: u64) -> u64;
    fn probe_recover() -> !;
    fn probe_done();
}

/// Back to where the probe was started.
pub fn recover() -> ! {
    // SAFETY: only called while armed, when `probe_run` has saved its stack.
    unsafe { probe_recover() }
}

/// rsp after the last kernel probe that ran to its end, relative to its start.
pub fn rsp_moved() -> i64 {
    // SAFETY: plain memory of this vCPU.
    unsafe { (*STATE.get()).rsp.wrapping_sub(stack_top()) as i64 }
}

/// Puts instructions and an ending into the page.
pub fn load(code: &[u8], ending: &[u8]) {
    load_at(0, &[code, ending]);
}

/// Puts pieces of code into the page, one behind the other, from byte `offset` on.
fn load_at(offset: usize, parts: &[&[u8]]) {
    let page = CODE.addr() as *mut u8;
    for (i, b) in (offset..4096).zip(parts.iter().copied().flatten()) {
        // SAFETY: within the page, which nothing runs from now.
        unsafe { page.add(i).write_volatile(*b) };
    }
}

/// `jmp [rip]`, and where to.
fn jump_to(target: u64) -> [u8; 14] {
    let mut jump = [0xff, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    jump[6..].copy_from_slice(&target.to_le_bytes());
    jump
}

/// Jumps to `target` with the registers and stack given.
pub fn go(target: u64, stack: u64, regs: &Gprs) -> Outcome {
    ARMED.store(true, Ordering::SeqCst);
    // SAFETY: `target` ends in `probe_done`, or in a trap, which recovers.
    let trapped = unsafe { probe_run(regs, target, stack) };
    ARMED.store(false, Ordering::SeqCst);
    // SAFETY: filled by `probe_done` or the trap entry just now.
    unsafe {
        match trapped {
            0 => Outcome::Done(core::ptr::addr_of!((*STATE.get()).gprs).read_volatile()),
            _ => Outcome::Trap(LAST.get().read_volatile()),
        }
    }
}

/// Runs `code` in kernel mode.
pub fn kernel_on(code: &[u8], regs: &Gprs, stack: u64) -> Outcome {
    load(code, &jump_to(probe_done as *const () as u64));
    go(CODE.addr(), stack, regs)
}

/// Runs pieces of code in kernel mode, one behind the other.
pub fn kernel_parts(parts: &[&[u8]], regs: &Gprs) -> Outcome {
    let end = parts.iter().map(|p| p.len()).sum();
    load_at(end, &[&jump_to(probe_done as *const () as u64)]);
    load_at(0, parts);
    go(CODE.addr(), stack_top(), regs)
}

/// Runs pieces of code in kernel mode, which then go on at `target`. They stand in the page's second half; the first is as
/// it was.
pub fn kernel_before(parts: &[&[u8]], target: u64, regs: &Gprs) -> Outcome {
    const SECOND_HALF: usize = 2048;
    let len: usize = parts.iter().map(|p| p.len()).sum();
    load_at(SECOND_HALF, parts);
    load_at(SECOND_HALF + len, &[&jump_to(target)]);
    go(CODE.addr() + SECOND_HALF as u64, stack_top(), regs)
}

/// Runs `code` in kernel mode on the probe's own stack.
pub fn kernel(code: &[u8], regs: &Gprs) -> Outcome {
    kernel_on(code, regs, stack_top())
}

/// Runs a closure and catches the trap it takes. What it owns is not dropped then.
pub fn catch(mut f: impl FnMut()) -> Outcome {
    extern "C" fn thunk<F: FnMut()>(f: *mut F) {
        // SAFETY: `catch` passes its own closure.
        unsafe { (*f)() }
    }
    fn pick<F: FnMut()>(_: &F) -> extern "C" fn(*mut F) {
        thunk::<F>
    }
    let enter = pick(&f);
    // call rax, then the jump back
    let regs = Gprs { rax: enter as *const () as u64, rdi: core::ptr::from_mut(&mut f) as u64, ..Gprs::ZERO };
    kernel(code_bytes_call(), &regs)
}

fn code_bytes_call() -> &'static [u8] {
    &[0xff, 0xd0]
}

/// Assembles instructions to bytes that can be run anywhere: `code!("mov rax, cr0")`.
#[macro_export]
macro_rules! code {
    ($($line:literal),+ $(,)?) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: the bytes are skipped, only their addresses are taken.
        unsafe {
            core::arch::asm!("jmp 3f", "2:", $($line,)+ "3:", "lea {0}, [rip + 2b]", "lea {1}, [rip + 3b]",
                out(reg) start, out(reg) end);
            core::slice::from_raw_parts(start, end.offset_from(start) as usize)
        }
    }};
}
