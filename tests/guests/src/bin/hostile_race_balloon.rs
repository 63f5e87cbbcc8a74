//! Attack: two vCPUs give back, exchange, map and pin the same frames at the same time. Must happen: each page is taken
//! once; the domain's size adds up; whoever loses gets an error.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

static FRAMES: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static GIVEN: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn step(dice: &mut Dice, window: Page) {
    let cell = &FRAMES[dice.below(8) as usize];
    let mfn = cell.load(SeqCst);
    match dice.below(5) {
        0 => {
            let list = [mfn];
            if memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 0)) == Ret(1) {
                GIVEN.fetch_add(1, SeqCst);
            }
        }
        1 => {
            let list = [window.pfn()];
            if memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, 0)) == Ret(1) {
                TAKEN.fetch_add(1, SeqCst);
                cell.store(mem::read64(list.as_ptr() as u64), SeqCst);
            }
        }
        2 => {
            let (input, output) = ([mfn], [window.pfn()]);
            let mut x = Exchange { input: extents(&input, 0), output: extents(&output, 0), nr_exchanged: 0 };
            if memory_op(OP_EXCHANGE, &mut x) == OK {
                cell.store(mem::read64(output.as_ptr() as u64), SeqCst);
            }
        }
        3 => {
            if pg::update_va(window.va, (mfn * PAGE_SIZE) | pg::KERNEL_RW) == OK {
                window.write(3, mfn << 1);
                pg::update_va(window.va, 0).must("unmap");
            }
        }
        _ => {
            if pg::mmuext(0, mfn, 0) == OK {
                pg::mmuext(4, mfn, 0).must("unpin");
            }
        }
    }
}

fn second() {
    let (mut dice, window) = (Dice(0xabcd), unmapped_page());
    while going() {
        step(&mut dice, window);
    }
}

fn run() {
    for f in &FRAMES {
        f.store(unmapped_page().mfn(), SeqCst);
    }
    let size = || memory_op(OP_CURRENT_RESERVATION, &mut { SELF }).0;
    let (mut dice, window) = (Dice(0x4321), unmapped_page());
    let before = size();
    other(second);
    for _ in 0..1500 {
        step(&mut dice, window);
    }
    join();
    check("pages were given back and taken", GIVEN.load(SeqCst) > 20 && TAKEN.load(SeqCst) > 20);
    // (Xen says "given" of a page again while something still refers to it)
    let (given, taken) = (GIVEN.load(SeqCst) as i64, TAKEN.load(SeqCst) as i64);
    check("the size adds up", (taken - given..=taken).contains(&(size() - before)));
    alive();
}
