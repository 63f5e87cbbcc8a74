//! Two vCPUs take each other down again and again while a third brings them back.
//!
//! Attacks: a hypervisor that waits in VCPUOP_down until the target is off its CPU; two such waits for each other never
//! end, and two CPUs are lost. Must happen: both vCPUs go on, whatever the order.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::prelude::*;
use guests::smp::{start, up};
use pv_abi::vcpu::{OP_DOWN, OP_IS_UP};

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static ROUNDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
const WANTED: u32 = 200;

fn body() {
    let me = smp::cpu();
    let other = 3 - me as u64;
    while !STOP.load(Ordering::SeqCst) {
        // A round counts when there was somebody to take down.
        if call(nr::VCPU_OP, &[OP_IS_UP, other, 0]) == Ret(1) {
            ROUNDS[me].fetch_add(1, Ordering::SeqCst);
            call(nr::VCPU_OP, &[OP_DOWN, other, 0]);
        }
    }
}

fn run() {
    if smp::count() < 3 {
        report::skip("the domain has fewer than three vCPUs");
    }
    start(1, body);
    start(2, body);
    let enough = || ROUNDS[1..].iter().all(|r| r.load(Ordering::SeqCst) >= WANTED);
    check(
        "both vCPUs take each other down and come back, hundreds of times",
        events::wait_ms(20_000, || {
            up(1);
            up(2);
            enough()
        }),
    );
    STOP.store(true, Ordering::SeqCst);
    let still = || [1, 2].iter().all(|v| call(nr::VCPU_OP, &[OP_IS_UP, *v, 0]) == Ret(0));
    check(
        "both end",
        events::wait_ms(5000, still) || {
            up(1);
            up(2);
            events::wait_ms(5000, still)
        },
    );
}
