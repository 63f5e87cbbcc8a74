//! Attack: two vCPUs pin, unpin, hook in and take out the same large tree, each interrupting the other with flushes and
//! events, so that operations stop half-way and the other vCPU goes on with them, or undoes them. Must happen: no L1 of
//! the tree is writable while the tree is one; in the end all is free.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, TABLE};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

const L1S: usize = 16;
static L2: AtomicU64 = AtomicU64::new(0);
static L3: AtomicU64 = AtomicU64::new(0);

fn step(dice: &mut Dice) {
    let (l2, l3) = (Page::at(L2.load(SeqCst)), Page::at(L3.load(SeqCst)));
    match dice.below(6) {
        0 => drop(pg::pin(l2, 2).0),
        1 => drop(pg::unpin(l2).0),
        2 => drop(pg::mmu_update(l3.ma() + 8 * dice.below(3), l2.ma() | TABLE).0),
        3 => drop(pg::mmu_update(l3.ma() + 8 * dice.below(3), 0).0),
        4 => drop(pg::mmuext(mmu::EXT_TLB_FLUSH_ALL, 0, 0).0),
        _ => drop(pg::mmuext(mmu::EXT_INVLPG_ALL, l2.va, 0).0),
    }
}

fn disturber() {
    let mut dice = Dice(0xfeed);
    let port = events::bind_ipi(0);
    while going() {
        step(&mut dice);
        events::send(port);
    }
    events::close(port);
}

fn run() {
    let l2 = wide_l2(L1S);
    let l1s: [Page; L1S] = core::array::from_fn(|i| mem::page_of_mfn((l2.read(i) & pg::FRAME) / PAGE_SIZE));
    let l3 = pg::new_table();
    pg::pin(l3, 3).must("pin");
    L2.store(l2.va, SeqCst);
    L3.store(l3.va, SeqCst);
    other(disturber);
    let mut dice = Dice(0xbeef);
    events::mask().store(0, SeqCst);
    for _ in 0..150 {
        step(&mut dice);
    }
    join();
    events::quiet();
    while pg::unpin(l2) == OK {}
    (0..3).for_each(|i| {
        pg::mmu_update(l3.ma() + 8 * i, l2.ma() | TABLE).must("hook in");
    });
    check("no L1 is writable", l1s.iter().all(|p| pg::make_rw(*p).0 < 0));
    (0..3).for_each(|i| {
        pg::mmu_update(l3.ma() + 8 * i, 0).must("take out");
    });
    expect("the L2 is free", pg::make_rw(l2), OK);
    check("the L1s are free", l1s.iter().all(|p| pg::make_rw(*p) == OK));
    alive();
}
