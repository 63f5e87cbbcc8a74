//! Attack: a descriptor page the hypervisor itself writes (shared_info, grant table, vcpu_info), device memory, pages of
//! nobody and tables as GDT or LDT; system descriptors put in by every call that stores. Must happen: refused; a GDT
//! never holds a present system descriptor or one below DPL 3 that could be loaded.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::mmu;

guests::kernel!(run);

fn set_gdt(frames: &[u64], entries: u64) -> Ret {
    call(nr::SET_GDT, &[frames.as_ptr() as u64, entries])
}

/// Present, DPL 3 call gate to the hypervisor's code at an address of the guest's choice: what an attacker wants.
const GATE: u64 = 0x0000_ec00_e008_1234;
/// Other descriptors that must not be in a GDT: LDT, TSS, interrupt gate, trap gate, task gate.
const BAD: [(&str, u64); 6] = [
    ("a call gate to the hypervisor", GATE),
    ("an LDT", 0x0000_8200_0000_0fff),
    ("a TSS", 0x0000_8900_0000_0067),
    ("an interrupt gate", 0x0000_ee00_e008_0000),
    ("a trap gate", 0x0000_ef00_e008_0000),
    ("a task gate", 0x0000_e500_0028_0000),
];

fn run() {
    let shared = start_info().shared_info / PAGE_SIZE;
    let table = grant_table();
    let grant_frame = (pg::pte(table.va) & pg::FRAME) / PAGE_SIZE;
    pg::update_va(table.va, 0).must("unmap the grant table");
    refused("shared_info as GDT while it is mapped", set_gdt(&[shared], 512));
    pg::update_va(events::shared(0), 0).must("unmap shared_info");
    refused("shared_info as GDT", set_gdt(&[shared], 512));
    refused("a grant-table frame as GDT", set_gdt(&[grant_frame], 512));
    for level in 1..=4 {
        refused(f!("shared_info as L{level}"), pg::mmuext(mmu::EXT_PIN_L1_TABLE + level - 1, shared, 0));
        refused(f!("a grant-table frame as L{level}"), pg::mmuext(mmu::EXT_PIN_L1_TABLE + level - 1, grant_frame, 0));
    }
    pg::update_va(events::shared(0), start_info().shared_info | pg::KERNEL_RW).must("map shared_info");
    for (name, frame) in [
        ("the hypervisor's frame", xen_frame()),
        ("the LAPIC", 0xfee00),
        ("the VGA window", 0xb8),
        ("beyond RAM", 0xfff_ffff),
        ("no frame", u64::MAX),
        ("frame 0", 0),
    ] {
        refused(f!("{name} as GDT"), set_gdt(&[frame], 512));
    }
    let page = Page::alloc();
    refused("a writable page as GDT", set_gdt(&[page.mfn()], 512));
    for (name, bad) in BAD {
        for at in [0, 3, 511] {
            let p = Page::alloc();
            p.write(at, bad);
            pg::make_ro(p).must("make_ro");
            refused(f!("{name} at {at}"), set_gdt(&[p.mfn()], 512));
            refused(f!("{name} at {at}, few entries"), set_gdt(&[p.mfn()], 1));
            check(f!("{name} at {at}: not in use"), pg::make_rw(p) == OK);
        }
    }
    let gdt = pg::new_table();
    set_gdt(&[gdt.mfn()], 512).must("set_gdt");
    let filler = Page::alloc();
    filler.write(5, GATE);
    for (name, bad) in BAD {
        refused(f!("{name} by update_descriptor"), call(nr::UPDATE_DESCRIPTOR, &[gdt.ma() + 40, bad]));
        refused(f!("{name} by mmu_update"), pg::mmu_update(gdt.ma() + 40, bad));
    }
    refused("by copying a page", pg::mmuext(mmu::EXT_COPY_PAGE, gdt.mfn(), filler.mfn()));
    check("by storing", !probe::catch(|| gdt.write(5, GATE)).is_done());
    expect("the entry", Hex(gdt.read(5)), Hex(0));
    expect(
        "data of DPL 0 by update_descriptor",
        call(nr::UPDATE_DESCRIPTOR, &[gdt.ma() + 40, 0x00cf_9300_0000_ffff]),
        OK,
    );
    expect("is raised", Hex(gdt.read(5)), Hex(0x00cf_f300_0000_ffff));
    refused("15 pages", set_gdt(&[gdt.mfn(); 16], 15 * 512));
    refused("endless entries", set_gdt(&[gdt.mfn(); 16], u64::MAX));
    refused("one bad page among good ones", set_gdt(&[gdt.mfn(), gdt.mfn(), xen_frame(), gdt.mfn()], 2048));
    expect("the old GDT stays", pg::make_rw(gdt), errno(EBUSY));
    expect("none", set_gdt(&[], 0), OK);
    expect("the page is free", pg::make_rw(gdt), OK);
    alive();
}
