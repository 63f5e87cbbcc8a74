//! Attack: a domain dies while it pins, unpins, loads and changes large trees of page tables. Must happen: whatever was
//! half-done, all of its memory comes back, ten times over.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::paging::{self as pg, TABLE};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

fn body() {
    let l2 = wide_l2(24);
    let top = pg::new_table();
    pg::pin(top, 3).must("pin");
    let l4 = Page::alloc();
    (0..512).filter(|i| !(256..=271).contains(i)).for_each(|i| l4.write(i, pg::l4().read(i)));
    l4.write(100, top.ma() | TABLE);
    pg::make_ro(l4).must("make_ro");
    let mut dice = Dice(0x77 + child::inside::word(0).load(SeqCst));
    loop {
        child::inside::word(1).fetch_add(1, SeqCst);
        match dice.below(6) {
            0 => drop(pg::pin(l2, 2).0),
            1 => drop(pg::unpin(l2).0),
            2 => drop(pg::mmu_update(top.ma() + 8 * dice.below(512), l2.ma() | TABLE).0),
            3 => drop(pg::mmu_update(top.ma() + 8 * dice.below(512), 0).0),
            4 => drop(pg::mmuext(mmu::EXT_NEW_BASEPTR, l4.mfn(), 0).0),
            _ => drop(pg::mmuext(mmu::EXT_NEW_BASEPTR, pg::l4().mfn(), 0).0),
        }
    }
}

fn run() {
    Child::build(body, Spec::default()).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let mut begun = 0;
    for round in 0..10u64 {
        let c = Child::build(body, Spec::default());
        c.word(0).store(round * 7919, SeqCst);
        c.unpause().must("unpause");
        begun += u32::from(events::wait_ms(10_000, || {
            child::nap(300);
            c.word(1).load(SeqCst) > round
        }));
        // some are paused first, so that they stop where a hypercall restarts
        if round % 2 == 0 {
            c.pause().must("pause");
        }
        c.destroy().must("destroy");
    }
    expect("children that were at it", begun, 10);
    check("all memory is back", child::all_back(before));
    alive();
}
