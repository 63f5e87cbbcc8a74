//! Attack: hypercalls that write results are given pointers into page tables, GDT pages, the M2P, the hypervisor,
//! unmapped memory and across the end of a mapped page. Must happen: an error or a result that is not written; no such
//! page ever changes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;
use pv_abi::mmu;

guests::kernel!(run);

/// Hypercalls that write where `p` points; what each returns.
fn writers(p: u64) -> [(&'static str, Ret); 12] {
    let one = unmapped_page();
    let list = [one.mfn()];
    let update = [mmu::MmuUpdate { ptr: pg::slot(one.va, 1), val: 0 }];
    let ext = [mmu::MmuextOp { cmd: mmu::EXT_TLB_FLUSH_LOCAL, ..Default::default() }];
    let mut pop = Reservation { extent_start: p, nr_extents: 1, domid: SELF, ..Reservation::default() };
    let mut x = Exchange {
        input: extents(&list, 0),
        output: Reservation { extent_start: p, nr_extents: 1, domid: SELF, ..Reservation::default() },
        nr_exchanged: 0,
    };
    let mut m = MemoryMap { nr_entries: 100, pad: 0, buffer: p };
    [
        ("done of mmu_update", call(nr::MMU_UPDATE, &[update.as_ptr() as u64, 1, p, pg::DOMID_SELF])),
        ("done of mmuext_op", call(nr::MMUEXT_OP, &[ext.as_ptr() as u64, 1, p, pg::DOMID_SELF])),
        ("machphys_mapping", call(nr::MEMORY_OP, &[OP_MACHPHYS_MAPPING, p])),
        ("populate_physmap", memory_op(OP_POPULATE_PHYSMAP, &mut pop)),
        ("increase_reservation", memory_op(OP_INCREASE_RESERVATION, &mut pop)),
        ("exchange", memory_op(OP_EXCHANGE, &mut x)),
        ("machine_memory_map", memory_op(OP_MACHINE_MEMORY_MAP, &mut m)),
        ("a version string", call(nr::XEN_VERSION, &[1, p])),
        ("capabilities", call(nr::XEN_VERSION, &[3, p])),
        ("runstate", call(nr::VCPU_OP, &[pv_abi::vcpu::OP_GET_RUNSTATE_INFO, 0, p])),
        ("multicall", call(nr::MULTICALL, &[p, 1])),
        ("query_size", call(nr::GRANT_TABLE_OP, &[pv_abi::grant::OP_QUERY_SIZE, p, 1])),
    ]
}

fn run() {
    let gdt = pg::new_table();
    let frames = [gdt.mfn()];
    call(nr::SET_GDT, &[frames.as_ptr() as u64, 512]).must("set_gdt");
    let l1 = pg::new_table();
    pg::pin(l1, 1).must("pin");
    let edge = Page::alloc();
    let behind = Page::alloc();
    check("two pages in a row", behind.va == edge.va + 4096);
    pg::update_va(behind.va, 0).must("unmap");
    let room = [unmapped_page().mfn(), unmapped_page().mfn()];
    expect("room for two pages", memory_op(OP_DECREASE_RESERVATION, &mut extents(&room, 0)), Ret(2));
    let before = memory_op(OP_CURRENT_RESERVATION, &mut { SELF }).0;
    for (name, p) in [
        ("a live L4", pg::l4().va + 8),
        ("a pinned L1", l1.va),
        ("a GDT page", gdt.va),
        ("the M2P", 0xffff_8000_0000_0000),
        ("the hypervisor", XEN_VA),
        ("unmapped memory", behind.va),
        ("no address", NON_CANONICAL),
        ("just below no address", NON_CANONICAL - 4),
        ("the end of all", u64::MAX - 3),
        ("across a page's end", behind.va - 4),
    ] {
        let sum = |p: Page| {
            (0..512).filter(|i| *i != 256).fold(0u64, |s, i| s.rotate_left(1) ^ (p.read(i) & !(pg::A | pg::D)))
        };
        let sums = [sum(pg::l4()), sum(l1), sum(gdt)];
        for (what, r) in writers(p) {
            // what fails here only does so by what it does not write; the errors are those of the other kernels
            obs(
                f!("{what} into {name}"),
                if r.0 < 0 {
                    "refused"
                } else if r.0 == 0 {
                    "nothing"
                } else {
                    "some"
                },
            );
        }
        check(f!("no table changed by pointers into {name}"), sums == [sum(pg::l4()), sum(l1), sum(gdt)]);
    }
    let now = memory_op(OP_CURRENT_RESERVATION, &mut { SELF }).0;
    obs("pages given that nobody was told of", now != before);
    alive();
}
