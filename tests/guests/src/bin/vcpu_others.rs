//! What one vCPU may set for another that runs, waits or is down: its vcpu_info and its periodic timer.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use guests::prelude::*;
use pv_abi::event::VIRQ_TIMER;
use pv_abi::sched::OP_BLOCK;
use pv_abi::vcpu::*;

guests::kernel!(run);

/// What vCPU 1 is to do, and what it does.
static WANTED: AtomicU32 = AtomicU32::new(0);
static DOES: AtomicU32 = AtomicU32::new(0);
/// Waits that ended.
static WOKEN: AtomicU32 = AtomicU32::new(0);

const SPIN: u32 = 1;
const WAIT: u32 = 2;
const DOWN: u32 = 3;

fn with<T>(cmd: u64, mut arg: T) -> Ret {
    call(nr::VCPU_OP, &[cmd, 1, core::ptr::from_mut(&mut arg) as u64])
}

/// vCPU 1.
fn other() {
    // the tick every vCPU starts with
    call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 1, 0]);
    loop {
        let what = WANTED.load(SeqCst);
        DOES.store(what, SeqCst);
        match what {
            // without entering the hypervisor by itself
            SPIN => {
                events::unmask_upcalls();
                while WANTED.load(SeqCst) == SPIN {
                    core::hint::spin_loop();
                }
            }
            WAIT => {
                call(nr::SCHED_OP, &[OP_BLOCK, 0]);
                WOKEN.fetch_add(1, SeqCst);
                // once only
                WANTED.compare_exchange(WAIT, SPIN, SeqCst, SeqCst).ok();
            }
            _ => {
                call(nr::VCPU_OP, &[OP_DOWN, 1, 0]);
            }
        }
    }
}

fn go(what: u32) {
    WANTED.store(what, SeqCst);
    check(f!("vCPU 1 does step {what}"), events::wait_ms(5000, || DOES.load(SeqCst) == what));
    // and is there by now
    events::wait_ms(20, || false);
}

fn run() {
    if smp::count() < 2 {
        report::skip("the domain has one vCPU");
    }
    let page = Page::alloc();
    let register = |offset: u32| with(OP_REGISTER_VCPU_INFO, RegisterVcpuInfo { mfn: page.mfn(), offset, rsvd: 0 });
    let periodic = |period_ns: u64| with(OP_SET_PERIODIC_TIMER, SetPeriodicTimer { period_ns });
    WANTED.store(SPIN, SeqCst);
    smp::start(1, other);
    go(SPIN);
    let ipi = events::bind_ipi(1);
    let virq = events::bind_virq(VIRQ_TIMER, 1);
    let arrives = |name: &str, port: u32, n: u32| {
        let before = events::count(port);
        check(f!("{name}"), events::wait_ms(5000, || events::count(port) >= before + n));
    };
    // its vcpu_info
    obs("vcpu_info of a vCPU that runs", register(64));
    obs("the same, behind the page", register(4096));
    expect("nothing is written there", page.read(8) | page.read(9), 0);
    // vCPU 1 has taken whatever there was when it takes this
    let drained = || {
        let before = events::count(ipi);
        events::send(ipi).must("send");
        events::wait_ms(5000, || events::count(ipi) > before)
    };
    check("an event after that", drained());
    go(WAIT);
    obs("vcpu_info of a vCPU that waits", register(128));
    expect("nothing is written there either", page.read(16) | page.read(17), 0);
    events::send(ipi).must("send");
    check("it is woken", events::wait_ms(5000, || DOES.load(SeqCst) == SPIN));
    // its periodic timer
    expect("period of a vCPU that runs", periodic(5_000_000), OK);
    arrives("it ticks, and ticks", virq, 3);
    expect("stop it", call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 1, 0]), OK);
    drained();
    let (ticks, woken) = (events::count(virq), WOKEN.load(SeqCst));
    events::wait_ms(30, || false);
    expect("ticks behind the end", events::count(virq) - ticks, 0);
    go(WAIT);
    expect("it waits", WOKEN.load(SeqCst), woken);
    expect("period of a vCPU that waits", periodic(5_000_000), OK);
    check("the first tick wakes it", events::wait_ms(5000, || WOKEN.load(SeqCst) == woken + 1));
    check("it runs again", events::wait_ms(5000, || DOES.load(SeqCst) == SPIN));
    arrives("it ticks on", virq, 3);
    expect("stop that, too", call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 1, 0]), OK);
    // down
    go(DOWN);
    check("it is down", events::wait_ms(5000, || call(nr::VCPU_OP, &[OP_IS_UP, 1, 0]) == Ret(0)));
    expect("period of a vCPU that is down", periodic(5_000_000), OK);
    let ticks = events::count(virq);
    events::wait_ms(30, || false);
    expect("ticks of a vCPU that is down", events::count(virq) - ticks, 0);
    expect("vcpu_info of a vCPU that is down", register(192), OK);
    events::info_moved(1, page.va + 192);
    WANTED.store(SPIN, SeqCst);
    smp::up(1).must("up");
    check("it is up", events::wait_ms(5000, || DOES.load(SeqCst) == SPIN));
    arrives("it ticks there", virq, 3);
    expect("stop it at last", call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 1, 0]), OK);
    let before = events::count(ipi);
    for i in 1..=20 {
        events::send(ipi).must("send");
        if !events::wait_ms(5000, || events::count(ipi) >= before + i) {
            report::fail(f!("event {i} never arrived"));
            break;
        }
    }
    expect("events in the new place", events::count(ipi) - before, 20);
    go(DOWN);
}
