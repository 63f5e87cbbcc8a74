//! The iret hypercall and real IRETs with every flag, hostile addresses, and frames at the ends of pages.
//!
//! Attacks: IOPL, VM, VIF, NT, RF, AC in a frame; targets that are no addresses, the hypervisor's, or unmapped, in kernel
//! and user mode; stacks likewise; a frame whose last word touches the end of its page. Must happen: the guest lands with
//! the flags a guest may have, or gets its fault; IF is always real, IOPL always 0.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn kernel(rip: u64, rsp: u64, rflags: u64) -> user::Iret {
    user::Iret { flags: 0, rip, cs: 0xe030, rflags, rsp, ss: 0xe02b }
}

fn run() {
    user::init();
    events::quiet();
    probe::load(code!("pushfq", "pop rax", "ud2"), &[0x0f, 0x0b]);
    let good = probe::stack_top() - 1024;
    for bit in (0..64u32).filter(|b| *b != 8) {
        let o = user::iret(&kernel(probe::code_page().va, good, 1 << bit), &Gprs::ZERO);
        match o {
            Outcome::Trap(t) => obs(f!("flag {bit}"), f!("{t} flags {:#x}", t.gprs.rax & !0x20_0044)),
            Outcome::Done(_) => obs(f!("flag {bit}"), "ran"),
        }
    }
    events::quiet();
    for (name, at) in bad::POINTERS {
        let o = user::iret(&kernel(at, good, 2), &Gprs::ZERO);
        obs(f!("kernel rip, {name}"), trap_of(o));
        let o = user::iret(&user::Iret { rip: at, rflags: 2, ..user::frame() }, &Gprs::ZERO);
        obs(f!("user rip, {name}"), trap_of(o));
        // a stack that is none is no harm until it is used: user mode traps to the kernel's
        let o = user::run_from(code!("ud2"), &Gprs::ZERO, &user::Iret { rsp: at, rflags: 2, ..user::frame() });
        obs(f!("user rsp, {name}"), trap_of(o));
        let o = user::run_from(code!("push rax"), &Gprs::ZERO, &user::Iret { rsp: at, rflags: 2, ..user::frame() });
        obs(f!("user push, {name}"), trap_of(o));
    }
    for flags in [0u64, 0x100, 1, 0x200, u64::MAX] {
        let o = user::run_from(
            code!("nop"),
            &Gprs { rcx: 0x1111, r11: 0x2222, ..Gprs::ZERO },
            &user::Iret { flags, rflags: 2, ..user::frame() },
        );
        match o {
            Outcome::Trap(t) => obs(f!("VGCF flags {flags:#x}"), f!("{t} rip +{}", t.rip.wrapping_sub(user::CODE_VA))),
            Outcome::Done(_) => obs(f!("VGCF flags {flags:#x}"), "ran"),
        }
    }
    // in_syscall to addresses that SYSRET could not return to
    for (name, at) in bad::POINTERS {
        let o = user::iret(&user::Iret { flags: 0x100, rip: at, rflags: 2, ..user::frame() }, &Gprs::ZERO);
        obs(f!("in_syscall rip, {name}"), trap_of(o));
    }
    // the upper parts of cs and ss do not count
    for upper in [1u64 << 16, 1 << 32, 0xff << 32, 1 << 63] {
        let o = user::run_from(
            code!("ud2"),
            &Gprs::ZERO,
            &user::Iret { cs: 0xe033 | upper, ss: 0xe02b | upper, rflags: 2, ..user::frame() },
        );
        obs(f!("cs and ss with {upper:#x}"), trap_of(o));
    }
    edges();
    alive();
}

fn trap_of(o: Outcome) -> TrapText {
    TrapText(o)
}

/// Vector, error code, and the mode it came from.
struct TrapText(Outcome);
impl core::fmt::Display for TrapText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Outcome::Trap(t) => {
                write!(f, "{t} cs {:#x} ss {:#x} IOPL {}", t.cs & 0xffff, t.ss & 0xffff, t.rflags >> 12 & 3)
            }
            Outcome::Done(_) => f.write_str("ran"),
        }
    }
}

/// The hypercall with rsp just below an unmapped page.
fn edges() {
    let edge = bad::edge();
    let words = [0u64, 0, 0, 0, probe::code_page().va, 0xe030, 2, probe::stack_top() - 1024, 0xe02b];
    for (i, w) in words.iter().enumerate() {
        mem::write64(edge - 72 + 8 * i as u64, *w);
    }
    // the code sets rsp and calls; the frame ends with the page
    probe::load(code!("mov rsp, rsi", "mov eax, 23", "syscall", "ud2"), &[0x0f, 0x0b]);
    mem::write64(edge - 72 + 32, probe::code_page().va + 10);
    let o = probe::go(probe::code_page().va, probe::stack_top(), &Gprs { rsi: edge - 72, ..Gprs::ZERO });
    obs("a frame that ends with its page", trap_of(o));
}
