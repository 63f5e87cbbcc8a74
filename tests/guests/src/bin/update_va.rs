//! update_va_mapping: addresses, flags and result codes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::read64;
use guests::paging::{DOMID_SELF, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;

guests::kernel!(run);

fn uvm(va: u64, entry: u64, flags: u64) -> Ret {
    call(nr::UPDATE_VA_MAPPING, &[va, entry, flags])
}

fn run() {
    let (page, other) = (Page::alloc(), Page::alloc());
    other.write(0, 0x600d);
    let e = other.ma() | KERNEL_RW;
    for flags in 0..8u64 {
        page.clear_mapping();
        obs(f!("flags {flags}"), uvm(page.va, e, flags));
    }
    expect("reads the new page", Hex(read64(page.va)), Hex(0x600d));
    let bitmap = 1u64;
    for kind in 0..4u64 {
        obs(f!("flags with a bitmap, kind {kind}"), uvm(page.va, e, (core::ptr::from_ref(&bitmap) as u64 & !7) | kind));
        obs(f!("flags with a bad bitmap, kind {kind}"), uvm(page.va, e, 0xffff_8300_0000_0000 | kind));
    }
    expect("low bits of the address do not count", uvm(page.va + 0x123, other.ma() | KERNEL_RO, 2), OK);
    check("the page is read-only now", paging::pte(page.va) & paging::RW == 0);
    expect("not present", uvm(page.va, 0, 2), OK);
    obs("then it faults", probe::kernel(code!("mov rax, [rdi]"), &Gprs { rdi: page.va, ..Gprs::ZERO }));
    expect("not present with junk", uvm(page.va, 0xffff_ffff_ffff_fffe, 2), OK);
    expect("reads back", Hex(paging::pte(page.va)), Hex(0xffff_ffff_ffff_fffe));
    for (name, va) in [
        ("no L4 entry", 0x1000u64),
        ("no L2 entry", 0xffff_ffff_c000_0000),
        ("non-canonical", 0x8000_0000_0000),
        ("the M2P", 0xffff_8000_0000_0000),
        ("the hypervisor", 0xffff_82d0_8000_0000),
        ("its last page", 0xffff_87ff_ffff_f000),
        ("first behind it", 0xffff_8800_0000_0000),
        ("the last page", 0xffff_ffff_ffff_f000),
    ] {
        obs(f!("map at: {name}"), uvm(va, e, 2));
        obs(f!("clear at: {name}"), uvm(va, 0, 2));
    }
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    expect("a table writable", uvm(page.va, table.ma() | KERNEL_RW, 2), errno(EBUSY));
    let other_domain = |dom: u64| call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[page.va, e, 2, dom]);
    for (name, dom) in
        [("self", DOMID_SELF), ("own id", 0), ("absent", 77), ("DOMID_IO", 0x7ff1), ("DOMID_XEN", 0x7ff2)]
    {
        page.clear_mapping();
        obs(f!("otherdomain {name}"), other_domain(dom));
    }
    obs(
        "otherdomain IO with MMIO",
        call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[page.va, 0xb_8000 | KERNEL_RW, 2, 0x7ff1]),
    );
}

trait ClearMapping {
    fn clear_mapping(&self);
}

impl ClearMapping for Page {
    fn clear_mapping(&self) {
        uvm(self.va, 0, 2).must("clear");
    }
}
