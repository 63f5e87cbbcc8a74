//! SYSCALL and SYSENTER from user mode, and callback_op.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::prelude::*;
use pv_abi::callback::{self, CallbackUnregister};

guests::kernel!(run);

fn show(name: &str, out: Outcome) {
    let t = out.trap(name);
    obs(f!("{name}: entry"), t);
    obs(f!("{name}: rip"), probe::At(t.rip));
    obs(f!("{name}: cs word"), Hex(t.cs));
    obs(f!("{name}: ss"), Hex(t.ss));
    obs(f!("{name}: rflags"), Hex(t.rflags));
    check(f!("{name}: rsp"), t.rsp == user::STACK_TOP);
    obs(f!("{name}: rcx"), probe::At(t.rcx));
    obs(f!("{name}: r11"), Hex(t.r11));
    obs(f!("{name}: frame below kernel_sp"), user::kernel_stack_top() - t.at);
    obs(f!("{name}: mask"), t.mask);
    obs(f!("{name}: handler's rflags"), Hex(t.handler_rflags));
    let (g, m) = (t.gprs, Gprs::MARKED);
    check(
        f!("{name}: arguments"),
        [g.rax, g.rdi, g.rsi, g.rdx, g.r10, g.r8, g.r9] == [m.rax, m.rdi, m.rsi, m.rdx, m.r10, m.r8, m.r9],
    );
    check(
        f!("{name}: callee-saved"),
        [g.rbx, g.rbp, g.r12, g.r13, g.r14, g.r15] == [m.rbx, m.rbp, m.r12, m.r13, m.r14, m.r15],
    );
}

fn run() {
    user::init();
    for mask in [0u8, 1] {
        for (name, flags) in [("plain", 0), ("masking", callback::F_MASK_EVENTS)] {
            trap::register(callback::TYPE_SYSCALL, flags, trap::syscall_entry()).must("register");
            let mut to = user::frame();
            if mask == 1 {
                to.rflags &= !0x200;
            }
            let out = user::run_from(code!("nop"), &Gprs::MARKED, &to);
            match (mask, name) {
                (0, "plain") => show("syscall", out),
                (0, _) => show("syscall, masking callback", out),
                (_, "plain") => show("syscall with IF clear", out),
                _ => show("syscall with IF clear, masking callback", out),
            }
            events::mask().store(1, Ordering::SeqCst);
        }
    }
    for (name, bits) in [
        ("TF", 0x100u64),
        ("DF", 0x400),
        ("NT", 0x4000),
        ("AC", 0x4_0000),
        ("RF", 0x1_0000),
        ("IOPL 3", 0x3000),
        ("all status", 0x8d5),
    ] {
        let mut to = user::frame();
        to.rflags |= bits;
        // TF would trap behind the first instruction: a single SYSCALL
        let t = user::run_from(&[], &Gprs::MARKED, &to).trap(name);
        obs(f!("{name}: entry"), t);
        obs(f!("{name}: rflags"), Hex(t.rflags));
        obs(f!("{name}: handler's rflags"), Hex(t.handler_rflags));
    }
    obs("sysenter, no callback", user::run(code!("sysenter"), &Gprs::ZERO));
    obs(
        "ud2 cpuid prefix from user mode",
        user::run(code!("xor eax, eax", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid"), &Gprs::ZERO),
    );
    hypercall_registers();
    callbacks();
}

/// A hypercall from kernel mode keeps what the ABI says it keeps.
fn hypercall_registers() {
    let m = Gprs { rax: nr::XEN_VERSION as u64, rdi: 0, rsi: 0, ..Gprs::MARKED };
    let g = probe::kernel(code!("syscall"), &m).done("hypercall");
    expect("xen_version", Hex(g.rax), Hex(0x4_0011));
    check(
        "callee-saved and r9",
        [g.rbx, g.rbp, g.r9, g.r12, g.r13, g.r14, g.r15] == [m.rbx, m.rbp, m.r9, m.r12, m.r13, m.r14, m.r15],
    );
    obs("rcx", probe::At(g.rcx));
    obs("r11 has the flags", Hex(g.r11 & 0x202));
    check("rsp", probe::rsp_moved() == 0);
}

fn callbacks() {
    let unregister = |kind: u16| {
        let mut u = CallbackUnregister { kind, pad: 0 };
        call(nr::CALLBACK_OP, &[callback::OP_UNREGISTER, core::ptr::from_mut(&mut u) as u64])
    };
    for kind in 0..10u16 {
        obs(f!("register type {kind}, non-canonical"), trap::register(kind, 0, 0x8000_0000_0000));
        let target = match kind {
            callback::TYPE_EVENT => trap::event_entry(),
            callback::TYPE_FAILSAFE => trap::failsafe_entry(),
            callback::TYPE_NMI => trap::stub(2),
            callback::TYPE_SYSENTER => trap::stub(trap::SYSENTER),
            callback::TYPE_SYSCALL32 => trap::stub(trap::SYSCALL32),
            _ => trap::syscall_entry(),
        };
        obs(f!("register type {kind}"), trap::register(kind, 0, target));
        obs(f!("register type {kind}, flags 0xffff"), trap::register(kind, 0xffff, target));
    }
    for kind in 0..10u16 {
        obs(f!("unregister type {kind}"), unregister(kind));
    }
    obs("unknown command", call(nr::CALLBACK_OP, &[7, 0]));
    obs("register, bad pointer", call(nr::CALLBACK_OP, &[0, 0xffff_8300_0000_0000]));
    obs("sysenter, callback", user::run(code!("sysenter"), &Gprs::ZERO));
    // no syscall callback: #UD at the instruction
    obs("register address 0", trap::register(callback::TYPE_SYSCALL, 0, 0));
    obs("syscall without a callback", user::run(code!("nop"), &Gprs::ZERO));
}
