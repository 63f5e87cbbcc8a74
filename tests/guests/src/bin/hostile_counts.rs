//! Attack: reference and type counts driven up: one frame mapped 50,000 times, one L1 hooked in 2,000 times, one page
//! granted and mapped a thousand times. Must happen: counted rightly, up and down; nothing wraps, and the frame is free
//! when the last use is gone.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, TABLE};
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    // 100 L1 tables of 512 writable mappings each of one page
    let data = Page::alloc();
    let l1s: [Page; 100] = core::array::from_fn(|_| {
        let t = Page::alloc();
        (0..512).for_each(|i| t.write(i, data.ma() | KERNEL_RW));
        pg::make_ro(t).must("make_ro");
        t
    });
    check("51200 writable mappings", l1s.iter().all(|t| pg::pin(*t, 1) == OK));
    pg::make_ro(data).must("make_ro");
    expect("it cannot become a table", pg::pin(data, 1), errno(EINVAL));
    for t in &l1s[1..] {
        pg::unpin(*t).must("unpin");
    }
    for i in 1..512 {
        pg::mmu_update(l1s[0].ma() + 8 * i, 0).must("take one out");
    }
    expect("nor with one left", pg::pin(data, 1), errno(EINVAL));
    pg::mmu_update(l1s[0].ma(), data.ma() | KERNEL_RO).must("the last one read-only");
    expect("without any it does", pg::pin(data, 1), OK);
    pg::unpin(data).must("unpin");
    pg::unpin(l1s[0]).must("unpin");
    // one L1 in all entries of four L2s
    let l1 = pg::new_table();
    let l2s: [Page; 4] = core::array::from_fn(|_| {
        let t = Page::alloc();
        (0..512).for_each(|i| t.write(i, l1.ma() | TABLE));
        pg::make_ro(t).must("make_ro");
        t
    });
    check("hooked in 2048 times", l2s.iter().all(|t| pg::pin(*t, 2) == OK));
    for t in l2s {
        expect("still a table", pg::make_rw(l1), errno(EBUSY));
        pg::unpin(t).must("unpin");
    }
    expect("free again", pg::make_rw(l1), OK);
    // one grant mapped into all entries of an L1
    let table = grant_table();
    grant(table, 9, 0, data.mfn(), pv_abi::grant::GTF_PERMIT_ACCESS);
    let l1 = pg::new_table();
    pg::pin(l1, 1).must("pin");
    let (mut handles, mut mapped) = ([u32::MAX; 512], 0usize);
    for (i, h) in handles.iter_mut().enumerate() {
        let (handle, s) = grant_map(
            0,
            9,
            pv_abi::grant::GNTMAP_HOST_MAP | pv_abi::grant::GNTMAP_CONTAINS_PTE,
            l1.ma() + 8 * i as u64,
        );
        *h = if s == 0 { handle } else { u32::MAX };
        mapped += usize::from(s == 0);
    }
    check("mapped by grant a hundred times", mapped >= 100);
    refused("a table now", pg::pin(data, 1));
    let unmapped = handles.iter().enumerate().filter(|(i, h)| grant_unmap(l1.ma() + 8 * *i as u64, **h) == 0).count();
    check("all unmapped", unmapped == mapped);
    expect("a table then", pg::pin(data, 1), OK);
    pg::unpin(data).must("unpin");
    alive();
}
