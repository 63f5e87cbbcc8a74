//! Delivery of events: when the callback comes, and its frame.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::prelude::*;
use guests::user::Iret;
use pv_abi::event::{OP_UNMASK, Unmask};
use pv_abi::shared_info::vcpu_info;

guests::kernel!(run);

fn state(name: &str, port: u32) {
    obs(f!("{name}: pending byte"), events::pending().load(Ordering::SeqCst));
    obs(f!("{name}: mask byte"), events::mask().load(Ordering::SeqCst));
    obs(f!("{name}: selector"), Hex(events::pending_sel().load(Ordering::SeqCst)));
    obs(f!("{name}: port"), events::port_pending(port));
}

fn frame(name: &str, out: Outcome) {
    obs(f!("{name}"), out);
    let Outcome::Trap(t) = out else { return };
    if t.vector != trap::EVENT {
        return;
    }
    obs(f!("{name}: cs word"), Hex(t.cs));
    obs(f!("{name}: ss"), Hex(t.ss));
    obs(f!("{name}: rflags"), Hex(t.rflags));
    obs(f!("{name}: mask in the handler"), t.mask);
    obs(f!("{name}: pending in the handler"), events::pending().load(Ordering::SeqCst));
    obs(f!("{name}: handler's rflags"), Hex(t.handler_rflags));
    let base = if t.cs & 3 == 3 { user::kernel_stack_top() } else { t.rsp & !15 };
    obs(f!("{name}: frame below the stack base"), base - t.at);
}

/// Registers for a hypercall that does nothing. rbx points to the mask: a probe opens upcalls itself, right before the
/// instruction it is about. (Before, an interrupt of the machine's on the way to the probe would let the event in.)
fn nothing() -> Gprs {
    Gprs { rax: nr::XEN_VERSION as u64, rbx: events::info(0) + vcpu_info::UPCALL_MASK as u64, ..Gprs::ZERO }
}

fn run() {
    user::init();
    probe::catch_events(true);
    let port = events::bind_ipi(0);
    obs("first port", port);
    events::quiet();

    expect("send, masked", events::send(port), OK);
    state("sent while masked", port);
    expect("send again", events::send(port), OK);
    // clearing the mask by a store delivers nothing; the next entry does
    let regs = Gprs { rdi: events::info(0) + vcpu_info::UPCALL_MASK as u64, ..Gprs::ZERO };
    frame("mask cleared by a store", probe::kernel(code!("mov byte ptr [rdi], 0", "nop", "nop"), &regs));
    frame(
        "then a hypercall",
        probe::kernel(code!("mov byte ptr [rbx], 0", "xor edi, edi", "syscall", "nop"), &nothing()),
    );
    state("in the callback", port);
    // nothing was cleared: it comes again as soon as the mask is 0
    frame(
        "again, nothing cleared",
        probe::kernel(code!("mov byte ptr [rbx], 0", "xor edi, edi", "syscall", "nop"), &nothing()),
    );
    events::quiet();
    events::port_clear(port);

    // pending bit alone, pending byte alone
    events::port_set(port);
    frame(
        "port bit without the byte",
        probe::kernel(code!("mov byte ptr [rbx], 0", "xor edi, edi", "syscall"), &nothing()),
    );
    events::port_clear(port);
    events::pending().store(1, Ordering::SeqCst);
    frame(
        "the byte without a port",
        probe::kernel(code!("mov byte ptr [rbx], 0", "xor edi, edi", "syscall"), &nothing()),
    );
    events::quiet();
    events::pending().store(0x80, Ordering::SeqCst);
    frame(
        "another value of the byte",
        probe::kernel(code!("mov byte ptr [rbx], 0", "xor edi, edi", "syscall"), &nothing()),
    );
    events::quiet();

    // a masked port sets its bit only
    events::port_mask(port, true);
    expect("send to a masked port", events::send(port), OK);
    state("masked port", port);
    expect("unmask op", events::op(OP_UNMASK, &mut Unmask { port }), OK);
    state("after unmask", port);
    check("its mask bit is clear", !events::port_masked(port));
    expect(
        "unmask op, nothing pending",
        {
            events::port_clear(port);
            events::quiet();
            events::op(OP_UNMASK, &mut Unmask { port })
        },
        OK,
    );
    state("unmasked without an event", port);
    // unmasked by memory alone: nobody notices
    events::port_mask(port, true);
    events::send(port).must("send");
    events::port_mask(port, false);
    state("unmasked by memory", port);
    expect("send with the bit already set", events::send(port), OK);
    state("sent twice", port);
    events::port_clear(port);
    events::quiet();

    // during the send itself
    events::mask().store(0, Ordering::SeqCst);
    let mut arg = pv_abi::event::Send { port };
    let regs = Gprs {
        rax: nr::EVENT_CHANNEL_OP as u64,
        rdi: pv_abi::event::OP_SEND,
        rsi: core::ptr::from_mut(&mut arg) as u64,
        ..Gprs::ZERO
    };
    let out = probe::kernel(code!("syscall", "nop"), &regs);
    if let Outcome::Trap(t) = &out {
        obs("send to oneself: rax in the frame", t.gprs.rax);
    }
    frame("send to oneself", out);
    events::port_clear(port);
    events::quiet();

    // a trap's return path
    events::send(port).must("send");
    let to = Iret { rip: probe::code_page().va, rsp: probe::stack_top() - 256, cs: 0xe030, ..user::frame() };
    probe::load(code!("nop"), &[0x0f, 0x0b]);
    frame("iret to kernel that unmasks", user::iret(&to, &Gprs::MARKED));
    events::mask().store(1, Ordering::SeqCst);
    probe::load(code!("nop"), &[0x0f, 0x0b]);
    frame("iret to kernel that does not", user::iret(&Iret { rflags: 2, ..to }, &Gprs::MARKED));
    frame("iret to user that unmasks", user::run(code!("nop"), &Gprs::MARKED));
    events::mask().store(1, Ordering::SeqCst);
    frame(
        "iret to user that does not",
        user::run_from(code!("nop"), &Gprs::MARKED, &Iret { rflags: 2, ..user::frame() }),
    );
    // an exception that is bounced while an event waits: which comes first?
    frame("#UD while an event waits", probe::kernel(code!("mov byte ptr [rbx], 0", "ud2"), &nothing()));
    events::quiet();
    events::port_clear(port);
    events::pending().store(1, Ordering::SeqCst);
    frame(
        "an emulated instruction while an event waits",
        probe::kernel(code!("mov byte ptr [rbx], 0", "mov rax, cr0", "nop"), &nothing()),
    );
    events::quiet();
    default_callback(port);
}

/// The whole way: callback, iret back to where it came from, all registers kept.
fn default_callback(port: u32) {
    probe::catch_events(false);
    let before = events::count(port);
    events::mask().store(0, Ordering::SeqCst);
    let mut arg = pv_abi::event::Send { port };
    let regs = Gprs {
        rax: nr::EVENT_CHANNEL_OP as u64,
        rdi: pv_abi::event::OP_SEND,
        rsi: core::ptr::from_mut(&mut arg) as u64,
        ..Gprs::MARKED
    };
    let g = probe::kernel(code!("syscall"), &regs).done("send with a callback");
    expect("callback taken and returned", events::count(port) - before, 1);
    expect("result survives", g.rax, 0);
    check(
        "registers survive",
        [g.rbx, g.rbp, g.r9, g.r12, g.r13, g.r14, g.r15, g.r8, g.r10, g.rdx]
            == [regs.rbx, regs.rbp, regs.r9, regs.r12, regs.r13, regs.r14, regs.r15, regs.r8, regs.r10, regs.rdx],
    );
    expect("mask after the iret", events::mask().load(Ordering::SeqCst), 0);
    for i in 0..100 {
        if events::send(port) != OK {
            report::fail(f!("send {i}"));
        }
    }
    expect("a hundred more", events::count(port) - before, 101);
    events::mask().store(1, Ordering::SeqCst);
}
