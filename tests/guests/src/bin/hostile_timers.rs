//! Timers at the ends of time, and many of them.
//!
//! Attacks: deadlines of 0, 1, 2^62, 2^63, 2^64 - 1, periods at both limits, thousands of changes, timers that are past
//! when they are set with events masked, poll and single-shot at once: additions that overflow, a queue that grows, a
//! timer interrupt without end. Must happen: past ones fire once, far ones never, and a near one comes in time after all.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::event::VIRQ_TIMER;
use pv_abi::vcpu::*;

guests::kernel!(run);

fn single(at: u64) -> Ret {
    let mut s = SetSingleshotTimer { timeout_abs_ns: at, flags: 0, pad: 0 };
    call(nr::VCPU_OP, &[OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64])
}

fn periodic(ns: u64) -> Ret {
    let mut p = SetPeriodicTimer { period_ns: ns };
    call(nr::VCPU_OP, &[OP_SET_PERIODIC_TIMER, 0, core::ptr::from_mut(&mut p) as u64])
}

fn run() {
    let port = events::bind_virq(VIRQ_TIMER, 0);
    let fired = |ms: u64| {
        let hit = events::wait_ms(ms, || events::port_pending(port));
        events::port_clear(port);
        events::quiet();
        hit
    };
    events::quiet();
    for (name, at, want) in [
        ("0", 0u64, None),
        ("1", 1, Some(true)),
        ("an hour", events::now() + 3_600_000_000_000, Some(false)),
        ("2^62", 1 << 62, Some(false)),
        ("2^63 - 1", i64::MAX as u64, Some(false)),
        ("2^63", 1 << 63, None),
        ("2^64 - 1", u64::MAX, None),
        ("2^64 - 1000", u64::MAX - 1000, None),
    ] {
        obs(f!("single shot at {name}"), single(at));
        let hit = fired(3);
        if let Some(want) = want {
            expect(f!("it fires at once, {name}"), hit, want);
        }
        obs(f!("set_timer_op {name}"), call(nr::SET_TIMER_OP, &[at]));
        fired(3);
        call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]).must("stop");
    }
    for i in 0..3000u64 {
        single(if i % 3 == 0 { 1 } else { events::now() + i * 7919 }).must("set");
    }
    call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]).must("stop");
    fired(1);
    check("stopped is stopped", !fired(5));
    for ns in [1_000_000u64, 1 << 40, i64::MAX as u64 >> 1, i64::MAX as u64, u64::MAX] {
        obs(f!("period {ns}"), periodic(ns));
        fired(4);
        call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 0, 0]).must("stop");
    }
    fired(1);
    periodic(1_000_000).must("periodic");
    single(events::now() + 500_000).must("single");
    check("both at once fire", fired(50));
    call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 0, 0]).must("stop");
    call(nr::VCPU_OP, &[OP_STOP_SINGLESHOT_TIMER, 0, 0]).must("stop");
    fired(1);
    let at = events::now() + 3_000_000;
    single(at).must("single");
    check("a near one comes after all", fired(1000));
    check("not too early", events::now() >= at);
    alive();
}
