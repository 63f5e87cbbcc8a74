//! Time: the guest clock, wallclock, single-shot and periodic timers, runstate.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::mem::read64;
use guests::prelude::*;
use pv_abi::event::VIRQ_TIMER;
use pv_abi::shared_info::WALLCLOCK;
use pv_abi::vcpu::*;

guests::kernel!(run);

fn op<T>(cmd: u64, vcpu: u64, arg: &mut T) -> Ret {
    call(nr::VCPU_OP, &[cmd, vcpu, core::ptr::from_mut(arg) as u64])
}

fn singleshot(at: u64, flags: u32) -> Ret {
    op(OP_SET_SINGLESHOT_TIMER, 0, &mut SetSingleshotTimer { timeout_abs_ns: at, flags, pad: 0 })
}

fn run() {
    clock();
    let port = events::bind_virq(VIRQ_TIMER, 0);
    events::quiet();
    past(port);
    future(port);
    periodic(port);
    old_timer(port);
    arguments();
    runstate();
    areas();
}

fn clock() {
    let mut last = events::now();
    let mut backwards = 0;
    for _ in 0..10_000 {
        let t = events::now();
        backwards += u32::from(t < last);
        last = t;
    }
    expect("times the clock went backwards", backwards, 0);
    let wc = |i: u64| read64(events::shared(WALLCLOCK) + 8 * i);
    expect("wallclock version is even", wc(0) & 1, 0);
    let sec = wc(0) >> 32;
    check("wallclock is between 2020 and 2100", (1_577_000_000..4_102_000_000).contains(&sec));
    check("its nanoseconds are below a second", (wc(1) & 0xffff_ffff) < 1_000_000_000);
    expect("its high half", wc(1) >> 32, 0);
    let time = events::info(0) + 32;
    check("tsc_to_system_mul is normalised", read64(time + 24) as u32 >> 31 == 1);
    obs("clock flags", read64(time + 24) >> 40 & 0xff);
}

fn past(port: u32) {
    for (name, at, flags) in [
        ("1 ns", 1u64, 0u32),
        ("a second ago", events::now().saturating_sub(1_000_000_000), 0),
        ("with the future flag", 1, 1),
        ("with unknown flags", 1, !0),
    ] {
        expect(f!("singleshot at {name}"), singleshot(at, flags), OK);
        check(f!("{name}: fired at once"), events::port_pending(port));
        check(f!("{name}: the pending byte"), events::pending().load(Ordering::SeqCst) == 1);
        events::port_clear(port);
        events::quiet();
    }
}

fn future(port: u32) {
    let start = events::now();
    expect("singleshot in 50 ms", singleshot(start + 50_000_000, 0), OK);
    check("not fired at once", !events::port_pending(port));
    check("fired", events::wait_ms(2000, || events::port_pending(port)));
    check("not before its time", events::now() >= start + 50_000_000);
    events::port_clear(port);
    events::quiet();
    check("fires once", !events::wait_ms(100, || events::port_pending(port)));
    singleshot(events::now() + 50_000_000, 0).must("set");
    expect("stop", call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]), OK);
    check("stopped does not fire", !events::wait_ms(100, || events::port_pending(port)));
    expect("stop again", call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]), OK);
    // a later one replaces the first
    singleshot(events::now() + 30_000_000, 0).must("set");
    let start = events::now();
    singleshot(start + 90_000_000, 0).must("set");
    check("replaced", events::wait_ms(2000, || events::port_pending(port)));
    check("by the later one", events::now() >= start + 90_000_000);
    events::port_clear(port);
    events::quiet();
    // the callback on the way
    let before = events::count(port);
    events::mask().store(0, Ordering::SeqCst);
    singleshot(events::now() + 2_000_000, 0).must("set");
    let end = events::now() + 2_000_000_000;
    while events::count(port) == before && events::now() < end {
        core::hint::spin_loop();
    }
    expect("a running kernel is interrupted", events::count(port) - before, 1);
    singleshot(events::now() + 50_000_000, 0).must("set");
    expect("block until the timer", call(nr::SCHED_OP, &[pv_abi::sched::OP_BLOCK, 0]), OK);
    expect("it woke us", events::count(port) - before, 2);
    events::mask().store(1, Ordering::SeqCst);
}

fn periodic(port: u32) {
    let set = |ns: u64| op(OP_SET_PERIODIC_TIMER, 0, &mut SetPeriodicTimer { period_ns: ns });
    for ns in [0u64, 1, 999_999, 1_000_000, 10_000_000, 1 << 62, u64::MAX] {
        obs(f!("periodic {ns} ns"), set(ns));
    }
    set(4_000_000).must("periodic");
    let before = events::count(port);
    events::mask().store(0, Ordering::SeqCst);
    let end = events::now() + 100_000_000;
    while events::now() < end {
        core::hint::spin_loop();
    }
    let n = events::count(port) - before;
    check("ticks in 100 ms", (2..=40).contains(&n));
    expect("stop the periodic timer", call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 0, 0]), OK);
    events::mask().store(1, Ordering::SeqCst);
    events::port_clear(port);
    events::quiet();
    check("no ticks behind it", !events::wait_ms(30, || events::port_pending(port)));
}

fn old_timer(port: u32) {
    expect("set_timer_op in 3 ms", call(nr::SET_TIMER_OP, &[events::now() + 3_000_000]), OK);
    check("it fires", events::wait_ms(2000, || events::port_pending(port)));
    events::port_clear(port);
    events::quiet();
    expect("set_timer_op in the past", call(nr::SET_TIMER_OP, &[1]), OK);
    check("it fires too", events::wait_ms(100, || events::port_pending(port)));
    events::port_clear(port);
    events::quiet();
    call(nr::SET_TIMER_OP, &[events::now() + 50_000_000]).must("set");
    expect("set_timer_op 0", call(nr::SET_TIMER_OP, &[0]), OK);
    check("cancels", !events::wait_ms(100, || events::port_pending(port)));
}

fn arguments() {
    for (name, cmd) in [("singleshot", OP_SET_SINGLESHOT_TIMER), ("periodic", OP_SET_PERIODIC_TIMER)] {
        obs(f!("{name}: bad pointer"), call(nr::VCPU_OP, &[cmd, 0, 0xffff_8300_0000_0000]));
        obs(f!("{name}: null pointer"), call(nr::VCPU_OP, &[cmd, 0, 0]));
        obs(f!("{name}: absent vcpu"), call(nr::VCPU_OP, &[cmd, 40, events::info(0)]));
    }
    obs("singleshot far away", singleshot(u64::MAX / 2, 0));
    obs("singleshot at the end of time", singleshot(u64::MAX, 0));
    call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]).must("stop");
}

fn runstate() {
    let area = Page::alloc();
    let mut info = RunstateInfo::default();
    expect("get_runstate_info", op(OP_GET_RUNSTATE_INFO, 0, &mut info), OK);
    expect("state", info.state, 0);
    check("running time moves", {
        let t = info.time[0];
        events::wait_ms(2, || false);
        op(OP_GET_RUNSTATE_INFO, 0, &mut info).must("get");
        info.time[0] > t
    });
    expect("register a runstate area", op(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut MemoryArea { addr: area.va }), OK);
    expect("state in the area", area.read(0) as u32, 0);
    let (blocked, entry) = (area.read(4), area.read(1));
    check("entry time is set", entry != 0);
    let port = events::bind_ipi(0);
    // A few times, if need be: an emulator that pauses lets a timeout pass before the poll begins.
    let grew = (0..10).any(|_| {
        let mut poll = pv_abi::sched::Poll {
            ports: core::ptr::from_ref(&port) as u64,
            nr_ports: 1,
            pad: 0,
            timeout: events::now() + 10_000_000,
        };
        call_ref(nr::SCHED_OP, pv_abi::sched::OP_POLL, &mut poll).must("poll");
        area.read(4) >= blocked + 5_000_000
    });
    check("blocked time grew", grew);
    check("entry time moved", area.read(1) > entry);
    expect("state is running again", area.read(0) as u32, 0);
    let mut old = RunstateInfo::default();
    obs("get_runstate_info of an absent vcpu", op(OP_GET_RUNSTATE_INFO, 40, &mut old));
    obs(
        "register at a bad address",
        op(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut MemoryArea { addr: 0xffff_8300_0000_0000 }),
    );
    obs("register at an unmapped address", op(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut MemoryArea { addr: 0x1000 }));
    obs("register at 0", op(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut MemoryArea { addr: 0 }));
}

fn areas() {
    let page = Page::alloc();
    expect("register a time area", op(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut MemoryArea { addr: page.va }), OK);
    call(nr::SCHED_OP, &[pv_abi::sched::OP_YIELD, 0]);
    obs("its version is even", page.read(0) & 1 == 0);
    obs("its scale is set", page.read(3) as u32 != 0);
    obs(
        "time area at a bad address",
        op(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut MemoryArea { addr: 0xffff_8300_0000_0000 }),
    );
}
