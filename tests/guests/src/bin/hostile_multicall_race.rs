//! A second vCPU rewrites the entries of a multicall while they are done.
//!
//! Attacks: an entry read twice, once for its number and once for its arguments: one that is checked as harmless turns
//! into another call half-way; a count of progress kept in the list itself. Must happen: every result is that of one of
//! the two calls; the loop ends; the page tables are as before.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static FLIPS: AtomicU32 = AtomicU32::new(0);
static LIST: mem::Racy<u64> = mem::Racy::new(0);
const ENTRIES: u64 = 32;

/// xen_version(0) and mmuext_op of no elements, number and arguments apart from each other.
fn flip() {
    let at = mem::read64(LIST.addr());
    let mut i = 0u64;
    while !STOP.load(Ordering::SeqCst) {
        i += 1;
        let e = at + 64 * (i % ENTRIES);
        mem::write64(e, if i.is_multiple_of(3) { nr::XEN_VERSION as u64 } else { nr::MMUEXT_OP as u64 });
        mem::write64(e + 16, if i.is_multiple_of(5) { 0 } else { at });
        mem::write64(e + 24, 0);
        mem::write64(e + 40, if i.is_multiple_of(7) { 0x7ff0 } else { 0x1234 });
        FLIPS.fetch_add(1, Ordering::Relaxed);
        if i.is_multiple_of(256) {
            call(nr::SCHED_OP, &[0, 0]);
        }
    }
}

fn run() {
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    let page = Page::alloc();
    mem::write64(LIST.addr(), page.va);
    smp::start(1, flip);
    check("it flips", events::wait_ms(5000, || FLIPS.load(Ordering::SeqCst) > 100));
    let version = call(nr::XEN_VERSION, &[0]).0;
    let (mut wrong, mut versions) = (0u32, 0u32);
    for _ in 0..3000 {
        let r = call(nr::MULTICALL, &[page.va, ENTRIES]);
        wrong += u32::from(r != OK);
        for i in 0..ENTRIES {
            let r = mem::read64(page.va + 64 * i + 8) as i64;
            versions += u32::from(r == version);
            // 0, or an error of a domain or command that is none
            wrong += u32::from(!(r == version || r == 0 || (-95..0).contains(&r)));
        }
    }
    STOP.store(true, Ordering::SeqCst);
    expect("results that were neither's", wrong, 0);
    check("both calls were seen", versions > 0);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    alive();
}
