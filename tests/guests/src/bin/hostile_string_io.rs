//! INS and OUTS with counts, directions, sizes and addresses that are wrong.
//!
//! Attacks: string I/O emulation that runs for ever, writes past a page, ignores segment bases or address sizes, or
//! touches memory of the hypervisor. Must happen: faults at the address the instruction names, RCX and the index tell how
//! far it got, and a count of 2^64 - 1 can be interrupted.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn show(name: impl core::fmt::Display, o: Outcome, base: u64) {
    match o {
        Outcome::Done(g) => obs(
            name,
            f!("ran rcx {:#x} rdi {:#x} rsi {:#x}", g.rcx, g.rdi.wrapping_sub(base), g.rsi.wrapping_sub(base)),
        ),
        Outcome::Trap(t) => obs(
            name,
            f!(
                "{t} at +{} cr2 {:#x} rcx {:#x} rdi {:#x} rsi {:#x}",
                t.rip.wrapping_sub(probe::code_page().va),
                t.cr2.wrapping_sub(base),
                t.rcx,
                t.gprs.rdi.wrapping_sub(base),
                t.gprs.rsi.wrapping_sub(base)
            ),
        ),
    }
}

fn run() {
    call_ref(nr::PHYSDEV_OP, pv_abi::physdev::OP_SET_IOPL, &mut pv_abi::physdev::SetIopl { iopl: 1 }).must("set_iopl");
    let edge = bad::edge();
    // port 0x1230: nobody there
    let regs = |at: u64, rcx: u64| Gprs { rdx: 0x1230, rcx, rdi: at, rsi: at, ..Gprs::ZERO };
    show("rep insb over the end of a page", probe::kernel(code!("rep insb"), &regs(edge - 4, 16)), edge);
    show("rep insd over the end of a page", probe::kernel(code!("rep insd"), &regs(edge - 10, 16)), edge);
    show("rep outsb over the end of a page", probe::kernel(code!("rep outsb"), &regs(edge - 4, 16)), edge);
    show("rep outsw over the end of a page", probe::kernel(code!("rep outsw"), &regs(edge - 3, 16)), edge);
    show("insb downwards", probe::kernel(code!("std", "rep insb", "cld"), &regs(edge - 1, 16)), edge);
    show("rep with rcx 0", probe::kernel(code!("rep insb"), &regs(0x10_0000, 0)), 0x10_0000);
    for (name, at) in bad::POINTERS {
        show(f!("insb, {name}"), probe::kernel(code!("insb"), &regs(at, 1)), at);
        show(f!("outsd, {name}"), probe::kernel(code!("outsd"), &regs(at, 1)), at);
        show(f!("rep insw, {name}"), probe::kernel(code!("rep insw"), &regs(at, 1 << 40)), at);
    }
    let page = Page::alloc();
    paging::make_ro(page).must("read-only");
    show("insb to a read-only page", probe::kernel(code!("insb"), &regs(page.va, 1)), page.va);
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    show("insd to a page table", probe::kernel(code!("insd"), &regs(table.va, 1)), table.va);
    check("the page table is as it was", table.read(0) == 0);
    paging::unpin(table).must("unpin");
    // a segment override, an address size: only what the CPU would take
    let low = 0x5000_0000u64;
    let target = Page::alloc();
    paging::map(low, target.ma() | paging::KERNEL_RW);
    smp::set_base(smp::segbase::FS, low).must("FS base");
    target.write(0, 0x1122_3344_5566_7788);
    show("outsb from fs:0", probe::kernel(&[0x64, 0x6e], &regs(0, 1)), 0);
    show("insb with a 32-bit address", probe::kernel(&[0x67, 0x6c], &regs(low | 0xdead_0000_0000_0000, 1)), low);
    show(
        "rep insb with a 32-bit address and count",
        probe::kernel(&[0x67, 0xf3, 0x6c], &regs(low, 0xffff_ffff_0000_0002)),
        low,
    );
    smp::set_base(smp::segbase::FS, 0).must("FS base");
    alive();
}
