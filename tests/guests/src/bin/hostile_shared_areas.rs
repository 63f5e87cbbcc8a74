//! Attack: areas the hypervisor writes at any time (vcpu_info, runstate, time) on page tables, read-only pages, pages
//! given back or made tables later, across pages, in the hypervisor. Must happen: refused, or not written there: no
//! table ever changes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::vcpu::*;

guests::kernel!(run);

fn op<T>(cmd: u64, arg: &mut T) -> Ret {
    call(nr::VCPU_OP, &[cmd, 0, core::ptr::from_mut(arg) as u64])
}

fn run() {
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    let sum = |p: Page| (0..512).fold(0u64, |s, i| s.rotate_left(1) ^ p.read(i));
    for (name, va) in [
        ("a table", table.va),
        ("the live L1", pg::table(table.va, 1).map_or(0, |t| t.va)),
        ("the M2P", 0xffff_8000_0000_0000),
        ("the hypervisor", XEN_VA),
        ("no address", NON_CANONICAL),
        ("unmapped", 0x7000_0000_0000),
        ("the end", u64::MAX - 7),
    ] {
        let before = sum(table);
        let r = op(OP_REGISTER_RUNSTATE_MEMORY_AREA, &mut { va });
        let s = op(OP_REGISTER_VCPU_TIME_MEMORY_AREA, &mut { va });
        child::nap(3000);
        check(f!("runstate and time in {name}: no table changed"), sum(table) == before);
        obs(f!("runstate in {name}"), if r.0 < 0 { "refused" } else { "taken" });
        obs(f!("time in {name}"), if s.0 < 0 { "refused" } else { "taken" });
    }
    // a page that becomes a table after it was registered
    let later = Page::alloc();
    expect("runstate in a page", op(OP_REGISTER_RUNSTATE_MEMORY_AREA, &mut { later.va }), OK);
    child::nap(2000);
    check("it is written", later.read(2) != 0 || later.read(1) != 0);
    later.clear();
    pg::make_ro(later).must("make_ro");
    later_is_clear(later);
    let junk = sum(later);
    expect("it becomes a table", pg::pin(later, 1), OK);
    child::nap(3000);
    check("and is written no more", sum(later) == junk);
    op(OP_REGISTER_RUNSTATE_MEMORY_AREA, &mut { Page::alloc().va });
    // vcpu_info: a page that is given back stays the vCPU's
    for (name, mfn) in [
        ("a table", table.mfn()),
        ("the hypervisor's frame", xen_frame()),
        ("the LAPIC", 0xfee00),
        ("no frame", u64::MAX),
    ] {
        refused(
            f!("vcpu_info in {name}"),
            op(OP_REGISTER_VCPU_INFO, &mut RegisterVcpuInfo { mfn, offset: 0, rsvd: 0 }),
        );
    }
    for offset in [4096 - 63, 4095, 4096, u32::MAX, u32::MAX - 63, 3] {
        refused(
            f!("vcpu_info at {offset:#x}"),
            op(OP_REGISTER_VCPU_INFO, &mut RegisterVcpuInfo { mfn: later.mfn(), offset, rsvd: 0 }),
        );
    }
    let info = Page::alloc();
    expect(
        "vcpu_info in a page",
        op(OP_REGISTER_VCPU_INFO, &mut RegisterVcpuInfo { mfn: info.mfn(), offset: 128, rsvd: 0 }),
        OK,
    );
    events::info_moved(0, info.va + 128);
    events::quiet();
    let list = [info.mfn()];
    expect("it is given back", memory_op(pv_abi::memory::OP_DECREASE_RESERVATION, &mut extents(&list, 0)), Ret(1));
    check("and still written", {
        let a = info.read(16 + 6);
        child::nap(2000);
        events::now() > 0 && (info.read(16 + 5) != 0 || a != 0)
    });
    refused("it cannot become a table", {
        pg::update_va(info.va, info.ma() | pg::KERNEL_RO);

        pg::pin(info, 1)
    });
    alive();
}

fn later_is_clear(p: Page) {
    // the area may have been written between the two steps: what stands there is not present as an entry
    check("what is in it is no mapping", (0..512).all(|i| p.read(i) & 1 == 0 || p.read(i) >> 52 == 0));
}
