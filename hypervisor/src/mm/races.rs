//! Model checks of the page types (`model/`): CPUs that map a page writable, make it a table, update it and give it back,
//! all at once.
//!
//! What must hold at every moment: no page is data for one and a table for another; and when a page has become a table, or
//! another domain's, no CPU holds a translation that lets a guest write it, since whoever mapped it writable may keep that
//! until a flush. At the end every reference has an owner ([`super::audit`]).

use super::audit::Recount;
use super::domain_memory::{self, DomainMemory};
use super::foreign::PageUse;
use super::frame::{self, Frame};
use super::model::no_table_is_writable;
use super::page_type::{self, Kind, Refused};
use super::pte::{Pte, bit};
use super::update::{Store, Table};
use super::{entries, phys, pin, testing, unfinished};
use crate::arch::percpu::{host, pending, this_cpu};
use crate::atomic::spin_loop;
use crate::model::{Moment, Work, explore_both, one_in, point, quiet, run, tlb};
use crate::platform::tlb::{Flush, flush_local};
use crate::sync::serve_requests;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;
use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

const PAGES: usize = 32;
const READ: u64 = bit::P | bit::US;
const WRITE: u64 = READ | bit::RW;

/// Who uses the page as what, as the CPUs believe.
#[derive(Default)]
struct Uses {
    writable: AtomicU32,
    table: AtomicU32,
    /// CPUs that have not ended yet.
    left: AtomicU32,
}

impl Uses {
    fn of(cpus: u32) -> Arc<Uses> {
        Arc::new(Uses { left: AtomicU32::new(cpus), ..Uses::default() })
    }
}

/// Ends a CPU's work: it leaves for a guest, which it does not do while others wait for it.
fn leave(uses: &Uses) {
    uses.left.fetch_sub(1, SeqCst);
    while uses.left.load(SeqCst) != 0 {
        spin_loop();
        serve_requests();
    }
}

/// Tries until nobody else uses the page as something else.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Refused>) -> T {
    loop {
        match attempt() {
            Ok(got) => return got,
            Err(e) => assert_eq!(e, Refused::Error(Errno::EBUSY)),
        }
        spin_loop();
        serve_requests();
    }
}

/// Runs what a guest asks for until it is done, as the hypercalls do; now and then there is something more urgent.
fn restarted<T>(mem: &DomainMemory, mut op: impl FnMut() -> Result<T, Refused>) -> Result<T, Errno> {
    if one_in(2) {
        this_cpu().raise(pending::RESCHED);
    }
    loop {
        let done = if unfinished::finish(mem).is_ok() { op() } else { Err(Refused::Preempted) };
        match done {
            Ok(t) => return Ok(t),
            Err(Refused::Error(e)) => return Err(e),
            Err(Refused::Preempted) => {}
        }
        this_cpu().pending.fetch_and(!pending::RESCHED, SeqCst);
        spin_loop();
        serve_requests();
    }
}

/// A domain with some pages, in memory that is as new, on a machine with `cpus` CPUs.
fn domain(cpus: u32) -> &'static DomainMemory {
    testing::again(PAGES);
    tlb::forget();
    host::bring_up(cpus);
    testing::domain(1, PAGES as u64)
}

fn page(mem: &DomainMemory) -> Mfn {
    mem.allocate(0, u64::MAX).unwrap()
}

/// The page as a table of four entries: the others stay empty.
fn short(table: Mfn) -> Mfn {
    let at = phys::ptr(table) as usize;
    quiet(at + 4 * 8..at + 512 * 8);
    table
}

fn entry(to: Mfn, flags: u64) -> Pte {
    Pte(to.0 << 12 | flags)
}

/// What a guest has written before.
fn written(table: Mfn, to: Mfn, flags: u64) {
    // SAFETY: a page of the test's domain.
    unsafe { phys::entry(table, 0) }.store(entry(to, flags).0, SeqCst);
}

/// Nothing is left of the uses.
fn unused(page: Mfn) {
    let f = frame::get(page).unwrap();
    assert_eq!((f.type_count(), f.references(), f.partial()), (0, 1, false));
}

/// Every reference has an owner, and no table is mapped writable.
fn audited(mem: &DomainMemory) {
    // For whom nobody else runs.
    host::bring_up(1);
    let mut all = Recount::try_new().unwrap();
    all.domain(mem);
    let report = all.compare();
    let lines: Vec<_> = report.differences.iter().map(std::string::ToString::to_string).collect();
    assert!(report.clean(), "{lines:#?}");
    mem.for_each_frame(no_table_is_writable);
}

/// Whose page tables map a page writable.
#[derive(Clone, Copy)]
enum Whose {
    /// The owner's, by an entry.
    Own,
    /// Another domain's, by a grant; the CPU never ran the owner.
    Other,
}

fn writer(mem: &'static DomainMemory, whose: Whose, page: Mfn, uses: Arc<Uses>, rounds: u32) -> Work {
    Box::new(move || {
        if matches!(whose, Whose::Own) {
            // The domain runs here.
            mem.dirty_cpus.insert(this_cpu().id);
        }
        for _ in 0..rounds {
            // As when it begins to run a vCPU.
            flush_local(Flush::All);
            let used = || {
                uses.writable.fetch_add(1, SeqCst);
                assert_eq!(uses.table.load(SeqCst), 0, "data, and a table");
                // The guest writes: the translation stays after the mapping has gone.
                tlb::caches();
                point();
                assert_eq!(uses.table.load(SeqCst), 0, "data, and a table");
                uses.writable.fetch_sub(1, SeqCst);
            };
            match whose {
                Whose::Own => {
                    let get = || entries::get_l1_entry(entry(page, WRITE), mem.owner(), mem.id);
                    let mapped = patiently(get);
                    used();
                    entries::put_l1_entry(mapped, frame::get(page).unwrap(), mem.owner());
                }
                Whose::Other => {
                    let take = || PageUse::take(mem.id, page, true).map_err(|_| Errno::EBUSY.into());
                    let mapped = patiently(take);
                    used();
                    drop(mapped);
                }
            }
            serve_requests();
        }
        leave(&uses);
    })
}

fn promote(mem: &DomainMemory, page: Mfn) -> &'static Frame {
    let f = patiently(|| page_type::get_page_and_type(page, Kind::L1, mem.owner(), false));
    assert!(!tlb::cached(), "a table, and a CPU may still write it");
    assert!(f.is_valid(Kind::L1));
    f
}

fn promoter(mem: &'static DomainMemory, page: Mfn, uses: Arc<Uses>, rounds: u32) -> Work {
    Box::new(move || {
        for _ in 0..rounds {
            let f = promote(mem, page);
            uses.table.fetch_add(1, SeqCst);
            assert_eq!(uses.writable.load(SeqCst), 0, "a table, and data");
            point();
            assert_eq!(uses.writable.load(SeqCst), 0, "a table, and data");
            uses.table.fetch_sub(1, SeqCst);
            page_type::put_page_and_type(f, mem.owner(), false).unwrap();
            serve_requests();
        }
        leave(&uses);
    })
}

#[test]
fn data_and_table_exclude_each_other() {
    testing::machine(PAGES);
    explore_both("page types: one maps writable, one makes a table", 300, 100_000, || {
        let mem = domain(2);
        let page = short(page(mem));
        let uses = Uses::of(2);
        run(vec![writer(mem, Whose::Own, page, uses.clone(), 3), promoter(mem, page, uses, 2)]);
        unused(page);
    });
}

#[test]
fn two_writers_and_a_table() {
    testing::machine(PAGES);
    explore_both("page types: two map writable, one makes a table", 300, 100_000, || {
        let mem = domain(3);
        let page = short(page(mem));
        let uses = Uses::of(3);
        let writer = |rounds| writer(mem, Whose::Own, page, uses.clone(), rounds);
        run(vec![writer(2), writer(2), promoter(mem, page, uses.clone(), 2)]);
        unused(page);
    });
}

/// One of them by a grant: its CPU is none of those that ran the owner.
#[test]
fn another_domains_mapping_and_a_table() {
    testing::machine(PAGES);
    explore_both("page types: two domains map writable, one makes a table", 300, 100_000, || {
        let mem = domain(3);
        let page = short(page(mem));
        let uses = Uses::of(3);
        run(vec![
            writer(mem, Whose::Own, page, uses.clone(), 1),
            writer(mem, Whose::Other, page, uses.clone(), 2),
            promoter(mem, page, uses, 2),
        ]);
        unused(page);
    });
}

/// One CPU drops the last use of a page. Between its look at the flush clock and the drop another flushes, maps the page and
/// unmaps it: the count is what it was, but the page's stamp must not be.
#[test]
fn a_use_that_comes_and_goes_is_stamped() {
    testing::machine(PAGES);
    explore_both("page types: the stamp of a use that came and went", 3000, 20_000, || {
        let mem = domain(2);
        let page = short(page(mem));
        let uses = Uses::of(2);
        let mapped = entries::get_l1_entry(entry(page, WRITE), mem.owner(), mem.id).unwrap();
        let first: Work = {
            let uses = uses.clone();
            Box::new(move || {
                entries::put_l1_entry(mapped, frame::get(page).unwrap(), mem.owner());
                page_type::put_page_and_type(promote(mem, page), mem.owner(), false).unwrap();
                leave(&uses);
            })
        };
        let whose = if one_in(2) { Whose::Own } else { Whose::Other };
        run(vec![first, writer(mem, whose, page, uses, 1)]);
        unused(page);
    });
}

/// A page that a CPU has written, or only read, goes back, and another domain gets it.
#[test]
fn a_page_changes_hands() {
    testing::machine(PAGES);
    explore_both("page types: a page goes from one domain to another", 300, 20_000, || {
        let mem = domain(2);
        let other = testing::domain(2, PAGES as u64);
        let all: Vec<Mfn> = core::iter::from_fn(|| mem.allocate(0, u64::MAX).ok()).collect();
        let uses = Uses::of(2);
        let giver: Work = {
            let uses = uses.clone();
            let page = all[0];
            Box::new(move || {
                mem.dirty_cpus.insert(this_cpu().id);
                flush_local(Flush::All);
                let flags = if one_in(2) { WRITE } else { READ };
                let mapped = entries::get_l1_entry(entry(page, flags), mem.owner(), mem.id).unwrap();
                mem.give_back(page).unwrap();
                tlb::caches();
                entries::put_l1_entry(mapped, frame::get(page).unwrap(), mem.owner());
                leave(&uses);
            })
        };
        let page = all[0];
        let taker: Work = Box::new(move || {
            loop {
                match other.allocate(0, u64::MAX) {
                    Ok(got) => {
                        assert_eq!(got, page, "another domain's page");
                        break;
                    }
                    Err(e) => assert_eq!(e, Errno::ENOMEM),
                }
                spin_loop();
                serve_requests();
            }
            assert!(!tlb::cached(), "another domain's, and a CPU may still see it");
            leave(&uses);
        });
        run(vec![giver, taker]);
        assert_eq!((mem.pages() as usize, other.pages()), (all.len() - 1, 1));
    });
}

/// A CPU makes a page a table and gives it up, again and again, while another updates an entry of it: each entry holds one
/// reference to what it maps, as long as the table is one, and none afterwards.
#[test]
fn updates_and_releases_of_one_table() {
    testing::machine(PAGES);
    explore_both("page types: a table is updated, pinned and unpinned", 300, 200_000, || {
        let mem = domain(2);
        let (table, data) = (short(page(mem)), page(mem));
        let left = Uses::of(2);
        let pinner: Work = {
            let left = left.clone();
            Box::new(move || {
                mem.dirty_cpus.insert(this_cpu().id);
                for _ in 0..3 {
                    pin_and_unpin(mem, table, Kind::L1, &Moment::default());
                    serve_requests();
                }
                leave(&left);
            })
        };
        let updater: Work = {
            let left = left.clone();
            Box::new(move || {
                let kinds = [WRITE, READ, 0];
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
        run(vec![pinner, updater]);
        // What the entries hold is given back with the last use as a table.
        if pin::pin(mem, table, Kind::L1).is_ok() {
            pin::unpin(mem, table).unwrap();
        }
        unused(table);
        unused(data);
        let _ = domain_memory::take_emptied();
    });
}

/// Pins a table and unpins it, unless somebody else uses it as something else. `pinned` comes when it is one.
fn pin_and_unpin(mem: &DomainMemory, table: Mfn, kind: Kind, pinned: &Moment) -> bool {
    let got = restarted(mem, || pin::pin(mem, table, kind));
    assert!(matches!(got, Ok(()) | Err(Errno::EINVAL | Errno::EBUSY)), "{got:?}");
    if got.is_ok() {
        pinned.comes();
        let valid = frame::get(table).unwrap().is_valid(kind);
        // Who takes a dying domain apart unpins for it.
        assert!(valid || mem.dying.load(SeqCst), "pinned, and not a table");
        let mut stopped = false;
        let gone = restarted(mem, || {
            let r = pin::unpin(mem, table);
            stopped |= r == Err(Refused::Preempted);
            r
        });
        // What was stopped may have been finished by another operation.
        assert!(gone.is_ok() || stopped || mem.dying.load(SeqCst), "{gone:?}");
    }
    got.is_ok()
}

/// One CPU pins a table and unpins it, one maps the table's page writable through another table, one writes to it, as an
/// update while it is a table and as data while it is not.
#[test]
fn pins_mappings_and_updates_of_one_page() {
    testing::machine(PAGES);
    explore_both("page types: pin, writable mapping and update of one page", 250, 100_000, || {
        let mem = domain(3);
        let (table, other, data) = (short(page(mem)), short(page(mem)), page(mem));
        written(table, data, WRITE);
        pin::pin(mem, other, Kind::L1).unwrap();
        let left = Uses::of(3);
        let work = |round: Box<dyn Fn() + Send>| -> Work {
            let left = left.clone();
            Box::new(move || {
                mem.dirty_cpus.insert(this_cpu().id);
                flush_local(Flush::All);
                for _ in 0..2 {
                    round();
                    serve_requests();
                }
                leave(&left);
            })
        };
        let pinner = work(Box::new(move || {
            pin_and_unpin(mem, table, Kind::L1, &Moment::default());
        }));
        let mapper = work(Box::new(move || {
            let through = Table::open(mem, other).unwrap();
            let change = |to| restarted(mem, || through.update(1, to, mem.id, Store::Plain));
            if change(entry(table, WRITE)).is_ok() {
                assert_eq!(frame::get(table).unwrap().kind(), Kind::Writable, "mapped writable, and not data");
                tlb::caches();
                change(Pte(0)).unwrap();
            }
            flush_local(Flush::All);
        }));
        let updater = work(Box::new(move || {
            let table = Table::open(mem, table).unwrap();
            for flags in [READ, WRITE] {
                let done = restarted(mem, || table.update(0, entry(data, flags), mem.id, Store::Plain));
                assert!(matches!(done, Ok(()) | Err(Errno::EINVAL)), "{done:?}");
            }
        }));
        run(vec![pinner, mapper, updater]);
        audited(mem);
        pin::unpin(mem, other).unwrap();
        [table, other, data].into_iter().for_each(unused);
    });
}

/// Two L2 tables lead to one L1. Two CPUs make both tables and release them, stopped half-way now and then; a third changes
/// the entry that leads there.
#[test]
fn two_tables_over_one() {
    testing::machine(PAGES);
    explore_both("page types: two L2 tables over one L1", 100, 200_000, || {
        let mem = domain(3);
        let (a, b, l1, data) = (short(page(mem)), short(page(mem)), short(page(mem)), page(mem));
        written(l1, data, WRITE);
        [a, b].into_iter().for_each(|l2| written(l2, l1, WRITE));
        let left = Uses::of(3);
        let pinner = |l2: Mfn, pinned: Moment| -> Work {
            let left = left.clone();
            Box::new(move || {
                mem.dirty_cpus.insert(this_cpu().id);
                for _ in 0..2 {
                    pin_and_unpin(mem, l2, Kind::L2, &pinned);
                    serve_requests();
                }
                pinned.comes();
                leave(&left);
            })
        };
        let pinned = Moment::default();
        let changer: Work = {
            let (left, pinned) = (left.clone(), pinned.clone());
            Box::new(move || {
                pinned.perhaps_wait();
                let table = Table::open(mem, a).unwrap();
                for to in [Pte(0), entry(l1, WRITE)] {
                    let done = restarted(mem, || table.update(0, to, mem.id, Store::Plain));
                    assert!(matches!(done, Ok(()) | Err(Errno::EINVAL)), "{done:?}");
                    serve_requests();
                }
                drop(table);
                leave(&left);
            })
        };
        run(vec![pinner(a, pinned), pinner(b, Moment::default()), changer]);
        host::bring_up(1);
        restarted(mem, || Ok(())).unwrap();
        audited(mem);
        [a, b, l1, data].into_iter().for_each(unused);
    });
}

/// A domain is taken apart while a tool still pins its tables and unpins them: nothing is left that nobody will give up.
#[test]
fn a_dying_domains_tables_are_pinned() {
    testing::machine(PAGES);
    explore_both("page types: a dying domain's tables are pinned", 1500, 100_000, || {
        let mem = domain(2);
        // In the destroyer's way the last comes first.
        let (data, l1, l2) = (page(mem), short(page(mem)), short(page(mem)));
        written(l1, data, WRITE);
        written(l2, l1, WRITE);
        let (left, pins) = (Uses::of(2), Moment::default());
        let tool: Work = {
            let (left, pins) = (left.clone(), pins.clone());
            Box::new(move || {
                if one_in(2) {
                    pin_and_unpin(mem, l2, Kind::L2, &Moment::default());
                    serve_requests();
                }
                // Whoever pins a table of a living domain may leave it so.
                pins.comes();
                let done = match pin::pin(mem, l2, Kind::L2) {
                    Err(Refused::Preempted) => restarted(mem, || pin::pin(mem, l2, Kind::L2)).map_err(Refused::Error),
                    done => done,
                };
                assert!(matches!(done, Ok(()) | Err(Refused::Error(Errno::EINVAL))), "{done:?}");
                leave(&left);
            })
        };
        let destroyer: Work = Box::new(move || {
            pins.perhaps_wait();
            while !mem.relinquish() {
                this_cpu().pending.fetch_and(!pending::RESCHED, SeqCst);
                spin_loop();
                serve_requests();
            }
            // The tool's operation may still go on, and be stopped.
            host::local(0).pending.fetch_or(pending::RESCHED, SeqCst);
            leave(&left);
        });
        run(vec![tool, destroyer]);
        assert_eq!(mem.pages(), 0, "pages of a dead domain that nobody gives up");
        let _ = domain_memory::take_emptied();
    });
}
