//! Channels closed, bound and reset by one vCPU while another sends on them.
//!
//! Attacks: a port that is freed between the look and the use; a stale pending bit that greets the port's next owner; two
//! that close both ends of one channel at once (advisories about event-channel races and resets). Must happen: each call
//! answers 0 or an error of its own; in the end every port can be closed, and all ports are free.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::event::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static WRONG: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);

fn sender() {
    events::mask().store(1, Ordering::SeqCst);
    let mut i = 0u32;
    while !STOP.load(Ordering::SeqCst) {
        i += 1;
        let port = i % 12;
        let r = match i % 5 {
            0 => events::op(OP_UNMASK, &mut Unmask { port }),
            1 => events::op(OP_STATUS, &mut Status { dom: SELF, port, ..Status::default() }),
            2 => events::op(OP_BIND_VCPU, &mut BindVcpu { port, vcpu: i & 1 }),
            3 if i % 64 == 3 => events::close(port.max(1)),
            _ => events::send(port),
        };
        SENT.fetch_add(1, Ordering::Relaxed);
        WRONG.fetch_add(u32::from(!matches!(r, OK) && r != errno(EINVAL)), Ordering::SeqCst);
    }
}

fn run() {
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    smp::start(1, sender);
    check("it sends", events::wait_ms(5000, || SENT.load(Ordering::SeqCst) > 10));
    let mut wrong = 0u32;
    for i in 0..4000u32 {
        events::quiet();
        let mut u = AllocUnbound { dom: SELF, remote_dom: SELF, port: 0 };
        if events::op(OP_ALLOC_UNBOUND, &mut u) != OK {
            continue;
        }
        let mut b = BindInterdomain { remote_dom: SELF, remote_port: u.port, ..BindInterdomain::default() };
        let r = events::op(OP_BIND_INTERDOMAIN, &mut b);
        wrong += u32::from(r != OK && r != errno(EINVAL));
        let mut v = BindVirq { virq: VIRQ_DEBUG, vcpu: i & 1, port: 0 };
        let r = events::op(OP_BIND_VIRQ, &mut v);
        wrong += u32::from(r != OK && r != errno(EEXIST));
        for port in [u.port, b.local_port, v.port].into_iter().filter(|p| *p != 0) {
            let r = events::close(port);
            wrong += u32::from(r != OK && r != errno(EINVAL));
        }
        if i % 200 == 0 {
            let r = events::op(OP_RESET, &mut Reset { dom: SELF });
            wrong += u32::from(r != OK && r != errno(EAGAIN) && r != errno(EBUSY));
        }
    }
    STOP.store(true, Ordering::SeqCst);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    expect("odd answers here", wrong, 0);
    expect("odd answers there", WRONG.load(Ordering::SeqCst), 0);
    events::op(OP_RESET, &mut Reset { dom: SELF }).must("reset");
    events::quiet();
    // every port is free again, and none is pending
    let (mut made, mut pending) = (0u32, 0u32);
    loop {
        let mut u = AllocUnbound { dom: SELF, remote_dom: SELF, port: 0 };
        if made == 300 || events::op(OP_ALLOC_UNBOUND, &mut u) != OK {
            break;
        }
        made += 1;
        pending += u32::from(events::port_pending(u.port));
    }
    expect("ports that can be had", made, 300);
    expect("of them pending", pending, 0);
    alive();
}
