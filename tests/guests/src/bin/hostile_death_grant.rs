//! Attack: grants whose owner dies: dom0 has a child's page mapped when the child is destroyed, unmaps it later; a child
//! dies with dom0's grants mapped, copied, and its own half-set. Must happen: the page is readable until it is
//! unmapped, dom0's entries are free again, all memory comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RW};
use guests::prelude::*;
use pv_abi::grant::*;

guests::kernel!(run);

/// Grants its extra pages to dom0, maps what dom0 granted it, and goes on for ever.
fn body() {
    let table = grant_table();
    let first = child::inside::extra_pfn();
    for i in 0..16 {
        let va = mem::VIRT_BASE + (first + i) * PAGE_SIZE;
        mem::write64(va, 0xabc0 + i);
        grant(table, 8 + i as usize, 0, Page { va }.mfn(), GTF_PERMIT_ACCESS);
    }
    let window = unmapped_page();
    child::inside::word(1).store(1, SeqCst);
    let mut n = 0;
    loop {
        let (h, s) = grant_map(0, 20 + n % 4, GNTMAP_HOST_MAP, window.va);
        child::inside::word(2).fetch_add(u64::from(s == 0), SeqCst);
        // Each handle that is left behind takes memory: as many in each round, however fast it goes.
        if s == 0 && (n % 3 != 0 || n >= 60) {
            grant_unmap(window.va, h);
        } else {
            pg::update_va(window.va, 0);
        }
        n += 1;
    }
}

fn run() {
    let table = grant_table();
    Child::build(body, Spec { pages: 16, ..Spec::default() }).destroy();
    child::nap(100_000);
    let mut before = 0;
    for round in 0..4u64 {
        let c = Child::build(body, Spec { pages: 16, ..Spec::default() });
        let lent: [Page; 4] = core::array::from_fn(|_| Page::alloc());
        for (i, p) in lent.iter().enumerate() {
            grant(table, 20 + i, c.id, p.mfn(), GTF_PERMIT_ACCESS);
        }
        c.unpause().must("unpause");
        check(f!("round {round}: the child is ready"), c.wait_word(1, 1));
        check(
            f!("round {round}: it maps what it was granted"),
            events::wait_ms(5000, || {
                child::nap(300);
                c.word(2).load(SeqCst) > 64
            }),
        );
        let windows: [Page; 4] = core::array::from_fn(|_| unmapped_page());
        let mut handles = [0u32; 4];
        for (i, w) in windows.iter().enumerate() {
            let ro = if i % 2 == 0 { 0 } else { GNTMAP_READONLY };
            let s;
            (handles[i], s) = grant_map(c.id, 8 + i as u32, GNTMAP_HOST_MAP | ro, w.va);
            expect(f!("round {round}: map the child's grant {i}"), s, 0);
        }
        let id = c.id;
        c.unshare();
        expect(f!("round {round}: destroy"), c.destroy_only(), OK);
        check(
            f!("round {round}: its pages are still there"),
            windows.iter().enumerate().all(|(i, w)| w.read(0) == 0xabc0 + i as u64),
        );
        let late = unmapped_page();
        let (h, s) = grant_map(id, 9, GNTMAP_HOST_MAP, late.va);
        obs(f!("round {round}: map one more of a dead domain"), if s == 0 { "allowed" } else { "refused" });
        if s == 0 {
            expect(f!("round {round}: unmap it"), grant_unmap(late.va, h), 0);
        }
        for (i, w) in windows.iter().enumerate() {
            expect(f!("round {round}: unmap {i}"), grant_unmap(w.va, handles[i]), 0);
            check(f!("round {round}: {i} is gone"), pg::pte(w.va) & 1 == 0);
        }
        check(
            f!("round {round}: the id becomes free"),
            events::wait_ms(5000, || {
                child::nap(100);
                child::info_of(id).is_none()
            }),
        );
        // what was lent is nobody's any more
        check(
            f!("round {round}: dom0's entries are not in use"),
            (20..24).all(|i| table.read(i) & u64::from(GTF_READING | GTF_WRITING) == 0),
        );
        for p in lent {
            pg::make_ro(p).must("make_ro");
            expect(f!("round {round}: a lent page can become a table"), pg::pin(p, 1), OK);
            pg::unpin(p).must("unpin");
            pg::update_va(p.va, p.ma() | KERNEL_RW).must("writable");
        }
        c.forget();
        if round == 0 {
            // what the hypervisor needs to keep track of mappings is there now
            child::nap(100_000);
            before = child::free_pages();
        }
    }
    check("all memory is back", child::all_back(before));
    alive();
}
