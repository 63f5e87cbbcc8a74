//! Attack: every pointer of every memory call leads into the hypervisor, to no address, to unmapped memory, around the
//! end of the address space, or across a page's end into nothing. Must happen: an error (or nothing done); the kernel
//! and the hypervisor go on.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn run() {
    let (edge, behind) = (Page::alloc(), unmapped_page());
    check("two pages in a row", behind.va == edge.va + 4096);
    for (name, p) in [
        ("the hypervisor", XEN_VA),
        ("its last byte", 0xffff_87ff_ffff_ffff),
        ("just below it", NON_CANONICAL - 8),
        ("no address", NON_CANONICAL),
        ("above no address", 0xffff_7fff_ffff_fff8),
        ("unmapped memory", behind.va),
        ("across a page's end", behind.va - 4),
        ("the end of all", u64::MAX - 7),
        ("the very end", u64::MAX),
        ("the direct map", 0xffff_8300_0010_0000),
    ] {
        for count in [1u64, 2, 512, 0x7fff_ffff] {
            refused(f!("mmu_update, {count} at {name}"), call(nr::MMU_UPDATE, &[p, count, 0, pg::DOMID_SELF]));
            refused(f!("mmuext_op, {count} at {name}"), call(nr::MMUEXT_OP, &[p, count, 0, pg::DOMID_SELF]));
            refused(f!("multicall, {count} at {name}"), call(nr::MULTICALL, &[p, count]));
            for (op, cmd) in [("decrease", OP_DECREASE_RESERVATION), ("populate", OP_POPULATE_PHYSMAP)] {
                let mut r = Reservation { extent_start: p, nr_extents: count, domid: SELF, ..Reservation::default() };
                let got = memory_op(cmd, &mut r);
                check(f!("{op}, {count} at {name}"), got.0 <= 0);
            }
            let mut x = Exchange {
                input: Reservation { extent_start: p, nr_extents: count, domid: SELF, ..Reservation::default() },
                output: Reservation { extent_start: p, nr_extents: count, domid: SELF, ..Reservation::default() },
                nr_exchanged: 0,
            };
            refused(f!("exchange, {count} at {name}"), memory_op(OP_EXCHANGE, &mut x));
            refused(f!("set_gdt at {name}"), call(nr::SET_GDT, &[p, 8 * 512 + count % 512]));
        }
        for cmd in [
            OP_DECREASE_RESERVATION,
            OP_POPULATE_PHYSMAP,
            OP_EXCHANGE,
            OP_MACHPHYS_MAPPING,
            OP_MACHPHYS_MFN_LIST,
            OP_MACHINE_MEMORY_MAP,
            OP_SET_MEMORY_MAP,
            OP_ACQUIRE_RESOURCE,
        ] {
            let got = call(nr::MEMORY_OP, &[cmd, p]);
            check(f!("memory_op {cmd} at {name}"), got.0 <= 0);
        }
        for cmd in 0..12u64 {
            let got = call(nr::GRANT_TABLE_OP, &[cmd, p, 1]);
            check(f!("grant_table_op {cmd} at {name}"), got.0 < 0);
        }
        for cmd in [5, 6, 7, 8, 9, 10, 11, 15, 16, 17] {
            let r = pg::mmuext(cmd, p, p);
            obs(f!("mmuext {cmd} of {name}"), if r.0 < 0 { "refused" } else { "nothing" });
        }
        refused(f!("set_ldt at {name}"), pg::mmuext(13, p & !0xfff, 10000));
    }
    alive();
}
