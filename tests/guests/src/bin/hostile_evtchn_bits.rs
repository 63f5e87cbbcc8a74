//! The shared bitmaps and bytes of events, written as no guest should.
//!
//! Attacks: pending and mask bits of ports that are not bound or do not exist, selector words of ones, the upcall bytes
//! with values of their own, a channel to oneself whose end goes first. Must happen: only the guest itself is confused; a
//! send after it still arrives.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::event::*;
use pv_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING};

guests::kernel!(run);

fn run() {
    events::quiet();
    let word = |map: usize, i: usize, v: u64| events::word(events::shared(map + 8 * i)).store(v, SeqCst);
    for i in 0..64 {
        word(EVTCHN_PENDING, i, u64::MAX);
    }
    events::pending_sel().store(u64::MAX, SeqCst);
    events::pending().store(0xff, SeqCst);
    events::mask().store(0xff, SeqCst);
    obs("a call with every bit set", call(nr::XEN_VERSION, &[0, 0]).0 >> 16);
    let port = events::bind_ipi(0);
    obs("send with its bit set", events::send(port));
    obs("the mask stays", events::mask().load(SeqCst));
    // a mask byte that is not 1 masks as well
    for v in [1u8, 2, 0x80, 0xff] {
        events::mask().store(v, SeqCst);
        call(nr::XEN_VERSION, &[0, 0]);
        expect(f!("upcalls with the mask {v:#x}"), events::UPCALLS[0].load(SeqCst), 0);
    }
    for i in 0..64 {
        word(EVTCHN_PENDING, i, 0);
    }
    events::quiet();
    // a pending byte without anything behind it: one upcall that finds nothing
    for v in [1u8, 2, 0xff] {
        let before = events::UPCALLS[0].load(SeqCst);
        events::pending().store(v, SeqCst);
        events::mask().store(0, SeqCst);
        call(nr::XEN_VERSION, &[0, 0]);
        obs(f!("upcalls for the pending byte {v:#x}"), events::UPCALLS[0].load(SeqCst) - before);
        events::quiet();
    }
    for i in 0..64 {
        word(EVTCHN_MASK, i, u64::MAX);
    }
    obs("send while all are masked", events::send(port));
    obs("its pending bit", events::port_pending(port));
    obs("the byte", events::pending().load(SeqCst));
    obs("unmask", events::op(OP_UNMASK, &mut Unmask { port }));
    obs("the byte then", events::pending().load(SeqCst));
    for p in [0u32, 1023, 4095, 4096, u32::MAX] {
        obs(f!("unmask {p}"), events::op(OP_UNMASK, &mut Unmask { port: p }));
        obs(f!("send {p}"), events::send(p));
        obs(f!("close {p}"), events::close(p));
    }
    for i in 0..64 {
        word(EVTCHN_MASK, i, 0);
        word(EVTCHN_PENDING, i, 0);
    }
    events::quiet();
    // a channel to oneself
    let mut u = AllocUnbound { dom: SELF, remote_dom: SELF, port: 0 };
    events::op(OP_ALLOC_UNBOUND, &mut u).must("alloc");
    let mut b = BindInterdomain { remote_dom: SELF, remote_port: u.port, ..BindInterdomain::default() };
    events::op(OP_BIND_INTERDOMAIN, &mut b).must("bind");
    events::quiet();
    obs("close one end", events::close(u.port));
    let mut again = AllocUnbound { dom: SELF, remote_dom: SELF, port: 0 };
    events::op(OP_ALLOC_UNBOUND, &mut again).must("alloc");
    expect("its number is given again", again.port, u.port);
    events::port_clear(again.port);
    obs("send on the other end", events::send(b.local_port));
    expect("reaches the new owner of the number", events::port_pending(again.port), false);
    events::close(b.local_port).must("close");
    events::close(again.port).must("close");
    // all ports
    let mut n = 0u32;
    while events::op(OP_BIND_IPI, &mut BindIpi { vcpu: 0, port: 0 }) == OK {
        n += 1;
    }
    obs("ports until there are no more", n);
    obs("reset", events::op(OP_RESET, &mut Reset { dom: SELF }));
    events::quiet();
    let port = events::bind_ipi(0);
    let before = events::count(port);
    obs("send after all", events::send(port));
    events::unmask_upcalls();
    expect("it arrives", events::count(port) - before, 1);
    events::quiet();
    alive();
}
