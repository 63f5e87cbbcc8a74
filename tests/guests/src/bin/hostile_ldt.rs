//! Attack: LDT pages that are writable, tables, the hypervisor's, that hold system descriptors, that change after they were
//! used. Must happen: a fault for the guest; a page in use as LDT cannot be made writable.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

fn set_ldt(va: u64, entries: u64) -> Ret {
    pg::mmuext(mmu::EXT_SET_LDT, va, entries)
}

/// Loads selector `index` of the LDT into ES.
fn load(index: u64) -> bool {
    probe::kernel(code!("mov es, ax", "xor eax, eax", "mov es, ax"), &Gprs { rax: index * 8 + 7, ..Gprs::ZERO })
        .is_done()
}

const DATA: u64 = 0x00cf_f300_0000_ffff;

fn run() {
    let p = Page::alloc();
    p.write(0, DATA);
    p.write(511, DATA);
    expect("an LDT on a writable page", set_ldt(p.va, 512), OK);
    check("it does not load", !load(0));
    pg::make_ro(p).must("make_ro");
    check("read-only, it does", load(0) && load(511));
    refused("writable while it is in use", pg::make_rw(p));
    refused("pinned while it is in use", pg::pin(p, 1));
    refused(
        "a system descriptor by update_descriptor",
        call(nr::UPDATE_DESCRIPTOR, &[p.ma() + 8, 0x0000_ec00_e008_0000]),
    );
    refused("by mmu_update", pg::mmu_update(p.ma() + 8, 0x0000_ec00_e008_0000));
    expect("no LDT", set_ldt(0, 0), OK);
    check("nothing loads", !load(0));
    expect("it is free", pg::make_rw(p), OK);
    for (name, bad) in [
        ("a gate to the hypervisor", 0x0000_ec00_e008_0000u64),
        ("a TSS", 0x0000_8900_0000_0067),
        ("an LDT", 0x0000_8200_0000_0067),
    ] {
        p.write(7, bad);
        pg::make_ro(p).must("make_ro");
        expect(f!("an LDT with {name}"), set_ldt(p.va, 512), OK);
        check(f!("with {name} nothing of the page loads"), !load(0));
        set_ldt(0, 0).must("no LDT");
        pg::make_rw(p).must("make_rw");
    }
    p.write(7, 0);
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    expect("an LDT on a table", set_ldt(table.va, 512), OK);
    check("does not load", !load(0));
    for (name, va, entries) in [
        ("the hypervisor", XEN_VA, 1),
        ("the M2P", 0xffff_8000_0000_0000, 512),
        ("no address", NON_CANONICAL, 1),
        ("the end", !0xfff, 1024),
        ("unmapped", 0x7000_0000_0000, 8),
    ] {
        let r = set_ldt(va, entries);
        check(f!("{name}: refused or nothing loads"), r.0 < 0 || !load(0));
    }
    refused("8193 entries", set_ldt(p.va, 8193));
    refused("unaligned", set_ldt(p.va + 8, 1));
    // mapped away and to another page after it was used
    p.write(0, DATA);
    pg::make_ro(p).must("make_ro");
    set_ldt(p.va, 512).must("set_ldt");
    check("loads", load(0));
    let q = Page::alloc();
    expect("its address leads to another page", pg::update_va(p.va, q.ma() | pg::KERNEL_RW), OK);
    let alias = Page::alloc();
    refused("the page behind is still a descriptor page", pg::update_va(alias.va, p.ma() | pg::KERNEL_RW));
    set_ldt(0, 0).must("no LDT");
    expect("now it is free", pg::update_va(alias.va, p.ma() | pg::KERNEL_RW), OK);
    alive();
}
