//! Polls that race with sends, closes, timeouts and each other.
//!
//! Attacks: a poll whose port is closed while it waits, two vCPUs on one port, timeouts in the past and at the end of
//! time, an event that comes between the look and the sleep. Must happen: each poll ends, in time or by the event; none is
//! lost for ever.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::sched::{OP_POLL, Poll};

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static PORT: AtomicU32 = AtomicU32::new(0);
static POLLS: AtomicU32 = AtomicU32::new(0);
static ODD: AtomicU32 = AtomicU32::new(0);

fn poll(port: u32, timeout: u64) -> Ret {
    let list = [port];
    call_ref(nr::SCHED_OP, OP_POLL, &mut Poll { ports: list.as_ptr() as u64, nr_ports: 1, pad: 0, timeout })
}

fn poller() {
    events::mask().store(1, Ordering::SeqCst);
    let mut i = 0u64;
    while !STOP.load(Ordering::SeqCst) {
        i += 1;
        let timeout = match i % 4 {
            0 => 1,
            1 => events::now() + 100_000,
            2 => events::now() + 20_000_000,
            _ => events::now() + 1_000,
        };
        let r = poll(PORT.load(Ordering::SeqCst), timeout);
        ODD.fetch_add(u32::from(r != OK && r != errno(EINVAL)), Ordering::SeqCst);
        POLLS.fetch_add(1, Ordering::SeqCst);
    }
}

fn run() {
    if smp::count() < 3 {
        report::skip("too few vCPUs");
    }
    events::quiet();
    PORT.store(events::bind_ipi(1), Ordering::SeqCst);
    smp::start(1, poller);
    smp::start(2, poller);
    for i in 0..1500u32 {
        let p = PORT.load(Ordering::SeqCst);
        events::port_clear(p);
        events::send(p).must("send");
        if i % 16 == 0 {
            // the next one first: the number must not come back at once
            PORT.store(events::bind_ipi(1 + i / 16 % 2), Ordering::SeqCst);
            events::close(p).must("close");
        }
        if i % 8 == 0 {
            poll(PORT.load(Ordering::SeqCst), events::now() + 50_000);
        }
    }
    let at = POLLS.load(Ordering::SeqCst);
    check("both still poll", events::wait_ms(5000, || POLLS.load(Ordering::SeqCst) > at + 8));
    STOP.store(true, Ordering::SeqCst);
    check("both end", events::wait_ms(5000, || [1u64, 2].iter().all(|v| call(nr::VCPU_OP, &[3, *v, 0]) == Ret(0))));
    expect("odd answers", ODD.load(Ordering::SeqCst), 0);
    events::quiet();
    for (name, t) in [("1", 1u64), ("now", events::now()), ("2^63", 1 << 63), ("-1", u64::MAX)] {
        let port = events::bind_ipi(0);
        events::port_mask(port, true);
        events::send(port).must("send");
        obs(f!("a pending port, timeout {name}"), poll(port, t));
        events::close(port).must("close");
    }
    alive();
}
