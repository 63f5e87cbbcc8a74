//! Attack: trees that are far larger than the memory they lie in: each table hooked into all entries of the one above, at
//! all levels, so that a walk of every path has 2^36 steps. Must happen: each table is looked at once; pin and unpin take
//! milliseconds.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, TABLE};
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    let start = events::now();
    for round in 0..4 {
        let t = tree(4, 512);
        expect(f!("round {round}: pin it"), pg::pin(t, 4), OK);
        let l3 = mem::page_of_mfn((t.read(0) & pg::FRAME) / PAGE_SIZE);
        for slot in [0u64, 100, 199] {
            expect(f!("round {round}: take out {slot}"), pg::mmu_update(t.ma() + 8 * slot, 0), OK);
            expect(f!("round {round}: put in {slot}"), pg::mmu_update(t.ma() + 8 * slot, l3.ma() | TABLE), OK);
        }
        expect(
            f!("round {round}: load it as user base"),
            pg::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, t.mfn(), 0),
            OK,
        );
        expect(f!("round {round}: unpin it"), pg::unpin(t), OK);
        refused(f!("round {round}: it is in use"), pg::make_rw(t));
        expect(f!("round {round}: leave it"), pg::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, 0, 0), OK);
        check(f!("round {round}: all free"), tree_is_free(t, 4));
    }
    check("it took less than ten seconds", events::now() - start < 10_000_000_000);
    // one bad entry at the very end of the lowest table
    let (l2, l1) = (Page::alloc(), Page::alloc());
    l1.write(511, (xen_frame() * PAGE_SIZE) | pg::KERNEL_RO);
    pg::make_ro(l1).must("make_ro");
    (0..512).for_each(|i| l2.write(i, l1.ma() | TABLE));
    pg::make_ro(l2).must("make_ro");
    refused("a tree with one bad entry", pg::pin(l2, 2));
    check("its tables are free", pg::make_rw(l1) == OK && pg::make_rw(l2) == OK);
    alive();
}
