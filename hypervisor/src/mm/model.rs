//! Property tests of the page types: random operations of two domains, everything counted again after each.
//!
//! The oracle is [`super::audit`], which knows nothing of how counts change, only who owns references; and a second one
//! that does not look at counts at all: no page that is a table or holds descriptors is mapped writable anywhere.

use super::audit::Recount;
use super::domain_memory::DomainMemory;
use super::foreign::{self, Look, PageUse, Place};
use super::frame::{self, Class};
use super::page_type::{Kind, Refused};
use super::pte::{Pte, bit};
use super::tables::VcpuTables;
use super::update::{Store, Table};
use super::{alloc, exchange, phys, pin, testing, unfinished};
use crate::arch::percpu::{pending, this_cpu};
use core::sync::atomic::Ordering;
use proptest::prelude::*;
use pv_abi::errno::Errno;
use pv_abi::ids::{MachineAddr, Mfn, VcpuId};
use std::vec::Vec;

const PAGES: usize = 10;
/// Entries the operations use: few, so that they meet; both ends; the hypervisor's slots and their neighbours.
const INDICES: [usize; 8] = [0, 1, 2, 255, 256, 258, 272, 511];

#[derive(Clone, Debug)]
enum Op {
    /// The guest writes its own page, while that is data.
    Poke {
        page: usize,
        index: usize,
        entry: Entry,
    },
    /// It writes a chain of four tables and a page.
    Plant {
        page: usize,
        index: usize,
        write: bool,
    },
    Pin {
        page: usize,
        kind: usize,
    },
    Unpin {
        page: usize,
    },
    Update {
        page: usize,
        index: usize,
        entry: Entry,
        store: u8,
        foreign: bool,
    },
    Base {
        page: usize,
        user: bool,
    },
    Gdt {
        page: usize,
    },
    GiveBack {
        page: usize,
    },
    Allocate,
    Exchange {
        page: usize,
    },
    Grant {
        page: usize,
        write: bool,
    },
    MapGrant {
        page: usize,
        index: usize,
        use_: usize,
    },
    UnmapGrant {
        page: usize,
        index: usize,
        use_: usize,
    },
    EndGrant {
        use_: usize,
    },
    Finish,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    page: usize,
    other: bool,
    flags: u64,
}

impl Entry {
    fn pte(&self, w: &World, domain: usize) -> Pte {
        let of = if self.other { 1 - domain } else { domain };
        Pte(w.pages[of][self.page].0 << 12 | self.flags)
    }
}

fn entries() -> impl Strategy<Value = Entry> {
    let flags = prop_oneof![
        4 => Just(bit::P | bit::US),
        4 => Just(bit::P | bit::RW | bit::US),
        1 => Just(0u64),
        1 => Just(bit::P),
        1 => Just(bit::P | bit::RW | bit::A | bit::D | bit::NX),
        1 => Just(bit::P | bit::PSE),
        1 => Just(bit::RW | bit::US),
    ];
    (0..PAGES, prop::bool::weighted(0.1), flags).prop_map(|(page, other, flags)| Entry { page, other, flags })
}

fn ops() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    let index = prop::sample::select(INDICES.to_vec());
    let u = 0..4usize;
    prop_oneof![
        8 => (page.clone(), index.clone(), entries()).prop_map(|(page, index, entry)| Op::Poke { page, index, entry }),
        4 => (page.clone(), index.clone(), any::<bool>()).prop_map(|(page, index, write)| Op::Plant { page, index, write }),
        6 => (page.clone(), 0..5usize).prop_map(|(page, kind)| Op::Pin { page, kind }),
        4 => page.clone().prop_map(|page| Op::Unpin { page }),
        8 => (page.clone(), index.clone(), entries(), 0..3u8, prop::bool::weighted(0.2))
            .prop_map(|(page, index, entry, store, foreign)| Op::Update { page, index, entry, store, foreign }),
        2 => (page.clone(), any::<bool>()).prop_map(|(page, user)| Op::Base { page, user }),
        1 => page.clone().prop_map(|page| Op::Gdt { page }),
        2 => page.clone().prop_map(|page| Op::GiveBack { page }),
        1 => Just(Op::Allocate),
        1 => page.clone().prop_map(|page| Op::Exchange { page }),
        2 => (page.clone(), any::<bool>()).prop_map(|(page, write)| Op::Grant { page, write }),
        2 => (page.clone(), index.clone(), u.clone()).prop_map(|(page, index, use_)| Op::MapGrant { page, index, use_ }),
        2 => (page.clone(), index, u.clone()).prop_map(|(page, index, use_)| Op::UnmapGrant { page, index, use_ }),
        1 => u.prop_map(|use_| Op::EndGrant { use_ }),
        1 => Just(Op::Finish),
    ]
}

struct World {
    mem: [&'static DomainMemory; 2],
    /// What each domain was given; pages given back stay here, to be named wrongly.
    pages: [Vec<Mfn>; 2],
    tables: [VcpuTables; 2],
    /// Pages of the other domain each keeps open.
    uses: [Vec<PageUse>; 2],
}

/// Repeats `f` while it is preempted, at most `tries` times: then the guest went elsewhere.
fn repeat<R>(mem: &DomainMemory, tries: u32, mut f: impl FnMut() -> Result<R, Refused>) -> Result<R, Refused> {
    for _ in 0..tries {
        if mem.unfinished.any() && unfinished::finish(mem).is_err() {
            continue;
        }
        match f() {
            Err(Refused::Preempted) => {}
            r => return r,
        }
    }
    Err(Refused::Preempted)
}

impl World {
    fn new() -> World {
        testing::machine(128);
        let mem = [testing::domain(1, PAGES as u64), testing::domain(2, PAGES as u64)];
        let pages = mem.map(|m| (0..PAGES).map(|_| m.allocate(0, u64::MAX).unwrap()).collect());
        World { mem, pages, tables: [VcpuTables::new(), VcpuTables::new()], uses: [Vec::new(), Vec::new()] }
    }

    fn apply(&mut self, d: usize, op: &Op, tries: u32) {
        let mem = self.mem[d];
        let mfn = |w: &World, page: usize| w.pages[d][page];
        match *op {
            Op::Poke { page, index, entry } => {
                let at = mfn(self, page);
                let f = frame::get(at).unwrap();
                if f.owner() == Some(mem.id) && matches!(f.kind(), Kind::None | Kind::Writable) {
                    let value = entry.pte(self, d).0;
                    // SAFETY: the domain's data page.
                    unsafe { phys::entry(at, index) }.store(value, Ordering::Relaxed);
                }
            }
            Op::Plant { page, index, write } => {
                for n in 0..4 {
                    let flags = bit::P | bit::US | if n < 3 || write { bit::RW } else { 0 };
                    let entry = Entry { page: (page + n + 1) % PAGES, other: false, flags };
                    self.apply(d, &Op::Poke { page: (page + n) % PAGES, index, entry }, 1);
                }
            }
            Op::Pin { page, kind } => {
                let kind = [Kind::L1, Kind::L2, Kind::L3, Kind::L4, Kind::L1][kind];
                let _ = repeat(mem, tries, || pin::pin(mem, mfn(self, page), kind));
            }
            Op::Unpin { page } => {
                let _ = repeat(mem, tries, || pin::unpin(mem, mfn(self, page)));
            }
            Op::Update { page, index, entry, store, foreign } => {
                let Ok(table) = Table::open(mem, mfn(self, page)) else {
                    return;
                };
                let new = entry.pte(self, d);
                let of = if foreign { self.mem[1 - d].id } else { mem.id };
                // SAFETY: the domain's page.
                let now = unsafe { phys::load(table.mfn(), index) };
                let store = [Store::Plain, Store::PreserveAd, Store::IfStill(now)][store as usize];
                let _ = repeat(mem, tries, || table.update(index, new, of, store));
            }
            Op::Base { page, user } => {
                let at = mfn(self, page);
                let tables = &mut self.tables[d];
                let _ = repeat(mem, tries, || {
                    if user {
                        tables.set_user_base(mem, at)
                    } else {
                        tables.set_kernel_base(mem, at).map(|old| old.give_up(mem))
                    }
                });
            }
            Op::Gdt { page } => {
                let at = mfn(self, page);
                let _ = self.tables[d].set_gdt(mem, VcpuId(0), &[at], 512);
            }
            Op::GiveBack { page } => {
                let _ = mem.give_back(mfn(self, page));
            }
            Op::Allocate => {
                if let Ok(new) = mem.allocate(0, u64::MAX) {
                    // In the place of one that is not the domain's any more.
                    let lost = |m: &Mfn| frame::get(*m).unwrap().owner() != Some(mem.id);
                    // SAFETY: just allocated.
                    let entry = |i| unsafe { phys::load(new, i) };
                    assert!((0..512).all(|i| entry(i) == 0), "a new page is zero");
                    if !self.pages[d].contains(&new)
                        && let Some(slot) = self.pages[d].iter().position(lost)
                    {
                        self.pages[d][slot] = new;
                    }
                }
            }
            Op::Exchange { page } => {
                if let Ok(new) = exchange::exchange(mem, &[mfn(self, page)], 1, 0, u64::MAX) {
                    self.pages[d][page] = new[0];
                }
            }
            Op::Grant { page, write } => {
                if self.uses[d].len() < 4
                    && let Ok(u) = PageUse::take(self.mem[1 - d].id, self.pages[1 - d][page], write)
                {
                    self.uses[d].push(u);
                }
            }
            Op::MapGrant { page, index, use_ } => {
                let Some(u) = self.uses[d].get(use_) else {
                    return;
                };
                let Ok(u) = u.another(u.writable()) else {
                    return;
                };
                let place = Place::Entry(MachineAddr((mfn(self, page).0 << 12) + index as u64 * 8));
                let _ = foreign::map(mem, place, u, Look::default());
            }
            Op::UnmapGrant { page, index, use_ } => {
                let Some(u) = self.uses[d].get(use_) else {
                    return;
                };
                let place = Place::Entry(MachineAddr((mfn(self, page).0 << 12) + index as u64 * 8));
                let _ = foreign::unmap(mem, place, u.mfn(), u.writable());
            }
            Op::EndGrant { use_ } => {
                if use_ < self.uses[d].len() {
                    drop(self.uses[d].remove(use_));
                }
            }
            Op::Finish => {
                let _ = repeat(mem, tries, || unfinished::finish(mem).map_err(|_| Refused::Preempted));
            }
        }
    }

    /// Both oracles.
    fn check(&self) {
        let mut r = Recount::try_new().unwrap();
        for d in 0..2 {
            r.domain(self.mem[d]);
            self.tables[d].references().for_each(|(mfn, kind)| r.typed(mfn, kind));
            for u in &self.uses[d] {
                if u.writable() { r.typed(u.mfn(), Kind::Writable) } else { r.reference(u.mfn()) }
            }
        }
        let report = r.compare();
        let lines: Vec<std::string::String> = report.differences.iter().map(std::string::ToString::to_string).collect();
        assert!(report.clean(), "{lines:#?}");
        for mem in self.mem {
            mem.for_each_frame(no_table_is_writable);
        }
    }
}

/// Whether what an L1 maps writable is data, looked at without any count.
pub(super) fn no_table_is_writable(f: &frame::Frame) {
    if !f.is_valid(Kind::L1) {
        return;
    }
    for i in 0..512 {
        // SAFETY: a page of this test.
        let pte = Pte(unsafe { phys::load(f.mfn(), i) });
        if pte.present() && pte.writable() {
            let to = frame::get(pte.mfn()).unwrap();
            assert_eq!(to.kind(), Kind::Writable, "{:#x} maps {:#x} writable", f.mfn(), pte.mfn());
            assert!(matches!(to.class(), Class::Domain | Class::Shared));
        }
    }
}

fn preempt(on: bool) {
    if on {
        this_cpu().raise(pending::RESCHED);
    } else {
        this_cpu().pending.store(0, Ordering::Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn counts_stay_true(steps in prop::collection::vec((0..2usize, ops(), prop::bool::weighted(0.2), 1..2000u32), 1..80)) {
        let mut w = World::new();
        let free = alloc::free_pages() + 2 * PAGES as u64;
        for (d, op, hurried, tries) in &steps {
            preempt(*hurried);
            w.apply(*d, op, if *hurried { *tries } else { 1000 });
            preempt(false);
            w.check();
        }
        // Death, in both orders of the two domains as the steps have it.
        let first = steps.len() % 2;
        for d in [first, 1 - first] {
            w.uses[d].clear();
            w.tables[d].clear(w.mem[d], VcpuId(0));
            preempt(steps.len() % 3 == 0);
            let mut rounds = 0;
            while !w.mem[d].relinquish() {
                rounds += 1;
                prop_assert!(rounds < 100_000, "the teardown ends");
            }
            preempt(false);
            w.check();
        }
        for d in 0..2 {
            prop_assert_eq!(w.mem[d].pages(), 0);
        }
        prop_assert_eq!(alloc::free_pages(), free);
    }
}

/// A tree of all four levels: L4 → L3 → L2 → L1 → page.
fn tree(w: &World) -> [Mfn; 5] {
    let p = &w.pages[0];
    for level in 0..4 {
        // SAFETY: data pages of this test.
        unsafe { phys::entry(p[level], 1) }.store(p[level + 1].0 << 12 | bit::P | bit::RW | bit::US, Ordering::Relaxed);
    }
    [p[0], p[1], p[2], p[3], p[4]]
}

#[test]
fn a_pin_types_the_whole_tree_and_an_unpin_frees_it() {
    let w = World::new();
    let mem = w.mem[0];
    let t = tree(&w);
    pin::pin(mem, t[0], Kind::L4).unwrap();
    let kinds = t.map(|m| frame::get(m).unwrap().kind());
    assert_eq!(kinds, [Kind::L4, Kind::L3, Kind::L2, Kind::L1, Kind::Writable]);
    assert_eq!(pin::pin(mem, t[0], Kind::L4), Err(Errno::EINVAL.into()), "twice");
    assert_eq!(pin::pin(mem, t[4], Kind::L1), Err(Errno::EINVAL.into()), "mapped writable");
    assert_eq!(pin::pin(mem, w.pages[1][0], Kind::L1), Err(Errno::EINVAL.into()), "another's");
    assert_eq!(pin::unpin(mem, t[1]), Err(Errno::EINVAL.into()), "not pinned itself");
    w.check();
    // Mapping a table writable is refused as on Xen.
    let l1 = Table::open(mem, t[3]).unwrap();
    let to_table = Pte(t[2].0 << 12 | bit::P | bit::RW);
    assert_eq!(l1.update(7, to_table, mem.id, Store::Plain), Err(Errno::EBUSY.into()));
    assert_eq!(l1.update(7, Pte(to_table.0 & !bit::RW), mem.id, Store::Plain), Ok(()));
    // The hypervisor's slots are closed, even for what they hold.
    let l4 = Table::open(mem, t[0]).unwrap();
    assert_eq!(l4.update(256, Pte(0), mem.id, Store::Plain), Err(Errno::EINVAL.into()));
    assert_eq!(l4.update(272, Pte(0), mem.id, Store::Plain), Ok(()));
    drop((l1, l4));
    w.check();
    pin::unpin(mem, t[0]).unwrap();
    assert!(t.iter().all(|m| frame::get(*m).unwrap().kind() == Kind::None));
    w.check();
}

#[test]
fn replacing_a_large_subtree_is_finished_by_the_next_operation() {
    let w = World::new();
    let mem = w.mem[0];
    let t = tree(&w);
    // A second entry, so that the release has a point to stop at.
    // SAFETY: a data page of this test.
    unsafe { phys::entry(t[1], 5) }.store(w.pages[0][6].0 << 12 | bit::P | bit::US, Ordering::Relaxed);
    pin::pin(mem, t[0], Kind::L4).unwrap();
    preempt(true);
    Table::open(mem, t[0]).unwrap().update(1, Pte(0), mem.id, Store::Plain).unwrap();
    assert!(mem.unfinished.any() && frame::get(t[1]).unwrap().partial());
    w.check();
    while unfinished::finish(mem).is_err() {
        w.check();
    }
    preempt(false);
    assert!(t[1..].iter().all(|m| frame::get(*m).unwrap().kind() == Kind::None));
    w.check();
}

#[test]
fn a_tree_with_one_bad_entry_leaves_nothing() {
    let w = World::new();
    let mem = w.mem[0];
    let t = tree(&w);
    // SAFETY: a data page of this test.
    unsafe { phys::entry(t[0], 300) }.store(w.pages[1][0].0 << 12 | bit::P, Ordering::Relaxed);
    preempt(true);
    let r = repeat(mem, 100_000, || pin::pin(mem, t[0], Kind::L4));
    assert_eq!(r, Err(Errno::EINVAL.into()));
    w.check();
    while unfinished::finish(mem).is_err() {}
    preempt(false);
    assert!(t.iter().all(|m| frame::get(*m).unwrap().references() == 1));
    w.check();
}
