//! Attack: a domain dies while it gives pages back, takes single ones and blocks, and exchanges them. Must happen: all of
//! its memory comes back, also what was being made ready for it.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

fn body() {
    let first = child::inside::extra_pfn();
    let mut dice = Dice(0x99 + child::inside::word(0).load(SeqCst));
    let mut blocks = [0u64; 8];
    for i in 0..128 {
        pg::update_va(mem::VIRT_BASE + (first + i) * PAGE_SIZE, 0).must("unmap");
    }
    loop {
        child::inside::word(1).fetch_add(1, SeqCst);
        let block = &mut blocks[dice.below(8) as usize];
        match dice.below(4) {
            0 if *block == 0 => {
                let list = [0u64];
                if memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, 9)) == Ret(1) {
                    *block = mem::read64(list.as_ptr() as u64);
                }
            }
            1 if *block != 0 => {
                let list = [*block];
                memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 9));
                *block = 0;
            }
            2 => {
                let input = [mem::mfn_of(first + dice.below(128))];
                let output = [first];
                memory_op(
                    OP_EXCHANGE,
                    &mut Exchange { input: extents(&input, 0), output: extents(&output, 0), nr_exchanged: 0 },
                );
            }
            _ => {
                let list: [u64; 64] = core::array::from_fn(|i| mem::mfn_of(first + i as u64));
                memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 0));
                let pfns: [u64; 64] = core::array::from_fn(|i| first + i as u64);
                memory_op(OP_POPULATE_PHYSMAP, &mut extents(&pfns, 0));
            }
        }
    }
}

fn run() {
    Child::build(body, Spec { pages: 128, ..Spec::default() }).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let mut begun = 0;
    for round in 0..10u64 {
        let c = Child::build(body, Spec { pages: 128, room: 4096, ..Spec::default() });
        c.word(0).store(round * 104_729, SeqCst);
        c.unpause().must("unpause");
        begun += u32::from(events::wait_ms(10_000, || {
            child::nap(700);
            c.word(1).load(SeqCst) > round * 3
        }));
        if round % 2 == 0 {
            c.pause().must("pause");
        }
        c.destroy().must("destroy");
    }
    expect("children that were at it", begun, 10);
    check("all memory is back", child::all_back(before));
    alive();
}
