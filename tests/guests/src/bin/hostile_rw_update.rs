//! Attack: a page table or GDT page becomes writable by mmu_update, with each command, directly or through an upper table.
//! Must happen: each is refused, and the entry that was there stays.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, P, RW, TABLE};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

fn run() {
    let victims: [Page; 5] = core::array::from_fn(|i| {
        let t = pg::new_table();
        if i < 4 {
            pg::pin(t, i as u32 + 1).must("pin");
        } else {
            let list = [t.mfn()];
            call(nr::SET_GDT, &[list.as_ptr() as u64, 512]).must("set_gdt");
        }
        t
    });
    let window = Page::alloc();
    let slot = pg::slot(window.va, 1);
    for (name, v) in ["L1", "L2", "L3", "L4", "GDT"].iter().zip(victims) {
        for cmd in [mmu::NORMAL_PT_UPDATE, mmu::PT_UPDATE_PRESERVE_AD, mmu::PT_UPDATE_NO_TRANSLATE] {
            for flags in [KERNEL_RW, P | RW, P | RW | pg::US, P | RW | pg::NX, P | RW | 0x7ff << 52] {
                let before = pg::pte(window.va);
                refused(f!("{name}, command {cmd}, flags {flags:#x}"), pg::mmu_update(slot | cmd, v.ma() | flags));
                check(
                    f!("{name}, command {cmd}, flags {flags:#x}: left"),
                    pg::pte(window.va) & !(pg::A | pg::D) == before & !(pg::A | pg::D),
                );
            }
        }
        expect(f!("{name} read-only"), pg::mmu_update(slot, v.ma() | KERNEL_RO), OK);
        refused(f!("{name} read-only, then writable by the same entry"), pg::mmu_update(slot, v.ma() | KERNEL_RW));
        let kept = pg::pte(window.va);
        refused(
            f!("{name}: writable with the bits kept"),
            pg::mmu_update(slot | mmu::PT_UPDATE_PRESERVE_AD, v.ma() | P | RW),
        );
        check(f!("{name}: still read-only"), pg::pte(window.va) & RW == 0 && kept & RW == 0);
        pg::make_rw(window).must("window back");
        // an L1 prepared while it is data, then made a table
        let l1 = Page::alloc();
        l1.write(77, v.ma() | KERNEL_RW);
        pg::make_ro(l1).must("make_ro");
        refused(f!("an L1 that maps {name} writable, pinned"), pg::pin(l1, 1));
        let l2 = pg::new_table();
        pg::pin(l2, 2).must("pin");
        refused(f!("the same for {name}, hooked in"), pg::mmu_update(l2.ma(), l1.ma() | TABLE));
    }
    alive();
}
