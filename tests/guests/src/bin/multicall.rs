//! multicall: results, order, nesting, and what a failing entry does.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::mmu::MulticallEntry;
use pv_abi::version;

guests::kernel!(run);

fn entry(op: u64, args: &[u64]) -> MulticallEntry {
    let mut e = MulticallEntry { op, result: 0x5555, args: [0; 6] };
    e.args[..args.len()].copy_from_slice(args);
    e
}

fn multi(list: &mut [MulticallEntry]) -> Ret {
    call(nr::MULTICALL, &[list.as_mut_ptr() as u64, list.len() as u64])
}

fn run() {
    let page = Page::alloc();
    let version = || entry(nr::XEN_VERSION as u64, &[version::OP_VERSION, 0]);
    let mut list = [
        version(),
        entry(nr::UPDATE_VA_MAPPING as u64, &[page.va, 0, 2]),
        entry(1 << 40 | nr::XEN_VERSION as u64, &[0, 0]),
        entry(63, &[]),
        entry(64, &[]),
        entry(49, &[]),
        entry(u64::MAX, &[]),
        entry(nr::UPDATE_VA_MAPPING as u64, &[0x1000, 0, 2]),
        entry(nr::MULTICALL as u64, &[0, 0]),
        entry(nr::STACK_SWITCH as u64, &[0xe02b, user::kernel_stack_top()]),
        entry(nr::FPU_TASKSWITCH as u64, &[0]),
        entry(nr::SCHED_OP as u64, &[0, 0]),
        version(),
    ];
    expect("a list", multi(&mut list), OK);
    for (i, e) in list.iter().enumerate() {
        obs(f!("entry {i}"), Ret(e.result));
    }
    check("arguments survive", list[1].args[0] == page.va && list[1].args[2] == 2);
    check("the mapping is gone", paging::pte(page.va) == 0);
    expect("a list of none", call(nr::MULTICALL, &[0, 0]), OK);
    obs("null list", call(nr::MULTICALL, &[0, 1]));
    obs("list in the hypervisor", call(nr::MULTICALL, &[0xffff_8300_0000_0000, 1]));
    obs("non-canonical list", call(nr::MULTICALL, &[0x8000_0000_0000, 1]));
    // the second entry of the list lies on a page that is not there
    let edge = Page::alloc();
    let behind = Page::alloc();
    paging::update_va(behind.va, 0).must("unmap");
    let at = edge.va + 4096 - 64;
    // SAFETY: the last 64 bytes of an own page.
    unsafe { (at as *mut MulticallEntry).write_volatile(version()) };
    obs("list running into a hole", call(nr::MULTICALL, &[at, 2]));
    // SAFETY: as above.
    obs("its first entry", Ret(unsafe { (*(at as *const MulticallEntry)).result }));
    // a read-only list: the result cannot be written
    paging::make_ro(edge).must("make_ro");
    obs("read-only list", call(nr::MULTICALL, &[at, 1]));
    batch();
    order();
}

/// Long enough to be preempted.
fn batch() {
    static LIST: mem::Racy<[MulticallEntry; 1024]> =
        mem::Racy::new([MulticallEntry { op: 17, result: 1, args: [0; 6] }; 1024]);
    // SAFETY: only this function uses it.
    let list = unsafe { &mut *LIST.get() };
    expect("a thousand entries", multi(list), OK);
    check("all have their result", list.iter().all(|e| e.result == 0x4_0011));
}

/// Each entry sees what those before it did.
fn order() {
    let (a, b) = (Page::alloc(), Page::alloc());
    let list = [
        entry(nr::MMUEXT_OP as u64, &[0, 0, 0, paging::DOMID_SELF]),
        entry(nr::UPDATE_VA_MAPPING as u64, &[a.va, b.ma() | paging::KERNEL_RW, 2]),
        entry(nr::UPDATE_VA_MAPPING as u64, &[b.va, b.ma() | paging::KERNEL_RO, 2]),
        entry(nr::UPDATE_VA_MAPPING as u64, &[a.va, b.ma() | paging::KERNEL_RO, 2]),
    ];
    let pin = pv_abi::mmu::MmuextOp { cmd: 0, pad: 0, arg1: b.mfn(), arg2: 0 };
    let pins = [entry(nr::MMUEXT_OP as u64, &[core::ptr::from_ref(&pin) as u64, 1, 0, paging::DOMID_SELF])];
    let mut all = [list[0], list[1], list[2], list[3], pins[0]];
    expect("updates and a pin", multi(&mut all), OK);
    for (i, e) in all.iter().enumerate() {
        obs(f!("step {i}"), Ret(e.result));
    }
}
