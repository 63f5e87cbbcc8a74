//! Watchdogs of domains (SCHEDOP_watchdog) that bark: children that do not pet theirs, that do, that stop one of two, and
//! whose vCPU 0 sleeps, is down or is paused meanwhile.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::child::inside::word;
use guests::prelude::*;
use pv_abi::domctl::dominf;
use pv_abi::sched::{OP_BLOCK, OP_WATCHDOG, Watchdog};
use pv_abi::vcpu::OP_DOWN;

guests::kernel!(run);

const SECOND: u64 = 1_000_000_000;

fn watchdog(id: u32, timeout: u32) -> Ret {
    call_ref(nr::SCHED_OP, OP_WATCHDOG, &mut Watchdog { id, timeout })
}

/// In a child: a new watchdog, and the time it was set at.
fn start(seconds: u32) -> u32 {
    word(1).store(events::now(), SeqCst);
    let id = watchdog(0, seconds).must("a new watchdog") as u32;
    word(0).store(1, SeqCst);
    id
}

fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Waits for what nobody sends.
fn sleep() -> ! {
    loop {
        call(nr::SCHED_OP, &[OP_BLOCK, 0]);
    }
}

fn reason(c: &Child) -> Option<u32> {
    let flags = c.info()?.flags;
    (flags & dominf::SHUTDOWN != 0).then_some(flags >> dominf::SHUTDOWN_SHIFT & dominf::SHUTDOWN_MASK)
}

/// Waits for the child's end, which must come `seconds` behind the time in word 1 or a little later.
fn barks(name: &str, c: Child, seconds: u64) {
    check(f!("{name}: it has begun"), c.wait_word(0, 1) || reason(&c).is_some());
    events::wait_ms(20_000, || {
        child::nap(2000);
        reason(&c).is_some()
    });
    let took = events::now() - c.word(1).load(SeqCst);
    expect(f!("{name}: reason"), reason(&c).unwrap_or(99), 4);
    check(f!("{name}: not before its time"), took >= seconds * SECOND);
    // (A busy machine may be late; how late is not what this is about.)
    check(f!("{name}: no second later than it must"), took < (seconds + 15) * SECOND);
    expect(f!("{name}: destroy"), c.destroy(), OK);
}

fn run() {
    // two at a time
    let petting = Child::run(pets, Spec::default());
    barks(
        "a busy domain",
        Child::run(
            || {
                start(1);
                spin()
            },
            Spec::default(),
        ),
        1,
    );
    barks(
        "a domain that waits",
        Child::run(
            || {
                start(1);
                sleep()
            },
            Spec::default(),
        ),
        1,
    );
    expect("one that pets and stops it ends by itself", petting.wait(), child::State::Finished);
    expect("its reason", reason(&petting).unwrap_or(99), 0);
    expect("times it petted", petting.word(2).load(SeqCst), 6);
    expect("destroy it", petting.destroy(), OK);
    barks(
        "a new one of 0 seconds",
        Child::run(
            || {
                start(0);
                spin()
            },
            Spec::default(),
        ),
        0,
    );
    barks(
        "the first of two stopped",
        Child::run(
            || {
                let first = start(1);
                watchdog(0, 2).must("a second one");
                watchdog(first, 0).must("stop the first");
                spin()
            },
            Spec::default(),
        ),
        2,
    );
    barks(
        "the second of two stopped",
        Child::run(
            || {
                start(1);
                watchdog(watchdog(0, 100).must("a second one") as u32, 0).must("stop the second");
                spin()
            },
            Spec::default(),
        ),
        1,
    );
    barks(
        "set by vCPU 1 while vCPU 0 waits",
        Child::run(
            || {
                smp::start(1, || {
                    start(1);
                    sleep()
                });
                sleep()
            },
            Spec { vcpus: 2, ..Spec::default() },
        ),
        1,
    );
    barks(
        "vCPU 0 is down",
        Child::run(
            || {
                smp::start(1, || {
                    while call(nr::VCPU_OP, &[pv_abi::vcpu::OP_IS_UP, 0, 0]).0 != 0 {
                        call(nr::SCHED_OP, &[0, 0]);
                    }
                    start(1);
                    sleep()
                });
                call(nr::VCPU_OP, &[OP_DOWN, 0, 0]);
                sleep()
            },
            Spec { vcpus: 2, ..Spec::default() },
        ),
        1,
    );
    let paused = Child::run(
        || {
            start(1);
            spin()
        },
        Spec::default(),
    );
    check("paused: it has begun", paused.wait_word(0, 1));
    expect("pause it", paused.pause(), OK);
    barks("a paused domain", paused, 1);
}

/// In a child: petted in time, six times over 1.8 s, then stopped and not missed.
fn pets() {
    let id = start(1);
    for _ in 0..6 {
        child::nap(300_000);
        watchdog(id, 1).must("pet it");
        word(2).fetch_add(1, SeqCst);
    }
    watchdog(id, 0).must("stop it");
    child::nap(1_500_000);
}
