//! Attack: frames of another domain mapped while they change: its tables writable by dom0, a page that dom0 has writable
//! made a table, a mapping kept while its owner gives the page away. Must happen: never a writable table; the page stays
//! until the last mapping goes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;

guests::kernel!(run);

/// The child does what the parent says in word 0 to page 0 of its extra pages; word 1 is the result.
fn body() {
    let p = Page { va: mem::VIRT_BASE + child::inside::extra_pfn() * PAGE_SIZE };
    let mfn = p.mfn();
    let (order, answer) = (child::inside::word(0), child::inside::word(1));
    loop {
        let r = match order.load(SeqCst) {
            0 => {
                child::nap(100);
                continue;
            }
            1 => pg::make_ro(p),
            2 => pg::pin(p, 1),
            3 => pg::unpin(p),
            4 => pg::make_rw(p),
            5 => {
                let list = [mfn];
                pg::update_va(p.va, 0);
                memory_op(pv_abi::memory::OP_DECREASE_RESERVATION, &mut extents(&list, 0))
            }
            _ => return,
        };
        answer.store(r.0 as u64, SeqCst);
        order.store(0, SeqCst);
    }
}

fn tell(c: &Child, order: u64) -> Ret {
    c.word(0).store(order, SeqCst);
    if !c.wait_word(0, 0) {
        report::error(f!("the child does not answer"));
    }
    Ret(c.word(1).load(SeqCst) as i64)
}

fn run() {
    let c = Child::run(body, Spec { pages: 4, ..Spec::default() });
    let window = Page::alloc();
    let own = pg::pte(window.va);
    let slot = pg::slot(window.va, 1);
    let mfn = c.mfn(c.parts().extra);
    for n in 0..c.parts().end - c.parts().tables {
        let t = c.mfn(c.parts().tables + n);
        refused(f!("table {n} of the child writable"), child::foreign_update(slot, (t * PAGE_SIZE) | KERNEL_RW, c.id));
        refused(f!("table {n} as dom0's own"), pg::mmu_update(slot, (t * PAGE_SIZE) | KERNEL_RO));
    }
    expect(
        "its L4 read-only",
        child::foreign_update(slot, (c.mfn(c.parts().tables) * PAGE_SIZE) | KERNEL_RO, c.id),
        OK,
    );
    refused(
        "then writable by the same entry",
        child::foreign_update(slot, (c.mfn(c.parts().tables) * PAGE_SIZE) | KERNEL_RW, c.id),
    );
    check("that entry did not change", pg::pte(window.va) & pg::RW == 0);
    expect("a page of it writable", child::foreign_update(slot, (mfn * PAGE_SIZE) | KERNEL_RW, c.id), OK);
    pg::mmuext(9 - 2, window.va, 0);
    expect("the child: read-only", tell(&c, 1), OK);
    expect("the child: pin it while dom0 writes it", tell(&c, 2), errno(EINVAL));
    window.write(0, 1);
    pg::update_va(window.va, 0).must("unmap");
    window_gone(window);
    mem_write(&c, mfn, 0);
    expect("the child: pin it now", tell(&c, 2), OK);
    refused("dom0 maps it writable now", child::foreign_update(slot, (mfn * PAGE_SIZE) | KERNEL_RW, c.id));
    expect("dom0 maps it read-only", child::foreign_update(slot, (mfn * PAGE_SIZE) | KERNEL_RO, c.id), OK);
    refused("dom0 pins it as its own", pg::mmuext(0, mfn, 0));
    refused("dom0 updates it as its own", pg::mmu_update(mfn * PAGE_SIZE, 0));
    refused("dom0 updates it as the child's", child::foreign_update(mfn * PAGE_SIZE, 0, c.id));
    refused("dom0 gives it back as its own", {
        let list = [mfn];
        Ret(memory_op(pv_abi::memory::OP_DECREASE_RESERVATION, &mut extents(&list, 0)).0 - 1)
    });
    expect("the child: unpin it", tell(&c, 3), OK);
    expect("the child: writable", tell(&c, 4), OK);
    expect("the child: gives it back while dom0 reads it", tell(&c, 5), Ret(1));
    check("dom0 still reads it", window.read(0) == window.read(0));
    pg::update_va(window.va, own).must("the window's own page back");
    c.word(0).store(9, SeqCst);
    expect("the child", c.wait(), child::State::Finished);
    c.destroy();
    alive();
}

fn window_gone(w: Page) {
    check("the window faults", !probe::catch(|| w.write(0, 2)).is_done());
}

fn mem_write(c: &Child, mfn: u64, value: u64) {
    child::look(c.id, mfn, |p| p.write(0, value));
}
