//! Attack: a domain is destroyed while dom0 maps its pages, maps more of them while it dies and after, pins its tables,
//! gives it memory. Must happen: the mapped pages stay readable and its id stays taken until the last mapping goes; then
//! everything comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::memory::*;
use pv_abi::mmu;

guests::kernel!(run);

fn idle() {
    loop {
        child::nap(1000);
    }
}

fn run() {
    Child::build(idle, Spec::default()).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let windows: [Page; 8] = core::array::from_fn(|_| Page::alloc());
    let own: [u64; 8] = core::array::from_fn(|i| pg::pte(windows[i].va));
    let c = Child::run(idle, Spec { pages: 600, ..Spec::default() });
    let extra = c.parts().extra;
    for (i, w) in windows.iter().enumerate() {
        let flags = if i % 2 == 0 { KERNEL_RW } else { KERNEL_RO };
        child::foreign_update(pg::slot(w.va, 1), (c.mfn(extra + i as u64) * PAGE_SIZE) | flags, c.id).must("map");
        pg::mmuext(mmu::EXT_INVLPG_LOCAL, w.va, 0);
        if i % 2 == 0 {
            w.write(3, 0x1234 + i as u64);
        }
    }
    let (id, l4) = (c.id, c.mfn(c.parts().tables));
    let more = [c.mfn(extra + 100), c.mfn(extra + 101)];
    c.unshare();
    expect("destroy", c.destroy_only(), OK);
    let info = child::info_of(id);
    check("the id is still taken", info.is_some());
    let left = info.map_or(0, |i| i.tot_pages);
    check("few of its pages are left", (8..40).contains(&left));
    check(
        "they can be read and written",
        (0..8).step_by(2).all(|i| {
            windows[i].write(4, 7);
            windows[i].read(3) == 0x1234 + i as u64 && windows[i].read(4) == 7
        }),
    );
    let spare = Page::alloc();
    let spare_own = pg::pte(spare.va);
    refused(
        "map a page that went",
        child::foreign_update(pg::slot(spare.va, 1), (more[0] * PAGE_SIZE) | KERNEL_RW, id),
    );
    refused("pin its L4", child::foreign_mmuext(mmu::EXT_PIN_L4_TABLE, l4, id));
    refused(
        "pin a page that is still mapped",
        child::foreign_mmuext(mmu::EXT_PIN_L1_TABLE, (pg::pte(windows[0].va) & pg::FRAME) / PAGE_SIZE, id),
    );
    let list = [5u64];
    expect(
        "give it memory",
        memory_op(OP_POPULATE_PHYSMAP, &mut Reservation { domid: id, ..extents(&list, 0) }),
        Ret(0),
    );
    for (w, own) in windows.iter().zip(own) {
        pg::update_va(w.va, own).must("own page back");
    }
    pg::update_va(spare.va, spare_own).must("own page back");
    check(
        "the id becomes free",
        events::wait_ms(5000, || {
            child::nap(100);
            child::info_of(id).is_none()
        }),
    );
    check("all memory is back", child::all_back(before));
    c.forget();
    alive();
}
