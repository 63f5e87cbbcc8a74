//! Every way a domain can make it impossible to go on.
//!
//! Attacks: trap stacks that are unmapped, the hypervisor's, no address, or a page table; handlers that fault themselves
//! without end; traps without a handler; iret frames that cannot be read; user mode without tables, events without an
//! entry (the class of advisories about double faults and unreadable guest stacks). Must happen: that domain is stopped
//! as crashed, once; its parent goes on, takes it apart, and gets every page back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::arch::asm;
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn stack(sp: u64) -> ! {
    // SAFETY: none: the domain is to die here.
    unsafe { asm!("mov rsp, {}", "ud2", in(reg) sp, options(noreturn)) }
}

fn run() {
    Child::build(|| (), Spec::default()).destroy();
    child::nap(50_000);
    let before = child::free_pages();
    let ways: [(&str, fn()); 14] = [
        ("a stack that is unmapped", || stack(0x1000)),
        ("a stack in the hypervisor", || stack(XEN_VA + 4096)),
        ("a stack at the start of the hypervisor", || stack(0xffff_8000_0000_0000)),
        ("a stack at no address", || stack(NON_CANONICAL)),
        ("a stack that is a page table", || stack(paging::l4().va + 2048)),
        ("a stack that wraps", || stack(8)),
        ("a handler that is unmapped", || {
            trap::set(14, 0, 0xe033, 0x10_0000).must("set");
            mem::read64(0x20_0000);
        }),
        ("a handler in the hypervisor", || {
            trap::set(14, 0, 0xe033, XEN_VA).must("set");
            mem::read64(0x20_0000);
        }),
        ("a handler that traps itself, without end", || {
            trap::set(6, 0, 0xe033, probe::code_page().va).must("set");
            probe::load(code!("ud2"), &[0x0f, 0x0b]);
            stack(probe::stack_top())
        }),
        ("no handler", || {
            call(nr::SET_TRAP_TABLE, &[0]).must("clear");
            stack(probe::stack_top())
        }),
        ("an iret frame that is unmapped", || {
            // SAFETY: as above.
            unsafe { asm!("mov rsp, 0x1000", "mov eax, 23", "syscall", options(noreturn)) }
        }),
        ("an iret frame in the hypervisor", || {
            // SAFETY: as above.
            unsafe { asm!("mov rsp, {}", "mov eax, 23", "syscall", in(reg) XEN_VA, options(noreturn)) }
        }),
        ("user mode without tables", || {
            user::iret(&user::frame(), &Gprs::ZERO);
        }),
        ("the crash it asks for", || report::shutdown(3)),
    ];
    for (name, body) in ways {
        let c = Child::run(body, Spec::default());
        let ended = events::wait_ms(10_000, || {
            child::nap(300);
            !matches!(c.state(), child::State::Built | child::State::Running)
        });
        check(f!("{name}: it ends"), ended);
        obs(f!("{name}"), c.state());
        let reason = c.info().map(|i| i.flags >> pv_abi::domctl::dominf::SHUTDOWN_SHIFT & 0xff);
        obs(f!("{name}: the reason"), reason.unwrap_or(0xff));
        expect(f!("{name}: destroy"), c.destroy(), OK);
    }
    check("all memory is back", child::all_back(before));
    alive();
}
