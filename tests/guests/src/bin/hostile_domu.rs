//! Attack: a domU maps what is not its own: device memory, the low megabyte, the hypervisor's frames, dom0's frames and
//! tables, by every way; uses dom0's memory calls. Must happen: not one succeeds.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn body() {
    let window = unmapped_page();
    let slot = pg::slot(window.va, 1);
    let dom0_frame = child::inside::word(0).load(core::sync::atomic::Ordering::SeqCst);
    let mut allowed = 0;
    let l3_of_m2p = xen_frame();
    for mfn in (0..0x120).chain([
        0xfee00,
        0xfec00,
        0xfed00,
        0xfeb00,
        0xe0000,
        0xb0000,
        0x1_0000_0000,
        0xfff_ffff,
        dom0_frame,
        l3_of_m2p,
    ]) {
        for flags in [KERNEL_RW, KERNEL_RO, KERNEL_RO | 0x18, pg::P | pg::US] {
            for dom in [SELF, 0x7ff1, 0x7ff2, 0, 0x7ff4, 0x7fff] {
                allowed += u32::from(child::foreign_update(slot, (mfn * PAGE_SIZE) | flags, dom).0 >= 0);
            }
            allowed += u32::from(pg::update_va(window.va, (mfn * PAGE_SIZE) | flags).0 >= 0);
            allowed += u32::from(
                call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[window.va, (mfn * PAGE_SIZE) | flags, 0, 0]).0 >= 0,
            );
        }
        for cmd in [0, 1, 2, 3, 4, 5, 15, 16, 17] {
            if cmd == 15 && mfn == 0 {
                continue;
            }
            allowed += u32::from(pg::mmuext(cmd, mfn, mfn).0 >= 0);
            allowed += u32::from(child::foreign_mmuext(cmd, mfn, 0).0 >= 0);
        }
        let list = [mfn];
        allowed += u32::from(memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 0)).0 != 0);
        allowed +=
            u32::from(memory_op(OP_DECREASE_RESERVATION, &mut Reservation { domid: 0, ..extents(&list, 0) }).0 != 0);
    }
    expect("in the child: attempts allowed", allowed, 0);
    expect("in the child: the window is empty", Hex(pg::pte(window.va)), Hex(0));
    // cache attributes are for who has devices
    let p = Page::alloc();
    for bits in [8, 0x10, 0x18, 0x80] {
        refused(
            f!("in the child: its own page with cache bits {bits:#x}"),
            pg::update_va(p.va, p.ma() | KERNEL_RW | bits),
        );
    }
    for cmd in [OP_MACHINE_MEMORY_MAP, OP_SET_MEMORY_MAP, OP_ACQUIRE_RESOURCE] {
        let page = Page::alloc();
        let r = call(nr::MEMORY_OP, &[cmd, page.va]);
        refused(f!("in the child: memory_op {cmd}"), r);
    }
    for cmd in [OP_CURRENT_RESERVATION, OP_MAXIMUM_RESERVATION, OP_MAXIMUM_GPFN] {
        refused(f!("in the child: memory_op {cmd} of dom0"), memory_op(cmd, &mut 0u16));
    }
    // more than it may have
    let mut got = 0;
    for _ in 0..64 {
        let list = [window.pfn()];
        got += memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, 0)).0;
    }
    expect("in the child: pages beyond its limit", got, 0);
    // and, with room for it, larger blocks than are for a domain without devices
    child::inside::word(1).store(1, core::sync::atomic::Ordering::SeqCst);
    child::inside::wait_word(2, 1);
    for (order, got) in [(10, 0), (11, 0), (9, 1), (0, 1)] {
        let list = [window.pfn()];
        expect(
            f!("in the child: a block of order {order}"),
            memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, order)),
            Ret(got),
        );
    }
    alive();
}

fn run() {
    let c = Child::build(body, Spec::default());
    c.word(0).store(Page::alloc().mfn(), core::sync::atomic::Ordering::SeqCst);
    c.unpause().must("unpause");
    c.wait_word(1, 1);
    c.max_mem(4 * 4096).must("room for larger blocks");
    c.word(2).store(1, core::sync::atomic::Ordering::SeqCst);
    expect("the child", c.wait(), child::State::Finished);
    c.destroy();
    alive();
}
