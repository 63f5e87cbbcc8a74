//! Attack: looking for what others left in memory: pages are filled with a pattern and given back, by this domain and by
//! children that die, and fresh ones are searched, by single pages, blocks and exchange. Must happen: all zero.
//! (Xen clears what a living domain gives back only when it pleases: its transcript says so.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging as pg;
use guests::prelude::*;
use pv_abi::memory::*;

guests::kernel!(run);

const MARK: u64 = 0x5ec2_e75e_c2e7_5ec2;

fn fill(p: Page) {
    (0..512).for_each(|i| p.write(i, MARK));
}

/// Fresh pages until `n` were looked at; words that were not zero.
fn search(n: usize, order: u32) -> &'static str {
    let window = unmapped_page();
    let mut dirty = 0;
    let mut left = n;
    while left > 0 {
        let list = [window.pfn()];
        if memory_op(OP_POPULATE_PHYSMAP, &mut extents(&list, order)) != Ret(1) {
            break;
        }
        let first = mem::read64(list.as_ptr() as u64);
        for i in 0..1u64 << order {
            pg::update_va(window.va, ((first + i) * PAGE_SIZE) | pg::KERNEL_RW).must("map a fresh page");
            dirty += (0..512).filter(|i| window.read(*i) != 0).count() as u64;
            fill(window);
            pg::update_va(window.va, 0).must("unmap");
            left = left.saturating_sub(1);
        }
        let list = [first];
        memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, order)).must("give back");
    }
    if dirty == 0 { "none" } else { "some" }
}

/// In the child: its extra pages filled, some given back, new ones searched.
fn body() {
    let first = child::inside::extra_pfn();
    let mut dirty = 0;
    for i in 0..64 {
        let p = Page { va: mem::VIRT_BASE + (first + i) * PAGE_SIZE };
        dirty += (0..512).filter(|i| p.read(*i) != 0).count() as u64;
        fill(p);
    }
    expect("in the child: words left by others", dirty, 0);
    obs(
        f!("in child {}: words in fresh pages", child::inside::word(0).load(core::sync::atomic::Ordering::SeqCst)),
        search(64, 0),
    );
    // fresh .bss is what others had
    let p = Page::alloc();
    expect("in the child: a page of its image", (0..512).filter(|i| p.read(*i) != 0).count(), 0);
    fill(p);
}

fn run() {
    // room: some pages given back first
    let mut given = 0;
    for _ in 0..64 {
        let p = Page::alloc();
        fill(p);
        pg::update_va(p.va, 0).must("unmap");
        let list = [p.mfn()];
        given += memory_op(OP_DECREASE_RESERVATION, &mut extents(&list, 0)).0;
    }
    expect("pages given back", given, 64);
    obs("words in single pages", search(64, 0));
    obs("words in blocks of 8", search(64, 3));
    obs("words in blocks of 64", search(64, 6));
    for round in 0..3 {
        let c = Child::build(body, Spec { pages: 64, room: 4, ..Spec::default() });
        c.word(0).store(round.into(), core::sync::atomic::Ordering::SeqCst);
        c.unpause().must("unpause");
        expect(f!("child {round}"), c.wait(), child::State::Finished);
        c.destroy();
        obs(f!("words after child {round}"), search(48, round));
    }
    let (a, b) = (Page::alloc(), Page::alloc());
    let mut left = 0;
    for p in [a, b] {
        fill(p);
        pg::update_va(p.va, 0).must("unmap");
        let (input, output) = ([p.mfn()], [p.pfn()]);
        let mut x = Exchange { input: extents(&input, 0), output: extents(&output, 0), nr_exchanged: 0 };
        memory_op(OP_EXCHANGE, &mut x).must("exchange");
        pg::update_va(p.va, (mem::read64(output.as_ptr() as u64) * PAGE_SIZE) | pg::KERNEL_RW).must("map");
        left += (0..512).filter(|i| p.read(*i) != 0).count();
    }
    expect("words after an exchange", left, 0);
    alive();
}
