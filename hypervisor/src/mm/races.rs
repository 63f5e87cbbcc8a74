//! Model checks of the page types (`model/`): CPUs that map a page writable, make it a table, and update it, all at once.
//!
//! What must hold at every moment: no page is data for one and a table for another; and when a page has become a table, no
//! CPU holds a translation that lets a guest write it, since whoever mapped it writable may keep that until a flush.

use super::domain_memory::{self, DomainMemory};
use super::frame;
use super::page_type::{self, Kind, Refused};
use super::pte::{Pte, bit};
use super::update::{Store, Table};
use super::{phys, pin, testing};
use crate::arch::percpu::this_cpu;
use crate::atomic::spin_loop;
use crate::model::{Work, explore_both, run, tlb};
use crate::sync::serve_requests;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;
use std::boxed::Box;
use std::sync::Arc;
use std::vec;

const PAGES: usize = 32;

/// Who uses the page as what, as the CPUs believe.
#[derive(Default)]
struct Uses {
    writable: AtomicU32,
    table: AtomicU32,
    /// CPUs that have not ended yet.
    left: AtomicU32,
}

/// Ends a CPU's work: it leaves for a guest, which it does not do while others wait for it.
fn leave(uses: &Uses) {
    uses.left.fetch_sub(1, SeqCst);
    while uses.left.load(SeqCst) != 0 {
        spin_loop();
        serve_requests();
    }
}

fn writer(mem: &'static DomainMemory, page: Mfn, uses: Arc<Uses>, rounds: u32) -> Work {
    Box::new(move || {
        // The domain runs here.
        mem.dirty_cpus.insert(this_cpu().id);
        for _ in 0..rounds {
            // As when it begins to run a vCPU.
            crate::platform::tlb::flush_local(crate::platform::tlb::Flush::All);
            match page_type::get_page_and_type(page, Kind::Writable, mem.owner(), false) {
                Ok(f) => {
                    uses.writable.fetch_add(1, SeqCst);
                    assert_eq!(uses.table.load(SeqCst), 0, "data, and a table");
                    // The guest writes: the translation stays after the mapping has gone.
                    tlb::caches();
                    spin_loop();
                    assert_eq!(uses.table.load(SeqCst), 0, "data, and a table");
                    uses.writable.fetch_sub(1, SeqCst);
                    page_type::put_page_and_type(f, mem.owner(), false).unwrap();
                }
                Err(e) => assert_eq!(e, Refused::Error(Errno::EBUSY)),
            }
            serve_requests();
        }
        leave(&uses);
    })
}

fn promoter(mem: &'static DomainMemory, page: Mfn, uses: Arc<Uses>, rounds: u32) -> Work {
    Box::new(move || {
        for _ in 0..rounds {
            match page_type::get_page_and_type(page, Kind::L1, mem.owner(), false) {
                Ok(f) => {
                    uses.table.fetch_add(1, SeqCst);
                    assert_eq!(uses.writable.load(SeqCst), 0, "a table, and data");
                    assert!(!tlb::cached(), "a table, and a CPU may still write it");
                    assert!(f.is_valid(Kind::L1));
                    spin_loop();
                    assert_eq!(uses.writable.load(SeqCst), 0, "a table, and data");
                    uses.table.fetch_sub(1, SeqCst);
                    page_type::put_page_and_type(f, mem.owner(), false).unwrap();
                }
                Err(e) => assert_eq!(e, Refused::Error(Errno::EBUSY)),
            }
            serve_requests();
        }
        leave(&uses);
    })
}

/// A domain with some pages, in memory that is as new.
fn domain() -> &'static DomainMemory {
    testing::again(PAGES);
    tlb::forget();
    testing::domain(1, PAGES as u64)
}

/// Nothing is left of the uses.
fn unused(page: Mfn) {
    let f = frame::get(page).unwrap();
    assert_eq!((f.type_count(), f.references(), f.partial()), (0, 1, false));
}

#[test]
fn data_and_table_exclude_each_other() {
    testing::machine(PAGES);
    explore_both("page types: one maps writable, one makes a table", 60, 100_000, || {
        crate::arch::percpu::host::bring_up(2);
        let mem = domain();
        let page = mem.allocate(0, u64::MAX).unwrap();
        let uses = Arc::new(Uses { left: AtomicU32::new(2), ..Uses::default() });
        run(vec![writer(mem, page, uses.clone(), 3), promoter(mem, page, uses, 2)]);
        unused(page);
    });
}

#[test]
fn two_writers_and_a_table() {
    testing::machine(PAGES);
    explore_both("page types: two map writable, one makes a table", 80, 100_000, || {
        crate::arch::percpu::host::bring_up(3);
        let mem = domain();
        let page = mem.allocate(0, u64::MAX).unwrap();
        let uses = Arc::new(Uses { left: AtomicU32::new(3), ..Uses::default() });
        run(vec![writer(mem, page, uses.clone(), 2), writer(mem, page, uses.clone(), 2), promoter(mem, page, uses, 2)]);
        unused(page);
    });
}

/// A CPU makes a page a table and gives it up, again and again, while another updates an entry of it: each entry holds one
/// reference to what it maps, as long as the table is one, and none afterwards.
#[test]
fn updates_and_releases_of_one_table() {
    testing::machine(PAGES);
    explore_both("page types: a table is updated, pinned and unpinned", 40, 200_000, || {
        crate::arch::percpu::host::bring_up(2);
        let mem = domain();
        let (table, data) = (mem.allocate(0, u64::MAX).unwrap(), mem.allocate(0, u64::MAX).unwrap());
        let left = Arc::new(Uses { left: AtomicU32::new(2), ..Uses::default() });
        let pinner = || -> Work {
            let left = left.clone();
            Box::new(move || {
                mem.dirty_cpus.insert(this_cpu().id);
                for _ in 0..2 {
                    let pinned = pin::pin(mem, table, Kind::L1);
                    assert!(matches!(pinned, Ok(()) | Err(Refused::Error(Errno::EINVAL | Errno::EBUSY))), "{pinned:?}");
                    if pinned.is_ok() {
                        pin::unpin(mem, table).unwrap();
                    }
                    serve_requests();
                }
                leave(&left);
            })
        };
        let updater: Work = {
            let left = left.clone();
            Box::new(move || {
                let kinds = [bit::P | bit::RW | bit::US, bit::P | bit::US, 0];
                let mut n = 0;
                while left.left.load(SeqCst) == 2 {
                    // Where it is no table just then, it is refused.
                    if let Ok(t) = Table::open(mem, table)
                        && frame::get(table).is_some_and(|f| f.is_valid(Kind::L1))
                    {
                        let flags = kinds[n % kinds.len()];
                        let new = Pte(if flags == 0 { 0 } else { data.0 << 12 | flags });
                        n += usize::from(t.update(0, new, mem.id, Store::Plain).is_ok());
                    }
                    spin_loop();
                    serve_requests();
                }
                leave(&left);
            })
        };
        run(vec![pinner(), updater]);
        // What the entries hold is given back with the last use as a table.
        if pin::pin(mem, table, Kind::L1).is_ok() {
            pin::unpin(mem, table).unwrap();
        }
        unused(table);
        unused(data);
        // SAFETY: a page of the test's domain.
        let _ = unsafe { phys::load(table, 0) };
        let _ = domain_memory::take_emptied();
    });
}
