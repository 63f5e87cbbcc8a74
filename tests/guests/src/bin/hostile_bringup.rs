//! vCPUs initialised, started and stopped by two others at once.
//!
//! Attacks: VCPUOP_up of a vCPU whose state another caller is just filling in, or failed to; two initialisations at once,
//! with good and bad contexts (a vCPU without page tables could be started here). Must happen: a vCPU runs only with a
//! whole context, exactly one initialisation wins, and everybody else gets an error.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::vcpu::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static UPS: AtomicU32 = AtomicU32::new(0);
static RAN: AtomicU32 = AtomicU32::new(0);

fn starter() {
    while !STOP.load(Ordering::SeqCst) {
        for v in [2u64, 3] {
            UPS.fetch_add(u32::from(call(nr::VCPU_OP, &[OP_UP, v, 0]) == OK), Ordering::SeqCst);
        }
    }
}

fn body() {
    RAN.fetch_add(1, Ordering::SeqCst);
}

fn run() {
    if smp::count() < 4 {
        report::skip("too few vCPUs");
    }
    smp::start(1, starter);
    // contexts that fail late: the page tables are taken, the rest is refused
    let mut refused_ones = 0u32;
    for i in 0..300u32 {
        let c: &mut VcpuGuestContext = smp::context(2, body);
        match i % 3 {
            0 => c.gdt_ents = 8000,
            1 => c.ldt_ents = 9000,
            _ => c.ctrlreg[3] = Page::at(smp::percpu(0)).ma(),
        }
        refused_ones += u32::from(smp::initialise(2, c).0 < 0);
    }
    expect("bad contexts refused", refused_ones, 300);
    expect("vCPUs started without a context", UPS.load(Ordering::SeqCst), 0);
    expect("a good one", smp::initialise(2, smp::context(2, body)), OK);
    expect("another", smp::initialise(2, smp::context(2, body)), errno(EEXIST));
    check("it runs", events::wait_ms(5000, || RAN.load(Ordering::SeqCst) > 0));
    STOP.store(true, Ordering::SeqCst);
    check("the starter ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[OP_IS_UP, 1, 0]) == Ret(0)));
    call(nr::VCPU_OP, &[OP_DOWN, 2, 0]);
    alive();
}
