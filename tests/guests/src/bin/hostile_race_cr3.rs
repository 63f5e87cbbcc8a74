//! Attack: one vCPU loads and leaves an L4 that nobody pins while the other maps that L4 writable, overwrites the
//! hypervisor's slots, pins it as something else, gives its page back. Must happen: the first always runs on a valid
//! table; the page is the other's only while nobody has it loaded.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

static L4: AtomicU64 = AtomicU64::new(0);
static ALIAS: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn thief() {
    let (l4, alias) = (Page::at(L4.load(SeqCst)), Page::at(ALIAS.load(SeqCst)));
    while going() {
        if pg::update_va(alias.va, l4.ma() | KERNEL_RW) == OK {
            TAKEN.fetch_add(1, SeqCst);
            let saved: [u64; 512] = core::array::from_fn(|i| alias.read(i));
            (0..512).for_each(|i| alias.write(i, 0xdead_beef_0000_0003));
            (0..512).for_each(|i| alias.write(i, if (256..=271).contains(&i) { 0xdead_0007 } else { saved[i] }));
            pg::update_va(alias.va, 0).must("unmap the alias");
        } else if pg::pin(l4, 1) == OK {
            pg::unpin(l4).must("unpin");
        }
    }
}

fn run() {
    let (l4, alias) = (Page::alloc(), unmapped_page());
    (0..512).filter(|i| !(256..=271).contains(i)).for_each(|i| l4.write(i, pg::l4().read(i)));
    pg::update_va(l4.va, l4.ma() | KERNEL_RO).must("read-only");
    L4.store(l4.va, SeqCst);
    ALIAS.store(alias.va, SeqCst);
    other(thief);
    let (mut loaded, mut round) = (0u64, 0u32);
    // As long as it takes, within reason: the other vCPU may not get to run for a while.
    let patience = events::now() + 10_000_000_000;
    while round < 3000 || (loaded == 0 || TAKEN.load(SeqCst) == 0) && events::now() < patience {
        round += 1;
        if pg::mmuext(mmu::EXT_NEW_BASEPTR, l4.mfn(), 0) == OK {
            loaded += 1;
            if round % 2 == 0 {
                pg::mmuext(mmu::EXT_NEW_USER_BASEPTR, l4.mfn(), 0).must("user base");
                pg::mmuext(mmu::EXT_NEW_USER_BASEPTR, 0, 0).must("no user base");
            }
            pg::mmuext(mmu::EXT_NEW_BASEPTR, pg::l4().mfn(), 0).must("back");
        }
    }
    join();
    check("it was loaded", loaded != 0);
    check("it was taken", TAKEN.load(SeqCst) != 0);
    expect("it is free", pg::make_rw(l4), OK);
    alive();
}
