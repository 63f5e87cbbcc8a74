//! Attack: decrease, increase and populate with the same frame twice, tables, others' frames, huge counts and orders,
//! and continuation numbers that no hypervisor gave out. Must happen: the count of what was really done; the domain's
//! size and the M2P stay true.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::mem::pfn_of;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn size() -> i64 {
    memory_op(OP_CURRENT_RESERVATION, &mut { SELF }).0
}

fn run() {
    let start = size();
    let (a, b) = (unmapped_page(), unmapped_page());
    let (ma, mb) = (a.mfn(), b.mfn());
    expect("one frame twice", memory_op(OP_DECREASE_RESERVATION, &mut extents(&[ma, ma, mb], 0)), Ret(1));
    expect("one page less", start - size(), 1);
    expect("it again", memory_op(OP_DECREASE_RESERVATION, &mut extents(&[ma], 0)), Ret(0));
    expect("still one less", start - size(), 1);
    refused("map it", pg::update_va(a.va, (ma * PAGE_SIZE) | pg::KERNEL_RW));
    refused("pin it", pg::mmuext(0, ma, 0));
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    let live = pg::table(a.va, 1).map_or(0, Page::mfn);
    for (name, mfn) in [
        ("the hypervisor's frame", xen_frame()),
        ("the LAPIC", 0xfee00),
        ("beyond RAM", 0xfff_ffff),
        ("frame 0", 0),
        ("no frame", u64::MAX),
    ] {
        expect(f!("decrease {name}"), memory_op(OP_DECREASE_RESERVATION, &mut extents(&[mfn, mb], 0)), Ret(0));
        expect(f!("decrease {name}, order 9"), memory_op(OP_DECREASE_RESERVATION, &mut extents(&[mfn], 9)), Ret(0));
    }
    expect("the size is the same", start - size(), 1);
    // a table that is given back stays a table until nothing uses it
    expect("decrease a pinned table", memory_op(OP_DECREASE_RESERVATION, &mut extents(&[table.mfn()], 0)), Ret(1));
    refused("it cannot be written", pg::make_rw(table));
    obs("decrease it again", memory_op(OP_DECREASE_RESERVATION, &mut extents(&[table.mfn()], 0)));
    pg::update_va(table.va, 0).must("unmap it");
    expect("unpin it", pg::mmuext(4, table.mfn(), 0), OK);
    refused("unpin it again", pg::mmuext(4, table.mfn(), 0));
    expect("decrease a live table", memory_op(OP_DECREASE_RESERVATION, &mut extents(&[live], 0)), Ret(1));
    check("addresses under it still work", {
        let p = Page::alloc();
        p.write(1, 7);
        p.read(1) == 7
    });
    // counts, orders, continuations
    let pfns = [a.pfn(); 4];
    for (name, r) in [
        ("order 63", Reservation { extent_order: 63, ..extents(&pfns, 0) }),
        ("order 64", Reservation { extent_order: 64, ..extents(&pfns, 0) }),
        ("order 2^32-1", Reservation { extent_order: u32::MAX, ..extents(&pfns, 0) }),
        ("order 19", Reservation { extent_order: 19, ..extents(&pfns, 0) }),
        ("2^63 extents", Reservation { nr_extents: 1 << 63, ..extents(&pfns, 0) }),
        ("2^58 extents", Reservation { nr_extents: 1 << 58, ..extents(&pfns, 0) }),
        ("all extents", Reservation { nr_extents: u64::MAX, ..extents(&pfns, 0) }),
        ("12 address bits", Reservation { flags: 12, ..extents(&pfns, 0) }),
        ("1 address bit", Reservation { flags: 1, ..extents(&pfns, 0) }),
        ("255 address bits, order 63", Reservation { flags: 255, extent_order: 63, ..extents(&pfns, 0) }),
        ("an absent domain", Reservation { domid: 77, ..extents(&pfns, 0) }),
        ("the idle domain", Reservation { domid: 0x7fff, ..extents(&pfns, 0) }),
    ] {
        for cmd in [OP_INCREASE_RESERVATION, OP_DECREASE_RESERVATION, OP_POPULATE_PHYSMAP] {
            let mut r = r;
            let got = memory_op(cmd, &mut r);
            if got.0 > 0 {
                report::fail(f!("{name}, command {cmd}: {got}"));
            }
        }
    }
    for cmd in [OP_INCREASE_RESERVATION, OP_DECREASE_RESERVATION, OP_POPULATE_PHYSMAP] {
        for at in [1u64, 4, 5, 1 << 20, (1 << 58) - 1, 1 << 57] {
            let mut r = Reservation { nr_extents: at.min(4), ..extents(&pfns, 0) };
            let got = memory_op(cmd | (at << CMD_BITS), &mut r);
            if got.0 > 4.max(at as i64) {
                report::fail(f!("command {cmd} continued at {at}: {got}"));
            }
        }
    }
    let now = size();
    let mut pfns = [a.pfn()];
    expect("populate one", memory_op(OP_POPULATE_PHYSMAP, &mut extents(&pfns, 0)), Ret(1));
    expect("one more", size() - now, 1);
    check("numbered", pfn_of(pfns[0]) == a.pfn());
    check("zero", {
        pg::update_va(a.va, (pfns[0] * PAGE_SIZE) | pg::KERNEL_RW).must("map");
        (0..512).all(|i| a.read(i) == 0)
    });
    pfns[0] = u64::MAX;
    obs("populate page number -1", memory_op(OP_POPULATE_PHYSMAP, &mut extents(&pfns, 0)));
    alive();
}
