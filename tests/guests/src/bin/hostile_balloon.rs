//! Attack: memory pressure: a child takes all there is, page by page and in blocks, while dom0 asks for memory, makes
//! page tables and exchanges. Must happen: errors where there is no memory; everything goes on; all comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

/// Takes memory until there is none, tells, waits, gives some back and takes it again.
fn body() {
    let (told, go) = (child::inside::word(1), child::inside::word(0));
    for order in (0..10).rev() {
        loop {
            let list = [0u64; 32];
            let got = memory_op(OP_INCREASE_RESERVATION, &mut extents(&list, order)).0;
            if got < 32 {
                break;
            }
        }
    }
    told.store(1, SeqCst);
    while go.load(SeqCst) == 0 {
        let list = [0u64; 16];
        let got = memory_op(OP_INCREASE_RESERVATION, &mut extents(&list, 0)).0.max(0) as u64;
        let mut r = Reservation { nr_extents: got, ..extents(&list, 0) };
        memory_op(OP_DECREASE_RESERVATION, &mut r);
        told.fetch_add(1, SeqCst);
        yield_cpu();
    }
}

fn run() {
    Child::build(body, Spec::default()).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let c = Child::run(body, Spec { room: 1 << 20, ..Spec::default() });
    check(
        "the child took all there was",
        events::wait_ms(60_000, || {
            child::nap(2000);
            c.word(1).load(SeqCst) >= 3
        }),
    );
    check("hardly a page is free", child::free_pages() < 2048);
    let mut made = 0;
    for _ in 0..200 {
        let list = [0u64; 1];
        let got = memory_op(OP_INCREASE_RESERVATION, &mut extents(&list, 4));
        made += u32::from(got == Ret(1));
        if got == Ret(1) {
            memory_op(OP_DECREASE_RESERVATION, &mut extents(&[mem::read64(list.as_ptr() as u64)], 4)).must("give back");
        }
    }
    obs("blocks dom0 got, of 200", if made < 200 { "not all" } else { "all" });
    let create = pv_abi::domctl::Createdomain {
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        ..Default::default()
    };
    let mut ids = [0u16; 64];
    for i in &mut ids {
        let mut op = pv_abi::domctl::Domctl::with(pv_abi::domctl::OP_CREATEDOMAIN, 0, &create);
        if child::domctl(&mut op) == OK {
            *i = op.domain;
            child::domctl(&mut pv_abi::domctl::Domctl::with(
                pv_abi::domctl::OP_MAX_VCPUS,
                *i,
                &pv_abi::domctl::MaxVcpus { max: 1 },
            ));
        }
    }
    for i in ids.iter().filter(|i| **i != 0) {
        child::domctl(&mut pv_abi::domctl::Domctl::new(pv_abi::domctl::OP_DESTROYDOMAIN, *i)).must("destroy");
    }
    let (p, q) = (pg::new_table(), unmapped_page());
    expect("pin under pressure", pg::pin(p, 1), OK);
    let (input, output) = ([q.mfn()], [q.pfn()]);
    let r = memory_op(
        OP_EXCHANGE,
        &mut Exchange { input: extents(&input, 0), output: extents(&output, 0), nr_exchanged: 0 },
    );
    check("exchange under pressure", r == OK || r == errno(ENOMEM));
    c.word(0).store(1, SeqCst);
    expect("the child", c.wait(), child::State::Finished);
    c.destroy();
    check("all memory is back", child::all_back(before - 64));
    alive();
}
