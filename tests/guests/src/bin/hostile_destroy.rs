//! Attack: domains destroyed twice, used after death and before they are whole; limits below what they have, of 0 and of
//! everything; a flood of domains. Must happen: errors, and all memory back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::domctl::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn op(cmd: u32, id: u16) -> Ret {
    child::domctl(&mut Domctl::new(cmd, id))
}

fn idle() {
    loop {
        child::nap(1000);
    }
}

fn run() {
    Child::build(idle, Spec::default()).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let c = Child::run(idle, Spec { room: 16, ..Spec::default() });
    let id = c.id;
    let has = c.info().map_or(0, |i| i.tot_pages);
    let list = [3u64];
    let give =
        |n: u64| memory_op(OP_POPULATE_PHYSMAP, &mut Reservation { domid: id, nr_extents: n, ..extents(&list, 0) });
    expect("one more page", give(1), Ret(1));
    for limit in [0, 1, has / 2, has] {
        obs(
            f!(
                "a limit of {}",
                if limit == 0 {
                    "0"
                } else if limit == 1 {
                    "1"
                } else {
                    "less than it has"
                }
            ),
            c.max_mem(limit),
        );
        expect("no page beyond it", give(1), Ret(0));
        check("it keeps what it has", c.info().is_some_and(|i| i.tot_pages == has + 1));
    }
    for limit in [u64::MAX / 4, 1 << 50] {
        obs("a limit beyond the machine", c.max_mem(limit));
    }
    let mut r = Reservation {
        domid: id,
        nr_extents: 1,
        extent_start: list.as_ptr() as u64,
        extent_order: 10,
        ..Reservation::default()
    };
    let mut blocks = 0;
    while memory_op(OP_POPULATE_PHYSMAP, &mut r) == Ret(1) {
        blocks += 1;
    }
    check("it got blocks until there was no more", blocks > 20);
    c.unshare();
    expect("destroy", c.destroy_only(), OK);
    for _ in 0..3 {
        let r = c.destroy_only();
        check("destroy again", r == OK || r == errno(ESRCH));
    }
    check(
        "the id becomes free",
        events::wait_ms(20_000, || {
            child::nap(300);
            child::info_of(id).is_none()
        }),
    );
    for cmd in [
        OP_DESTROYDOMAIN,
        OP_PAUSEDOMAIN,
        OP_UNPAUSEDOMAIN,
        OP_SETVCPUCONTEXT,
        OP_GETVCPUCONTEXT,
        OP_MAX_VCPUS,
        OP_MAX_MEM,
        OP_RESUMEDOMAIN,
        OP_GETVCPUINFO,
        OP_SCHEDULER_OP,
        OP_GETPAGEFRAMEINFO3,
    ] {
        refused(f!("domctl {cmd} of a dead domain"), op(cmd, id));
    }
    check("all memory is back", child::all_back(before));
    c.forget();
    for cmd in [OP_DESTROYDOMAIN, OP_PAUSEDOMAIN, OP_SETVCPUCONTEXT, OP_MAX_VCPUS] {
        refused(f!("domctl {cmd} of itself"), op(cmd, 0));
    }
    // domains that are no more than a name
    let make = Createdomain {
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        ..Default::default()
    };
    let mut ids = [0u16; 24];
    let flood = |ids: &mut [u16]| {
        for i in ids {
            let mut o = Domctl::with(OP_CREATEDOMAIN, 0, &make);
            child::domctl(&mut o).must("createdomain");
            *i = o.domain;
        }
    };
    // Once before it counts: a hypervisor may keep for good what its heap has grown by.
    flood(&mut ids);
    for i in ids {
        op(OP_DESTROYDOMAIN, i).must("destroy one of the first flood");
    }
    events::wait_ms(2000, || ids.iter().all(|i| child::info_of(*i).is_none()));
    let before = child::free_pages();
    flood(&mut ids);
    check("all are different", ids.iter().enumerate().all(|(n, a)| ids[n + 1..].iter().all(|b| a != b)));
    refused("one more with a taken id", child::domctl(&mut Domctl::with(OP_CREATEDOMAIN, ids[3], &make)));
    for i in ids {
        refused(
            f!("a context without a vCPU"),
            child::domctl(&mut Domctl::with(OP_SETVCPUCONTEXT, i, &Vcpucontext::default())),
        );
        expect("destroy an empty one", op(OP_DESTROYDOMAIN, i), OK);
    }
    check("all memory is back after the flood", child::all_back(before));
    alive();
}
