//! Attack: two vCPUs race for one page: one pins it as a table of each level, the other maps it writable and stores an
//! entry that maps a page table writable. Must happen: while it is a table the store never succeeds, and no table ever
//! holds that entry.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;

guests::kernel!(run);

static VICTIM: AtomicU64 = AtomicU64::new(0);
static ALIAS: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// The other vCPU: maps the page writable at the alias, stores, unmaps.
fn writer() {
    let (victim, alias) = (Page::at(VICTIM.load(SeqCst)), Page::at(ALIAS.load(SeqCst)));
    let evil = pg::l4().ma() | KERNEL_RW;
    while going() {
        if pg::update_va(alias.va, victim.ma() | KERNEL_RW) == OK {
            alias.write(7, evil);
            alias.write(7, 0);
            MAPPED.fetch_add(1, SeqCst);
            pg::update_va(alias.va, 0).must("unmap the alias");
        }
    }
}

fn run() {
    let (victim, alias) = (Page::alloc(), unmapped_page());
    VICTIM.store(victim.va, SeqCst);
    ALIAS.store(alias.va, SeqCst);
    pg::update_va(victim.va, victim.ma() | KERNEL_RO).must("read-only");
    let (mut pinned, mut evil) = ([0u64; 5], 0);
    // Each level once undisturbed: which of them the race lets through is chance.
    for level in 1..=4 {
        if pg::pin(victim, level) == OK {
            pinned[level as usize] += 1;
            pg::unpin(victim).must("unpin");
        }
    }
    other(writer);
    let mut round = 0u32;
    // As long as it takes, within reason: the other vCPU may not get to run for a while.
    let patience = events::now() + 10_000_000_000;
    while round < 1500 || MAPPED.load(SeqCst) == 0 && events::now() < patience {
        let level = round % 4 + 1;
        round += 1;
        if pg::pin(victim, level) == OK {
            pinned[level as usize] += 1;
            evil += u64::from(victim.read(7) != 0);
            for _ in 0..20 {
                evil += u64::from(victim.read(7) != 0);
            }
            pg::unpin(victim).must("unpin");
        }
    }
    join();
    check("it was pinned as each level", pinned[1..].iter().all(|n| *n != 0));
    check("it was mapped writable too", MAPPED.load(SeqCst) != 0);
    expect("times the table held the entry", evil, 0);
    alive();
}
