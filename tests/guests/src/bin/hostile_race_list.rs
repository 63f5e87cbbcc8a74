//! Attack: the second vCPU changes lists while the hypervisor reads them: an update's entry is harmless when it is looked
//! at and maps a table when it is stored; a descriptor likewise; counts and pointers too. Must happen: what was checked
//! is what is used: no table is ever mapped writable.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, RW};
use guests::prelude::*;

guests::kernel!(run);

static LIST: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static GOOD: AtomicU64 = AtomicU64::new(0);
static EVIL: AtomicU64 = AtomicU64::new(0);

fn flipper() {
    let (good, evil) = (GOOD.load(SeqCst), EVIL.load(SeqCst));
    while going() {
        for w in LIST.iter().skip(1).step_by(2) {
            w.store(evil, SeqCst);
        }
        for w in LIST.iter().skip(1).step_by(2) {
            w.store(good, SeqCst);
        }
    }
}

fn run() {
    let window = Page::alloc();
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    let slot = pg::slot(window.va, 1);
    GOOD.store(table.ma() | KERNEL_RO, SeqCst);
    EVIL.store(table.ma() | KERNEL_RW, SeqCst);
    for (i, w) in LIST.iter().enumerate() {
        w.store(if i % 2 == 0 { slot } else { table.ma() | KERNEL_RO }, SeqCst);
    }
    other(flipper);
    let (mut done, mut refused_ones, mut writable) = (0u64, 0u64, 0u64);
    let (mut round, patience) = (0u32, events::now() + 10_000_000_000);
    // Longer if the other vCPU did not get to run meanwhile.
    while round < 3000 || (done == 0 || refused_ones == 0) && events::now() < patience {
        round += 1;
        let mut n = 0u32;
        let r = call(nr::MMU_UPDATE, &[LIST.as_ptr() as u64, 32, core::ptr::from_mut(&mut n) as u64, pg::DOMID_SELF]);
        done += u64::from(r == OK);
        refused_ones += u64::from(r == errno(EBUSY));
        writable += u64::from(pg::pte(window.va) & RW != 0 && pg::pte(window.va) & pg::FRAME == table.ma());
    }
    join();
    expect("times the table was mapped writable", writable, 0);
    check("both kinds were met", done > 0 && refused_ones > 0);
    // descriptors: a page of them changes while it is checked
    let gdt = Page::alloc();
    GOOD.store(0x00cf_f300_0000_ffff, SeqCst);
    EVIL.store(0x0000_ec00_e008_1234, SeqCst);
    LIST.iter().for_each(|w| w.store(0x00cf_f300_0000_ffff, SeqCst));
    other(flipper);
    let mut gates = 0u64;
    for i in 0..3000u64 {
        let at = gdt.ma() + 8 * (i % 512);
        let d = LIST[1].load(SeqCst);
        call(nr::UPDATE_DESCRIPTOR, &[at, d]);
        gates += u64::from(gdt.read((i % 512) as usize) == 0x0000_ec00_e008_1234);
    }
    join();
    expect("gates stored", gates, 0);
    alive();
}
