//! Grants, and domains that die meanwhile.

use super::{Moment, Work, explore_both, quiet, run, tlb};
use crate::arch::percpu::{host, pending, this_cpu};
use crate::domain::{Domain, DomainRef, Limits, lifecycle, slots};
use crate::grants;
use crate::mm::page_type::Kind;
use crate::mm::{alloc, domain_memory, frame, phys, pin, testing};
use crate::platform::tlb::{Flush, flush_local};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;
use pv_abi::errno::Errno;
use pv_abi::grant::{
    GNTMAP_CONTAINS_PTE, GNTMAP_HOST_MAP, GTF_PERMIT_ACCESS, MapGrantRef, ST_BAD_DOMAIN, ST_BAD_PAGE, UnmapGrantRef,
};
use pv_abi::ids::{DomId, Mfn};
use std::boxed::Box;
use std::sync::Arc;
use std::vec;

const PAGES: usize = 64;
const GRANTER: DomId = DomId(5);
const MAPPER: DomId = DomId(6);

/// A domain that others can find.
fn domain(id: DomId) -> DomainRef {
    // What a test before left, in memory that is gone.
    core::mem::forget(slots::remove(id));
    testing::forget(id.0);
    let limits = Limits { max_pages: 16, max_ports: 4, grant_frames: 1, ..Limits::default() };
    let d = Domain::try_new(id, [0; 16], false, &limits).unwrap();
    slots::insert(d.clone()).unwrap();
    d
}

/// The page as a table of four entries: the others stay empty.
fn short(table: Mfn) -> Mfn {
    let at = phys::ptr(table) as usize;
    quiet(at + 4 * 8..at + 512 * 8);
    table
}

/// A domain maps another's page by a grant while that one is taken apart, and a third party takes every page there is.
/// As long as it is mapped, or a CPU may still see it, the page is nobody else's; then all of the granter goes.
#[test]
fn a_granter_dies_while_its_page_is_mapped() {
    testing::machine(PAGES);
    explore_both("grants: the granter dies while its page is mapped", 200, 100_000, || {
        testing::again(PAGES);
        host::bring_up(3);
        tlb::forget();
        let (granter, mapper) = (domain(GRANTER), domain(MAPPER));
        let page = granter.mem.allocate(0, u64::MAX).unwrap();
        let l1 = short(mapper.mem.allocate(0, u64::MAX).unwrap());
        pin::pin(&mapper.mem, l1, Kind::L1).unwrap();
        granter.grants.grow(GRANTER, 1).unwrap();
        let entry = u64::from(GTF_PERMIT_ACCESS) | u64::from(MAPPER.0) << 16 | page.0 << 32;
        // SAFETY: the granter's table, which nobody looks at yet.
        unsafe { phys::entry(granter.grants.frame(0).unwrap(), 0) }.store(entry, SeqCst);
        let _ = domain_memory::take_emptied();
        // No page is free but those of the granter, later.
        while alloc::page().is_some() {}

        let left = Arc::new(AtomicU32::new(3));
        let leave = |left: Arc<AtomicU32>| {
            move || {
                left.fetch_sub(1, SeqCst);
                while left.load(SeqCst) != 0 {
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
            }
        };
        let mapped = Moment::default();
        let maps: Work = {
            let (mapper, mapped, leave) = (mapper.clone(), mapped.clone(), leave(left.clone()));
            Box::new(move || {
                mapper.mem.dirty_cpus.insert(this_cpu().id);
                flush_local(Flush::All);
                let at = l1.0 << 12;
                let flags = GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE;
                let op = MapGrantRef { host_addr: at, flags, dom: GRANTER.0, ..MapGrantRef::default() };
                let got = grants::map(&mapper, None, &op);
                if got.is_ok() {
                    // The guest writes: the translation stays after the mapping has gone.
                    tlb::caches();
                }
                mapped.comes();
                match got {
                    Ok((handle, mfn)) => {
                        assert_eq!((mfn, frame::get(page).unwrap().owner()), (page, Some(GRANTER)));
                        assert!(slots::find(GRANTER).is_some(), "its page is mapped, and its id is free");
                        let op = UnmapGrantRef { host_addr: at, handle, ..UnmapGrantRef::default() };
                        let unmapped = grants::unmap(&mapper, None, &op).unwrap();
                        grants::flush(&mapper);
                        grants::finish(&mapper, unmapped);
                    }
                    Err(status) => assert!(matches!(status, ST_BAD_DOMAIN | ST_BAD_PAGE), "{status}"),
                }
                leave();
            })
        };
        let destroys: Work = {
            let (granter, leave) = (granter.clone(), leave(left.clone()));
            Box::new(move || {
                mapped.perhaps_wait();
                while let Err(e) = lifecycle::destroy(&granter) {
                    assert_eq!(e, Errno::EAGAIN);
                    this_cpu().pending.fetch_and(!(pending::RESCHED | pending::SOFTIRQ), SeqCst);
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
                leave();
            })
        };
        let takes: Work = {
            let leave = leave(left.clone());
            Box::new(move || {
                while left.load(SeqCst) > 1 {
                    if alloc::page() == Some(page) {
                        assert!(!tlb::cached(), "given to another, and a CPU may still write it");
                    }
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                }
                leave();
            })
        };
        run(vec![maps, destroys, takes]);
        host::bring_up(1);
        if domain_memory::take_emptied() {
            lifecycle::bury_dead();
        }
        assert_eq!(granter.mem.pages(), 0, "a dead domain's page that nobody has mapped");
        assert!(slots::find(GRANTER).is_none(), "a dead domain that nobody buries");
        assert_eq!(mapper.grants.mapped(), 0);
        pin::unpin(&mapper.mem, l1).unwrap();
        slots::remove(MAPPER);
    });
}
