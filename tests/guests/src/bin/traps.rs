//! Trap frames, word by word, from kernel and from user mode.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::prelude::*;
use guests::trap::{MASK_EVENTS, Trap};
use pv_abi::arch::sel;

guests::kernel!(run);

/// Everything about a frame that is the same on every machine.
fn show(name: &str, t: &Trap, from_user: bool, stack: u64) {
    obs(f!("{name}: trap"), t);
    obs(f!("{name}: rip"), probe::At(t.rip));
    obs(f!("{name}: cs word"), Hex(t.cs));
    obs(f!("{name}: rflags"), Hex(t.rflags));
    obs(f!("{name}: rsp moved"), stack.wrapping_sub(t.rsp) as i64);
    obs(f!("{name}: ss"), Hex(t.ss));
    let base = if from_user { user::kernel_stack_top() } else { t.rsp & !15 };
    obs(f!("{name}: frame below the stack base"), base.wrapping_sub(t.at) as i64);
    obs(f!("{name}: mask in the handler"), t.mask);
    obs(f!("{name}: rflags in the handler"), Hex(t.handler_rflags));
    obs(f!("{name}: rcx and r11"), if (t.rcx, t.r11) == (0xc0c0, 0x1111) { "kept" } else { "other" });
    let g = t.gprs;
    let m = Gprs::MARKED;
    let kept = g.rbx == m.rbx && g.rbp == m.rbp && g.r8 == m.r8 && g.r9 == m.r9 && g.r10 == m.r10;
    check(f!("{name}: other registers are kept"), kept && [g.r12, g.r13, g.r14, g.r15] == [m.r12, m.r13, m.r14, m.r15]);
}

fn cases() -> [(&'static str, &'static [u8]); 16] {
    [
        ("#UD ud2", code!("ud2")),
        ("#DE", code!("xor ecx, ecx", "div ecx", "nop")),
        ("#BP", code!("nop", "int3", "nop")),
        ("INT1", code!("nop", ".byte 0xf1", "nop")),
        ("INT 0x80", code!("int 0x80", "nop")),
        ("INT 0x20", code!("int 0x20", "nop")),
        ("INT 3, two bytes", code!(".byte 0xcd, 3", "nop")),
        ("INT 4", code!("int 4", "nop")),
        ("#GP hlt", code!("hlt")),
        ("#GP selector", code!("mov eax, 0x40", "mov ds, eax")),
        ("#GP non-canonical", code!("mov rax, 0x800000000000", "mov rax, [rax]")),
        ("#SS non-canonical", code!("mov rbp, 0x800000000000", "mov rax, [rbp]")),
        ("#PF read", code!("mov eax, 0x1234", "mov rax, [rax]")),
        ("#PF write", code!("mov eax, 0x1238", "mov [rax], rax")),
        ("#PF fetch", code!("mov eax, 0x123c", "jmp rax")),
        ("#PF hypervisor", code!("mov rax, 0xffff82d080200000", "mov rax, [rax]")),
    ]
}

fn run() {
    user::init();
    for (name, code) in cases() {
        // rcx and rbp are used up by two of them
        match probe::kernel(code, &Gprs::MARKED) {
            Outcome::Done(_) => obs(f!("kernel {name}"), "ran"),
            Outcome::Trap(t) if name.contains("#SS") || name.contains("#DE") => {
                obs(f!("kernel {name}"), f!("{t} {}", probe::At(t.rip)))
            }
            Outcome::Trap(t) => {
                show(&named("kernel", name), &t, false, probe::stack_top());
                if t.vector == 14 {
                    obs(f!("kernel {name}: cr2"), Hex(t.cr2));
                }
            }
        }
        match user::run(code, &Gprs::MARKED).trap(name) {
            t if t.vector == trap::SYSCALL => obs(f!("user {name}"), "ran"),
            t if name.contains("#SS") || name.contains("#DE") => obs(f!("user {name}"), f!("{t} {}", probe::At(t.rip))),
            t => {
                show(&named("user", name), &t, true, user::STACK_TOP);
                if t.vector == 14 {
                    obs(f!("user {name}: cr2"), Hex(t.cr2));
                }
            }
        }
    }
    flags();
    tables();
    stacks();
}

/// A short string on the stack: "kernel #UD".
struct Named {
    bytes: [u8; 64],
    used: usize,
}

impl core::ops::Deref for Named {
    type Target = str;
    fn deref(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("?")
    }
}

fn named(a: &str, b: &str) -> Named {
    let mut n = Named { bytes: [0; 64], used: 0 };
    for c in a.bytes().chain([b' ']).chain(b.bytes()).take(64) {
        n.bytes[n.used] = c;
        n.used += 1;
    }
    n
}

/// rflags in frame and handler, and the mask-events flag of a gate.
fn flags() {
    for (name, flags) in [("none", 0u8), ("mask events", MASK_EVENTS)] {
        trap::set_flags(6, flags).must("set_trap_table");
        for mask in [0u8, 1] {
            events::mask().store(mask, Ordering::SeqCst);
            let t = probe::kernel(code!("ud2"), &Gprs::MARKED).trap("ud2");
            obs(f!("gate {name}, mask {mask}: cs word"), Hex(t.cs));
            obs(f!("gate {name}, mask {mask}: rflags"), Hex(t.rflags));
            obs(f!("gate {name}, mask {mask}: in the handler"), t.mask);
            events::mask().store(1, Ordering::SeqCst);
        }
    }
    trap::set_flags(6, 0).must("set_trap_table");
    // flags that the interrupted code had on
    for (name, bits) in [("CF", 1u64), ("DF", 0x400), ("AC", 0x4_0000), ("NT", 0x4000), ("ID", 0x20_0000)] {
        let t =
            probe::kernel(code!("push rax", "popfq", "ud2"), &Gprs { rax: 0x202 | bits, ..Gprs::ZERO }).trap("flags");
        obs(f!("{name} on: frame"), Hex(t.rflags));
        obs(f!("{name} on: handler"), Hex(t.handler_rflags));
    }
    let t = probe::kernel(code!("push rax", "popfq", "nop", "nop"), &Gprs { rax: 0x302, ..Gprs::ZERO });
    obs("TF on", t);
    if let Outcome::Trap(t) = t {
        obs("TF on: frame", Hex(t.rflags));
        obs("TF on: handler", Hex(t.handler_rflags));
    }
    let t = user::run(code!("push rax", "popfq", "nop", "nop"), &Gprs { rax: 0x302, ..Gprs::ZERO });
    obs("TF on in user mode", t);
}

/// What set_trap_table accepts.
fn tables() {
    for (name, cs) in [("cs 0", 0u16), ("cs 0xe030", 0xe030), ("cs of the hypervisor", 0xe008), ("cs of data", 0xe02b)]
    {
        obs(f!("set_trap_table {name}"), trap::set(0x55, 0, cs, trap::stub(6)));
    }
    obs("non-canonical address", trap::set(0x55, 0, sel::FLAT_RING3_CS64, 0x8000_0000_0000));
    obs("address in the hypervisor", trap::set(0x55, 0, sel::FLAT_RING3_CS64, 0xffff_8300_0000_0000));
    obs("bad pointer", call(nr::SET_TRAP_TABLE, &[0xffff_8300_0000_0000]));
    // a cs without RPL still gives a handler that runs
    trap::set(6, 0, sel::FLAT_RING3_CS64 & !3, trap::stub(6)).must("set");
    obs("#UD through cs 0xe030", probe::kernel(code!("ud2"), &Gprs::ZERO));
    trap::set_flags(6, 0).must("set");
    obs("bounced #GP for a vector without an entry", probe::kernel(code!("int 0x81"), &Gprs::ZERO));
    for dpl in 0..4u8 {
        trap::set_flags(0x80, dpl).must("set");
        obs(f!("INT 0x80, DPL {dpl}, kernel"), probe::kernel(code!("int 0x80"), &Gprs::ZERO));
        obs(f!("INT 0x80, DPL {dpl}, user"), user::run(code!("int 0x80"), &Gprs::ZERO));
        trap::set_flags(3, dpl).must("set");
        obs(f!("INT3, DPL {dpl}, user"), user::run(code!("int3"), &Gprs::ZERO));
        // A vector without a gate of its own.
        trap::set_flags(0x55, dpl).must("set");
        obs(f!("INT 0x55, DPL {dpl}, kernel"), probe::kernel(code!("int 0x55"), &Gprs::ZERO));
        obs(f!("INT 0x55, DPL {dpl}, user"), user::run(code!("int 0x55"), &Gprs::ZERO));
    }
}

/// Stacks that are not aligned, and stack_switch's arguments.
fn stacks() {
    for off in [0u64, 8, 1, 15] {
        let top = probe::stack_top() - 256 - off;
        let t = probe::kernel_on(code!("ud2"), &Gprs::ZERO, top).trap("ud2");
        check(f!("rsp off by {off}: as it was"), t.rsp == top);
        obs(f!("rsp off by {off}: frame below it"), top - t.at);
        user::stack_switch(user::kernel_stack_top() - off).must("stack_switch");
        let t = user::run(code!("ud2"), &Gprs::ZERO).trap("ud2");
        obs(f!("kernel_sp off by {off}: frame below it"), user::kernel_stack_top() - t.at);
    }
    user::stack_switch(user::kernel_stack_top()).must("stack_switch");
    for (name, ss, sp) in [
        ("ss 0", 0u64, user::kernel_stack_top()),
        ("ss of the hypervisor", 0xe010, user::kernel_stack_top()),
        ("ss 0xffff", 0xffff, user::kernel_stack_top()),
        ("sp non-canonical", 0xe02b, 0x8000_0000_0000),
        ("sp in the hypervisor", 0xe02b, 0xffff_8300_0000_0000),
        ("good", 0xe02b, user::kernel_stack_top()),
    ] {
        obs(f!("stack_switch {name}"), call(nr::STACK_SWITCH, &[ss, sp]));
    }
    obs("user mode after them", user::run(code!("ud2"), &Gprs::ZERO));
}
