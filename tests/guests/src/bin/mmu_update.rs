//! mmu_update: commands, result codes, and the count of what was done.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::pfn_of;
use guests::paging::{
    DOMID_SELF, FRAME, KERNEL_RO, KERNEL_RW, P, RW, make_ro, make_rw, mmu_updates, new_table, pin, update_va,
};
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::mmu::{MACHPHYS_UPDATE, MmuUpdate, PT_UPDATE_NO_TRANSLATE, PT_UPDATE_PRESERVE_AD};

guests::kernel!(run);

fn one(name: impl core::fmt::Display, ptr: u64, val: u64) -> Ret {
    let (r, done) = mmu_updates(&[MmuUpdate { ptr, val }]);
    obs(f!("{name}"), r);
    obs(f!("{name}, done"), done as i32);
    r
}

fn raw(list: &[MmuUpdate], count: u64, done: u64, dom: u64) -> Ret {
    call(nr::MMU_UPDATE, &[list.as_ptr() as u64, count, done, dom])
}

fn run() {
    let (data, t) = (Page::alloc(), new_table());
    pin(t, 1).must("pin");
    commands(data, t);
    batches(data, t);
    arguments(data, t);
    machphys();
    ordinary();
    foreign(t);
}

fn commands(data: Page, t: Page) {
    one("a new entry", t.ma(), data.ma() | KERNEL_RW);
    obs("reads", flags_of(t.read(0)));
    one("a refused entry", t.ma(), t.ma() | KERNEL_RW);
    obs("still reads", flags_of(t.read(0)));
    one("misaligned by 4", t.ma() + 4, data.ma() | KERNEL_RW);
    for cmd in 4..8 {
        one(f!("command {cmd}"), t.ma() + cmd, data.ma() | KERNEL_RW);
    }
    // P|RW without A and D; the update must keep the bits the entry has
    one("clear A and D", t.ma(), data.ma() | P | RW);
    obs("A and D cleared", flags_of(t.read(0)));
    one("set A and D", t.ma(), data.ma() | KERNEL_RW);
    one("preserve A and D", t.ma() | PT_UPDATE_PRESERVE_AD, data.ma() | P);
    obs("A and D preserved", flags_of(t.read(0)));
    one("preserve on an empty entry", (t.ma() + 8) | PT_UPDATE_PRESERVE_AD, data.ma() | P);
    obs("nothing to preserve", flags_of(t.read(1)));
    one("no translate", (t.ma() + 16) | PT_UPDATE_NO_TRANSLATE, data.ma() | KERNEL_RW);
    obs("no translate reads", flags_of(t.read(2)));
    one("the last entry", t.ma() + 4088, data.ma() | KERNEL_RO);
}

fn batches(data: Page, t: Page) {
    let good = |i: u64| MmuUpdate { ptr: t.ma() + 8 * i, val: data.ma() | KERNEL_RW };
    let bad = MmuUpdate { ptr: t.ma() + 800, val: t.ma() | KERNEL_RW };
    let show = |name: &str, list: &[MmuUpdate]| {
        let (r, done) = mmu_updates(list);
        obs(f!("{name}"), r);
        obs(f!("{name}, done"), done as i32);
    };
    show("none", &[]);
    show("three good", &[good(20), good(21), good(22)]);
    show("second bad", &[good(30), bad, good(31)]);
    check("before the bad one was done", t.read(30) != 0);
    check("behind the bad one was not", t.read(31) == 0);
    show("last bad", &[good(40), good(41), bad]);
    let mut many = [MmuUpdate::default(); 256];
    for (i, m) in many.iter_mut().enumerate() {
        *m = good(i as u64);
    }
    show("256 good", &many);
    many[255] = bad;
    show("255 good and a bad one", &many);
}

fn arguments(data: Page, t: Page) {
    let good = [MmuUpdate { ptr: t.ma() + 8, val: data.ma() | KERNEL_RW }];
    let bad = [MmuUpdate { ptr: t.ma() + 8, val: t.ma() | KERNEL_RW }];
    expect("null done pointer", raw(&good, 1, 0, DOMID_SELF), OK);
    obs("bad done pointer", raw(&good, 1, 0xffff_8300_0000_0000, DOMID_SELF));
    obs("bad done pointer and a bad entry", raw(&bad, 1, 0xffff_8300_0000_0000, DOMID_SELF));
    expect("null list", call(nr::MMU_UPDATE, &[0, 1, 0, DOMID_SELF]), errno(EFAULT));
    expect("null list of none", call(nr::MMU_UPDATE, &[0, 0, 0, DOMID_SELF]), OK);
    expect("list in the hypervisor", call(nr::MMU_UPDATE, &[0xffff_8300_0000_0000, 1, 0, DOMID_SELF]), errno(EFAULT));
    expect(
        "list at a non-canonical address",
        call(nr::MMU_UPDATE, &[0x8000_0000_0000, 1, 0, DOMID_SELF]),
        errno(EFAULT),
    );
    for (name, dom) in [
        ("own id", 0u64),
        ("absent", 77),
        ("DOMID_FIRST_RESERVED", 0x7ff0 - 1),
        ("DOMID_IO", 0x7ff1),
        ("DOMID_XEN", 0x7ff2),
        ("DOMID_INVALID", 0x7ff4),
        ("page-table owner absent", DOMID_SELF | 78 << 16),
        ("page-table owner self + 1", DOMID_SELF | 1 << 16),
    ] {
        // from an empty entry, or only its flags would change
        paging::mmu_update(t.ma() + 8, 0).must("clear");
        obs(f!("domain: {name}"), raw(&good, 1, 0, dom));
    }
    let mmio = [MmuUpdate { ptr: t.ma() + 16, val: 0xb_8000 | KERNEL_RW }];
    expect("MMIO under DOMID_IO", raw(&mmio, 1, 0, 0x7ff1), OK);
    obs("reads as", flags_of(t.read(2)));
    expect("MMIO under DOMID_SELF", raw(&mmio, 1, 0, DOMID_SELF), OK);
    t_clear(t);
}

fn t_clear(t: Page) {
    for i in 0..512 {
        paging::mmu_update(t.ma() + 8 * i, 0).must("clear");
    }
}

fn machphys() {
    let page = Page::alloc();
    let (mfn, pfn) = (page.mfn(), page.pfn());
    one("machphys", page.ma() | MACHPHYS_UPDATE, 0x1234);
    expect("M2P", Hex(pfn_of(mfn)), Hex(0x1234));
    one("machphys back", page.ma() | MACHPHYS_UPDATE, pfn);
    check("M2P back", pfn_of(mfn) == pfn);
    let xen = paging::l4().read(256) & FRAME;
    one("machphys of the hypervisor's frame", xen | MACHPHYS_UPDATE, 1);
    one("machphys of MMIO", 0xb_8000 | MACHPHYS_UPDATE, 1);
    one("machphys beyond memory", 0xff_ffff_f000 | MACHPHYS_UPDATE, 1);
    let free = (0x4000..0x1e000).find(|m| pfn_of(*m) >= start_info().nr_pages).unwrap_or(0);
    one("machphys of nobody's frame", (free * PAGE_SIZE) | MACHPHYS_UPDATE, 1);
}

fn ordinary() {
    let page = Page::alloc();
    one("an ordinary writable page", page.ma() + 8, 0x1122_3344_5566_7788);
    expect("stored", Hex(page.read(1)), Hex(0x1122_3344_5566_7788));
    make_ro(page).must("make_ro");
    one("an ordinary read-only page", page.ma() + 16, 0x99);
    expect("stored too", Hex(page.read(2)), Hex(0x99));
    make_rw(page).must("make_rw");
}

fn foreign(t: Page) {
    let data = Page::alloc();
    let xen = paging::l4().read(256) & FRAME;
    one("table is the hypervisor's", xen, data.ma() | KERNEL_RW);
    one("table is MMIO", 0xb_8000, data.ma() | KERNEL_RW);
    one("table beyond memory", 0xff_ffff_f000, data.ma() | KERNEL_RW);
    one("entry beyond the address width", t.ma(), 0x000f_ffff_ffff_f000 | KERNEL_RW);
    one("entry names the hypervisor's frame", t.ma(), xen | KERNEL_RO);
    one("entry names the LAPIC", t.ma(), 0xfee0_0000 | KERNEL_RW);
    update_va(data.va, data.ma() | KERNEL_RW).must("restore");
}
