//! The longest time without a preemption point: each operation that could take long is done at its largest, and the
//! hypervisor says how long it went without looking whether something else is due. One tick is one instruction here.
//! Only Hospes' debug builds record this; everything else skips.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::domctl::*;
use pv_abi::hospes::{SYSCTL_STRETCH, Stretch};
use pv_abi::memory::*;
use pv_abi::sysctl::Sysctl;

guests::kernel!(run);

/// Instructions that may pass, in a build whose assertions cost some.
const LIMIT: u64 = 200_000;

/// The longest stretch since the last call.
fn longest() -> Option<Stretch> {
    let mut op =
        Sysctl { cmd: SYSCTL_STRETCH, interface_version: pv_abi::sysctl::INTERFACE_VERSION, ..Default::default() };
    if call(nr::SYSCTL, &[core::ptr::from_mut(&mut op) as u64]) != OK {
        return None;
    }
    op.payload()
}

fn within(name: &str) {
    let s = longest().unwrap_or_default();
    guests::console::line(f!("stretch: {name}: {} in hypercall {} ({:#x})", s.ticks, s.hypercall, s.argument));
    check(name, s.ticks != 0 && s.ticks < LIMIT);
}

fn run() {
    if longest().is_none() {
        report::skip("nobody records it here");
    }
    child::domctl(&mut Domctl::with(OP_MAX_MEM, 0, &MaxMem { max_memkb: 256 << 10 })).must("max_mem");
    page_tables();
    memory();
    descriptors();
    domains();
    lists();
    alive();
}

fn page_tables() {
    let l2 = wide_l2(40);
    longest();
    pg::pin(l2, 2).must("pin");
    within("pin 40 full L1 tables");
    pg::unpin(l2).must("unpin");
    within("unpin them");
    let t = tree(4, 512);
    longest();
    pg::pin(t, 4).must("pin");
    pg::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, t.mfn(), 0).must("load");
    pg::unpin(t).must("unpin");
    pg::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, 0, 0).must("leave");
    within("an L4 whose tables are full");
}

fn memory() {
    for order in [10u32, 9, 0] {
        let list = [0u64; 32];
        let n = if order == 0 { 32 } else { 1 };
        longest();
        let got = memory_op(OP_INCREASE_RESERVATION, &mut extents(&list[..n], order));
        within(
            ["single pages", "", "", "", "", "", "", "", "", "a block of 2 MiB", "a block of 4 MiB"][order as usize],
        );
        check(f!("got them, order {order}"), got == Ret(n as i64));
        let mut r = extents(&list[..n], order);
        memory_op(OP_DECREASE_RESERVATION, &mut r).must("give back");
        within(
            ["single pages back", "", "", "", "", "", "", "", "", "a block of 2 MiB back", "a block of 4 MiB back"]
                [order as usize],
        );
    }
    let block = [0u64; 1];
    memory_op(OP_INCREASE_RESERVATION, &mut extents(&block, 9)).must("a block");
    let first = mem::read64(block.as_ptr() as u64);
    static PFNS: mem::Racy<[u64; 512]> = mem::Racy::new([7; 512]);
    // SAFETY: only here.
    let out = unsafe { &mut *PFNS.get() };
    let input = [first];
    longest();
    let mut x = Exchange { input: extents(&input, 9), output: extents(out, 0), nr_exchanged: 0 };
    memory_op(OP_EXCHANGE, &mut x).must("exchange");
    within("a block of 2 MiB for single pages");
    let back = [7u64];
    let mut x = Exchange { input: extents(out, 0), output: extents(&back, 9), nr_exchanged: 0 };
    memory_op(OP_EXCHANGE, &mut x).must("exchange");
    within("single pages for a block of 2 MiB");
    let list = [0u64; 1];
    for bits in 13..32u32 {
        memory_op(OP_INCREASE_RESERVATION, &mut Reservation { flags: bits, ..extents(&list, 9) });
    }
    within("blocks below each address limit");
}

fn descriptors() {
    let pages: [u64; 14] = core::array::from_fn(|_| pg::new_table().mfn());
    longest();
    call(nr::SET_GDT, &[pages.as_ptr() as u64, 14 * 512]).must("set_gdt");
    call(nr::SET_GDT, &[0, 0]).must("no GDT");
    within("a GDT of 14 pages");
}

/// What the child leaves behind: ports, grants, mapped grants, page tables.
fn body() {
    let table = grant_table();
    let p = Page::alloc();
    let own = child::inside::word(0).load(core::sync::atomic::Ordering::SeqCst) as u16;
    grant(table, 9, own, p.mfn(), pv_abi::grant::GTF_PERMIT_ACCESS);
    for _ in 0..1000 {
        if events::op(pv_abi::event::OP_BIND_IPI, &mut pv_abi::event::BindIpi { vcpu: 0, port: 0 }).0 < 0 {
            break;
        }
    }
    for _ in 0..600 {
        grant_map(own, 9, pv_abi::grant::GNTMAP_DEVICE_MAP, 0);
    }
    pg::pin(wide_l2(30), 2).must("pin");
    child::inside::word(1).store(1, core::sync::atomic::Ordering::SeqCst);
    loop {
        child::nap(10_000);
    }
}

fn domains() {
    longest();
    let c = Child::build(body, Spec { vcpus: 128, pages: 1000, room: 64 });
    within("building a domain of 128 vCPUs");
    c.word(0).store(c.id.into(), core::sync::atomic::Ordering::SeqCst);
    c.unpause().must("unpause");
    check("the child is ready", c.wait_word(1, 1));
    within("a child that binds and maps much");
    c.info();
    let list = pv_abi::sysctl::Getdomaininfolist { max_domains: 1024, buffer: Page::alloc().va, ..Default::default() };
    let mut op = Sysctl {
        cmd: pv_abi::sysctl::OP_GETDOMAININFOLIST,
        interface_version: pv_abi::sysctl::INTERFACE_VERSION,
        ..Default::default()
    };
    op.set_payload(&list);
    call(nr::SYSCTL, &[core::ptr::from_mut(&mut op) as u64]).must("getdomaininfolist");
    within("asking about it");
    c.destroy().must("destroy");
    within("its destruction");
}

fn lists() {
    static FRAMES: mem::Racy<[u64; 1024]> = mem::Racy::new([0; 1024]);
    // SAFETY: only here.
    let frames = unsafe { &mut *FRAMES.get() };
    for (i, f) in frames.iter_mut().enumerate() {
        *f = mem::mfn_of(i as u64);
    }
    longest();
    let arg = Getpageframeinfo3 { num: 1024, array: frames.as_ptr() as u64 };
    child::domctl(&mut Domctl::with(OP_GETPAGEFRAMEINFO3, 0, &arg)).must("getpageframeinfo3");
    within("the types of 1024 frames");
    let mut op = Sysctl {
        cmd: pv_abi::sysctl::OP_READCONSOLE,
        interface_version: pv_abi::sysctl::INTERFACE_VERSION,
        ..Default::default()
    };
    op.set_payload(&pv_abi::sysctl::Readconsole { buffer: Page::alloc().va, count: 4096, ..Default::default() });
    call(nr::SYSCTL, &[core::ptr::from_mut(&mut op) as u64]).must("readconsole");
    within("reading the log");
    let p = Page::alloc();
    let updates: [pv_abi::mmu::MmuUpdate; 512] =
        core::array::from_fn(|_| pv_abi::mmu::MmuUpdate { ptr: pg::slot(p.va, 1), val: p.ma() | pg::KERNEL_RW });
    longest();
    pg::mmu_updates(&updates).0.must("mmu_update");
    within("512 updates");
}
