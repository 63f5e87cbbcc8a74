//! Trap tables without an end, over the end of a page, and full of odd entries.
//!
//! Attacks: set_trap_table reads entries until one is empty: a table that never ends, ends in unmapped memory, or names
//! handlers that are no addresses; vectors given twice; selectors of the hypervisor in the entries. Must happen: it stops;
//! what was taken before a bad entry counts; handlers run on flat segments whatever the entry's selector.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn entry(at: u64, vector: u64, flags: u64, cs: u64, address: u64) {
    mem::write64(at, vector | flags << 8 | cs << 16);
    mem::write64(at + 8, address);
}

fn run() {
    user::init();
    let edge = bad::edge();
    for i in 1..=256 {
        entry(edge - 16 * i, 6, 0, 0xe033, trap::stub(6));
    }
    obs("256 entries up to an edge", call(nr::SET_TRAP_TABLE, &[edge - 4096]));
    obs("255 entries and an edge", call(nr::SET_TRAP_TABLE, &[edge - 4080]));
    obs("half an entry", call(nr::SET_TRAP_TABLE, &[edge - 8]));
    let pages = Page::alloc();
    let more = Page::alloc();
    check("two pages follow each other", pages.va + PAGE_SIZE == more.va);
    for i in 0..512 {
        entry(pages.va + 16 * i, i % 256, 0, 0xe033, trap::stub(6));
    }
    obs("512 entries without an end", call(nr::SET_TRAP_TABLE, &[pages.va]));
    // the last of 300 is bad: seen by whoever reads as far
    entry(pages.va + 16 * 299, 6, 0, 0xe033, 1 << 47);
    obs("300 entries, the last one bad", call(nr::SET_TRAP_TABLE, &[pages.va]));
    trap::init();
    // a bad one behind a good one: the good one was taken
    entry(pages.va, 6, 0, 0xe033, trap::stub(3));
    entry(pages.va + 16, 13, 0, 0xe033, 0x8000_0000_0000);
    entry(pages.va + 32, 0, 0, 0, 0);
    obs("a good entry and a bad one", call(nr::SET_TRAP_TABLE, &[pages.va]));
    obs("#UD after it", probe::kernel(code!("ud2"), &Gprs::ZERO));
    obs("#GP after it", probe::kernel(code!("hlt"), &Gprs::ZERO));
    trap::init();
    for cs in [0u64, 3, 0x10, 0xe008, 0xe010, 0xe040, 0xffff, 0xe02b] {
        obs(f!("set with cs {cs:#x}"), trap::set(6, 0, cs as u16, trap::stub(6)));
        let o = probe::kernel(code!("ud2"), &Gprs::ZERO);
        obs(f!("#UD with cs {cs:#x}"), o);
        let now = probe::kernel(code!("xor eax, eax", "mov eax, cs"), &Gprs::ZERO).done("cs").rax;
        expect(f!("cs afterwards, {cs:#x}"), Hex(now), Hex(0xe033));
    }
    for flags in [0u64, 3, 4, 7, 8, 0x80, 0xff] {
        obs(f!("set with flags {flags:#x}"), trap::set_flags(3, flags as u8));
        events::mask().store(0, core::sync::atomic::Ordering::SeqCst);
        obs(f!("int3 of user mode with flags {flags:#x}"), user::run(code!("int3"), &Gprs::ZERO));
        obs(f!("the mask with flags {flags:#x}"), events::mask().load(core::sync::atomic::Ordering::SeqCst));
        events::quiet();
    }
    trap::init();
    // the last address that is one, and the handler at the first behind the hypervisor
    for at in [0x7fff_ffff_ffffu64, 0xffff_8000_0000_0000, 0xffff_87ff_ffff_ffff, 0xffff_8800_0000_0000, u64::MAX] {
        obs(f!("handler at {at:#x}"), trap::set(9, 0, 0xe033, at));
    }
    trap::init();
    alive();
}
