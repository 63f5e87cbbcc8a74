//! The shadow of MOV SS, with breakpoints and single steps pending in it.
//!
//! Attacks: a #DB held back by MOV SS or POP SS that arrives with the next instruction's own entry into the hypervisor:
//! SYSCALL, INT n, INT3, ICEBP, an instruction that faults (CVE-2018-8897). Must happen: the guest gets the #DB or the
//! trap, at one of the two places; the hypervisor does not run on a guest's stack or treat it as its own.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    user::init();
    let page = Page::alloc();
    page.write(0, 0xe02b);
    call(nr::SET_DEBUGREG, &[0, page.va]).must("DR0");
    let cases: [(&str, &[u8]); 9] = [
        ("a nop", code!("mov ss, [rsi]", "nop", "nop")),
        ("syscall", code!("mov ss, [rsi]", "syscall", "nop")),
        ("int3", code!("mov ss, [rsi]", "int3", "nop")),
        ("int 0x80", code!("mov ss, [rsi]", "int 0x80", "nop")),
        ("ud2", code!("mov ss, [rsi]", "ud2", "nop")),
        ("mov rax, cr0", code!("mov ss, [rsi]", "mov rax, cr0", "nop")),
        ("icebp", code!("mov ss, [rsi]", ".byte 0xf1", "nop")),
        ("a page fault", code!("mov ss, [rsi]", "mov rax, [rdi]", "nop")),
        ("another mov ss", code!("mov ss, [rsi]", "mov ss, [rsi]", "nop")),
    ];
    for (name, code) in cases {
        let regs = Gprs { rax: nr::XEN_VERSION as u64, rsi: page.va, rdi: 0, ..Gprs::ZERO };
        for (mode, dr7) in [("unwatched", 0u64), ("watched", 0x0003_0001)] {
            call(nr::SET_DEBUGREG, &[7, dr7]).must("DR7");
            let o = probe::kernel(code, &regs);
            call(nr::SET_DEBUGREG, &[7, 0]).must("DR7 off");
            // where a held #DB arrives is the CPU's affair (emulators differ): only that it is one of these
            let fine = match o {
                Outcome::Done(_) => true,
                Outcome::Trap(t) => {
                    matches!(t.vector, 1 | 3 | 6 | 14 | 0x80) && t.rip.wrapping_sub(probe::code_page().va) < 16
                }
            };
            check(f!("{name}, {mode}"), fine);
        }
    }
    // the same with a single step
    for (name, code) in [
        ("syscall", code!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, edx", "syscall", "nop", "nop")),
        ("int3", code!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, edx", "int3", "nop")),
        ("iret", code!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, edx", "mov eax, ss", "nop")),
    ] {
        let o = probe::kernel(code, &Gprs { rax: nr::XEN_VERSION as u64, rdx: 0xe02b, ..Gprs::ZERO });
        let fine = match o {
            Outcome::Done(_) => true,
            Outcome::Trap(t) => matches!(t.vector, 1 | 3) && t.cs & 0xffff == 0xe030,
        };
        check(f!("single step into mov ss and {name}"), fine);
    }
    call(nr::SET_DEBUGREG, &[0, 0]).must("DR0 off");
    alive();
}
