//! Every hypercall number, with arguments that mean nothing. (What takes a pointer is `arguments_pointers`' subject, what
//! takes addresses and frames `arguments_values`'.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hypercall::raw;
use guests::prelude::*;

guests::kernel!(run);

/// Numbers that do something with any arguments: iret replaces the registers.
const NOT: [u64; 1] = [nr::IRET as u64];

fn run() {
    for (name, args) in [
        ("all ones", [u64::MAX; 5]),
        ("32 ones", [0xffff_ffff; 5]),
        ("the sign bit", [1 << 63; 5]),
        ("a non-canonical address", [0x8000_0000_0000; 5]),
        ("the hypervisor's start", [0xffff_8000_0000_0000; 5]),
    ] {
        for n in (0..=66u64).filter(|n| !NOT.contains(n)) {
            let r = Ret(raw(n, args));
            // what the number may have changed, as it was
            trap::init();
            user::stack_switch(user::kernel_stack_top()).must("stack_switch");
            probe::kernel(code!("clts"), &Gprs::ZERO);
            obs(f!("{n} with {name}"), r);
        }
    }
    for n in [
        67u64,
        127,
        128,
        255,
        256,
        1 << 15,
        1 << 16,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 17,
        1 << 63,
        u64::MAX,
    ] {
        obs(f!("{n:#x}"), Ret(raw(n, [0; 5])));
    }
    // a number's upper half counts
    obs("xen_version", call(nr::XEN_VERSION, &[0]).0 >> 16);
    obs("xen_version with an upper half", Ret(raw(0x8000_0000_0000_0000 | nr::XEN_VERSION as u64, [0; 5])));
    registers();
}

/// Nothing but rax, rcx and r11 changes across a call, whatever it answers.
fn registers() {
    let keep = |g: &Gprs| Gprs { rax: 0, rcx: 0, r11: 0, ..*g };
    for n in (0..64u64).filter(|n| !NOT.contains(n) && !matches!(*n, 0 | 3 | 4 | 5)) {
        let regs = Gprs { rax: n, rdi: 0xdead_0000, rsi: 0x10_0000, ..Gprs::MARKED };
        let o = probe::kernel(code!("syscall"), &regs);
        match o {
            Outcome::Done(g) => check(f!("registers across {n}"), keep(&g) == keep(&regs)),
            Outcome::Trap(_) => obs(f!("registers across {n}"), o),
        }
        trap::init();
    }
}
