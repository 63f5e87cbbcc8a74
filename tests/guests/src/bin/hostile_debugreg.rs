//! Breakpoints where the hypervisor would trip over them.
//!
//! Attacks: debug registers with addresses in the hypervisor or none at all, general detect, I/O breakpoints, reserved
//! bits; and data breakpoints on what the hypervisor reads and writes for the guest: hypercall arguments, the iret frame,
//! the trap stack, vcpu_info (the class of CVE-2018-8897 and of #DB loops in the hypervisor). Must happen: bad values are
//! refused, good ones only ever trap the guest itself, and every call does its work.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn set(n: u64, v: u64) -> Ret {
    call(nr::SET_DEBUGREG, &[n, v])
}

/// Data breakpoint 0 on eight bytes at `va`, for reads and writes; nothing for 0.
fn watch(va: u64) {
    set(7, 0).must("DR7 off");
    set(0, va).must("DR0");
    set(7, if va == 0 { 0 } else { 0x000b_0001 }).must("DR7");
}

fn run() {
    user::init();
    for n in 0..4u64 {
        for (name, at) in bad::POINTERS {
            obs(f!("DR{n}, {name}"), set(n, at));
        }
        obs(f!("DR{n}, start of the hypervisor"), set(n, 0xffff_8000_0000_0000));
        obs(f!("DR{n}, its last byte"), set(n, 0xffff_87ff_ffff_ffff));
        obs(f!("DR{n}, the byte behind"), set(n, 0xffff_8800_0000_0000));
        set(n, 0).must("DR off");
    }
    for bit in 0..64u64 {
        let r = set(7, 1 << bit);
        obs(f!("DR7 bit {bit}"), f!("{r} {:#x}", call(nr::GET_DEBUGREG, &[7]).0));
        let r = set(6, 1 << bit);
        obs(f!("DR6 bit {bit}"), f!("{r} {:#x}", call(nr::GET_DEBUGREG, &[6]).0));
        set(7, 0).must("DR7 off");
    }
    for kind in 0..16u64 {
        obs(f!("breakpoint 3 of kind {kind:#x}, off"), set(7, kind << 28));
        obs(f!("breakpoint 3 of kind {kind:#x}, on"), set(7, kind << 28 | 0x40));
        set(7, 0).must("DR7 off");
    }
    // on what the hypervisor touches
    let page = Page::alloc();
    watch(page.va);
    let regs = Gprs { rax: nr::XEN_VERSION as u64, rdi: 6, rsi: page.va, ..Gprs::ZERO };
    for i in 0..3 {
        obs(f!("hypercall with a watched argument, {i}"), probe::kernel(code!("syscall"), &regs).rax());
        watch(0);
        check(f!("it wrote its answer, {i}"), page.read(0) >> 32 != 0);
        page.clear();
        watch(page.va);
    }
    watch(probe::stack_top() - 16);
    obs("trap with a watched stack", probe::kernel(code!("ud2"), &Gprs::ZERO));
    watch(probe::stack_top() - 72);
    obs("hypercall iret with a watched frame", user::run(code!("nop"), &Gprs::ZERO));
    watch(user::kernel_stack_top() - 8);
    obs("trap of user mode with a watched stack", user::run(code!("ud2"), &Gprs::ZERO));
    watch(0);
    // execution breakpoints on the entries of the guest
    set(0, trap::stub(6)).must("DR0");
    set(7, 1).must("DR7");
    obs("breakpoint on the trap's entry", probe::kernel(code!("ud2"), &Gprs::ZERO));
    set(7, 0).must("DR7 off");
    set(0, probe::code_page().va).must("DR0");
    set(7, 1).must("DR7");
    obs("breakpoint on an emulated instruction", probe::kernel(code!("mov rax, cr0"), &Gprs::ZERO));
    obs("breakpoint on a hypercall", probe::kernel(code!("syscall"), &regs));
    set(7, 0).must("DR7 off");
    alive();
}
