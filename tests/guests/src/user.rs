//! User mode: an L4 of its own, a page of code and a page of stack, entered by the iret hypercall.
use crate::hypercall::call;
use crate::mem::{Page, Racy};
use crate::paging::{self, KERNEL_RW, NX, US};
use crate::probe::{self, Gprs, Outcome};
use crate::ret::Ret;
use core::arch::global_asm;
use pv_abi::arch::sel;
use pv_abi::hypercall::nr;
use pv_abi::mmu;

/// Where the probe's code is in user mode.
pub const CODE_VA: u64 = 0x4000_0000;
/// Where its stack is.
pub const STACK_VA: u64 = 0x4010_0000;
/// Top of it.
pub const STACK_TOP: u64 = STACK_VA + 4096;

/// The user half: pages that stay for the kernel's life.
#[derive(Clone, Copy)]
pub struct User {
    /// The user L4, pinned and loaded.
    pub l4: Page,
    /// The page behind [`STACK_VA`].
    pub stack: Page,
}

/// Builds user mode: maps code and stack, pins the second L4 and loads it.
pub fn init() -> User {
    let stack = Page::alloc();
    paging::map(CODE_VA, probe::code_page().ma() | KERNEL_RW | US);
    paging::map(STACK_VA, stack.ma() | KERNEL_RW | US | NX);
    let l4 = Page::alloc();
    l4.write(0, paging::entry(CODE_VA, 4));
    paging::make_ro(l4).must("make the user L4 read-only");
    paging::pin(l4, 4).must("pin the user L4");
    paging::mmuext(mmu::EXT_NEW_USER_BASEPTR, l4.mfn(), 0).must("load the user L4");
    stack_switch(crate::mem::Racy::addr(&KERNEL_STACK) + 8192).must("stack_switch");
    User { l4, stack }
}

#[repr(C, align(4096))]
struct TrapStack([u8; 8192]);

/// Where traps from user mode put their frames.
static KERNEL_STACK: Racy<TrapStack> = Racy::new(TrapStack([0; 8192]));

/// Top of that stack.
pub fn kernel_stack_top() -> u64 {
    KERNEL_STACK.addr() + 8192
}

/// stack_switch with the usual ss.
pub fn stack_switch(sp: u64) -> Ret {
    call(nr::STACK_SWITCH, &[u64::from(sel::FLAT_RING3_DS), sp])
}

/// What the iret hypercall takes.
#[derive(Clone, Copy, Debug)]
pub struct Iret {
    /// VGCF flags.
    pub flags: u64,
    /// Target rip.
    pub rip: u64,
    /// Target cs; RPL 3 means user mode.
    pub cs: u64,
    /// Target rflags.
    pub rflags: u64,
    /// Target rsp.
    pub rsp: u64,
    /// Target ss.
    pub ss: u64,
}

static IRET: Racy<Iret2> = Racy::new(Iret2 { gprs: Gprs::ZERO, frame: [0; 9] });

#[repr(C)]
struct Iret2 {
    gprs: Gprs,
    frame: [u64; 9],
}

global_asm!(
    ".text",
    // All registers but rax, rcx, r11 from the static; those three from the frame. The frame stands on the stack given.
    "iret_go:",
    "mov r15, [rip + {s}]; mov r14, [rip + {s} + 8]; mov r13, [rip + {s} + 16]; mov r12, [rip + {s} + 24]",
    "mov rbp, [rip + {s} + 32]; mov rbx, [rip + {s} + 40]; mov r10, [rip + {s} + 56]; mov r9, [rip + {s} + 64]; mov r8, [rip + {s} + 72]",
    "mov rdx, [rip + {s} + 96]; mov rsi, [rip + {s} + 104]; mov rdi, [rip + {s} + 112]",
    "push [rip + {s} + 120 + 64]; push [rip + {s} + 120 + 56]; push [rip + {s} + 120 + 48]; push [rip + {s} + 120 + 40]; push [rip + {s} + 120 + 32]",
    "push [rip + {s} + 120 + 24]; push [rip + {s} + 120 + 16]; push [rip + {s} + 120 + 8]; push [rip + {s} + 120]",
    "mov eax, 23",
    "syscall",
    "ud2",
    s = sym IRET,
);

unsafe extern "C" {
    fn iret_go();
}

fn prepare(to: &Iret, regs: &Gprs) {
    // SAFETY: only vCPU 0 probes.
    unsafe {
        (*IRET.get()).gprs = *regs;
        (*IRET.get()).frame = [regs.rax, regs.r11, regs.rcx, to.flags, to.rip, to.cs, to.rflags, to.rsp, to.ss];
    }
}

/// Executes an iret hypercall whose target is the frame's; the outcome is the next trap.
pub fn iret(to: &Iret, regs: &Gprs) -> Outcome {
    prepare(to, regs);
    probe::go(iret_go as *const () as u64, probe::stack_top(), regs)
}

/// The frame that enters user mode at the probe's code.
pub fn frame() -> Iret {
    Iret {
        flags: 0,
        rip: CODE_VA,
        cs: u64::from(sel::FLAT_RING3_CS64),
        rflags: 0x202,
        rsp: STACK_TOP,
        ss: u64::from(sel::FLAT_RING3_DS),
    }
}

/// Runs `code` in user mode until it traps; its end is a SYSCALL.
pub fn run(code: &[u8], regs: &Gprs) -> Outcome {
    // upcalls stay masked only until the first IF=1; tests start with nothing pending
    run_from(code, regs, &frame())
}

/// As [`run`], but does `before` in kernel mode first, with the same registers, all in one probe.
pub fn run_after(before: &[&[u8]], code: &[u8], regs: &Gprs) -> Outcome {
    probe::load(code, &[0x0f, 0x05]);
    prepare(&frame(), regs);
    probe::kernel_before(before, iret_go as *const () as u64, regs)
}

/// As [`run`], by a frame of one's own.
pub fn run_from(code: &[u8], regs: &Gprs, to: &Iret) -> Outcome {
    probe::load(code, &[0x0f, 0x05]);
    iret(to, regs)
}
