//! Attack: long operations (pin, unpin, hooking in, taking out) stopped again and again by a timer, and then not gone on
//! with: something else is asked of the half-done tables, another level, an unpin, a decrease, another update. Must
//! happen: whatever the order, no table is writable while it is one, and in the end every page comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, TABLE};
use guests::prelude::*;
use pv_abi::mmu::{self, MmuUpdate, MmuextOp};

guests::kernel!(run);

const L1S: usize = 12;

/// One hypercall whose restarts this kernel sees: the timer's event is taken in between and the continuation goes on.
fn alarmed(f: impl FnOnce() -> Ret) -> Ret {
    alarm(8);
    events::mask().store(0, core::sync::atomic::Ordering::SeqCst);
    let r = f();
    events::quiet();
    r
}

fn run() {
    let port = events::bind_virq(pv_abi::event::VIRQ_TIMER, 0);
    let l2 = wide_l2(L1S);
    let l1s: [Page; L1S] = core::array::from_fn(|i| mem::page_of_mfn((l2.read(i) & pg::FRAME) / PAGE_SIZE));
    let top = pg::new_table();
    pg::pin(top, 3).must("pin the L3");
    let mut dice = Dice(0x1234_5678_9abc);
    let mut wrong = 0;
    for _ in 0..60 {
        match dice.below(7) {
            0 | 1 => drop(alarmed(|| pg::pin(l2, 2)).0),
            2 => drop(alarmed(|| pg::unpin(l2)).0),
            3 => drop(alarmed(|| pg::mmu_update(top.ma() + 8 * dice.below(4), l2.ma() | TABLE)).0),
            4 => drop(alarmed(|| pg::mmu_update(top.ma() + 8 * dice.below(4), 0)).0),
            5 => drop(alarmed(|| pg::pin(l2, 3)).0),
            _ => drop(alarmed(|| pg::unpin(l1s[dice.below(L1S as u64) as usize])).0),
        }
        // no L1 is writable as long as the L2 is a table
        if pg::make_rw(l2).0 < 0 {
            let l1 = l1s[dice.below(L1S as u64) as usize];
            wrong += u32::from(pg::make_rw(l1) == OK);
        } else {
            pg::make_ro(l2).must("make_ro");
        }
    }
    expect("tables that were writable", wrong, 0);
    // lists whose rest is changed by the event handler's vCPU: pin and unpin in one call, over and over
    let list: [MmuextOp; 8] = core::array::from_fn(|i| MmuextOp {
        cmd: if i % 2 == 0 { mmu::EXT_PIN_L1_TABLE + 1 } else { mmu::EXT_UNPIN_TABLE },
        arg1: l2.mfn(),
        ..MmuextOp::default()
    });
    while pg::unpin(l2) == OK {}
    for i in 0..4 {
        pg::mmu_update(top.ma() + 8 * i, 0).must("clear");
    }
    let mut done = 0u32;
    expect(
        "a list of pins and unpins",
        alarmed(|| {
            call(nr::MMUEXT_OP, &[list.as_ptr() as u64, 8, core::ptr::from_mut(&mut done) as u64, pg::DOMID_SELF])
        }),
        OK,
    );
    expect("all done", done, 8);
    let updates: [MmuUpdate; 64] = core::array::from_fn(|i| MmuUpdate {
        ptr: top.ma() + 8 * (i as u64 % 4),
        val: if i % 8 < 4 { l2.ma() | TABLE } else { 0 },
    });
    expect(
        "a list of updates",
        alarmed(|| {
            let (r, d) = pg::mmu_updates(&updates);
            done = d;
            r
        }),
        OK,
    );
    expect("all of them done", done, 64);
    expect("the L2 is free", pg::make_rw(l2), OK);
    check("the L1s are free", l1s.iter().all(|p| pg::make_rw(*p) == OK));
    let page = Page::alloc();
    expect(
        "a page that was mapped by all of them",
        {
            l1s.iter().for_each(|p| p.clear());
            pg::update_va(page.va, page.ma() | KERNEL_RO)
        },
        OK,
    );
    expect("unpin the L3", pg::unpin(top), OK);
    events::close(port);
    alive();
}
