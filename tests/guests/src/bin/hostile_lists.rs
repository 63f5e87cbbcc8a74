//! Attack: lists that lie in what they change: the done count inside the list, results of a multicall over its own
//! entries, update lists in pages that become read-only under way, lists of a million. Must happen: errors or the asked
//! for, no endless loop, no table written unchecked.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::memory::*;
use pv_abi::mmu::MulticallEntry;

guests::kernel!(run);

fn run() {
    let (list, target) = (Page::alloc(), Page::alloc());
    let slot = pg::slot(target.va, 1);
    // done inside the list, at each word of it
    for at in 0..8u64 {
        for i in 0..4 {
            list.write(2 * i, slot);
            list.write(2 * i + 1, target.ma() | KERNEL_RW);
        }
        let r = call(nr::MMU_UPDATE, &[list.va, 4, list.va + 8 * at, pg::DOMID_SELF]);
        expect(f!("done in word {at}"), r, OK);
        expect(f!("done in word {at}: it"), list.read(at as usize) as u32, 4);
    }
    // the list's own page made read-only by the list, then another entry and the count
    let own = pg::slot(list.va, 1);
    for (i, (p, v)) in
        [(own, list.ma() | KERNEL_RO), (slot, target.ma() | KERNEL_RO), (own, 0), (slot, target.ma() | KERNEL_RW)]
            .iter()
            .enumerate()
    {
        list.write(2 * i, *p);
        list.write(2 * i + 1, *v);
    }
    let mut done = 0u32;
    let r = call(nr::MMU_UPDATE, &[list.va, 4, core::ptr::from_mut(&mut done) as u64, pg::DOMID_SELF]);
    check("a list that unmaps itself goes on or stops", r == OK && done == 4 || r.0 < 0 && done == 3);
    pg::update_va(list.va, list.ma() | KERNEL_RW).must("map the list");
    pg::update_va(target.va, target.ma() | KERNEL_RW).must("map the target");
    // huge counts: junk in the second entry
    list.write(0, slot);
    list.write(1, target.ma() | KERNEL_RW);
    list.write(2, 4);
    for count in [0x7fff_ffffu64, 0xffff_ffff, 0x1_0000_0002, u64::MAX] {
        let r = call(nr::MMU_UPDATE, &[list.va, count, core::ptr::from_mut(&mut done) as u64, pg::DOMID_SELF]);
        check(f!("a count of {count:#x} stops at junk"), r.0 < 0);
    }
    // a multicall whose results and entries overlap
    for shift in 0..8u64 {
        for i in 0..3usize {
            list.write(8 * i, nr::XEN_VERSION as u64);
            (1..8).for_each(|j| list.write(8 * i + j, 0));
        }
        // its second entry copies a structure over the third
        list.write(8, nr::MEMORY_OP as u64);
        list.write(8 + 2, OP_MACHPHYS_MAPPING);
        list.write(8 + 3, list.va + 64 * 2 + 8 * shift);
        let r = call(nr::MULTICALL, &[list.va, 3]);
        check(f!("a multicall over itself, {shift}"), r.0 <= 0);
    }
    for op in [nr::MULTICALL as u64, u64::MAX, 1 << 32, 49, nr::MMU_UPDATE as u64 | (1 << 63)] {
        let mut e = [MulticallEntry { op, result: 0, args: [0; 6] }; 2];
        let r = call(nr::MULTICALL, &[e.as_mut_ptr() as u64, 2]);
        check(f!("a multicall of {op:#x}"), r == OK && e[0].result < 0 && e[1].result < 0);
    }
    // the multicall's own list becomes read-only by its first entry
    list.write(0, nr::UPDATE_VA_MAPPING as u64);
    (1..8).for_each(|j| list.write(j, 0));
    list.write(2, list.va);
    list.write(3, list.ma() | KERNEL_RO);
    list.write(4, pv_abi::mmu::UVMF_INVLPG);
    list.write(8, nr::UPDATE_VA_MAPPING as u64);
    (9..16).for_each(|j| list.write(j, 0));
    list.write(10, target.va);
    refused("a multicall that makes its list read-only", call(nr::MULTICALL, &[list.va, 2]));
    check("its second entry did not run", pg::pte(target.va) & 1 != 0);
    pg::make_rw(list).must("map the list");
    // reservations whose list is the page given back
    list.write(0, list.mfn());
    expect(
        "a list that gives its own page back",
        memory_op(
            OP_DECREASE_RESERVATION,
            &mut Reservation { extent_start: list.va, nr_extents: 1, domid: SELF, ..Reservation::default() },
        ),
        Ret(1),
    );
    list.write(1, 7);
    check("the page stays as long as it is mapped", list.read(1) == 7);
    alive();
}
