//! Attack: the machine-to-phys table: written directly, its frames mapped, frames of others renumbered, its frames taken
//! as tables. Must happen: refused; only one's own frames can be renumbered.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::mem::{pfn_of, write64};
use guests::paging::{self as pg, FRAME, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

const M2P: u64 = 0xffff_8000_0000_0000;

fn run() {
    let own = Page::alloc();
    for (name, mfn) in
        [("its own frame", own.mfn()), ("frame 0", 0), ("the hypervisor's frame", xen_frame()), ("a far one", 0x1_0000)]
    {
        check(f!("store to the number of {name}"), !probe::catch(|| write64(M2P + 8 * mfn, 1)).is_done());
        let before = pfn_of(mfn);
        let r = pg::mmu_update((mfn * PAGE_SIZE) | mmu::MACHPHYS_UPDATE, 0x7777);
        if mfn == own.mfn() {
            expect(f!("renumber {name}"), r, OK);
            expect("reads back", pfn_of(mfn), 0x7777);
            pg::mmu_update((mfn * PAGE_SIZE) | mmu::MACHPHYS_UPDATE, before).must("number it back");
        } else {
            refused(f!("renumber {name}"), r);
            check(f!("{name} keeps its number"), pfn_of(mfn) == before);
        }
    }
    for mfn in [0xfee00, 0xfff_ffff, 0xff_ffff_ffff, u64::MAX >> 12] {
        refused(f!("renumber {mfn:#x}"), pg::mmu_update((mfn * PAGE_SIZE) | mmu::MACHPHYS_UPDATE, 1));
    }
    // the frames of the table, as the L4 names them (what is no table of ours cannot be walked further)
    let l3 = pg::l4().read(256) & FRAME;
    let window = Page::alloc();
    for flags in [KERNEL_RW, KERNEL_RO, pg::P | pg::US] {
        refused(f!("map the M2P's L3, {flags:#x}"), pg::update_va(window.va, l3 | flags));
    }
    for level in 1..=4 {
        refused(f!("the M2P's L3 as L{level}"), pg::mmuext(mmu::EXT_PIN_L1_TABLE + level - 1, l3 / PAGE_SIZE, 0));
    }
    refused("update an entry of the M2P's L3", pg::mmu_update(l3, 0));
    refused("clear it", pg::mmuext(mmu::EXT_CLEAR_PAGE, l3 / PAGE_SIZE, 0));
    refused("copy to it", pg::mmuext(mmu::EXT_COPY_PAGE, l3 / PAGE_SIZE, own.mfn()));
    for va in [M2P, M2P + 0x1000, M2P + (1 << 30)] {
        refused(f!("map a page at {va:#x}"), pg::update_va(va, own.ma() | KERNEL_RW));
    }
    check(
        "execute it",
        !probe::catch(|| {
            // SAFETY: none: the jump must fault.
            let f: extern "C" fn() = unsafe { core::mem::transmute(M2P as *const ()) };
            f();
        })
        .is_done(),
    );
    alive();
}
