//! memory_op: reservations, exchange, maps.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::{mfn_of, pfn_of, read64};
use guests::paging::{self as pg, KERNEL_RW};
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::memory::*;

guests::kernel!(run);

fn op<T>(cmd: u64, arg: &mut T) -> Ret {
    call_ref(nr::MEMORY_OP, cmd, arg)
}

fn reservation(list: &[u64], order: u32, domid: u16) -> Reservation {
    Reservation {
        extent_start: list.as_ptr() as u64,
        nr_extents: list.len() as u64,
        extent_order: order,
        flags: 0,
        domid,
        pad: [0; 3],
    }
}

fn run() {
    queries();
    balloon();
    exchange();
    maps();
    arguments();
}

fn current() -> i64 {
    call_ref(nr::MEMORY_OP, OP_CURRENT_RESERVATION, &mut 0x7ff0u16).0
}

fn queries() {
    check("current_reservation is nr_pages", current() as u64 == start_info().nr_pages);
    check("maximum_reservation is at least that", op(OP_MAXIMUM_RESERVATION, &mut 0x7ff0u16).0 >= current());
    obs("maximum_ram_page", Hex(call(nr::MEMORY_OP, &[OP_MAXIMUM_RAM_PAGE, 0]).0 as u64));
    obs("current_reservation of an absent domain", op(OP_CURRENT_RESERVATION, &mut 77u16));
    obs("maximum_gpfn", if op(OP_MAXIMUM_GPFN, &mut 0x7ff0u16).0 >= 0 { "a number" } else { "an error" });
    let mut m = MachphysMapping::default();
    expect("machphys_mapping", op(OP_MACHPHYS_MAPPING, &mut m), OK);
    expect("its start", Hex(m.v_start), Hex(0xffff_8000_0000_0000));
    obs("its end", Hex(m.v_end));
    obs("machphys_mapping: max_mfn is sensible", m.max_mfn >= 0x1ffff);
    let mut frames = [0u64; 4];
    let mut l =
        MachphysMfnList { max_extents: 4, extent_start: frames.as_mut_ptr() as u64, ..MachphysMfnList::default() };
    obs("machphys_mfn_list", op(OP_MACHPHYS_MFN_LIST, &mut l));
    obs("machphys_mfn_list: extents", l.nr_extents);
}

fn balloon() {
    let before = current();
    let (a, b) = (Page::alloc(), Page::alloc());
    let (ma, mb) = (a.mfn(), b.mfn());
    let list = [ma];
    obs("decrease a mapped page", op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, 0x7ff0)));
    obs("pages less while it is mapped", before - current());
    obs("its M2P entry", if pfn_of(ma) == a.pfn() { "kept" } else { "changed" });
    check("its PTE is still there", pg::pte(a.va) & 1 != 0);
    pg::update_va(a.va, 0).must("unmap");
    obs("map it again", pg::update_va(a.va, (ma * PAGE_SIZE) | KERNEL_RW));
    obs("decrease it again", op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, 0x7ff0)));
    pg::update_va(b.va, 0).must("unmap");
    let list = [mb];
    expect("decrease an unmapped page", op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, 0x7ff0)), Ret(1));
    // back by populate_physmap at the same PFNs
    let mut pfns = [a.pfn(), b.pfn()];
    let mut r = reservation(&pfns, 0, 0x7ff0);
    expect("populate two", op(OP_POPULATE_PHYSMAP, &mut r), Ret(2));
    expect("as before", current(), before);
    check("M2P names the PFNs", pfn_of(pfns[0]) == a.pfn() && pfn_of(pfns[1]) == b.pfn());
    expect("map the new page", pg::update_va(a.va, (pfns[0] * PAGE_SIZE) | KERNEL_RW), OK);
    check("it is zeroed", (0..512).all(|i| read64(a.va + 8 * i) == 0));
    pfns[0] = 0;
    obs(
        "populate beyond the limit",
        op(OP_POPULATE_PHYSMAP, &mut Reservation { nr_extents: 1, extent_order: 20, ..reservation(&pfns, 20, 0x7ff0) }),
    );
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    let list = [table.mfn()];
    obs("decrease a pinned table", op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, 0x7ff0)));
    obs("it is still pinned", pg::unpin(table));
    for (name, mfn) in [
        ("a bad frame", 0xfff_ffffu64),
        ("the hypervisor's frame", (pg::l4().read(256) & pg::FRAME) / PAGE_SIZE),
        ("MMIO", 0xb8),
    ] {
        let list = [mfn];
        obs(f!("decrease {name}"), op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, 0x7ff0)));
    }
    let list = [0u64];
    for (name, dom) in [("absent", 77u16), ("IO", 0x7ff1)] {
        obs(f!("decrease in domain {name}"), op(OP_DECREASE_RESERVATION, &mut reservation(&list, 0, dom)));
        obs(f!("populate in domain {name}"), op(OP_POPULATE_PHYSMAP, &mut reservation(&list, 0, dom)));
        obs(f!("increase in domain {name}"), op(OP_INCREASE_RESERVATION, &mut reservation(&list, 0, dom)));
    }
    for cmd in [OP_DECREASE_RESERVATION, OP_POPULATE_PHYSMAP, OP_INCREASE_RESERVATION] {
        let mut r =
            Reservation { extent_start: 0xffff_8300_0000_0000, nr_extents: 1, domid: 0x7ff0, ..Reservation::default() };
        obs(f!("op {cmd}, list in the hypervisor"), op(cmd, &mut r));
        r.nr_extents = 0;
        obs(f!("op {cmd}, list of none"), op(cmd, &mut r));
        r.nr_extents = u64::MAX;
        obs(f!("op {cmd}, endless list"), op(cmd, &mut r));
    }
}

fn exchange() {
    let page = Page::alloc();
    pg::update_va(page.va, 0).must("unmap");
    let input = [page.mfn()];
    let mut output = [page.pfn()];
    let make = |i: &[u64], o: &mut [u64], io: u32, oo: u32| Exchange {
        input: reservation(i, io, 0x7ff0),
        output: reservation(o, oo, 0x7ff0),
        nr_exchanged: 0,
    };
    let mut x = make(&input, &mut output, 0, 0);
    expect("exchange one for one", op(OP_EXCHANGE, &mut x), OK);
    expect("exchanged", x.nr_exchanged, 1);
    check("the new frame belongs to the PFN", pfn_of(output[0]) == page.pfn());
    expect("map it", pg::update_va(page.va, (output[0] * PAGE_SIZE) | KERNEL_RW), OK);
    check("it is zeroed", (0..512).all(|i| page.read(i) == 0));
    let input = [mfn_of(page.pfn() + 1); 1];
    for (name, x) in [
        ("uneven", &mut make(&input, &mut [1], 0, 1)),
        ("nr_exchanged set", &mut Exchange { nr_exchanged: 1, ..make(&input, &mut [1], 0, 0) }),
        ("bad frame", &mut make(&[0xfff_ffff], &mut [1], 0, 0)),
        ("the hypervisor's frame", &mut make(&[(pg::l4().read(256) & pg::FRAME) / PAGE_SIZE], &mut [1], 0, 0)),
    ] {
        obs(f!("exchange {name}"), op(OP_EXCHANGE, x));
        obs(f!("exchange {name}: done"), x.nr_exchanged);
    }
    // a chunk of 16 contiguous frames below 4 GiB for 16 single ones
    static SINGLES: mem::Racy<[u64; 16]> = mem::Racy::new([0; 16]);
    // SAFETY: only here.
    let singles = unsafe { &mut *SINGLES.get() };
    let pages: [Page; 16] = core::array::from_fn(|_| Page::alloc());
    for (s, p) in singles.iter_mut().zip(&pages) {
        pg::update_va(p.va, 0).must("unmap");
        *s = p.mfn();
    }
    let mut out = [pages[0].pfn()];
    let mut x = make(singles, &mut out, 0, 4);
    x.output.flags = 32;
    expect("exchange 16 for a chunk", op(OP_EXCHANGE, &mut x), OK);
    expect("exchanged 16", x.nr_exchanged, 16);
    check("the chunk is aligned", out[0].is_multiple_of(16));
    check("its M2P is contiguous", (0..16).all(|i| pfn_of(out[0] + i) == pages[0].pfn() + i));
    let input = [mfn_of(pages[15].pfn() + 1)];
    let mut x = make(&input, &mut out, 0, 0);
    x.output.flags = 13;
    obs("no memory below 8 KiB", op(OP_EXCHANGE, &mut x));
    obs("no memory below 8 KiB: done", x.nr_exchanged);
}

fn maps() {
    let page = Page::alloc();
    let mut m = MemoryMap { nr_entries: 100, pad: 0, buffer: page.va };
    obs("machine_memory_map", op(OP_MACHINE_MEMORY_MAP, &mut m));
    check("it has entries", (2..100).contains(&m.nr_entries));
    let n = m.nr_entries;
    m.nr_entries = n - 1;
    obs("too short a list", op(OP_MACHINE_MEMORY_MAP, &mut m));
    m.nr_entries = 100;
    m.buffer = 0xffff_8300_0000_0000;
    obs("list in the hypervisor", op(OP_MACHINE_MEMORY_MAP, &mut m));
    m = MemoryMap { nr_entries: 100, pad: 0, buffer: page.va };
    obs("memory_map", op(OP_MEMORY_MAP, &mut m));
}

fn arguments() {
    for cmd in 0..40u64 {
        if matches!(cmd, OP_MAXIMUM_RAM_PAGE) {
            continue;
        }
        obs(f!("op {cmd}, bad pointer"), call(nr::MEMORY_OP, &[cmd, 0xffff_8300_0000_0000]));
        obs(f!("op {cmd}, null pointer"), call(nr::MEMORY_OP, &[cmd, 0]));
    }
    obs("huge command", call(nr::MEMORY_OP, &[u64::MAX, 0]));
}
