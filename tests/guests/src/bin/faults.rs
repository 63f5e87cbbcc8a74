//! Each allocation that an operation makes fails once: the first, the second, and so on until the operation gets by. Must
//! happen each time: an error (or success without it), and when the operation is undone as many free pages as before and
//! a clean audit. Only Hospes' debug builds can do this; everything else skips.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::domctl::*;
use pv_abi::event::{AllocUnbound, OP_ALLOC_UNBOUND};
use pv_abi::grant::{OP_SETUP_TABLE, SetupTable};
use pv_abi::hospes::{Audit, Fault, SYSCTL_AUDIT, SYSCTL_FAULT};
use pv_abi::memory::*;
use pv_abi::sysctl::Sysctl;

guests::kernel!(run);

static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static INJECTED: AtomicU64 = AtomicU64::new(0);

fn sysctl(cmd: u32, op: &mut Sysctl) -> Ret {
    op.cmd = cmd;
    op.interface_version = pv_abi::sysctl::INTERFACE_VERSION;
    call(nr::SYSCTL, &[core::ptr::from_mut(op) as u64])
}

/// Lets the `nth` allocation from now fail; how many have failed so far.
fn arm(nth: u64) -> Option<u64> {
    let mut op = Sysctl::default();
    op.set_payload(&Fault { nth, failed: 0 });
    if sysctl(SYSCTL_FAULT, &mut op) != OK {
        return None;
    }
    op.payload::<Fault>().map(|f| f.failed)
}

fn audit_errors() -> u64 {
    let mut op = Sysctl::default();
    sysctl(SYSCTL_AUDIT, &mut op).must("audit");
    op.payload::<Audit>().map_or(u64::MAX, |a| a.errors)
}

/// Runs `op` with each of its allocations failing once. `op` says how it ended; `undo` is told that.
fn walk(name: &str, mut op: impl FnMut() -> Ret, mut undo: impl FnMut(Ret)) {
    // once without: what stays for good (the hypervisor's own heap) is there then
    let r = op();
    undo(r);
    let before = child::free_pages();
    let (mut failed, mut errors, mut leaks, mut dirty) = (0u64, 0u64, 0u64, 0u64);
    for nth in 1..400u64 {
        let from = arm(nth).unwrap_or(0);
        let r = op();
        let hit = arm(0).unwrap_or(0) != from;
        undo(r);
        leaks += u64::from(child::free_pages() != before);
        dirty += u64::from(nth < 4 && audit_errors() != 0);
        if !hit {
            if r.0 < 0 {
                report::fail(f!("{name}: fails without a failed allocation: {r}"));
            }
            break;
        }
        failed += 1;
        errors += u64::from(r.0 < 0);
    }
    dirty += u64::from(audit_errors() != 0);
    OPERATIONS.fetch_add(1, SeqCst);
    INJECTED.fetch_add(failed, SeqCst);
    guests::console::line(f!("faults: {name}: {failed} allocations failed, {errors} errors"));
    expect(f!("{name}: leaks"), leaks, 0);
    expect(f!("{name}: audits with errors"), dirty, 0);
    check(f!("{name}: it does allocate"), failed != 0);
}

/// The result as an error where a count of 0 means one.
fn counted(r: Ret, want: i64) -> Ret {
    if r.0 == want {
        OK
    } else if r.0 < 0 {
        r
    } else {
        errno(ENOMEM)
    }
}

fn create() -> Domctl {
    let c = Createdomain {
        max_vcpus: 8,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        ..Default::default()
    };
    Domctl::with(OP_CREATEDOMAIN, 0, &c)
}

fn destroy(id: u16) {
    child::domctl(&mut Domctl::new(OP_DESTROYDOMAIN, id)).must("destroydomain");
    while child::info_of(id).is_some() {
        child::nap(100);
    }
}

/// A fresh domain for each attempt, `op` with its id, then its end.
fn on_fresh(name: &str, mut op: impl FnMut(u16) -> Ret) {
    let id = core::cell::Cell::new(0);
    let fresh = || {
        let mut c = create();
        child::domctl(&mut c).must("createdomain");
        child::domctl(&mut Domctl::with(OP_MAX_MEM, c.domain, &MaxMem { max_memkb: 64 << 10 })).must("max_mem");
        id.set(c.domain);
    };
    fresh();
    walk(
        name,
        || op(id.get()),
        |_| {
            destroy(id.get());
            fresh();
        },
    );
    destroy(id.get());
}

fn run() {
    if arm(0).is_none() {
        report::skip("allocations cannot be made to fail here");
    }
    let made = core::cell::Cell::new(0u16);
    walk(
        "createdomain",
        || {
            let mut c = create();
            let r = child::domctl(&mut c);
            made.set(c.domain);
            r
        },
        |r| {
            if r == OK {
                destroy(made.get())
            }
        },
    );
    on_fresh("max_vcpus 1", |id| child::domctl(&mut Domctl::with(OP_MAX_VCPUS, id, &MaxVcpus { max: 1 })));
    on_fresh("max_vcpus 8", |id| child::domctl(&mut Domctl::with(OP_MAX_VCPUS, id, &MaxVcpus { max: 8 })));
    for order in [0u32, 4, 9] {
        let list = [0u64; 4];
        on_fresh(
            ["populate single pages", "", "", "", "populate blocks of 16", "", "", "", "", "populate blocks of 512"]
                [order as usize],
            |id| counted(memory_op(OP_POPULATE_PHYSMAP, &mut Reservation { domid: id, ..extents(&list, order) }), 4),
        );
    }
    let list = [0u64; 2];
    on_fresh("increase", |id| {
        counted(memory_op(OP_INCREASE_RESERVATION, &mut Reservation { domid: id, ..extents(&list, 3) }), 2)
    });
    let frames = [0u64; 8];
    on_fresh("the grant table of another", |id| {
        let mut s = [SetupTable { dom: id, nr_frames: 6, frame_list: frames.as_ptr() as u64, ..SetupTable::default() }];
        call(nr::GRANT_TABLE_OP, &[OP_SETUP_TABLE, s.as_mut_ptr() as u64, 1]).must("setup_table");
        status(s[0].status)
    });
    on_fresh("acquire_resource", |id| {
        let mut a = AcquireResource {
            domid: id,
            kind: RESOURCE_GRANT_TABLE,
            id: GRANT_TABLE_SHARED,
            nr_frames: 3,
            frame: 2,
            frame_list: frames.as_ptr() as u64,
            ..Default::default()
        };
        memory_op(OP_ACQUIRE_RESOURCE, &mut a)
    });
    on_fresh("event channels of another", |id| {
        for _ in 0..200 {
            let r = events::op(OP_ALLOC_UNBOUND, &mut AllocUnbound { dom: id, remote_dom: 0, port: 0 });
            if r.0 < 0 {
                return r;
            }
        }
        OK
    });
    on_fresh("set_memory_map", |id| {
        let e = [E820Entry::new(0, 1 << 20, E820_RAM); 5];
        let mut m = ForeignMemoryMap {
            domid: id,
            map: MemoryMap { nr_entries: 5, pad: 0, buffer: e.as_ptr() as u64 },
            ..Default::default()
        };
        memory_op(OP_SET_MEMORY_MAP, &mut m)
    });
    on_fresh("set_cpu_policy", |id| {
        let leaves = [pv_abi::cpuid::Leaf { leaf: 1, subleaf: pv_abi::cpuid::NO_SUBLEAF, ..Default::default() }; 3];
        child::domctl(&mut Domctl::with(
            OP_SET_CPU_POLICY,
            id,
            &CpuPolicy { nr_leaves: 3, leaves: leaves.as_ptr() as u64, ..Default::default() },
        ))
    });
    contexts();
    exchanges();
    mappings();
    walk(
        "the audit",
        || {
            let mut op = Sysctl::default();
            sysctl(SYSCTL_AUDIT, &mut op)
        },
        |_| {},
    );
    let all = INJECTED.load(SeqCst);
    guests::console::line(f!("faults: {all} injected into {} operations", OPERATIONS.load(SeqCst)));
    check("enough were injected", all >= 100);
    alive();
}

fn contexts() {
    let c = Child::build(|| {}, Spec { vcpus: 2, ..Spec::default() });
    let context = Page::alloc();
    let behind = Page::alloc();
    check("two pages in a row", behind.va == context.va + PAGE_SIZE);
    let arg = Vcpucontext { vcpu: 0, pad: 0, ctxt: context.va };
    walk("getvcpucontext", || child::domctl(&mut Domctl::with(OP_GETVCPUCONTEXT, c.id, &arg)), |_| {});
    walk("setvcpucontext", || child::domctl(&mut Domctl::with(OP_SETVCPUCONTEXT, c.id, &arg)), |_| {});
    c.destroy();
}

fn exchanges() {
    for (name, from, to) in [("exchange one", 0u32, 0u32), ("exchange 16 for a block", 0, 4)] {
        let pages: [Page; 16] = core::array::from_fn(|_| unmapped_page());
        let mut mfns: [u64; 16] = core::array::from_fn(|i| pages[i].mfn());
        let n = 1usize << to.max(from);
        let out = [pages[0].pfn(); 16];
        walk(
            name,
            || {
                let mut x = Exchange {
                    input: extents(&mfns[..n], from),
                    output: extents(&out[..n >> to], to),
                    nr_exchanged: 0,
                };
                let r = memory_op(OP_EXCHANGE, &mut x);
                if r == OK {
                    let first = mem::read64(out.as_ptr() as u64);
                    (0..n).for_each(|i| mfns[i] = first + i as u64);
                }
                r
            },
            |_| {},
        );
    }
}

/// Handles: the first mapping of each hundred and some needs more room for them.
fn mappings() {
    let table = grant_table();
    let p = Page::alloc();
    grant(table, 9, 0, p.mfn(), pv_abi::grant::GTF_PERMIT_ACCESS);
    let mut handles = [(0u32, -1i16); 300];
    let from = child::free_pages();
    let mut failed = 0u64;
    for h in &mut handles {
        for nth in 1..10 {
            let before = arm(nth).unwrap_or(0);
            *h = grant_map(0, 9, pv_abi::grant::GNTMAP_DEVICE_MAP, 0);
            let hit = arm(0).unwrap_or(0) != before;
            failed += u64::from(hit);
            if h.1 == 0 {
                break;
            }
            if !hit {
                report::fail(f!("a mapping fails by itself: {}", h.1));
            }
        }
    }
    for (handle, _) in handles.iter().filter(|h| h.1 == 0) {
        let mut u =
            [pv_abi::grant::UnmapGrantRef { host_addr: 0, dev_bus_addr: p.ma(), handle: *handle, status: 99, pad: 0 }];
        call(nr::GRANT_TABLE_OP, &[pv_abi::grant::OP_UNMAP_GRANT_REF, u.as_mut_ptr() as u64, 1]).must("unmap");
        if u[0].status != 0 {
            report::fail(f!("unmap: {}", u[0].status));
        }
    }
    check("all 300 mappings came about", handles.iter().all(|h| h.1 == 0));
    check("pages for handles", from - child::free_pages() < 64);
    expect("after mappings: audits with errors", audit_errors(), 0);
    guests::console::line(f!("faults: map_grant_ref: {failed} allocations failed"));
    check("mappings do allocate", failed != 0);
    INJECTED.fetch_add(failed, SeqCst);
    OPERATIONS.fetch_add(1, SeqCst);
}
