//! Grant tables, version 1: setup, mapping one's own grants, copies, and every status.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::{read64, write64};
use guests::paging::{FRAME, KERNEL_RW};
use guests::prelude::*;
use pv_abi::grant::*;

guests::kernel!(run);

struct Table(Page);

impl Table {
    fn set(&self, gref: u32, flags: u16, domid: u16, mfn: u64) {
        write64(self.0.va + 8 * u64::from(gref), u64::from(flags) | u64::from(domid) << 16 | mfn << 32);
    }
    fn flags(&self, gref: u32) -> Hex {
        Hex(read64(self.0.va + 8 * u64::from(gref)) & 0xffff)
    }
}

fn op<T>(cmd: u64, list: &mut [T]) -> Ret {
    call(nr::GRANT_TABLE_OP, &[cmd, list.as_mut_ptr() as u64, list.len() as u64])
}

fn map(gref: u32, flags: u32, dom: u16, host_addr: u64) -> (Ret, MapGrantRef) {
    let mut m = [MapGrantRef { host_addr, flags, gref, dom, status: 99, handle: 0, dev_bus_addr: 0 }];
    let r = op(OP_MAP_GRANT_REF, &mut m);
    (r, m[0])
}

fn unmap(host_addr: u64, handle: u32) -> (Ret, i16) {
    let mut u = [UnmapGrantRef { host_addr, dev_bus_addr: 0, handle, status: 99, pad: 0 }];
    let r = op(OP_UNMAP_GRANT_REF, &mut u);
    (r, u[0].status)
}

fn setup(dom: u16, nr_frames: u32, list: &mut [u64]) -> (Ret, i16) {
    let mut s = [SetupTable { dom, pad: 0, nr_frames, status: 99, pad2: [0; 3], frame_list: list.as_mut_ptr() as u64 }];
    let r = op(OP_SETUP_TABLE, &mut s);
    (r, s[0].status)
}

fn run() {
    let table = tables();
    mapping(&table);
    refusals(&table);
    contains_pte(&table);
    copies(&table);
    transfers(&table);
    arguments();
}

fn tables() -> Table {
    let mut q = [QuerySize { dom: 0x7ff0, ..QuerySize::default() }];
    obs("query_size", op(OP_QUERY_SIZE, &mut q));
    obs("query_size: status, frames, limit", f!("{} {} {}", q[0].status, q[0].nr_frames, q[0].max_nr_frames));
    let mut frames = [0u64; 80];
    for (name, dom, n) in [
        ("self, 1", 0x7ff0u16, 1u32),
        ("own id", 0, 1),
        ("absent", 77, 1),
        ("too many", 0x7ff0, 65),
        ("0 frames", 0x7ff0, 0),
        ("4 frames", 0x7ff0, 4),
    ] {
        let (r, s) = setup(dom, n, &mut frames);
        obs(f!("setup_table {name}"), f!("{r} {s}"));
    }
    let mut s = [SetupTable {
        dom: 0x7ff0,
        nr_frames: 1,
        frame_list: 0xffff_8300_0000_0000,
        status: 99,
        ..SetupTable::default()
    }];
    obs("setup_table, bad list", op(OP_SETUP_TABLE, &mut s));
    obs("setup_table, bad list: status", s[0].status);
    let mut two = [s[0], s[0]];
    obs("setup_table of two", op(OP_SETUP_TABLE, &mut two));
    q[0].nr_frames = 0;
    op(OP_QUERY_SIZE, &mut q).must("query");
    obs("frames now", q[0].nr_frames);
    let page = Page::alloc();
    expect("map the table", paging::update_va(page.va, (frames[0] * PAGE_SIZE) | KERNEL_RW), OK);
    check("entries are 0", (8..512).all(|i| page.read(i) == 0));
    let mut v = [GetVersion { dom: 0x7ff0, ..GetVersion::default() }];
    obs("get_version", op(OP_GET_VERSION, &mut v));
    obs("version", v[0].version);
    obs("set_version 1", op(OP_SET_VERSION, &mut [SetVersion { version: 1 }]));
    obs("set_version 3", op(OP_SET_VERSION, &mut [SetVersion { version: 3 }]));
    // a grant-table page must not become a page table, nor be given away
    obs("pin the table's frame", paging::mmuext(0, frames[0], 0));
    Table(page)
}

/// A page whose address is mapped to nothing.
fn hole() -> Page {
    let p = Page::alloc();
    paging::update_va(p.va, 0).must("unmap");
    p
}

fn mapping(t: &Table) {
    let (data, window, other) = (Page::alloc(), hole(), hole());
    data.write(0, 0xda7a);
    t.set(8, GTF_PERMIT_ACCESS, 0, data.mfn());
    let (r, m) = map(8, GNTMAP_HOST_MAP, 0, window.va);
    expect("map", f_pair(r, m.status), f_pair(OK, 0));
    check("dev_bus_addr is the frame", m.dev_bus_addr == data.ma());
    obs("PTE", flags_of(paging::pte(window.va)));
    check("PTE's frame", paging::pte(window.va) & FRAME == data.ma());
    obs("entry while mapped", t.flags(8));
    expect("read through it", Hex(window.read(0)), Hex(0xda7a));
    window.write(1, 7);
    check("write through it", data.read(1) == 7);
    let (_, m2) = map(8, GNTMAP_HOST_MAP | GNTMAP_READONLY, 0, other.va);
    obs("a second, read-only mapping", m2.status);
    obs("handles differ", m.handle != m2.handle);
    // the granted frame's type counts the mapping: it cannot become a table while mapped writable
    paging::make_ro(data).must("make_ro");
    obs("pin the granted page", paging::pin(data, 1));
    paging::make_rw(data).must("make_rw");
    obs("unmap at the wrong address", unmap(window.va + 4096, m.handle).1);
    obs("unmap with an unknown handle", unmap(window.va, 0x7777).1);
    obs("unmap with handle -1", unmap(window.va, u32::MAX).1);
    expect("unmap", unmap(window.va, m.handle).1, 0);
    expect("PTE after it", Hex(paging::pte(window.va)), Hex(0));
    obs("unmap twice", unmap(window.va, m.handle).1);
    obs("entry with one mapping left", t.flags(8));
    obs("clear the unmapped address", paging::update_va(window.va, 0));
    expect("unmap the second", unmap(other.va, m2.handle).1, 0);
    obs("entry with no mapping left", t.flags(8));
    // read-only grant
    t.set(9, GTF_PERMIT_ACCESS | GTF_READONLY, 0, data.mfn());
    obs("writable mapping of a read-only grant", map(9, GNTMAP_HOST_MAP, 0, window.va).1.status);
    let (_, m) = map(9, GNTMAP_HOST_MAP | GNTMAP_READONLY, 0, window.va);
    obs("read-only mapping of it", m.status);
    obs("PTE 1, without A and D", flags_of(paging::pte(window.va) & !0x60));
    obs("its entry", t.flags(9));
    obs("a write through it", probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: window.va, ..Gprs::ZERO }));
    // the guest overwrites the PTE: the unmap notices
    paging::update_va(window.va, 0).must("overwrite");
    obs("unmap after the PTE was overwritten", unmap(window.va, m.handle).1);
    obs("entry after that", t.flags(9));
    paging::update_va(window.va, 0).must("clear");
}

fn f_pair(r: Ret, s: i16) -> Pair {
    Pair(r, s)
}

#[derive(PartialEq)]
struct Pair(Ret, i16);

impl core::fmt::Display for Pair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

fn refusals(t: &Table) {
    let (data, window, other) = (Page::alloc(), hole(), hole());
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    let xen = (paging::l4().read(256) & FRAME) / PAGE_SIZE;
    t.set(20, 0, 0, data.mfn());
    t.set(21, GTF_ACCEPT_TRANSFER, 0, data.mfn());
    t.set(22, GTF_PERMIT_ACCESS, 77, data.mfn());
    t.set(23, GTF_PERMIT_ACCESS, 0, 0xfff_ffff);
    t.set(24, GTF_PERMIT_ACCESS, 0, xen);
    t.set(25, GTF_PERMIT_ACCESS, 0, table.mfn());
    t.set(26, GTF_PERMIT_ACCESS, 0, data.mfn());
    t.set(27, GTF_PERMIT_ACCESS, 0, 0xb8);
    for (name, gref, flags, dom, va) in [
        ("unused", 20u32, GNTMAP_HOST_MAP, 0u16, window.va),
        ("transfer", 21, GNTMAP_HOST_MAP, 0, window.va),
        ("another's", 22, GNTMAP_HOST_MAP, 0, window.va),
        ("bad frame", 23, GNTMAP_HOST_MAP, 0, window.va),
        ("the hypervisor's frame", 24, GNTMAP_HOST_MAP, 0, window.va),
        ("a table, writable", 25, GNTMAP_HOST_MAP, 0, window.va),
        ("MMIO", 27, GNTMAP_HOST_MAP, 0, window.va),
        ("beyond the table", 5000, GNTMAP_HOST_MAP, 0, window.va),
        ("largest ref", u32::MAX, GNTMAP_HOST_MAP, 0, window.va),
        ("no flags", 26, 0, 0, window.va),
        ("absent domain", 26, GNTMAP_HOST_MAP, 77, window.va),
        ("DOMID_SELF", 26, GNTMAP_HOST_MAP, 0x7ff0, window.va),
        ("no L1 at the address", 26, GNTMAP_HOST_MAP, 0, 0x1000),
        ("non-canonical address", 26, GNTMAP_HOST_MAP, 0, 0x8000_0000_0000),
        ("the hypervisor's range", 26, GNTMAP_HOST_MAP, 0, 0xffff_8300_0000_0000),
        ("contains_pte, bad address", 26, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, 0, 0xfff_ffff_f000),
        ("contains_pte, not a table", 26, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, 0, data.ma()),
    ] {
        let (r, m) = map(gref, flags, dom, va);
        obs(f!("map {name}"), Pair(r, m.status));
        obs(f!("map {name}: entry"), if gref < 512 { t.flags(gref) } else { Hex(0) });
    }
    let (_, m) = map(25, GNTMAP_HOST_MAP | GNTMAP_READONLY, 0, window.va);
    obs("map a table read-only", m.status);
    if m.status == 0 {
        obs("PTE 2, without A and D", flags_of(paging::pte(window.va) & !0x60));
        expect("unmap it", unmap(window.va, m.handle).1, 0);
    }
    let (_, m) = map(26, GNTMAP_HOST_MAP, 0, window.va + 0x123);
    obs("map at an unaligned address", m.status);
    if m.status == 0 {
        obs("unmap at it", unmap(window.va + 0x123, m.handle).1);
        obs("unmap at the aligned one", unmap(window.va, m.handle).1);
    }
    for bits in [1u32, 3, 7] {
        let (_, m) = map(26, GNTMAP_HOST_MAP | bits << GNTMAP_GUEST_AVAIL0, 0, window.va);
        obs(f!("guest_avail {bits}"), m.status);
        obs(f!("guest_avail {bits}: PTE"), flags_of(paging::pte(window.va)));
        expect(f!("guest_avail {bits}: unmap"), unmap(window.va, m.handle).1, 0);
    }
    // a list: a bad element does not stop it
    let one = |gref: u32, va: u64| MapGrantRef {
        host_addr: va,
        flags: GNTMAP_HOST_MAP,
        gref,
        dom: 0,
        status: 99,
        handle: 0,
        dev_bus_addr: 0,
    };
    let mut list = [one(26, window.va), one(20, window.va), one(26, other.va)];
    obs("a list of three", op(OP_MAP_GRANT_REF, &mut list));
    obs("statuses", f!("{} {} {}", list[0].status, list[1].status, list[2].status));
    expect("unmap the first", unmap(window.va, list[0].handle).1, 0);
    expect("unmap the third", unmap(other.va, list[2].handle).1, 0);
}

fn contains_pte(t: &Table) {
    let (data, window) = (Page::alloc(), hole());
    data.write(0, 0x5005);
    t.set(30, GTF_PERMIT_ACCESS, 0, data.mfn());
    let slot = paging::slot(window.va, 1);
    let flags = GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE;
    let (_, m) = map(30, flags, 0, slot);
    expect("map by PTE address", m.status, 0);
    obs("PTE 3, without A and D", flags_of(paging::pte(window.va) & !0x60));
    expect("read", Hex(window.read(0)), Hex(0x5005));
    obs("unmap by the virtual address", unmap(window.va, m.handle).1);
    obs("unmap by the PTE address", unmap(slot, m.handle).1);
    let (_, m) = map(30, flags | GNTMAP_APPLICATION_MAP, 0, slot);
    obs("application map", m.status);
    obs("application map: PTE", flags_of(paging::pte(window.va)));
    obs("application map: unmap", unmap(slot, m.handle).1);
    let (_, m) = map(30, flags, 0, slot + 3);
    obs("unaligned PTE address", m.status);
    if m.status == 0 {
        obs("unmap it", unmap(slot, m.handle).1);
    }
    obs("entry at the end", t.flags(30));
}

fn copies(t: &Table) {
    let (src, dst) = (Page::alloc(), Page::alloc());
    for i in 0..512 {
        src.write(i, i as u64 * 3);
    }
    t.set(40, GTF_PERMIT_ACCESS, 0, src.mfn());
    t.set(41, GTF_PERMIT_ACCESS, 0, dst.mfn());
    t.set(42, GTF_PERMIT_ACCESS | GTF_READONLY, 0, dst.mfn());
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    t.set(43, GTF_PERMIT_ACCESS, 0, table.mfn());
    let ptr = |reference: u64, domid: u16, offset: u16| CopyPtr { reference, domid, offset, pad: 0 };
    let both = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
    let copy = |source: CopyPtr, dest: CopyPtr, len: u16, flags: u16| {
        let mut c = [Copy { source, dest, len, flags, status: 99, pad: 0 }];
        let r = op(OP_COPY, &mut c);
        Pair(r, c[0].status)
    };
    expect("ref to ref, a page", copy(ptr(40, 0, 0), ptr(41, 0, 0), 4096, both), Pair(OK, 0));
    check("copied", (0..512).all(|i| dst.read(i) == i as u64 * 3));
    obs("entries afterwards", f!("{} {}", t.flags(40), t.flags(41)));
    dst.clear();
    obs("ref to own frame", copy(ptr(40, 0, 8), ptr(dst.mfn(), 0x7ff0, 16), 8, GNTCOPY_SOURCE_GREF));
    expect("bytes moved", dst.read(2), 3);
    obs("own frame to ref", copy(ptr(src.mfn(), 0x7ff0, 0), ptr(41, 0, 100), 50, GNTCOPY_DEST_GREF));
    obs("frame to frame", copy(ptr(src.mfn(), 0x7ff0, 0), ptr(dst.mfn(), 0x7ff0, 0), 50, 0));
    for (name, s, d, len, flags) in [
        ("length 0", ptr(40, 0, 0), ptr(41, 0, 0), 0u16, both),
        ("length 4097", ptr(40, 0, 0), ptr(41, 0, 0), 4097, both),
        ("source across the page's end", ptr(40, 0, 4000), ptr(41, 0, 0), 97, both),
        ("destination across the page's end", ptr(40, 0, 0), ptr(41, 0, 4095), 2, both),
        ("to the very end", ptr(40, 0, 4095), ptr(41, 0, 4095), 1, both),
        ("offset 4096", ptr(40, 0, 4096), ptr(41, 0, 0), 0, both),
        ("to a read-only grant", ptr(40, 0, 0), ptr(42, 0, 0), 8, both),
        ("to a table", ptr(40, 0, 0), ptr(43, 0, 0), 8, both),
        ("from a table", ptr(43, 0, 0), ptr(41, 0, 0), 8, both),
        ("from an unused ref", ptr(50, 0, 0), ptr(41, 0, 0), 8, both),
        ("from beyond the table", ptr(5000, 0, 0), ptr(41, 0, 0), 8, both),
        ("from an absent domain", ptr(40, 77, 0), ptr(41, 0, 0), 8, both),
        ("to an absent domain", ptr(40, 0, 0), ptr(41, 77, 0), 8, both),
        ("to a bad frame", ptr(40, 0, 0), ptr(0xfff_ffff, 0x7ff0, 0), 8, GNTCOPY_SOURCE_GREF),
        ("to a frame of an explicit domain", ptr(40, 0, 0), ptr(dst.mfn(), 0, 0), 8, GNTCOPY_SOURCE_GREF),
        ("to MMIO", ptr(40, 0, 0), ptr(0xb8, 0x7ff0, 0), 8, GNTCOPY_SOURCE_GREF),
        (
            "to the hypervisor's frame",
            ptr(40, 0, 0),
            ptr((paging::l4().read(256) & FRAME) / PAGE_SIZE, 0x7ff0, 0),
            8,
            GNTCOPY_SOURCE_GREF,
        ),
        ("to a table's frame", ptr(40, 0, 0), ptr(table.mfn(), 0x7ff0, 0), 8, GNTCOPY_SOURCE_GREF),
        ("unknown flags", ptr(40, 0, 0), ptr(41, 0, 0), 8, both | 0xfc00),
        ("refs through DOMID_SELF", ptr(40, 0x7ff0, 0), ptr(41, 0x7ff0, 0), 8, both),
    ] {
        obs(f!("copy {name}"), copy(s, d, len, flags));
    }
    check("no entry is left busy", (40..44).all(|g| t.flags(g).0 & 0x18 == 0));
}

fn transfers(t: &Table) {
    let page = Page::alloc();
    t.set(60, GTF_ACCEPT_TRANSFER, 0, 0);
    for (name, mfn, domid, gref) in
        [("to an absent domain", page.mfn(), 77u16, 60u32), ("of a bad frame", 0xfff_ffff, 0, 60)]
    {
        let mut x = [Transfer { mfn, domid, gref, status: 99, ..Transfer::default() }];
        obs(f!("transfer {name}"), op(OP_TRANSFER, &mut x));
        obs(f!("transfer {name}: status"), x[0].status);
    }
}

fn arguments() {
    for cmd in 0..14u64 {
        if matches!(cmd, OP_DUMP_TABLE) {
            continue;
        }
        obs(f!("op {cmd} of none"), call(nr::GRANT_TABLE_OP, &[cmd, 0, 0]));
        obs(f!("op {cmd}, bad pointer"), call(nr::GRANT_TABLE_OP, &[cmd, 0xffff_8300_0000_0000, 1]));
        obs(f!("op {cmd}, huge count"), call(nr::GRANT_TABLE_OP, &[cmd, 0, 0xffff_ffff]));
    }
    obs("unknown op of none", call(nr::GRANT_TABLE_OP, &[99, 0, 0]));
}
