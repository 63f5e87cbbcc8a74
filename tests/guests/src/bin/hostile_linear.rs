//! Attack: tables that lead to themselves and to each other, at every level and by every way. Must happen: no writable
//! way to a table, no endless loop, and afterwards every page is free. (Read-only entries to a table of the same level
//! are allowed by Xen and refused by Hospes: the verdicts here ask only for what both promise.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, P, TABLE, US};
use guests::prelude::*;

guests::kernel!(run);

fn free(name: impl core::fmt::Display, pages: &[Page]) {
    for p in pages {
        pg::unpin(*p);
    }
    check(f!("{name}: free afterwards"), pages.iter().all(|p| pg::make_rw(*p) == OK));
    pages.iter().for_each(|p| p.clear());
}

fn run() {
    for level in 2..=4 {
        // two of a level that lead to each other, written before they are tables
        let (a, b) = (Page::alloc(), Page::alloc());
        for (how, flags) in [("read-only", P | US), ("writable", TABLE)] {
            a.write(9, b.ma() | flags);
            b.write(9, a.ma() | flags);
            for p in [a, b] {
                pg::make_ro(p).must("make_ro");
            }
            let r = [pg::pin(a, level), pg::pin(b, level)];
            if how == "writable" {
                check(f!("L{level} and L{level}, {how}: refused"), r.iter().all(|r| r.0 < 0));
            }
            free(f!("L{level} and L{level}, {how}"), &[a, b]);
        }
        // one that leads to itself, entry made by update
        pg::make_ro(a).must("make_ro");
        pg::pin(a, level).must("pin");
        refused(f!("L{level}: an entry to itself, writable"), pg::mmu_update(a.ma() + 8, a.ma() | TABLE));
        let r = pg::mmu_update(a.ma() + 8, a.ma() | P | US);
        refused(f!("L{level}: then writable by the same entry"), pg::mmu_update(a.ma() + 8, a.ma() | TABLE));
        refused(f!("L{level}: mapped writable"), pg::make_rw(a));
        if r == OK {
            pg::mmu_update(a.ma() + 8, 0).must("take it out");
        }
        free(f!("L{level} to itself"), &[a]);
        // a ring through the levels
        if level > 2 {
            let below = Page::alloc();
            below.write(3, a.ma() | TABLE);
            a.write(3, below.ma() | TABLE);
            for p in [a, below] {
                pg::make_ro(p).must("make_ro");
            }
            refused(f!("L{level} over L{} over L{level}", level - 1), pg::pin(a, level));
            refused(f!("L{} over L{level} over L{}", level - 1, level - 1), pg::pin(below, level - 1));
            free(f!("ring of L{level} and L{}", level - 1), &[a, below]);
        }
    }
    // an L1 may map itself, read-only
    let l1 = Page::alloc();
    l1.write(0, l1.ma() | KERNEL_RO);
    l1.write(1, l1.ma() | KERNEL_RO);
    pg::make_ro(l1).must("make_ro");
    expect("an L1 that maps itself read-only", pg::pin(l1, 1), OK);
    refused("then writable", pg::mmu_update(l1.ma(), l1.ma() | KERNEL_RW));
    free("an L1 that maps itself", &[l1]);
    l1.write(0, l1.ma() | KERNEL_RW);
    pg::make_ro(l1).must("make_ro");
    refused("an L1 that maps itself writable", pg::pin(l1, 1));
    free("an L1 that maps itself writable", &[l1]);
    // chains of one level
    let chain: [Page; 16] = core::array::from_fn(|_| Page::alloc());
    for (i, p) in chain.iter().enumerate() {
        p.write(1, chain[(i + 1) % 16].ma() | P | US);
        pg::make_ro(*p).must("make_ro");
    }
    for p in chain {
        pg::pin(p, 4);
    }
    for p in chain {
        pg::unpin(p);
    }
    free("a ring of 16 L4", &chain);
    alive();
}
