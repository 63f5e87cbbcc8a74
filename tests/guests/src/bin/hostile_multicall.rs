//! Multicalls that nest, write over themselves, lose their list, or never end.
//!
//! Attacks: a list inside a list, iret in a list, an entry whose own result falls on the next entry's number or on its
//! own arguments, an entry that unmaps the list, entries that yield, block or wait, counts of 2^32 - 1. Must happen: each
//! entry is read once and done as read; the call ends with an error or after its last entry; nothing is done twice.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::mmu::MulticallEntry;

guests::kernel!(run);

fn entry(op: u64, args: &[u64]) -> MulticallEntry {
    let mut e = MulticallEntry { op, result: 0x7777, ..MulticallEntry::default() };
    e.args[..args.len()].copy_from_slice(args);
    e
}

fn put(at: u64, e: &MulticallEntry) {
    // SAFETY: mapped memory of 64 bytes.
    unsafe { (at as *mut MulticallEntry).write_volatile(*e) };
}

fn result(at: u64, i: u64) -> Ret {
    Ret(mem::read64(at + 64 * i + 8) as i64)
}

fn run() {
    let page = Page::alloc();
    let at = page.va;
    let version = entry(nr::XEN_VERSION as u64, &[0]);
    // nesting
    put(at, &entry(nr::MULTICALL as u64, &[at, 2]));
    put(at + 64, &version);
    obs("a list in a list", call(nr::MULTICALL, &[at, 2]));
    obs("its result, and the next one's", f!("{} {}", result(at, 0), result(at, 1)));
    put(at, &entry(nr::IRET as u64, &[]));
    obs("iret in a list, alone", {
        // Xen crashes the domain where the frame is bad: only its refusal can be tried
        result(at, 0)
    });
    // results over what comes next
    for shift in [8u64, 16, 24, 56, 64, 72] {
        page.clear();
        // get_features writes 8 bytes at its argument, where the next entries are
        put(at, &entry(nr::XEN_VERSION as u64, &[6, at + 64 + shift - 8]));
        put(at + 64, &version);
        put(at + 128, &version);
        mem::write64(at + 64 + shift - 8, 0);
        let r = call(nr::MULTICALL, &[at, 3]);
        obs(
            f!("an answer over the next entry at {shift}"),
            f!("{r} {} {} {}", result(at, 0), result(at, 1).0 >> 16, result(at, 2).0 >> 16),
        );
    }
    page.clear();
    put(at, &entry(nr::XEN_VERSION as u64, &[6, at + 16]));
    obs("an answer over its own arguments", f!("{} {}", call(nr::MULTICALL, &[at, 1]), result(at, 0)));
    // the list goes away under itself
    let list = Page::alloc();
    put(list.va, &version);
    put(list.va + 64, &entry(nr::UPDATE_VA_MAPPING as u64, &[list.va, 0, 2]));
    put(list.va + 128, &version);
    obs("a list that unmaps itself", call(nr::MULTICALL, &[list.va, 3]));
    paging::make_rw(list).must("map");
    obs("its results", f!("{} {} {}", result(list.va, 0).0 >> 16, result(list.va, 1), result(list.va, 2)));
    put(list.va + 64, &entry(nr::UPDATE_VA_MAPPING as u64, &[list.va, list.ma() | paging::KERNEL_RO, 2]));
    put(list.va + 128, &version);
    obs("a list that makes itself read-only", call(nr::MULTICALL, &[list.va, 3]));
    paging::make_rw(list).must("map");
    obs("its result", result(list.va, 1));
    // entries that give up the CPU
    put(at, &entry(nr::SCHED_OP as u64, &[0]));
    put(at + 64, &entry(nr::SCHED_OP as u64, &[0]));
    put(at + 128, &version);
    obs(
        "yields in a list",
        f!("{} {} {} {}", call(nr::MULTICALL, &[at, 3]), result(at, 0), result(at, 1), result(at, 2).0 >> 16),
    );
    let mut p = pv_abi::sched::Poll { timeout: events::now() + 2_000_000, ..Default::default() };
    put(at, &entry(nr::SCHED_OP as u64, &[3, core::ptr::from_mut(&mut p) as u64]));
    put(at + 64, &version);
    obs("a wait in a list", f!("{} {} {}", call(nr::MULTICALL, &[at, 2]), result(at, 0), result(at, 1).0 >> 16));
    // counts
    let edge = bad::edge();
    put(edge - 64, &version);
    for count in [1u64, 2, 0x7fff_ffff, 0xffff_ffff, 1 << 32 | 1] {
        mem::write64(edge - 56, 0x7777);
        obs(
            f!("{count:#x} entries, one is there"),
            f!("{} {}", call(nr::MULTICALL, &[edge - 64, count]), result(edge - 64, 0).0 >> 16),
        );
    }
    obs("a list off its alignment", {
        put(at + 4, &version);
        call(nr::MULTICALL, &[at + 4, 1])
    });
    for op in [64u64, 0xffff_ffff, 1 << 32, (1 << 32) + 17, u64::MAX] {
        put(at, &entry(op, &[0]));
        obs(f!("operation {op:#x}"), f!("{} {}", call(nr::MULTICALL, &[at, 1]), result(at, 0)));
    }
    alive();
}
