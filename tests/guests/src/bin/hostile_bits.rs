//! Attack: large pages, global and cache bits, reserved bits and frames beyond the machine in entries of every level, by
//! update and by pinning. Must happen: what the CPU would take as something else than a checked frame is refused.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, P, RW, TABLE, US};
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    let below = [Page::alloc(), pg::new_table(), pg::new_table(), pg::new_table()];
    for (i, t) in below.iter().enumerate().skip(1) {
        pg::pin(*t, i as u32).must("pin");
    }
    for level in 2..=4u32 {
        let t = pg::new_table();
        pg::pin(t, level).must("pin");
        let good = below[level as usize - 1].ma();
        for (name, entry) in [
            ("a large page of its own", below[0].ma() | TABLE | pg::PSE),
            ("a large page at 0", P | RW | US | pg::PSE),
            ("a table with the large bit", good | TABLE | pg::PSE),
            ("global", good | TABLE | pg::G),
            ("PWT", good | TABLE | 8),
            ("PCD", good | TABLE | 0x10),
            ("bit 51", good | TABLE | 1 << 51),
            ("bit 40", good | TABLE | 1 << 40),
            ("all address bits", pg::FRAME | TABLE),
            ("the hypervisor's frame", (xen_frame() * PAGE_SIZE) | TABLE),
            ("the LAPIC", 0xfee0_0000 | TABLE),
            ("frame 0", TABLE),
            ("a data page", below[0].ma() | TABLE),
            ("a large page of RAM at 16 MiB", 0x100_0000 | TABLE | pg::PSE | US),
        ] {
            refused(f!("L{level}: {name}"), pg::mmu_update(t.ma() + 8 * 5, entry));
            expect(f!("L{level}: {name}: the entry"), Hex(t.read(5)), Hex(0));
            let fresh = Page::alloc();
            fresh.write(400, entry);
            pg::make_ro(fresh).must("make_ro");
            refused(f!("L{level}: {name}, pinned"), pg::pin(fresh, level));
            check(f!("L{level}: {name}: free"), pg::make_rw(fresh) == OK);
        }
        for bits in [0, pg::NX, 0x7ff << 52, 0xe00] {
            expect(f!("L{level}: a table with {bits:#x}"), pg::mmu_update(t.ma() + 8 * 5, good | TABLE | bits), OK);
        }
        expect(f!("L{level}: out"), pg::mmu_update(t.ma() + 8 * 5, 0xdead_0000), OK);
    }
    let window = Page::alloc();
    for (name, entry) in [
        ("bit 51", window.ma() | TABLE | 1 << 51),
        ("bit 45", window.ma() | TABLE | 1 << 45),
        ("all address bits", pg::FRAME | TABLE),
        ("the hypervisor's frame", (xen_frame() * PAGE_SIZE) | P | US),
    ] {
        refused(f!("L1: {name}"), pg::update_va(window.va, entry));
    }
    alive();
}
