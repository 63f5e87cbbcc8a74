//! NMIs in storms, from another vCPU, into every state.
//!
//! Attacks: send_nmi thousands of times to a vCPU that runs, sleeps, polls, handles one, is going down: NMIs nested
//! without end, lost wake-ups, a frame on a stack in use. Must happen: never two at once before an iret, the sleeper
//! wakes, and the target goes on where it was.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::vcpu::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static SENT: AtomicU32 = AtomicU32::new(0);

fn sender() {
    while !STOP.load(Ordering::SeqCst) {
        if call(nr::VCPU_OP, &[OP_SEND_NMI, 0, 0]) == OK {
            SENT.fetch_add(1, Ordering::SeqCst);
        }
        for _ in 0..20 {
            call(nr::XEN_VERSION, &[0, 0]);
        }
    }
}

fn run() {
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    user::init();
    events::quiet();
    for v in [2u64, 31, 127, u64::from(u32::MAX)] {
        obs(f!("send_nmi to vCPU {v}"), call(nr::VCPU_OP, &[OP_SEND_NMI, v, 0]));
    }
    // one NMI is taken and not returned from: the others wait until a probe's iret lets them in, never in other code
    let send = Gprs { rax: nr::VCPU_OP as u64, rdi: OP_SEND_NMI, ..Gprs::ZERO };
    expect("the first is taken", probe::kernel(code!("syscall", "nop"), &send).trap("send_nmi").vector, 2);
    smp::initialise(1, smp::context(1, sender)).must("initialise");
    smp::up(1).must("up");
    let (mut taken, mut odd) = (0u32, 0u32);
    // code that spins until one comes, in kernel and in user mode
    let spin = code!("2:", "pause", "jmp 2b");
    for i in 0..400u32 {
        let frame = if i % 2 == 0 {
            user::Iret {
                flags: 0,
                rip: probe::code_page().va,
                cs: 0xe030,
                rflags: 2,
                rsp: probe::stack_top() - 1024,
                ss: 0xe02b,
            }
        } else {
            user::Iret { rflags: 2, ..user::frame() }
        };
        match user::run_from(spin, &Gprs::ZERO, &frame) {
            Outcome::Trap(t) if t.vector == 2 => taken += 1,
            _ => odd += 1,
        }
    }
    check("NMIs came", taken == 400 && SENT.load(Ordering::SeqCst) > 0);
    expect("anything else", odd, 0);
    STOP.store(true, Ordering::SeqCst);
    check("the sender ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[OP_IS_UP, 1, 0]) == Ret(0)));
    // let a last one in
    let frame = user::Iret {
        flags: 0,
        rip: probe::code_page().va,
        cs: 0xe030,
        rflags: 2,
        rsp: probe::stack_top() - 1024,
        ss: 0xe02b,
    };
    while matches!(user::run_from(code!("ud2"), &Gprs::ZERO, &frame), Outcome::Trap(t) if t.vector == 2) {}
    events::quiet();
    alive();
}
