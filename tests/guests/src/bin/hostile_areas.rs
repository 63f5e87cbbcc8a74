//! Runstate and time areas where the hypervisor must not write.
//!
//! Attacks: VCPUOP_register_runstate_memory_area and the time area at the M2P, in the hypervisor, at no address, over page
//! ends, on page tables, read-only pages, the shared page, and pages that go away: the hypervisor writes there at every
//! switch. Must happen: it writes only what the guest could write itself; two vCPUs share one CPU so that there are
//! switches.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::vcpu::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);

fn other() {
    while !STOP.load(Ordering::SeqCst) {
        call(nr::SCHED_OP, &[0, 0]);
    }
}

fn register(op: u64, addr: u64) -> Ret {
    let mut a = MemoryArea { addr };
    call(nr::VCPU_OP, &[op, 0, core::ptr::from_mut(&mut a) as u64])
}

fn switches() {
    for _ in 0..20 {
        call(nr::SCHED_OP, &[0, 0]);
    }
}

fn run() {
    smp::start(1, other);
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    let ro = Page::alloc();
    paging::make_ro(ro).must("read-only");
    let gone = Page::alloc();
    let edge = bad::edge();
    for op in [OP_REGISTER_RUNSTATE_MEMORY_AREA, OP_REGISTER_VCPU_TIME_MEMORY_AREA] {
        for (name, at) in bad::POINTERS.into_iter().chain([
            ("the M2P", pv_abi::arch::MACH2PHYS_VIRT_START + 0x1000),
            ("the last bytes before the hypervisor", 0x7fff_ffff_fff0),
            ("behind the hypervisor", 0xffff_8800_0000_0000),
            ("a page table", table.va),
            ("a read-only page", ro.va),
            ("over an edge", edge - 16),
            ("odd", gone.va + 3),
            ("the shared page", events::shared(0x800)),
            ("a page that goes", gone.va),
        ]) {
            obs(f!("{op}: {name}"), register(op, at));
            switches();
            if name == "a page that goes" {
                paging::update_va(gone.va, 0).must("unmap");
                switches();
                paging::make_rw(gone).must("map");
            }
        }
        check(f!("{op}: the page table is empty"), (0..512).all(|i| table.read(i) == 0));
        check(f!("{op}: the read-only page is, too"), (0..512).all(|i| ro.read(i) == 0));
        register(op, gone.va + 256).must("a good one");
        switches();
        check(f!("{op}: a good one is written"), (32..40).any(|i| gone.read(i) != 0));
    }
    STOP.store(true, Ordering::SeqCst);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    paging::unpin(table).must("unpin");
    alive();
}
