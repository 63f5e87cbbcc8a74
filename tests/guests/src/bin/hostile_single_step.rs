//! Single-stepping through everything the hypervisor does for a guest.
//!
//! Attacks: TF across hypercalls, emulated instructions, traps, the iret hypercall and user mode's system calls: a #DB in
//! the hypervisor itself, a step that gets lost in it, or TF left set in a handler (advisories about #DB and SYSCALL). Must
//! happen: each #DB is the guest's, between two of its instructions, and handlers run without TF.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

/// Steps through `code` in kernel mode, going on with TF after each #DB, at most `most` times; how many #DBs came inside
/// the code, and how it ended.
fn step(code: &[u8], regs: &Gprs, most: u32) -> (u32, Outcome) {
    probe::load(code, &[0x0f, 0x0b]);
    let mut o = user::iret(&to(probe::code_page().va, probe::stack_top() - 1024, 0x100), regs);
    let mut steps = 0;
    while let Outcome::Trap(t) = o {
        if t.vector != 1 || steps == most {
            break;
        }
        steps += 1;
        o = user::iret(&to(t.rip, t.rsp, 0x100), &Gprs { rcx: t.rcx, r11: t.r11, ..t.gprs });
    }
    (steps, o)
}

fn to(rip: u64, rsp: u64, tf: u64) -> user::Iret {
    user::Iret { flags: 0, rip, cs: 0xe030, rflags: 0x202 | tf, rsp, ss: 0xe02b }
}

fn run() {
    user::init();
    let version = Gprs { rax: nr::XEN_VERSION as u64, ..Gprs::ZERO };
    for (name, code, regs) in [
        ("nops", code!("nop", "nop", "nop"), Gprs::ZERO),
        ("a hypercall", code!("nop", "syscall", "nop"), version),
        ("mov from CR0", code!("nop", "mov rax, cr0", "nop"), Gprs::ZERO),
        ("rdmsr", code!("nop", "rdmsr", "nop"), Gprs { rcx: 0xc000_0100, ..Gprs::ZERO }),
        ("forced cpuid", code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2", "nop"), Gprs::ZERO),
        ("cli", code!("cli", "nop"), Gprs::ZERO),
        ("a #UD", code!("nop", "ud2"), Gprs::ZERO),
        ("int3", code!("nop", "int3", "nop"), Gprs::ZERO),
        ("a page fault", code!("nop", "mov rax, [rdi]", "nop"), Gprs::ZERO),
    ] {
        let (steps, o) = step(code, &regs, 50);
        // a SYSCALL may swallow the step behind it: the count is the record's
        obs(f!("steps through {name}"), f!("{steps}, then {o}"));
        if let Outcome::Trap(t) = o {
            check(f!("no TF in the handler after {name}"), t.handler_rflags & 0x100 == 0);
        }
    }
    for (name, code) in
        [("nops", code!("nop", "nop")), ("a system call", code!("syscall", "nop")), ("a #GP", code!("hlt"))]
    {
        let o = user::run_from(code, &Gprs::ZERO, &user::Iret { rflags: 0x302, ..user::frame() });
        obs(f!("first step of user mode in {name}"), o);
        if let Outcome::Trap(t) = o {
            check(f!("no TF in the handler of user mode's {name}"), t.handler_rflags & 0x100 == 0);
        }
    }
    // a page-table write that is emulated
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    let (steps, o) = step(code!("nop", "mov qword ptr [rsi], 0", "nop"), &Gprs { rsi: table.va, ..Gprs::ZERO }, 50);
    obs("steps through a page-table write", f!("{steps}, then {o}"));
    paging::unpin(table).must("unpin");
    alive();
}
