//! Attack: the hypervisor's slots of L4 tables (256 to 271): junk before pinning, updates of every kind, tables hooked
//! there, page maps at their addresses. Must happen: what a guest writes there never counts; updates are refused.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::mem::read64;
use guests::paging::{self as pg, KERNEL_RW, TABLE};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

fn run() {
    let l3 = pg::new_table();
    pg::pin(l3, 3).must("pin an L3");
    let data = Page::alloc();
    let copy = Page::alloc();
    for i in 0..512 {
        copy.write(
            i,
            if (256..=271).contains(&i) {
                if i % 2 == 0 { l3.ma() | TABLE } else { data.ma() | TABLE }
            } else {
                pg::l4().read(i)
            },
        );
    }
    pg::make_ro(copy).must("make_ro");
    expect("an L4 with junk in those slots", pg::pin(copy, 4), OK);
    check(
        "the junk is gone",
        (256..=271).all(|i| copy.read(i) & pg::FRAME != l3.ma() && copy.read(i) & pg::FRAME != data.ma()),
    );
    for slot in 256..=271u64 {
        for t in [copy, pg::l4()] {
            for cmd in [mmu::NORMAL_PT_UPDATE, mmu::PT_UPDATE_PRESERVE_AD, mmu::PT_UPDATE_NO_TRANSLATE] {
                for val in [0, l3.ma() | TABLE, t.read(slot as usize), data.ma() | TABLE] {
                    let r = pg::mmu_update((t.ma() + 8 * slot) | cmd, val);
                    if r.0 >= 0 {
                        report::fail(f!("slot {slot}, command {cmd}, value {val:#x}: allowed"));
                    }
                }
            }
        }
        refused(
            f!("a page at the start of slot {slot}"),
            pg::update_va(0xffff_0000_0000_0000 | (slot << 39), data.ma() | KERNEL_RW),
        );
        refused(
            f!("a page at the end of slot {slot}"),
            pg::update_va((0xffff_0000_0000_0000 | (slot << 39)) + (1 << 39) - 4096, data.ma() | KERNEL_RW),
        );
        let at = pg::l4().va + 8 * slot;
        check(f!("store to slot {slot}"), !probe::catch(|| mem::write64(at, 0)).is_done());
    }
    for (slot, edge) in [(255u64, "below"), (272, "above")] {
        expect(f!("the slot {edge} is the guest's"), pg::mmu_update(copy.ma() + 8 * slot, l3.ma() | TABLE), OK);
        expect(f!("the slot {edge}, out"), pg::mmu_update(copy.ma() + 8 * slot, 0), OK);
    }
    pg::mmuext(mmu::EXT_NEW_BASEPTR, copy.mfn(), 0).must("load the copy");
    check("the M2P is there", read64(0xffff_8000_0000_0000 + 8 * data.mfn()) == data.pfn());
    for va in [
        0xffff_8080_0000_0000,
        0xffff_8100_0000_0000,
        0xffff_8180_0000_0000,
        XEN_VA,
        0xffff_8500_0000_0000,
        0xffff_8780_0000_0000,
    ] {
        check(
            f!("read {va:#x}"),
            !probe::catch(|| {
                read64(va);
            })
            .is_done(),
        );
    }
    pg::mmuext(mmu::EXT_NEW_BASEPTR, pg::l4().mfn(), 0).must("back");
    expect("unpin the copy", pg::unpin(copy), OK);
    expect("it is free", pg::make_rw(copy), OK);
    alive();
}
