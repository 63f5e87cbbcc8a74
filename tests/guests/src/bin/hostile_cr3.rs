//! Attack: page-table bases that are none: tables of lower levels, data, an L4 with a bad entry deep below, one that was
//! released, others' frames; unpinning what is loaded. Must happen: refused, the old base stays; a loaded L4 stays a
//! table though nobody pins it.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RW, TABLE};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

fn copy_of_l4() -> Page {
    let p = Page::alloc();
    (0..512).filter(|i| !(256..=271).contains(i)).for_each(|i| p.write(i, pg::l4().read(i)));
    p
}

fn run() {
    let bases = [("kernel", mmu::EXT_NEW_BASEPTR), ("user", mmu::EXT_NEW_USER_BASEPTR)];
    let bad = copy_of_l4();
    let (l3, l2, l1) = (Page::alloc(), Page::alloc(), Page::alloc());
    l1.write(511, (xen_frame() * PAGE_SIZE) | KERNEL_RW);
    l2.write(511, l1.ma() | TABLE);
    l3.write(511, l2.ma() | TABLE);
    bad.write(100, l3.ma() | TABLE);
    for p in [bad, l3, l2, l1] {
        pg::make_ro(p).must("make_ro");
    }
    let data = Page::alloc();
    let l3_live = pg::table(data.va, 3).unwrap_or(data);
    for (name, mfn) in [
        ("an L4 with a bad entry deep below", bad.mfn()),
        ("a live L3", l3_live.mfn()),
        ("a data page", data.mfn()),
        ("the hypervisor's frame", xen_frame()),
        ("the LAPIC", 0xfee00),
        ("beyond RAM", 0xfff_ffff),
        ("no frame", u64::MAX),
    ] {
        for (kind, cmd) in bases {
            for _ in 0..2 {
                refused(f!("{kind} base: {name}"), pg::mmuext(cmd, mfn, 0));
            }
        }
    }
    check("the tables of the bad one are free", [bad, l3, l2, l1].iter().all(|p| pg::make_rw(*p) == OK));
    refused("kernel base: none", pg::mmuext(mmu::EXT_NEW_BASEPTR, 0, 0));
    // cr3 by instruction
    for value in [data.ma(), xen_frame() * PAGE_SIZE, !0xfff, NON_CANONICAL] {
        let o = probe::kernel(code!("mov cr3, rax"), &Gprs { rax: value, ..Gprs::ZERO });
        check(f!("mov to cr3 of {}", if value == data.ma() { "a data page" } else { "nothing" }), !o.is_done());
    }
    // loaded, never pinned
    let other = copy_of_l4();
    pg::make_ro(other).must("make_ro");
    expect("an L4 that is not pinned", pg::mmuext(mmu::EXT_NEW_BASEPTR, other.mfn(), 0), OK);
    expect("it is a table", pg::make_rw(other), errno(EBUSY));
    refused("unpin it", pg::unpin(other));
    expect("the same again", pg::mmuext(mmu::EXT_NEW_BASEPTR, other.mfn(), 0), OK);
    expect("as user base too", pg::mmuext(mmu::EXT_NEW_USER_BASEPTR, other.mfn(), 0), OK);
    expect("back", pg::mmuext(mmu::EXT_NEW_BASEPTR, pg::l4().mfn(), 0), OK);
    expect("the user base holds it", pg::make_rw(other), errno(EBUSY));
    expect("no user base", pg::mmuext(mmu::EXT_NEW_USER_BASEPTR, 0, 0), OK);
    expect("now it is free", pg::make_rw(other), OK);
    // unpin the L4 in use
    expect("unpin the live L4", pg::unpin(pg::l4()), OK);
    expect("it stays a table", pg::make_rw(pg::l4()), errno(EBUSY));
    expect("pin it again", pg::pin(pg::l4(), 4), OK);
    alive();
}
