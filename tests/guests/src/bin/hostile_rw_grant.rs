//! Attack: page tables and descriptor pages written through grants: mapped writable (by address and by entry), copied
//! to, granted first and made a table later. Must happen: each is refused; a page mapped by grant cannot become a table.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RW};
use guests::prelude::*;
use pv_abi::grant::*;

guests::kernel!(run);

fn copy_to(dst: CopyPtr, flags: u16, src: u64) -> Ret {
    let mut c = [Copy {
        source: CopyPtr { reference: src, domid: SELF, ..CopyPtr::default() },
        dest: dst,
        len: 64,
        flags,
        ..Copy::default()
    }];
    call(nr::GRANT_TABLE_OP, &[OP_COPY, c.as_mut_ptr() as u64, 1]).must("copy");
    status(c[0].status)
}

fn run() {
    let table = grant_table();
    let (window, source) = (unmapped_page(), Page::alloc());
    for level in 1..=4u32 {
        let t = pg::new_table();
        pg::pin(t, level).must("pin");
        grant(table, 9, 0, t.mfn(), GTF_PERMIT_ACCESS);
        refused(f!("L{level} mapped by grant"), status(grant_map(0, 9, GNTMAP_HOST_MAP, window.va).1));
        refused(
            f!("L{level} mapped by entry"),
            status(grant_map(0, 9, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, pg::slot(window.va, 1)).1),
        );
        refused(f!("L{level} for devices"), status(grant_map(0, 9, GNTMAP_DEVICE_MAP, 0).1));
        refused(
            f!("L{level} copied to by grant"),
            copy_to(CopyPtr { reference: 9, domid: 0, ..CopyPtr::default() }, GNTCOPY_DEST_GREF, source.mfn()),
        );
        refused(
            f!("L{level} copied to by frame"),
            copy_to(CopyPtr { reference: t.mfn(), domid: SELF, ..CopyPtr::default() }, 0, source.mfn()),
        );
        let (h, s) = grant_map(0, 9, GNTMAP_HOST_MAP | GNTMAP_READONLY, window.va);
        expect(f!("L{level} read by grant"), s, 0);
        expect(f!("L{level}: the entry is read-only"), pg::pte(window.va) & pg::RW, 0);
        refused(f!("L{level}: that entry made writable"), pg::mmu_update(pg::slot(window.va, 1), t.ma() | KERNEL_RW));
        expect(f!("L{level}: unmap"), grant_unmap(window.va, h), 0);
        // the entry to be made lies in the pinned page itself: only an L1 has such
        let p = Page::alloc();
        grant(table, 10, 0, p.mfn(), GTF_PERMIT_ACCESS);
        let (h, s) = grant_map(0, 10, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, t.ma() + 8);
        obs(f!("L{level} takes a grant's entry"), if s == 0 { "yes" } else { "no" });
        if s == 0 {
            expect(f!("L{level}: take it out"), grant_unmap(t.ma() + 8, h), 0);
        }
        for (name, at) in [
            ("misaligned", t.ma() + 4),
            ("the hypervisor's", xen_frame() * PAGE_SIZE),
            ("no RAM", 0xfee0_0000),
            ("beyond all", u64::MAX - 7),
        ] {
            refused(
                f!("L{level}: entry at an address {name}"),
                status(grant_map(0, 10, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, at).1),
            );
        }
        // first granted and mapped, then to be a table
        pg::make_ro(p).must("make_ro");
        let (h, s) = grant_map(0, 10, GNTMAP_HOST_MAP, window.va);
        expect("a data page by grant", s, 0);
        refused(f!("a page mapped by grant, pinned as L{level}"), pg::pin(p, level));
        pg::update_va(window.va, 0).must("the entry overwritten");
        let early = pg::pin(p, level);
        obs(f!("its entry overwritten, pinned as L{level}"), if early == OK { "allowed" } else { "refused" });
        refused("unmap what was overwritten", status(grant_unmap(window.va, h)));
        if early == OK {
            refused(f!("then writable by the same entry, L{level}"), pg::update_va(window.va, p.ma() | KERNEL_RW));
            pg::unpin(p).must("unpin");
        }
        pg::update_va(window.va, p.ma() | pg::P | pg::RW | pg::A | pg::D | pg::NX).must("an entry in its place");
        expect("unmap with an entry like it in its place", grant_unmap(window.va, h), 0);
        expect(f!("then it is pinned as L{level}"), pg::pin(p, level), OK);
        pg::unpin(p).must("unpin");
    }
    alive();
}
