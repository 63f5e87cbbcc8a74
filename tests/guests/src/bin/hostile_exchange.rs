//! Attack: exchange with frames in use, twice the same, tables, others' frames, overlapping lists, huge counts and orders,
//! continuation numbers out of nowhere. Must happen: an error and nothing changed, or pages against as many others.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::mem::pfn_of;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn make(input: &[u64], output: &[u64], io: u32, oo: u32) -> Exchange {
    Exchange { input: extents(input, io), output: extents(output, oo), nr_exchanged: 0 }
}

fn size() -> i64 {
    memory_op(OP_CURRENT_RESERVATION, &mut { SELF }).0
}

fn run() {
    let start = size();
    let (free, used, other) = (unmapped_page(), Page::alloc(), unmapped_page());
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    let ro = Page::alloc();
    pg::make_ro(ro).must("make_ro");
    let f = free.mfn();
    for (name, list) in [
        ("a mapped page", [f, used.mfn()]),
        ("a page mapped read-only", [f, ro.mfn()]),
        ("a table", [f, table.mfn()]),
        ("the same twice", [f, f]),
        ("the hypervisor's frame", [f, xen_frame()]),
        ("the LAPIC", [f, 0xfee00]),
        ("beyond RAM", [f, 0xfff_ffff]),
        ("no frame", [f, u64::MAX]),
        ("shared_info", [f, guests::start::start_info().shared_info / PAGE_SIZE]),
    ] {
        let mut x = make(&list, &[free.pfn()], 0, 1);
        refused(f!("{name}"), memory_op(OP_EXCHANGE, &mut x));
        expect(f!("{name}: exchanged"), x.nr_exchanged, 0);
        check(f!("{name}: the other page is as it was"), pfn_of(f) == free.pfn());
    }
    expect("the size", size(), start);
    expect("the free page can still be mapped", pg::update_va(free.va, (f * PAGE_SIZE) | pg::KERNEL_RW), OK);
    pg::update_va(free.va, 0).must("unmap");
    let list = [f, other.mfn()];
    for (name, change) in [
        ("order 63", (|x| x.input.extent_order = 63) as fn(&mut Exchange)),
        ("order 2^32-1 out", |x| x.output.extent_order = u32::MAX),
        ("order 64 both", |x| (x.input.extent_order, x.output.extent_order) = (64, 64)),
        ("2^63 extents", |x| (x.input.nr_extents, x.output.nr_extents) = (1 << 63, 1 << 63)),
        ("all extents", |x| (x.input.nr_extents, x.output.nr_extents) = (u64::MAX, u64::MAX)),
        ("counts that wrap", |x| (x.input.nr_extents, x.input.extent_order, x.output.nr_extents) = (1 << 60, 4, 0)),
        ("more exchanged than there are", |x| x.nr_exchanged = u64::MAX),
        ("an absent domain", |x| (x.input.domid, x.output.domid) = (77, 77)),
        ("two domains", |x| x.output.domid = 77),
        ("unequal", |x| x.output.nr_extents = 1),
        ("one address bit", |x| x.output.flags = 1),
        ("output list in the hypervisor", |x| x.output.extent_start = XEN_VA),
    ] {
        let mut x = make(&list, &[free.pfn(), other.pfn()], 0, 0);
        change(&mut x);
        refused(name, memory_op(OP_EXCHANGE, &mut x));
    }
    for at in [1u64, 2, 3, 1 << 57] {
        let mut x = make(&list, &[free.pfn(), other.pfn()], 0, 0);
        let r = memory_op(OP_EXCHANGE | (at << CMD_BITS), &mut x);
        check(f!("continued at {at}: no more than asked"), r.0 <= 0 && x.nr_exchanged <= 2);
    }
    expect("the size is the same", size(), start);
    // input and output list the same words
    let last = unmapped_page();
    let both = [last.mfn()];
    let mut x = Exchange { input: extents(&both, 0), output: extents(&both, 0), nr_exchanged: 0 };
    let r = memory_op(OP_EXCHANGE, &mut x);
    expect("lists that are one", r, OK);
    expect("the size is still the same", size(), start);
    alive();
}
