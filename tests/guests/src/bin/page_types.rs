//! Page types: what may be pinned, hooked in and mapped writable, and what the entries read back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::pfn_of;
use guests::paging::{
    FRAME, KERNEL_RO, KERNEL_RW, NX, P, RW, TABLE, flags_of, make_ro, make_rw, mmu_update, new_table, pin, unpin,
    update_va,
};
use guests::prelude::*;
use guests::start::start_info;

guests::kernel!(run);

fn run() {
    pinning();
    hooking();
    validation();
    linear();
    start_of_day_tables();
    foreign_frames();
    l1_flags();
    upper_flags();
}

fn pinning() {
    for level in 1..=4 {
        let t = Page::alloc();
        expect(f!("pin a writable page as L{level}"), pin(t, level), errno(EINVAL));
        make_ro(t).must("make_ro");
        expect(f!("unpin what is not pinned, L{level}"), unpin(t), errno(EINVAL));
        expect(f!("pin as L{level}"), pin(t, level), OK);
        expect(f!("map a pinned L{level} writable"), make_rw(t), errno(EBUSY));
        expect(f!("pin as L{level} again"), pin(t, level), errno(EINVAL));
        for other in (1..=4).filter(|o| *o != level) {
            expect(f!("pin an L{level} as L{other}"), pin(t, other), errno(EINVAL));
        }
        expect(f!("map a pinned L{level} read-only"), make_ro(t), OK);
        expect(f!("unpin the L{level}"), unpin(t), OK);
        expect(f!("unpin the L{level} again"), unpin(t), errno(EINVAL));
        expect(f!("what was an L{level} becomes writable"), make_rw(t), OK);
        t.clear();
    }
    let t = Page::alloc();
    let alias = Page::alloc();
    update_va(alias.va, t.ma() | KERNEL_RW).must("alias");
    make_ro(t).must("make_ro");
    expect("pin a page with one writable alias left", pin(t, 1), errno(EINVAL));
    update_va(alias.va, 0).must("drop the alias");
    expect("pin it without the alias", pin(t, 1), OK);
    expect("map the alias again, read-only", update_va(alias.va, t.ma() | KERNEL_RO), OK);
    expect("map the alias again, writable", update_va(alias.va, t.ma() | KERNEL_RW), errno(EBUSY));
    check("a refused update changes nothing", paging::pte(alias.va) & RW == 0);
    unpin(t).must("unpin");
}

fn hooking() {
    let (l1, l2) = (new_table(), new_table());
    pin(l2, 2).must("pin L2");
    let slot = |i: u64| l2.ma() + 8 * i;
    expect("hook an L1 into an L2", mmu_update(slot(0), l1.ma() | TABLE), OK);
    expect("a hooked L1 is not writable", make_rw(l1), errno(EBUSY));
    expect("hook it in twice", mmu_update(slot(7), l1.ma() | TABLE), OK);
    expect("take it out once", mmu_update(slot(0), 0), OK);
    expect("a second place still holds it", make_rw(l1), errno(EBUSY));
    expect("pin an L1 that is in use", pin(l1, 1), OK);
    expect("take it out of the second place", mmu_update(slot(7), 0), OK);
    expect("the pin still holds it", make_rw(l1), errno(EBUSY));
    expect("drop the pin", unpin(l1), OK);
    expect("nothing holds it", make_rw(l1), OK);
    let data = Page::alloc();
    expect("hook a writable page as an L1", mmu_update(slot(1), data.ma() | TABLE), errno(EINVAL));
    expect("hook an L2 into an L2 as an L1", mmu_update(slot(1), page_of_l2().ma() | TABLE), errno(EINVAL));
    let (l1b, l2b) = (new_table(), new_table());
    pin(l1b, 1).must("pin L1");
    pin(l2b, 2).must("pin L2");
    let l3 = new_table();
    pin(l3, 3).must("pin L3");
    expect("hook an L1 into an L3", mmu_update(l3.ma(), l1b.ma() | TABLE), errno(EINVAL));
    expect("hook an L2 into an L3", mmu_update(l3.ma(), l2b.ma() | TABLE), OK);
    expect("unpin the L3 that holds it", unpin(l3), OK);
    expect("its pin holds the L2", make_rw(l2b), errno(EBUSY));
    expect("unpin the L2", unpin(l2b), OK);
    expect("now the L2 is free", make_rw(l2b), OK);
    // a tree of which only the top is pinned
    let (a, b, c, d) = (Page::alloc(), Page::alloc(), Page::alloc(), Page::alloc());
    c.write(3, d.ma() | P | RW);
    b.write(2, c.ma() | TABLE);
    a.write(1, b.ma() | TABLE);
    for t in [a, b, c] {
        make_ro(t).must("make_ro");
    }
    expect("pin an L3 with a tree below", pin(a, 3), OK);
    for (name, t) in [("L3", a), ("L2", b), ("L1", c)] {
        expect(f!("{name} of the tree writable"), make_rw(t), errno(EBUSY));
    }
    expect("a data page of the tree as a table", pin(d, 1), errno(EINVAL));
    expect("unpin the tree", unpin(a), OK);
    for (name, t) in [("L3", a), ("L2", b), ("L1", c)] {
        expect(f!("{name} of the released tree writable"), make_rw(t), OK);
    }
}

fn page_of_l2() -> Page {
    let t = new_table();
    pin(t, 2).must("pin an L2");
    t
}

/// What a page must not hold to become a table.
fn validation() {
    let good = Page::alloc();
    let pinned = new_table();
    pin(pinned, 1).must("pin");
    let xen = paging::l4().read(256) & FRAME;
    let cases: [(&str, u64, u32); 13] = [
        ("an L1 that maps a table writable", pinned.ma() | KERNEL_RW, 1),
        ("an L1 that maps a table read-only", pinned.ma() | KERNEL_RO, 1),
        ("an L1 that maps the hypervisor's frame", xen | KERNEL_RO, 1),
        ("an L1 with a not-present entry of junk", 0xffff_ffff_ffff_fffe, 1),
        ("an L2 with a not-present entry of junk", 0xffff_ffff_ffff_fffe, 2),
        ("an L2 with a large page", P | RW | paging::PSE, 2),
        ("an L2 entry that is global", pinned.ma() | TABLE | paging::G, 2),
        ("an L2 entry without RW", pinned.ma() | P | paging::US, 2),
        ("an L2 entry without US", pinned.ma() | P | RW, 2),
        ("an L2 entry with NX", pinned.ma() | TABLE | NX, 2),
        ("an L2 entry with available bits", pinned.ma() | TABLE | 0xe00, 2),
        ("an L2 that names a writable page", good.ma() | TABLE, 2),
        ("an L3 that names an L1", pinned.ma() | TABLE, 3),
    ];
    for (name, entry, level) in cases {
        let t = Page::alloc();
        t.write(5, entry);
        make_ro(t).must("make_ro");
        let r = pin(t, level);
        obs(f!("pin {name}"), r);
        if r == OK {
            obs(f!("read back {name}"), flags_of(t.read(5)));
            unpin(t).must("unpin");
        } else {
            check(f!("left as it was: {name}"), t.read(5) == entry);
        }
        expect(f!("writable after {name}"), make_rw(t), OK);
    }
    let t = Page::alloc();
    t.write(0, good.ma() | KERNEL_RW);
    t.write(511, pinned.ma() | KERNEL_RW);
    make_ro(t).must("make_ro");
    expect("an L1 whose last entry is bad", pin(t, 1), errno(EBUSY));
    expect("the page its first entry named is free again", make_ro(good), OK);
    expect("it can become a table", pin(good, 1), OK);
    unpin(good).must("unpin");
}

fn linear() {
    for level in 2..=4u32 {
        for (name, flags) in [("read-only", P | paging::US), ("writable", TABLE)] {
            let t = Page::alloc();
            t.write(9, t.ma() | flags);
            make_ro(t).must("make_ro");
            let r = pin(t, level);
            obs(f!("pin an L{level} with a {name} entry to itself"), r);
            if r == OK {
                expect(f!("unpin the L{level} with an entry to itself"), unpin(t), OK);
            }
            expect(f!("the L{level} with a {name} entry to itself is free"), make_rw(t), OK);
        }
    }
}

fn start_of_day_tables() {
    let si = start_info();
    let mut refused = 0;
    for i in 0..si.nr_pt_frames {
        let t = Page::at(si.pt_base + i * PAGE_SIZE);
        refused += u64::from(make_rw(t) == errno(EBUSY));
    }
    check("no start-of-day table can be mapped writable", refused == si.nr_pt_frames);
    let probe = Page::alloc();
    expect("the L4 mapped elsewhere, writable", update_va(probe.va, paging::l4().ma() | KERNEL_RW), errno(EBUSY));
    expect("the L4 mapped elsewhere, read-only", update_va(probe.va, paging::l4().ma() | KERNEL_RO), OK);
    expect(
        "the L4 mapped for user mode, read-only",
        update_va(probe.va, paging::l4().ma() | KERNEL_RO | paging::US),
        OK,
    );
}

fn foreign_frames() {
    let page = Page::alloc();
    let xen = paging::l4().read(256) & FRAME;
    let nr = start_info().nr_pages;
    let free = (0x4000..0x1e000).find(|m| pfn_of(*m) >= nr).unwrap_or(0) * PAGE_SIZE;
    for (name, ma) in [
        ("the hypervisor's frame", xen),
        ("RAM that is nobody's", free),
        ("the BIOS", 0xf_0000),
        ("the VGA window", 0xb_8000),
        ("the LAPIC", 0xfee0_0000),
        ("the IOAPIC", 0xfec0_0000),
        ("an address above RAM", 0x1_0000_0000),
        ("the last address of 40 bits", 0xff_ffff_f000),
        ("an address of 52 bits", 0x000f_ffff_ffff_f000),
    ] {
        for (how, flags) in [("writable", KERNEL_RW), ("read-only", KERNEL_RO)] {
            let r = update_va(page.va, ma | flags);
            obs(f!("map {name} {how}"), r);
            if r == OK {
                obs(f!("flags of {name} {how}"), flags_of(paging::pte(page.va)));
            }
        }
    }
}

fn l1_flags() {
    let page = Page::alloc();
    let bits: [(&str, u64); 17] = [
        ("P", P),
        ("P|RW", P | RW),
        ("P|US", P | 4),
        ("P|RW|US", P | RW | 4),
        ("P|PWT", P | 8),
        ("P|PCD", P | 0x10),
        ("P|A", P | 0x20),
        ("P|D", P | 0x40),
        ("P|PAT", P | 0x80),
        ("P|G", P | 0x100),
        ("P|US|G", P | 4 | 0x100),
        ("P|AVAIL", P | 0xe00),
        ("P|52", P | 1 << 52),
        ("P|US|52", P | 4 | 1 << 52),
        ("P|53-62", P | 0x3ff << 53),
        ("P|NX", P | NX),
        ("not present, all else", 0xfff0_0000_0000_0ffe),
    ];
    for (name, flags) in bits {
        let r = update_va(page.va, page.ma() | flags);
        obs(f!("L1 {name}"), r);
        obs(f!("L1 {name} reads"), flags_of(paging::pte(page.va)));
    }
    make_rw(page).must("restore");
}

fn upper_flags() {
    let (l2, l3, l4) = (new_table(), new_table(), new_table());
    let tables = [(2, l2, new_table()), (3, l3, new_table()), (4, l4, new_table())];
    for (level, table, below) in tables {
        pin(below, level - 1).must("pin below");
        pin(table, level).must("pin");
        for (name, flags) in [
            ("P", P),
            ("P|RW", P | RW),
            ("P|RW|US", P | RW | 4),
            ("P|US", P | 4),
            ("PWT", TABLE | 8),
            ("PCD", TABLE | 0x10),
            ("PSE", TABLE | 0x80),
            ("G", TABLE | 0x100),
            ("AVAIL", TABLE | 0xe00),
            ("52-62", TABLE | 0x7ff << 52),
            ("NX", TABLE | NX),
            ("not present", 0x7ff0_0000_0000_0ffe),
        ] {
            obs(f!("L{level} {name}"), mmu_update(table.ma() + 8, below.ma() | flags));
            obs(f!("L{level} {name} reads"), flags_of(table.read(1)));
        }
    }
}
