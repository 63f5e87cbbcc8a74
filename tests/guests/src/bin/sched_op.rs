//! sched_op: every operation, good and bad arguments.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::event::*;
use pv_abi::sched::*;
use pv_abi::vcpu;

guests::kernel!(run);

fn run() {
    for (name, at) in bad::POINTERS {
        for op in [OP_SHUTDOWN, OP_POLL, OP_REMOTE_SHUTDOWN, OP_SHUTDOWN_CODE, OP_WATCHDOG, OP_PIN_OVERRIDE] {
            // shutdown_code takes its reason from a pointer too; it stops nobody when it cannot be read
            obs(f!("op {op} with a pointer that is {name}"), call(nr::SCHED_OP, &[op, at]));
        }
    }
    for op in [8u64, 9, 0xffff_ffff, 1 << 32, u64::MAX] {
        obs(f!("op {op:#x}"), call(nr::SCHED_OP, &[op, 0]));
        obs(f!("compat op {op:#x}"), call(nr::SCHED_OP_COMPAT, &[op, 0]));
    }
    obs("yield", call(nr::SCHED_OP, &[OP_YIELD, 0]));
    obs("compat yield", call(nr::SCHED_OP_COMPAT, &[OP_YIELD, 0]));
    shutdown_code();
    remote();
    poll();
    block();
    pin();
    watchdog();
}

/// Only noted; the reason is read back by the tools when the domain stops.
fn shutdown_code() {
    for reason in [0u32, 3, 5, 6, 255, u32::MAX] {
        obs(f!("shutdown_code {reason}"), call_ref(nr::SCHED_OP, OP_SHUTDOWN_CODE, &mut Shutdown { reason }));
    }
}

fn remote() {
    for (domid, reason) in [(1u16, 3u32), (0x7ff0, 3), (0x7ff1, 0), (0x7ff2, 0), (0x7ff4, 0), (0xffff, 0)] {
        obs(
            f!("remote_shutdown of {domid:#x}, reason {reason}"),
            call_ref(nr::SCHED_OP, OP_REMOTE_SHUTDOWN, &mut RemoteShutdown { domid, pad: 0, reason }),
        );
    }
}

fn poll_list(ports: u64, nr_ports: u32, timeout: u64) -> Ret {
    call_ref(nr::SCHED_OP, OP_POLL, &mut Poll { ports, nr_ports, pad: 0, timeout })
}

fn poll_ports(ports: &[u32], timeout: u64) -> Ret {
    poll_list(ports.as_ptr() as u64, ports.len() as u32, timeout)
}

fn poll() {
    let port = events::bind_ipi(0);
    let other = events::bind_ipi(0);
    let soon = || events::now() + 1_000_000;
    events::quiet();
    events::port_mask(port, true);
    events::port_mask(other, true);
    obs("poll none, past", poll_ports(&[], 1));
    obs("poll none, soon", poll_ports(&[], soon()));
    obs("poll a quiet port, past", poll_ports(&[port], 1));
    obs("poll a quiet port, soon", poll_ports(&[port], soon()));
    obs("poll two quiet ports, soon", poll_ports(&[port, other], soon()));
    obs("the same port twice", poll_ports(&[port, port], soon()));
    for p in [0u32, 60, 1023, 1024, 4095, 4096, 0x8000_0000, u32::MAX] {
        obs(f!("poll port {p}, past"), poll_ports(&[p], 1));
        obs(f!("poll port {p} behind a good one, past"), poll_ports(&[port, p], 1));
    }
    for n in [127u32, 128, 129, 1 << 31, u32::MAX] {
        let list = [port; 130];
        obs(f!("poll {n} ports, past"), poll_list(list.as_ptr() as u64, n, 1));
    }
    for (name, at) in bad::POINTERS {
        obs(f!("list that is {name}, 1 port"), poll_list(at, 1, 1));
        obs(f!("list that is {name}, 0 ports"), poll_list(at, 0, 1));
        obs(f!("list that is {name}, 2^31 ports"), poll_list(at, 1 << 31, 1));
    }
    let end = bad::edge();
    for i in 1..=512 {
        mem::write64(end - 8 * i, u64::from(port) | u64::from(port) << 32);
    }
    obs("list up to the end of its page", poll_list(end - 8, 2, 1));
    obs("list over the end of its page", poll_list(end - 8, 3, 1));
    obs("argument over the end of its page", call(nr::SCHED_OP, &[OP_POLL, end - 16]));

    events::send(port).must("send");
    obs("a pending port", poll_ports(&[port], 0));
    obs("a pending port behind a quiet one", poll_ports(&[other, port], 0));
    obs("the mask after a poll", events::mask().load(core::sync::atomic::Ordering::SeqCst));
    obs("a quiet port while another is pending, soon", poll_ports(&[other], soon()));
    events::port_clear(port);
    events::quiet();
    events::port_mask(port, false);
    events::send(port).must("send");
    obs("none while an unmasked event is pending", poll_ports(&[], soon()));
    obs("its pending bit", events::port_pending(port));
    events::port_clear(port);
    events::quiet();
    // a timer ends a poll too: if it fired before the poll begins, the poll would never end
    let later = || events::now() + 100_000_000;
    let virq = events::bind_virq(VIRQ_TIMER, 0);
    let mut s = vcpu::SetSingleshotTimer { timeout_abs_ns: later(), flags: 0, pad: 0 };
    call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64]).must("timer");
    obs("a poll without a timeout, ended by a timer", poll_ports(&[virq], 0));
    obs("its port is pending", events::port_pending(virq));
    events::port_clear(virq);
    events::quiet();
    let mut s = vcpu::SetSingleshotTimer { timeout_abs_ns: later(), flags: 0, pad: 0 };
    call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64]).must("timer");
    obs("ended by another port", poll_ports(&[port], 0));
    events::port_clear(virq);
    events::quiet();
    events::close(port).must("close");
    obs("a closed port, soon", poll_ports(&[port], soon()));
    events::port_mask(other, false);
    events::close(other).must("close");
    events::close(virq).must("close");
    events::quiet();
}

fn block() {
    let virq = events::bind_virq(VIRQ_TIMER, 0);
    let soon = events::now() + 2_000_000;
    let mut s = vcpu::SetSingleshotTimer { timeout_abs_ns: soon, flags: 0, pad: 0 };
    events::quiet();
    call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64]).must("timer");
    obs("block", call(nr::SCHED_OP, &[OP_BLOCK, 0]));
    check("it lasted to the timer", events::now() >= soon);
    expect("the event came", events::count(virq), 1);
    events::quiet();
    let mut s = vcpu::SetSingleshotTimer { timeout_abs_ns: events::now() + 2_000_000, flags: 0, pad: 0 };
    call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64]).must("timer");
    obs("compat block", call(nr::SCHED_OP_COMPAT, &[OP_BLOCK, 0]));
    expect("the event came again", events::count(virq), 2);
    // one that is pending already
    events::quiet();
    let port = events::bind_ipi(0);
    events::send(port).must("send");
    obs("block with a pending event", call(nr::SCHED_OP, &[OP_BLOCK, 0]));
    expect("it was taken", events::count(port), 1);
    events::quiet();
    events::close(port).must("close");
    events::close(virq).must("close");
}

fn pin() {
    for (i, pcpu) in [-1i32, 0, 0, 1, 63, 64, 4095, i32::MAX, i32::MIN, -2, -1].into_iter().enumerate() {
        obs(f!("pin_override {pcpu}, step {i}"), call_ref(nr::SCHED_OP, OP_PIN_OVERRIDE, &mut PinOverride { pcpu }));
    }
}

fn watchdog() {
    let op = |id: u32, timeout: u32| call_ref(nr::SCHED_OP, OP_WATCHDOG, &mut Watchdog { id, timeout });
    for id in [3u32, 1, 2, 17, 255, u32::MAX] {
        obs(f!("watchdog {id}, stop"), op(id, 0));
        obs(f!("watchdog {id}, 100 s"), op(id, 100));
    }
    // two is the most a domain has
    let mut ids = [0u32; 3];
    for (i, id) in ids.iter_mut().enumerate() {
        let r = op(0, 1000);
        obs(f!("new watchdog {i}"), r);
        *id = r.0.max(0) as u32;
    }
    obs("pet the first", op(ids[0], 1000));
    obs("pet the second, with the longest time", op(ids[1], u32::MAX));
    obs("stop the second", op(ids[1], 0));
    obs("stop it again", op(ids[1], 0));
    obs("pet it", op(ids[1], 10));
    obs("new again", op(0, 1000));
    obs("stop the first", op(ids[0], 0));
    obs("stop the second at last", op(ids[1], 0));
    // one that would bark soon, stopped in time
    let id = op(0, 1).must("watchdog") as u32;
    events::wait_ms(300, || false);
    obs("pet before it barks", op(id, 1));
    events::wait_ms(900, || false);
    obs("stop it before it barks", op(id, 0));
    events::wait_ms(400, || false);
}
