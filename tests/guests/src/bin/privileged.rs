//! Control and debug registers, and privileged instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    user::init();
    control();
    instructions();
    debug();
    fpu_ts();
}

fn with(rax: u64) -> Gprs {
    Gprs { rax, ..Gprs::ZERO }
}

fn control() {
    obs("read CR0", probe::kernel(code!("mov rax, cr0"), &Gprs::ZERO).rax());
    obs("write CR0, same", probe::kernel(code!("mov rax, cr0", "mov cr0, rax"), &Gprs::ZERO));
    obs("set TS", probe::kernel(code!("mov rax, cr0", "or eax, 8", "mov cr0, rax", "mov rax, cr0"), &Gprs::ZERO).rax());
    obs("clts", probe::kernel(code!("clts", "mov rax, cr0"), &Gprs::ZERO).rax());
    for (name, bit) in [
        ("MP", 1u32),
        ("EM", 2),
        ("ET", 4),
        ("NE", 5),
        ("WP", 16),
        ("AM", 18),
        ("NW", 29),
        ("CD", 30),
        ("PG", 31),
        ("PE", 0),
        ("bit 32", 32),
    ] {
        obs(
            f!("flip CR0.{name}"),
            probe::kernel(
                code!("mov rax, cr0", "btc rax, rcx", "mov cr0, rax"),
                &Gprs { rcx: u64::from(bit), ..Gprs::ZERO },
            ),
        );
    }
    obs("smsw", probe::kernel(code!("smsw ax", "movzx eax, ax"), &Gprs::ZERO).rax());
    obs("lmsw", probe::kernel(code!("smsw ax", "lmsw ax"), &Gprs::ZERO));
    obs("write CR2", probe::kernel(code!("mov cr2, rax"), &with(0x1234_5678)));
    obs("read CR2", probe::kernel(code!("mov rax, cr2"), &Gprs::ZERO).rax());
    obs("vcpu_info's cr2", Hex(guests::mem::read64(events::info(0) + 16)));
    let cr3 = probe::kernel(code!("mov rax, cr3"), &Gprs::ZERO).done("CR3").rax;
    check("CR3 is the L4's frame", cr3 == paging::l4().ma());
    obs("write CR3, same", probe::kernel(code!("mov cr3, rax"), &with(cr3)));
    obs(
        "write CR3, an L1",
        probe::kernel(code!("mov cr3, rax"), &with(paging::table(run as *const () as u64, 1).map_or(0, Page::ma))),
    );
    obs("write CR3, 0", probe::kernel(code!("mov cr3, rax"), &with(0)));
    obs("write CR3, low bits", probe::kernel(code!("mov cr3, rax"), &with(cr3 | 8)));
    obs("read CR4", probe::kernel(code!("mov rax, cr4"), &Gprs::ZERO).rax());
    for (name, bit) in [
        ("VME", 0u64),
        ("PVI", 1),
        ("TSD", 2),
        ("DE", 3),
        ("PSE", 4),
        ("PAE", 5),
        ("MCE", 6),
        ("PGE", 7),
        ("PCE", 8),
        ("OSFXSR", 9),
        ("OSXMMEXCPT", 10),
        ("UMIP", 11),
        ("LA57", 12),
        ("VMXE", 13),
        ("FSGSBASE", 16),
        ("PCIDE", 17),
        ("OSXSAVE", 18),
        ("SMEP", 20),
        ("SMAP", 21),
        ("PKE", 22),
        ("bit 63", 63),
    ] {
        let regs = Gprs { rcx: bit, ..Gprs::ZERO };
        obs(
            f!("flip CR4.{name}"),
            probe::kernel(
                code!("mov rax, cr4", "mov rbx, rax", "btc rax, rcx", "mov cr4, rax", "mov rax, cr4", "mov cr4, rbx"),
                &regs,
            )
            .rax(),
        );
    }
    obs("read CR8", probe::kernel(code!("mov rax, cr8"), &Gprs::ZERO));
    obs("write CR8", probe::kernel(code!("mov cr8, rax"), &Gprs::ZERO));
    obs("read CR1", probe::kernel(code!(".byte 0x0f, 0x20, 0xc8"), &Gprs::ZERO));
    obs("user mode: read CR0", user::run(code!("mov rax, cr0"), &Gprs::ZERO));
    obs("rdfsbase", probe::kernel(code!("rdfsbase rax"), &Gprs::ZERO));
    obs(
        "rdfsbase with CR4.FSGSBASE",
        probe::kernel(code!("mov rax, cr4", "or eax, 0x10000", "mov cr4, rax", "rdfsbase rax"), &Gprs::ZERO),
    );
    probe::kernel(code!("mov rax, cr4", "btr eax, 16", "mov cr4, rax"), &Gprs::ZERO);
}

fn instructions() {
    for (name, code) in [
        ("cli", code!("cli")),
        ("sti", code!("sti")),
        ("hlt", code!("hlt")),
        ("invd", code!("invd")),
        ("wbinvd", code!("wbinvd")),
        ("invlpg", code!("invlpg [rsp]")),
        ("lgdt", code!("lgdt [rsp]")),
        ("lidt", code!("lidt [rsp]")),
        ("ltr", code!("ltr ax")),
        ("lldt", code!("lldt ax")),
        ("swapgs", code!("swapgs")),
        ("sysret", code!("sysretq")),
        ("stac", code!("stac")),
        ("clac", code!("clac")),
        ("sgdt", code!("sgdt [rsp - 64]", "movzx eax, word ptr [rsp - 64]")),
        ("sidt", code!("sidt [rsp - 64]", "movzx eax, word ptr [rsp - 64]")),
        ("sldt", code!("sldt ax", "movzx eax, ax")),
        ("str", code!("str ax", "movzx eax, ax")),
        ("monitor", code!("mov rax, rsp", "xor ecx, ecx", "xor edx, edx", "monitor")),
        ("mwait", code!("mwait")),
        ("vmcall", code!("vmcall")),
        ("vmmcall", code!("vmmcall")),
        ("invpcid", code!("invpcid rax, [rsp - 64]")),
        ("rdpkru", code!("xor ecx, ecx", "rdpkru")),
        (
            "iretq",
            code!(
                "mov rax, rsp",
                "sub rsp, 64",
                "push 0xe02b",
                "push rax",
                "pushfq",
                "push 0xe033",
                "lea rax, [rip + 2f]",
                "push rax",
                "iretq",
                "2:",
                "xor eax, eax"
            ),
        ),
        ("retf to kernel cs", code!("push 0xe033", "lea rax, [rip + 2f]", "push rax", "retfq", "2:", "xor eax, eax")),
        ("pushfq", code!("pushfq", "pop rax", "and eax, 0x203000")),
        (
            "popfq with IOPL",
            code!("pushfq", "pop rax", "or eax, 0x3000", "push rax", "popfq", "pushfq", "pop rax", "and eax, 0x3200"),
        ),
        (
            "popfq without IF",
            code!("pushfq", "pop rax", "and eax, ~0x200", "push rax", "popfq", "pushfq", "pop rax", "and eax, 0x3200"),
        ),
    ] {
        let kernel = probe::kernel(code, &Gprs::ZERO);
        obs(f!("kernel {name}"), kernel.rax());
        if !name.contains("retf") && !name.contains("iretq") {
            obs(f!("user {name}"), user::run(code, &Gprs::ZERO));
        }
    }
}

fn debug() {
    let set = |reg: u64, value: u64| call(nr::SET_DEBUGREG, &[reg, value]);
    let get = |reg: u64| Hex(call(nr::GET_DEBUGREG, &[reg]).0 as u64);
    for r in 0..10u64 {
        obs(f!("get_debugreg {r}"), get(r));
        obs(f!("set_debugreg {r} 0"), set(r, 0));
    }
    let here = run as *const () as u64;
    obs("set_debugreg 0 to the kernel", set(0, here));
    check("reads back", get(0) == Hex(here));
    obs("set_debugreg 1 to the hypervisor", set(1, 0xffff_8300_0000_0000));
    obs("set_debugreg 1 non-canonical", set(1, 0x8000_0000_0000));
    for value in [0x400u64, 0x401, 0x2000, 0x402, 0x1_0402, 0x2_0401, 0x1_0000_0400, 0xf_0400, 0x55, 0] {
        obs(f!("set_debugreg 7 {value:#x}"), set(7, value));
        obs(f!("get_debugreg 7 after {value:#x}"), get(7));
    }
    for value in [0u64, 0xffff_0ff0, 0xf, 0xffff_ffff, 0x1_0000_0000] {
        obs(f!("set_debugreg 6 {value:#x}"), set(6, value));
        obs(f!("get_debugreg 6 after {value:#x}"), get(6));
    }
    obs("mov to DR0", probe::kernel(code!("mov dr0, rax"), &with(0x7000)));
    obs("mov from DR0", probe::kernel(code!("mov rax, dr0"), &Gprs::ZERO).rax());
    obs("mov from DR6", probe::kernel(code!("mov rax, dr6"), &Gprs::ZERO).rax());
    obs("mov from DR4", probe::kernel(code!(".byte 0x0f, 0x21, 0xe0"), &Gprs::ZERO).rax());
    obs("mov from DR7", probe::kernel(code!("mov rax, dr7"), &Gprs::ZERO).rax());
    obs("user mode: mov from DR7", user::run(code!("mov rax, dr7"), &Gprs::ZERO));
    set(0, user::CODE_VA + 1).must("DR0");
    set(6, 0xffff_0ff0).must("DR6");
    set(7, 0x401).must("DR7");
    obs("breakpoint in user mode", user::run(code!("nop", "nop", "nop"), &Gprs::ZERO));
    obs("DR6 after it", get(6));
    set(7, 0x400).must("DR7");
}

fn fpu_ts() {
    obs("fpu_taskswitch 1", call(nr::FPU_TASKSWITCH, &[1]));
    obs("CR0 with TS", probe::kernel(code!("mov rax, cr0"), &Gprs::ZERO).rax());
    obs("fnop with TS", probe::kernel(code!("fnop"), &Gprs::ZERO));
    obs("CR0 after #NM", probe::kernel(code!("mov rax, cr0"), &Gprs::ZERO).rax());
    obs("fnop after #NM", probe::kernel(code!("fnop"), &Gprs::ZERO));
    obs("fpu_taskswitch 1 again", call(nr::FPU_TASKSWITCH, &[1]));
    obs("fpu_taskswitch 0", call(nr::FPU_TASKSWITCH, &[0]));
    obs("fnop without TS", probe::kernel(code!("fnop"), &Gprs::ZERO));
    obs("fpu_taskswitch 77", call(nr::FPU_TASKSWITCH, &[77]));
    obs("sse with TS", probe::kernel(code!("movups xmm0, [rsp - 64]"), &Gprs::ZERO));
}
