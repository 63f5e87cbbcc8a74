//! The iret hypercall: to kernel, to user, and what is wrong with a frame.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::prelude::*;
use guests::user::Iret;

guests::kernel!(run);

fn to_kernel(code: &[u8], to: Iret) -> Outcome {
    // ends in ud2, which shows the registers after the iret
    probe::load(code, &[0x0f, 0x0b]);
    user::iret(&Iret { rip: probe::code_page().va, rsp: probe::stack_top() - 256, ..to }, &Gprs::MARKED)
}

fn kernel_frame() -> Iret {
    Iret { cs: 0xe030, ..user::frame() }
}

fn show(name: impl core::fmt::Display, out: Outcome) {
    obs(f!("{name}"), out);
    let Outcome::Trap(t) = out else { return };
    obs(f!("{name}: cs word"), Hex(t.cs));
    obs(f!("{name}: rflags"), Hex(t.rflags));
    obs(f!("{name}: ss"), Hex(t.ss));
    let g = t.gprs;
    let m = Gprs::MARKED;
    obs(
        f!("{name}: rax, rcx, r11"),
        match (g.rax == m.rax, t.rcx == m.rcx, t.r11 == m.r11) {
            (true, true, true) => "the frame's",
            (true, false, false) => "rax the frame's, rcx and r11 other",
            _ => "other",
        },
    );
    check(f!("{name}: other registers"), [g.rbx, g.r9, g.r12, g.rdi, g.rsi] == [m.rbx, m.r9, m.r12, m.rdi, m.rsi]);
}

fn run() {
    user::init();
    show("to kernel", to_kernel(&[], kernel_frame()));
    show("to kernel, cs RPL 1", to_kernel(&[], Iret { cs: 0xe031, ..kernel_frame() }));
    show("to kernel, cs RPL 2", to_kernel(&[], Iret { cs: 0xe032, ..kernel_frame() }));
    show("to kernel, saved mask in cs", to_kernel(&[], Iret { cs: 0x01_0000_e030, ..kernel_frame() }));
    show("to kernel, junk above cs", to_kernel(&[], Iret { cs: 0xdead_beef_1234_e030, ..kernel_frame() }));
    show("to kernel, in syscall", to_kernel(&[], Iret { flags: 0x100, ..kernel_frame() }));
    show("to kernel, unknown flags", to_kernel(&[], Iret { flags: 0xffff_ffff_ffff_feff, ..kernel_frame() }));
    show("to kernel, IF clear", to_kernel(&[], Iret { rflags: 2, ..kernel_frame() }));
    events::mask().store(1, Ordering::SeqCst);
    show("to user", user::run(code!("ud2"), &Gprs::MARKED));
    events::mask().store(1, Ordering::SeqCst);
    show(
        "to user, saved mask in cs",
        user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { cs: 0xff_0000_e033, ..user::frame() }),
    );
    show("to user, in syscall", user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { flags: 0x100, ..user::frame() }));
    show("to user, 32 bit", user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { cs: 0xe023, ..user::frame() }));
    show("to user, ss RPL 0", user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { ss: 0xe028, ..user::frame() }));
    events::mask().store(1, Ordering::SeqCst);
    for (name, bits) in [
        ("CF", 1u64),
        ("TF", 0x100),
        ("DF", 0x400),
        ("IOPL 1", 0x1000),
        ("IOPL 3", 0x3000),
        ("NT", 0x4000),
        ("RF", 0x1_0000),
        ("VM", 0x2_0000),
        ("AC", 0x4_0000),
        ("VIF", 0x8_0000),
        ("VIP", 0x10_0000),
        ("ID", 0x20_0000),
        ("reserved", 0xffff_ffff_ffc0_0000),
        ("bit 1 clear", 0),
    ] {
        let rflags = if bits == 0 { 0x200 } else { 0x202 | bits };
        let out = to_kernel(code!("nop"), Iret { rflags, ..kernel_frame() });
        obs(f!("kernel {name}"), out);
        obs(f!("kernel {name}: rflags"), Hex(out.trap(name).rflags));
        let out = user::run_from(code!("nop", "ud2"), &Gprs::MARKED, &Iret { rflags, ..user::frame() });
        obs(f!("user {name}"), out);
        obs(f!("user {name}: rflags"), Hex(out.trap(name).rflags));
    }
    in_effect();
    events::mask().store(1, Ordering::SeqCst);
    bad();
}

/// Frames of traps show flags as a guest is to see them; PUSHF shows those the CPU has.
fn in_effect() {
    for (name, rflags) in [
        ("IF clear", 2u64),
        ("IOPL 1", 0x1202),
        ("IOPL 3", 0x3202),
        ("IOPL 3, IF clear", 0x3002),
        ("all", 0x3f_ffff & !0x1_0100),
    ] {
        events::mask().store(1, Ordering::SeqCst);
        let out = to_kernel(code!("pushfq", "pop rax"), Iret { rflags, ..kernel_frame() });
        obs(f!("kernel {name}: flags in effect"), Hex(out.trap(name).gprs.rax));
        let out = user::run_from(code!("pushfq", "pop rax", "ud2"), &Gprs::MARKED, &Iret { rflags, ..user::frame() });
        obs(f!("user {name}: flags in effect"), Hex(out.trap(name).gprs.rax));
    }
}

fn bad() {
    for (name, cs, ss) in [
        ("null cs", 0u64, 0xe02bu64),
        ("null cs RPL 3", 3, 0xe02b),
        ("data cs", 0xe028, 0xe02b),
        ("data cs RPL 3", 0xe02b, 0xe02b),
        ("hypervisor cs", 0xe008, 0xe02b),
        ("hypervisor cs RPL 3", 0xe00b, 0xe02b),
        ("LDT cs", 0x7, 0xe02b),
        ("cs out of the table", 0xfff3, 0xe02b),
        ("cs of an empty entry", 0x33, 0xe02b),
        ("null ss", 0xe033, 0),
        ("null ss RPL 3", 0xe033, 3),
        ("code ss", 0xe033, 0xe033),
        ("hypervisor ss", 0xe033, 0xe010),
        ("LDT ss", 0xe033, 7),
        ("ss out of the table", 0xe033, 0xfffb),
        ("null ss to kernel", 0xe030, 0),
        ("ss of an empty entry", 0xe033, 0x2b),
    ] {
        // targets in user mode unless cs has another RPL
        let to = Iret { cs, ss, ..user::frame() };
        let out = if cs & 3 == 3 { user::run_from(code!("ud2"), &Gprs::MARKED, &to) } else { to_kernel(&[], to) };
        show(name, out);
        events::mask().store(1, Ordering::SeqCst);
    }
    let out = user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { rip: 0x8000_0000_0000, ..user::frame() });
    obs("non-canonical rip, user", out);
    let out = user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { rip: 0xffff_8300_0000_0000, ..user::frame() });
    obs("rip in the hypervisor, user", out);
    let out = user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { rip: 0x1000, ..user::frame() });
    obs("unmapped rip, user", out);
    let out = user::run_from(code!("ud2"), &Gprs::MARKED, &Iret { rsp: 0x8000_0000_0000, ..user::frame() });
    obs("non-canonical rsp, user", out);
    let out = user::run_from(code!("push rax"), &Gprs::MARKED, &Iret { rsp: 0, ..user::frame() });
    obs("rsp 0, user", out);
}
