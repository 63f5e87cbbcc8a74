//! Attack: one vCPU goes on writing through a translation whose entry the other has taken out without a flush; the page
//! becomes a table, or is given back and used by others. Must happen: before the page is anything else no write gets
//! through any more: the writer faults.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

static PAGE: AtomicU64 = AtomicU64::new(0);
static ALIAS: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Takes the writer's entry out, makes the page a table and watches it.
fn to_table() {
    let (page, alias) = (Page::at(PAGE.load(SeqCst)), Page::at(ALIAS.load(SeqCst)));
    while STEP.load(SeqCst) == 0 {}
    call(nr::UPDATE_VA_MAPPING, &[alias.va, 0, 0]).must("take the entry out");
    pg::pin(page, 1).must("pin");
    let first = page.read(9);
    for _ in 0..20_000 {
        SEEN.fetch_add(u64::from(page.read(9) != first), SeqCst);
    }
    STEP.store(2, SeqCst);
    pg::unpin(page).must("unpin");
}

/// Gives the page back, takes pages until it comes again (or not), and watches those.
fn to_others() {
    let (page, alias) = (Page::at(PAGE.load(SeqCst)), Page::at(ALIAS.load(SeqCst)));
    while STEP.load(SeqCst) == 0 {}
    call(nr::UPDATE_VA_MAPPING, &[alias.va, 0, 0]).must("take the entry out");
    call(nr::UPDATE_VA_MAPPING, &[page.va, 0, 0]).must("take the own entry out");
    let list = [page.mfn()];
    memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 0)).must("give back");
    let mut got = [0u64; 16];
    for g in &mut got {
        let list = [page.pfn()];
        if memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, 0)) == Ret(1) {
            *g = mem::read64(list.as_ptr() as u64);
            pg::update_va(page.va, (*g * PAGE_SIZE) | KERNEL_RW).must("map");
            let first = page.read(9);
            for _ in 0..2000 {
                SEEN.fetch_add(u64::from(page.read(9) != first), SeqCst);
            }
            pg::update_va(page.va, 0).must("unmap");
        }
    }
    STEP.store(2, SeqCst);
}

fn writes(round: u64, job: fn()) -> bool {
    let (page, alias) = (Page::alloc(), unmapped_page());
    page.write(9, 0x1000_0000);
    pg::make_ro(page).must("make_ro");
    pg::update_va(alias.va, page.ma() | KERNEL_RW).must("alias");
    PAGE.store(page.va, SeqCst);
    ALIAS.store(alias.va, SeqCst);
    STEP.store(0, SeqCst);
    other(job);
    let mut n = 0u64;
    // bit 0 stays clear: what is written is no mapping
    let faulted = !probe::catch(|| {
        while STEP.load(SeqCst) != 2 {
            alias.write(9, 0x1000_0000 + ((n + round) << 12));
            n += 1;
            if n == 1000 {
                STEP.store(1, SeqCst);
            }
        }
        // if this vCPU stood still all the while
        alias.write(9, 0);
    })
    .is_done();
    join();
    faulted
}

fn run() {
    for round in 0..10 {
        check(f!("round {round}: the writer faults when the page is a table"), writes(round, to_table));
    }
    for round in 0..10 {
        check(f!("round {round}: the writer faults when the page is another's"), writes(round, to_others));
    }
    expect("writes that got through", SEEN.load(SeqCst), 0);
    let p = Page::alloc();
    pg::update_va(p.va, p.ma() | KERNEL_RO).must("read-only");
    alive();
}
