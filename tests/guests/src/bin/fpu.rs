//! FPU, SSE and AVX state across hypercalls, traps, blocking and user mode.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::sched::{OP_POLL, Poll};

guests::kernel!(run);

fn run() {
    user::init();
    state();
    across("nothing", || ());
    across("a hypercall", || {
        call(nr::XEN_VERSION, &[0, 0]);
    });
    across("an emulated instruction", || {
        probe::kernel(code!("mov rax, cr0"), &Gprs::ZERO);
    });
    across("a trap", || {
        probe::kernel(code!("ud2"), &Gprs::ZERO);
    });
    across("yield", || {
        call(nr::SCHED_OP, &[0, 0]);
    });
    across("a sleep", || {
        let port = 1u32;
        call_ref(
            nr::SCHED_OP,
            OP_POLL,
            &mut Poll {
                ports: core::ptr::from_ref(&port) as u64,
                nr_ports: 0,
                pad: 0,
                timeout: events::now() + 3_000_000,
            },
        );
    });
    across("user mode", || {
        user::run(code!("nop"), &Gprs::ZERO);
    });
    avx();
    exceptions();
}

fn state() {
    let page = Page::alloc();
    // SAFETY: 512 bytes, aligned.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) page.va) };
    expect("fcw", Hex(page.read(0) & 0xffff), Hex(0x37f));
    expect("mxcsr", Hex(page.read(3) & 0xffff_ffff), Hex(0x1f80));
    obs("mxcsr mask", Hex(page.read(3) >> 32));
    check("registers are 0 at start", (4..52).all(|i| page.read(i) == 0));
}

fn across(name: &str, f: impl FnOnce()) {
    let (before, after) = (Page::alloc(), Page::alloc());
    for i in 0..64 {
        before.write(i, 0x0101_0101_0101_0101 * (i as u64 + 1));
    }
    before.write(0, 0x0000_0000_0000_027f);
    before.write(1, 0);
    before.write(2, 0);
    before.write(3, 0xffff_0000_1f80);
    // x87 registers: 80 bits each, the rest reserved
    for i in 4..20 {
        before.write(i, if i % 2 == 0 { 0x8000_0000_0000_0000 | i as u64 } else { 0x3fff });
    }
    // SAFETY: both are aligned pages; the FPU belongs to this test.
    unsafe { core::arch::asm!("fxrstor64 [{}]", in(reg) before.va) };
    f();
    // SAFETY: as above.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) after.va) };
    let x87 = (4..20).all(|i| after.read(i) == before.read(i));
    let sse = (20..52).all(|i| after.read(i) == before.read(i));
    check(f!("x87 across {name}"), x87);
    check(f!("SSE across {name}"), sse);
    check(f!("control words across {name}"), after.read(0) & 0xffff == 0x27f && after.read(3) & 0xffff_ffff == 0x1f80);
    // SAFETY: back to the initial state.
    unsafe { core::arch::asm!("fninit") };
}

fn avx() {
    let on = probe::kernel(
        code!(
            "mov rax, cr4",
            "or eax, 0x40000",
            "mov cr4, rax",
            "xor ecx, ecx",
            "xor edx, edx",
            "mov eax, 7",
            "xsetbv",
            "xor eax, eax"
        ),
        &Gprs::ZERO,
    );
    obs("AVX switched on", on);
    if !on.is_done() {
        return;
    }
    let page = Page::alloc();
    (0..8).for_each(|i| page.write(i, 0xabcd_0000 + i as u64));
    let port = 1u32;
    let mut p =
        Poll { ports: core::ptr::from_ref(&port) as u64, nr_ports: 0, pad: 0, timeout: events::now() + 3_000_000 };
    let regs = Gprs {
        rbx: page.va,
        rax: nr::SCHED_OP as u64,
        rdi: OP_POLL,
        rsi: core::ptr::from_mut(&mut p) as u64,
        ..Gprs::ZERO
    };
    let out = probe::kernel(code!("vmovups ymm5, [rbx]", "syscall", "vmovups [rbx + 64], ymm5"), &regs);
    obs("AVX across a sleep", out);
    check("all 256 bits", (0..4).all(|i| page.read(8 + i) == page.read(i)));
}

fn exceptions() {
    obs(
        "#MF",
        probe::kernel(code!("fninit", "fldcw [rsi]", "fld1", "fldz", "fdivp", "fwait"), &{
            let page = Page::alloc();
            page.write(0, 0x37b);
            Gprs { rsi: page.va, ..Gprs::ZERO }
        }),
    );
    // SAFETY: back to the initial state.
    unsafe { core::arch::asm!("fnclex", "fninit") };
    obs(
        "#XM",
        probe::kernel(
            code!("ldmxcsr [rsi]", "xorps xmm0, xmm0", "mov eax, 0x3f800000", "movd xmm1, eax", "divss xmm1, xmm0"),
            &{
                let page = Page::alloc();
                page.write(0, 0x1d80);
                Gprs { rsi: page.va, ..Gprs::ZERO }
            },
        ),
    );
    let page = Page::alloc();
    page.write(0, 0xffff_ffff);
    obs("ldmxcsr with reserved bits", probe::kernel(code!("ldmxcsr [rsi]"), &Gprs { rsi: page.va, ..Gprs::ZERO }));
    obs("fxrstor, misaligned", probe::kernel(code!("fxrstor64 [rsi + 8]"), &Gprs { rsi: page.va, ..Gprs::ZERO }));
}
