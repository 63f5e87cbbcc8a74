//! mmuext_op: each operation, good and bad.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::paging::{DOMID_SELF, FRAME, make_ro, make_rw, mmuext, new_table, pin};
use guests::prelude::*;
use pv_abi::mmu::*;

guests::kernel!(run);

fn batch(list: &[MmuextOp], dom: u64) -> (Ret, u32) {
    let mut done = u32::MAX;
    let r = call(nr::MMUEXT_OP, &[list.as_ptr() as u64, list.len() as u64, core::ptr::from_mut(&mut done) as u64, dom]);
    (r, done)
}

fn run() {
    flushes();
    pages();
    tables();
    batches();
}

fn flushes() {
    let page = Page::alloc();
    let vcpus = 1u64;
    let map = core::ptr::from_ref(&vcpus) as u64;
    let bad = 0xffff_8300_0000_0000;
    for (name, cmd, arg1, arg2) in [
        ("TLB_FLUSH_LOCAL", EXT_TLB_FLUSH_LOCAL, 0, 0),
        ("INVLPG_LOCAL", EXT_INVLPG_LOCAL, page.va, 0),
        ("INVLPG_LOCAL non-canonical", EXT_INVLPG_LOCAL, 0x8000_0000_0000, 0),
        ("INVLPG_LOCAL in the hypervisor", EXT_INVLPG_LOCAL, bad, 0),
        ("TLB_FLUSH_MULTI", EXT_TLB_FLUSH_MULTI, 0, map),
        ("TLB_FLUSH_MULTI bad bitmap", EXT_TLB_FLUSH_MULTI, 0, bad),
        ("TLB_FLUSH_MULTI null bitmap", EXT_TLB_FLUSH_MULTI, 0, 0),
        ("INVLPG_MULTI", EXT_INVLPG_MULTI, page.va, map),
        ("INVLPG_MULTI non-canonical", EXT_INVLPG_MULTI, 0x8000_0000_0000, map),
        ("INVLPG_MULTI bad bitmap", EXT_INVLPG_MULTI, page.va, bad),
        ("TLB_FLUSH_ALL", EXT_TLB_FLUSH_ALL, 0, 0),
        ("INVLPG_ALL", EXT_INVLPG_ALL, page.va, 0),
        ("FLUSH_CACHE", EXT_FLUSH_CACHE, 0, 0),
        ("FLUSH_CACHE_GLOBAL", EXT_FLUSH_CACHE_GLOBAL, 0, 0),
        ("14", 14, 0, 0),
        ("MARK_SUPER", EXT_MARK_SUPER, 0, 0),
        ("UNMARK_SUPER", EXT_UNMARK_SUPER, 0, 0),
        ("21", 21, 0, 0),
        ("0xffffffff", u32::MAX, 0, 0),
    ] {
        obs(name, mmuext(cmd, arg1, arg2));
    }
}

fn pages() {
    let (a, b) = (Page::alloc(), Page::alloc());
    a.write(0, 7);
    a.write(511, 9);
    expect("COPY_PAGE", mmuext(EXT_COPY_PAGE, b.mfn(), a.mfn()), OK);
    check("copied", b.read(0) == 7 && b.read(511) == 9);
    expect("CLEAR_PAGE", mmuext(EXT_CLEAR_PAGE, a.mfn(), 0), OK);
    check("cleared", (0..512).all(|i| a.read(i) == 0));
    let t = new_table();
    pin(t, 1).must("pin");
    let xen = (paging::l4().read(256) & FRAME) / PAGE_SIZE;
    obs("CLEAR_PAGE of a table", mmuext(EXT_CLEAR_PAGE, t.mfn(), 0));
    obs("CLEAR_PAGE of the hypervisor's", mmuext(EXT_CLEAR_PAGE, xen, 0));
    obs("CLEAR_PAGE beyond memory", mmuext(EXT_CLEAR_PAGE, 0xfff_ffff, 0));
    obs("COPY_PAGE to a table", mmuext(EXT_COPY_PAGE, t.mfn(), a.mfn()));
    obs("COPY_PAGE from a table", mmuext(EXT_COPY_PAGE, a.mfn(), t.mfn()));
    obs("COPY_PAGE from the hypervisor's", mmuext(EXT_COPY_PAGE, a.mfn(), xen));
    obs("COPY_PAGE from beyond memory", mmuext(EXT_COPY_PAGE, a.mfn(), 0xfff_ffff));
    make_ro(a).must("make_ro");
    obs("CLEAR_PAGE of a read-only page", mmuext(EXT_CLEAR_PAGE, a.mfn(), 0));
    make_rw(a).must("make_rw");
}

fn tables() {
    let xen = (paging::l4().read(256) & FRAME) / PAGE_SIZE;
    for level in 1..=4u32 {
        obs(f!("pin L{level} of the hypervisor's frame"), mmuext(EXT_PIN_L1_TABLE + level - 1, xen, 0));
        obs(f!("pin L{level} beyond memory"), mmuext(EXT_PIN_L1_TABLE + level - 1, 0xfff_ffff, 0));
        obs(f!("pin L{level} of MMIO"), mmuext(EXT_PIN_L1_TABLE + level - 1, 0xb8, 0));
    }
    obs("unpin the hypervisor's frame", mmuext(EXT_UNPIN_TABLE, xen, 0));
    obs("unpin beyond memory", mmuext(EXT_UNPIN_TABLE, 0xfff_ffff, 0));
    obs("NEW_BASEPTR to 0", mmuext(EXT_NEW_BASEPTR, 0, 0));
    obs("NEW_BASEPTR beyond memory", mmuext(EXT_NEW_BASEPTR, 0xfff_ffff, 0));
    let data = Page::alloc();
    obs("NEW_BASEPTR to a writable page", mmuext(EXT_NEW_BASEPTR, data.mfn(), 0));
    obs("NEW_BASEPTR to itself", mmuext(EXT_NEW_BASEPTR, paging::l4().mfn(), 0));
    obs("NEW_USER_BASEPTR beyond memory", mmuext(EXT_NEW_USER_BASEPTR, 0xfff_ffff, 0));
    obs("NEW_USER_BASEPTR to a writable page", mmuext(EXT_NEW_USER_BASEPTR, data.mfn(), 0));
    obs("NEW_USER_BASEPTR to the kernel's L4", mmuext(EXT_NEW_USER_BASEPTR, paging::l4().mfn(), 0));
    obs("NEW_USER_BASEPTR to 0", mmuext(EXT_NEW_USER_BASEPTR, 0, 0));
    for (name, at, ents) in [
        ("none", 0u64, 0u64),
        ("unaligned", data.va + 8, 8),
        ("too many", data.va, 8193),
        ("8192", data.va, 8192),
        ("the hypervisor", 0xffff_8300_0000_0000, 8),
        ("non-canonical", 0x8000_0000_0000, 8),
        ("none again", 0, 0),
    ] {
        obs(f!("SET_LDT {name}"), mmuext(EXT_SET_LDT, at, ents));
    }
}

fn batches() {
    let flush = MmuextOp { cmd: EXT_TLB_FLUSH_LOCAL, ..MmuextOp::default() };
    let bad = MmuextOp { cmd: EXT_UNPIN_TABLE, arg1: Page::alloc().mfn(), ..MmuextOp::default() };
    let unknown = MmuextOp { cmd: 99, ..MmuextOp::default() };
    for (name, list) in [
        ("none", &[][..]),
        ("three good", &[flush, flush, flush][..]),
        ("second bad", &[flush, bad, flush][..]),
        ("third unknown", &[flush, flush, unknown][..]),
    ] {
        let (r, done) = batch(list, DOMID_SELF);
        obs(f!("batch {name}"), r);
        obs(f!("batch {name}, done"), done as i32);
    }
    for (name, dom) in [("own id", 0), ("absent", 77), ("DOMID_IO", 0x7ff1), ("DOMID_XEN", 0x7ff2)] {
        obs(f!("domain {name}"), batch(&[flush], dom).0);
    }
    obs("null list", call(nr::MMUEXT_OP, &[0, 1, 0, DOMID_SELF]));
    obs("bad list", call(nr::MMUEXT_OP, &[0xffff_8300_0000_0000, 1, 0, DOMID_SELF]));
    obs(
        "bad done pointer",
        call(nr::MMUEXT_OP, &[core::ptr::from_ref(&flush) as u64, 1, 0xffff_8300_0000_0000, DOMID_SELF]),
    );
}
