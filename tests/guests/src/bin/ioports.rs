//! I/O ports: IOPL, the I/O bitmap, and ports the hypervisor keeps.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::physdev::{OP_SET_IOBITMAP, OP_SET_IOPL, SetIobitmap, SetIopl};

guests::kernel!(run);

fn iopl(level: u32) -> Ret {
    call_ref(nr::PHYSDEV_OP, OP_SET_IOPL, &mut SetIopl { iopl: level })
}

fn inb(port: u64) -> Outcome {
    probe::kernel(code!("xor eax, eax", "in al, dx"), &Gprs { rdx: port, ..Gprs::ZERO })
}

fn run() {
    user::init();
    for level in [0u32, 1, 2, 3, 4, 255] {
        obs(f!("set_iopl {level}"), iopl(level));
    }
    for level in 0..4u32 {
        iopl(level).must("set_iopl");
        for (name, code) in [
            ("cli", code!("cli")),
            ("sti", code!("sti")),
            ("in 0x80", code!("mov edx, 0x80", "in al, dx")),
            ("out 0x80", code!("mov edx, 0x80", "out dx, al")),
        ] {
            obs(f!("IOPL {level}: kernel {name}"), probe::kernel(code, &Gprs::ZERO));
            obs(f!("IOPL {level}: user {name}"), user::run(code, &Gprs::ZERO));
        }
    }
    iopl(1).must("set_iopl");
    for (name, port) in [
        ("PIC 0x20", 0x20u64),
        ("PIC 0x21", 0x21),
        ("PIC 0xa0", 0xa0),
        ("PIC 0xa1", 0xa1),
        ("UART 0x3f8", 0x3f8),
        ("UART 0x3fd", 0x3fd),
        ("UART 0x3ff", 0x3ff),
        ("0x2f8", 0x2f8),
        ("absent 0x1230", 0x1230),
    ] {
        obs(f!("in {name}"), inb(port).rax());
    }
    obs("out PIC", probe::kernel(code!("mov edx, 0x21", "mov al, 0xff", "out dx, al"), &Gprs::ZERO));
    obs("out UART", probe::kernel(code!("mov edx, 0x3f8", "mov al, 0x58", "out dx, al"), &Gprs::ZERO));
    // CMOS: the index is kept by the hypervisor; register 0x0f (shutdown status) reads 0 here
    obs(
        "CMOS",
        probe::kernel(code!("mov al, 0x0f", "out 0x70, al", "in al, 0x71", "movzx eax, al"), &Gprs::ZERO).rax(),
    );
    // PCI configuration, mechanism 1: the host bridge of QEMU's machine
    obs(
        "PCI 0:0.0",
        probe::kernel(
            code!("mov edx, 0xcf8", "mov eax, 0x80000000", "out dx, eax", "mov edx, 0xcfc", "in eax, dx"),
            &Gprs::ZERO,
        )
        .rax(),
    );
    obs("PCI index reads back", probe::kernel(code!("mov edx, 0xcf8", "in eax, dx"), &Gprs::ZERO).rax());
    obs("PCI 0:0.0, high half", probe::kernel(code!("mov edx, 0xcfe", "xor eax, eax", "in ax, dx"), &Gprs::ZERO).rax());
    obs("PCI 0:0.0, byte 1", probe::kernel(code!("mov edx, 0xcfd", "xor eax, eax", "in al, dx"), &Gprs::ZERO).rax());
    obs(
        "PCI absent",
        probe::kernel(
            code!("mov edx, 0xcf8", "mov eax, 0x8000f800", "out dx, eax", "mov edx, 0xcfc", "in eax, dx"),
            &Gprs::ZERO,
        )
        .rax(),
    );
    obs(
        "index of a byte write",
        probe::kernel(code!("mov edx, 0xcf8", "mov al, 0x12", "out dx, al", "in eax, dx"), &Gprs::ZERO).rax(),
    );
    widths();
    strings();
    bitmap();
}

fn widths() {
    obs("in ax", probe::kernel(code!("mov edx, 0x1230", "mov rax, -1", "in ax, dx"), &Gprs::ZERO).rax());
    obs("in eax", probe::kernel(code!("mov edx, 0x1230", "mov rax, -1", "in eax, dx"), &Gprs::ZERO).rax());
    obs("in al, imm", probe::kernel(code!("mov rax, 0", "in al, 0xee"), &Gprs::ZERO));
    obs("in across the last port", probe::kernel(code!("mov edx, 0xffff", "in eax, dx"), &Gprs::ZERO));
}

fn strings() {
    let page = Page::alloc();
    let regs = |rcx: u64| Gprs { rdi: page.va, rsi: page.va, rdx: 0x1230, rcx, ..Gprs::ZERO };
    let out = probe::kernel(code!("cld", "insb"), &regs(0));
    obs("insb", out);
    obs("insb moved rdi by", out.done("insb").rdi - page.va);
    let out = probe::kernel(code!("cld", "rep insb"), &regs(16));
    obs("rep insb", out);
    let g = out.done("rep insb");
    obs("rep insb: rdi, rcx", f!("{} {}", g.rdi - page.va, g.rcx));
    let g = probe::kernel(code!("cld", "rep outsd"), &regs(4)).done("rep outsd");
    obs("rep outsd: rsi, rcx", f!("{} {}", g.rsi - page.va, g.rcx));
    obs(
        "insb to unmapped memory",
        probe::kernel(code!("cld", "insb"), &Gprs { rdi: 0x1000, rdx: 0x1230, ..Gprs::ZERO }),
    );
}

fn bitmap() {
    iopl(0).must("set_iopl");
    let page = Page::alloc();
    page.fill(&[0xff; 4096]);
    page.write(0x80 / 64, !1);
    let set = |bitmap: u64, nr_ports: u32| {
        call_ref(nr::PHYSDEV_OP, OP_SET_IOBITMAP, &mut SetIobitmap { bitmap, nr_ports, pad: 0 })
    };
    obs("set_iobitmap of 32768 ports", set(page.va, 32768));
    for (name, port) in [("an allowed port", 0x80u64), ("the next port", 0x81), ("a port behind the map", 0xfff0)] {
        obs(f!("kernel: {name}"), probe::kernel(code!("in al, dx"), &Gprs { rdx: port, ..Gprs::ZERO }));
        obs(f!("user: {name}"), user::run(code!("in al, dx"), &Gprs { rdx: port, ..Gprs::ZERO }));
    }
    obs("two ports, one allowed", user::run(code!("in ax, dx"), &Gprs { rdx: 0x80, ..Gprs::ZERO }));
    obs("set_iobitmap of 65537 ports", set(page.va, 65537));
    obs("set_iobitmap of 65536 ports", set(page.va, 65536));
    obs("set_iobitmap, bad pointer", set(0xffff_8300_0000_0000, 100));
    obs("user: with a bad pointer", user::run(code!("in al, dx"), &Gprs { rdx: 0x50, ..Gprs::ZERO }));
    obs("set_iobitmap of none", set(0, 0));
    obs("user: with none", user::run(code!("in al, dx"), &Gprs { rdx: 0x80, ..Gprs::ZERO }));
}
