//! Entries for events, system calls and failsafe in places where no code can be.
//!
//! Attacks: callbacks at addresses of the hypervisor, unmapped, or not executable: the hypervisor sends the vCPU there
//! itself. Must happen: the vCPU faults there as a guest, with a frame that shows the callback's own; never in the
//! hypervisor.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::callback::{
    F_MASK_EVENTS, NMI_OP_REGISTER, NmiCallback, TYPE_EVENT, TYPE_FAILSAFE, TYPE_NMI, TYPE_SYSCALL, TYPE_SYSCALL32,
};
use pv_abi::shared_info::vcpu_info;

guests::kernel!(run);

fn run() {
    user::init();
    let data = Page::alloc();
    paging::update_va(data.va, data.ma() | paging::KERNEL_RW | paging::NX).must("not executable");
    let port = events::bind_ipi(0);
    for (name, at) in [
        ("unmapped", 0x10_0000u64),
        ("the start of the hypervisor", 0xffff_8000_0000_0000),
        ("the hypervisor's", 0xffff_8300_0000_0000),
        ("the last byte below it", 0x7fff_ffff_ffff),
        ("not executable", data.va),
        ("the last byte", u64::MAX),
    ] {
        obs(f!("event entry, {name}"), trap::register(TYPE_EVENT, F_MASK_EVENTS, at));
        events::quiet();
        events::send(port).must("send");
        // The probe itself opens upcalls: before, an interrupt on the way to it would let the event in.
        let mask = events::info(0) + vcpu_info::UPCALL_MASK as u64;
        let regs = Gprs { rax: nr::XEN_VERSION as u64, rbx: mask, ..Gprs::ZERO };
        let o = probe::kernel(code!("mov byte ptr [rbx], 0", "syscall"), &regs);
        events::quiet();
        events::port_clear(port);
        show(f!("an event there, {name}"), o, at);
        trap::register(TYPE_EVENT, 0, trap::event_entry()).must("event entry");
        obs(f!("system-call entry, {name}"), trap::register(TYPE_SYSCALL, 0, at));
        let o = user::run(code!("nop"), &Gprs::ZERO);
        show(f!("a system call there, {name}"), o, at);
        trap::register(TYPE_SYSCALL, F_MASK_EVENTS, trap::syscall_entry()).must("system-call entry");
        obs(f!("trap entry, {name}"), trap::set(3, 3, 0xe033, at));
        show(f!("a trap there, {name}"), probe::kernel(code!("int3"), &Gprs::ZERO), at);
        show(f!("a trap of user mode there, {name}"), user::run(code!("int3"), &Gprs::ZERO), at);
        trap::init();
    }
    events::close(port).must("close");
    // what is no address at all is not taken, by whatever door
    for (name, address) in [("no address", 0x8000_0000_0000u64), ("the end of no address", 0xffff_7fff_ffff_ffff)] {
        for kind in [TYPE_EVENT, TYPE_FAILSAFE, TYPE_SYSCALL, TYPE_SYSCALL32, TYPE_NMI] {
            obs(f!("callback {kind} at {name}"), trap::register(kind, 0, address));
        }
        obs(f!("trap at {name}"), trap::set(3, 3, 0xe033, address));
        let mut nmi = NmiCallback { address, pad: 0 };
        obs(f!("nmi_op at {name}"), call_ref(nr::NMI_OP, NMI_OP_REGISTER, &mut nmi));
    }
    let mut nmi = NmiCallback { address: trap::stub(2), pad: 0 };
    obs("nmi_op at a good one", call_ref(nr::NMI_OP, NMI_OP_REGISTER, &mut nmi));
    trap::init();
    alive();
}

fn show(name: core::fmt::Arguments<'_>, o: Outcome, at: u64) {
    match o {
        Outcome::Trap(t) => {
            obs(name, f!("{t} at the entry {} cs {:#x} cr2 is it {}", t.rip == at, t.cs & 0xffff, t.cr2 == at))
        }
        Outcome::Done(_) => obs(name, "ran"),
    }
}
