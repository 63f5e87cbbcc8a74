//! Attack: two vCPUs race for one page: one makes it the GDT, the other maps it writable and stores a call gate to the
//! hypervisor. Must happen: the page never holds the gate while it is the GDT.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;

guests::kernel!(run);

static VICTIM: AtomicU64 = AtomicU64::new(0);
static ALIAS: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicU64 = AtomicU64::new(0);
const GATE: u64 = 0x0000_ec00_e008_1234;

fn writer() {
    let (victim, alias) = (Page::at(VICTIM.load(SeqCst)), Page::at(ALIAS.load(SeqCst)));
    while going() {
        if pg::update_va(alias.va, victim.ma() | KERNEL_RW) == OK {
            alias.write(5, GATE);
            alias.write(5, 0);
            MAPPED.fetch_add(1, SeqCst);
            pg::update_va(alias.va, 0).must("unmap the alias");
        }
        // the descriptor by its own call, as data and as descriptor
        call(nr::UPDATE_DESCRIPTOR, &[victim.ma() + 40, GATE]);
        pg::mmu_update(victim.ma() + 40, 0);
    }
}

fn run() {
    let (victim, alias) = (Page::alloc(), unmapped_page());
    VICTIM.store(victim.va, SeqCst);
    ALIAS.store(alias.va, SeqCst);
    pg::update_va(victim.va, victim.ma() | KERNEL_RO).must("read-only");
    other(writer);
    let list = [victim.mfn()];
    let (mut set, mut gates, mut round) = (0u64, 0u64, 0u32);
    // As long as it takes, within reason: the other vCPU may not get to run for a while.
    let patience = events::now() + 10_000_000_000;
    while round < 1500 || (set == 0 || MAPPED.load(SeqCst) == 0) && events::now() < patience {
        round += 1;
        if call(nr::SET_GDT, &[list.as_ptr() as u64, 512]) == OK {
            set += 1;
            for _ in 0..20 {
                gates += u64::from(victim.read(5) != 0);
            }
            call(nr::SET_GDT, &[0, 0]).must("no GDT");
        }
    }
    join();
    check("it was the GDT at times", set != 0);
    check("it was mapped writable too", MAPPED.load(SeqCst) != 0);
    expect("gates in the GDT", gates, 0);
    alive();
}
