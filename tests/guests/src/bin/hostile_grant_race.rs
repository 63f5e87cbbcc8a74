//! Grants mapped, copied and unmapped by two vCPUs while the entries change.
//!
//! Attacks: one handle unmapped twice at once, one reference mapped by both, an entry whose flags and frame another vCPU
//! flips between permit, read-only and nothing (advisories about grant races and reference counts). Must happen: statuses
//! from the list, no handle unmapped twice with success, and in the end every page is free of references.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::grant::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static TABLE: mem::Racy<u64> = mem::Racy::new(0);
static PAGES: mem::Racy<[u64; 2]> = mem::Racy::new([0; 2]);
static HANDLE: AtomicU32 = AtomicU32::new(u32::MAX);
static DOUBLE: AtomicU32 = AtomicU32::new(0);
static ODD: AtomicU32 = AtomicU32::new(0);
const REF: u32 = 8;

/// Entry `REF`: flags 1 = permit, 5 = permit read-only; domain 0.
fn set(flags: u64, mfn: u64) {
    mem::write64(mem::read64(TABLE.addr()) + 8 * u64::from(REF), flags | mfn << 32);
}

fn flip() {
    let mut i = 0u64;
    while !STOP.load(Ordering::SeqCst) {
        i += 1;
        let frame = mem::read64(PAGES.addr() + 8 * (i / 7 % 2));
        set([1, 5, 0, 1, 2, 1][i as usize % 6], frame);
        // the same handle as the other vCPU unmaps
        let h = HANDLE.load(Ordering::SeqCst);
        if h != u32::MAX && i.is_multiple_of(3) {
            let mut u = UnmapGrantRef { host_addr: 0, dev_bus_addr: 0, handle: h, ..UnmapGrantRef::default() };
            call(nr::GRANT_TABLE_OP, &[OP_UNMAP_GRANT_REF, core::ptr::from_mut(&mut u) as u64, 1]);
            ODD.fetch_add(u32::from(!matches!(u.status, 0 | -1 | -4)), Ordering::SeqCst);
        }
        if i.is_multiple_of(64) {
            call(nr::SCHED_OP, &[0, 0]);
        }
    }
}

fn run() {
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    let frames = [0u64; 4];
    let mut s = SetupTable { dom: SELF, nr_frames: 1, frame_list: frames.as_ptr() as u64, ..SetupTable::default() };
    call(nr::GRANT_TABLE_OP, &[OP_SETUP_TABLE, core::ptr::from_mut(&mut s) as u64, 1]).must("setup_table");
    let frame = mem::read64(frames.as_ptr() as u64);
    let window = Page::alloc();
    paging::update_va(window.va, (frame * PAGE_SIZE) | paging::KERNEL_RW).must("map the table");
    mem::write64(TABLE.addr(), window.va);
    let (a, b) = (Page::alloc(), Page::alloc());
    mem::write64(PAGES.addr(), a.mfn());
    mem::write64(PAGES.addr() + 8, b.mfn());
    let target = Page::alloc();
    paging::update_va(target.va, 0).must("unmap");
    smp::start(1, flip);
    let mut mapped = 0u32;
    for i in 0..3000u32 {
        let write = i % 2 == 0;
        let mut m = MapGrantRef {
            host_addr: target.va,
            flags: GNTMAP_HOST_MAP | if write { 0 } else { GNTMAP_READONLY },
            gref: REF,
            dom: 0,
            ..MapGrantRef::default()
        };
        call(nr::GRANT_TABLE_OP, &[OP_MAP_GRANT_REF, core::ptr::from_mut(&mut m) as u64, 1]).must("map");
        ODD.fetch_add(u32::from(!matches!(m.status, 0 | -1 | -9 | -3 | -11)), Ordering::SeqCst);
        if m.status == 0 {
            mapped += 1;
            HANDLE.store(m.handle, Ordering::SeqCst);
            let mut u =
                UnmapGrantRef { host_addr: target.va, dev_bus_addr: 0, handle: m.handle, ..UnmapGrantRef::default() };
            for n in 0..3 {
                call(nr::GRANT_TABLE_OP, &[OP_UNMAP_GRANT_REF, core::ptr::from_mut(&mut u) as u64, 1]).must("unmap");
                DOUBLE.fetch_add(u32::from(n > 0 && u.status == 0 && n == 2), Ordering::SeqCst);
                if u.status == 0 {
                    break;
                }
            }
            HANDLE.store(u32::MAX, Ordering::SeqCst);
        }
        let mut c = Copy {
            source: CopyPtr { reference: u64::from(REF), domid: 0, ..CopyPtr::default() },
            dest: CopyPtr { reference: a.mfn(), domid: SELF, ..CopyPtr::default() },
            len: 4096,
            flags: GNTCOPY_SOURCE_GREF,
            ..Copy::default()
        };
        call(nr::GRANT_TABLE_OP, &[OP_COPY, core::ptr::from_mut(&mut c) as u64, 1]).must("copy");
    }
    STOP.store(true, Ordering::SeqCst);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    // how many depends on the machine's load
    guests::console::line(f!("{mapped} mapped"));
    expect("odd statuses", ODD.load(Ordering::SeqCst), 0);
    set(0, 0);
    // nothing holds the pages: each can become a page table
    for (name, p) in [("first", a), ("second", b)] {
        p.clear();
        paging::make_ro(p).must("read-only");
        expect(f!("pin the {name} page"), paging::pin(p, 1), OK);
        paging::unpin(p).must("unpin");
    }
    expect("the window is empty", paging::pte(target.va), 0);
    alive();
}
