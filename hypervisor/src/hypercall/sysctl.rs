//! sysctl: what dom0 asks about and of the whole machine. Interface version 0x15 (Xen 4.17's tools).

use super::{Args, Outcome, bitmap, domctl};
use crate::arch::percpu::{self, CpuId};
use crate::domain::{Cx, audit, slots};
use crate::mm::{alloc, frame, guest};
use crate::platform::{console, timer};
use crate::pv::policy::{self, Source};
use crate::sched;
use core::sync::atomic::Ordering;
use pv_abi::cpuid::Leaf;
use pv_abi::domctl::{Getdomaininfo, SCHEDULER_CREDIT2};
use pv_abi::errno::Errno;
use pv_abi::hypercall::LIST;
use pv_abi::ids::GuestHandle;
use pv_abi::sysctl::{self as sc, Sysctl};

/// The scheduler the tools are told: ours has weights, so credit2's parameters fit best.
pub(super) const SCHEDULER: u32 = SCHEDULER_CREDIT2;
/// Domains told in one getdomaininfolist.
const MAX_LIST: u32 = 0x7ff0;
/// Distance of a node to itself, as ACPI counts.
const LOCAL_DISTANCE: u32 = 10;

fn payload<T: zerocopy::FromBytes>(op: &Sysctl) -> Result<T, Errno> {
    op.payload().ok_or(Errno::EINVAL)
}

/// sysctl(op).
pub fn sysctl(cx: &mut Cx, a: Args) -> Outcome {
    if !cx.domain().privileged {
        return Errno::EPERM.into();
    }
    let at = GuestHandle::<Sysctl>::new(a.a1());
    let Ok(mut op) = guest::copy_from_guest(at) else {
        return Errno::EFAULT.into();
    };
    if op.interface_version != sc::INTERFACE_VERSION {
        return Errno::EACCES.into();
    }
    if op.cmd == pv_abi::hospes::SYSCTL_AUDIT {
        return recount(cx, &mut op).and_then(|()| guest::copy_to_guest(at, &op)).into();
    }
    #[cfg(all(target_os = "none", debug_assertions))]
    if op.cmd == pv_abi::hospes::SYSCTL_BREAK {
        return payload::<pv_abi::hospes::Break>(&op).map(|b| crate::arch::sabotage::run(b.what, b.at)).into();
    }
    #[cfg(all(debug_assertions, target_os = "none"))]
    if let Some(r) = instruments(&mut op) {
        return r.and_then(|()| guest::copy_to_guest(at, &op)).into();
    }
    // Every operation tells something, so the structure always goes back.
    run(&mut op).and_then(|()| guest::copy_to_guest(at, &op)).into()
}

/// Ours: what steers and reads [`crate::arch::instruments`].
#[cfg(all(debug_assertions, target_os = "none"))]
fn instruments(op: &mut Sysctl) -> Option<Result<(), Errno>> {
    use crate::arch::instruments;
    match op.cmd {
        pv_abi::hospes::SYSCTL_FAULT => Some(payload::<pv_abi::hospes::Fault>(op).map(|f| {
            op.set_payload(&pv_abi::hospes::Fault { failed: instruments::fail_in(f.nth), ..f });
        })),
        pv_abi::hospes::SYSCTL_STRETCH => {
            let l = instruments::longest();
            instruments::reset();
            op.set_payload(&pv_abi::hospes::Stretch {
                ticks: l.ticks,
                hypercall: u64::from(l.hypercall),
                argument: l.argument,
            });
            Some(Ok(()))
        }
        _ => None,
    }
}

/// Ours: everything the frame table says, counted again.
fn recount(cx: &Cx, op: &mut Sysctl) -> Result<(), Errno> {
    let done = audit::run(Some((cx.vcpu, &cx.arch.tables)))?;
    audit::log(&done);
    // An audit is long on purpose: a tool for tests.
    crate::arch::instruments::forget();
    let r = &done.report;
    let (heap_bytes, heap_used) = crate::mm::heap_usage();
    op.set_payload(&pv_abi::hospes::Audit {
        errors: r.total,
        frames_checked: r.frames,
        domains: done.domains,
        page_tables: r.tables,
        free_frames: r.free,
        hypervisor_frames: r.own,
        heap_bytes,
        heap_used,
    });
    Ok(())
}

fn run(op: &mut Sysctl) -> Result<(), Errno> {
    match op.cmd {
        sc::OP_READCONSOLE => read_console(op),
        sc::OP_PHYSINFO => {
            op.set_payload(&physinfo());
            Ok(())
        }
        sc::OP_SCHED_ID => {
            op.set_payload(&sc::SchedId { sched_id: SCHEDULER });
            Ok(())
        }
        sc::OP_PERFC_OP => counters(op),
        sc::OP_GETDOMAININFOLIST => list(op),
        sc::OP_AVAILHEAP => {
            let mut h = payload::<sc::AvailHeap>(op)?;
            h.avail_bytes = alloc::free_pages() << 12;
            op.set_payload(&h);
            Ok(())
        }
        sc::OP_CPUTOPOINFO => topology(op),
        sc::OP_NUMAINFO => numa(op),
        sc::OP_CPUPOOL_OP => cpupool(op),
        sc::OP_SCHEDULER_OP => {
            let s = payload::<sc::SchedulerOp>(op)?;
            let [limit, _] = s.u;
            match s.cmd {
                _ if s.cpupool_id != 0 || s.sched_id != SCHEDULER => return Err(Errno::EINVAL),
                pv_abi::domctl::SCHEDOP_GETINFO => {}
                // 0 switches the limit off; otherwise 100 µs to 500 ms, as credit2 wants it.
                pv_abi::domctl::SCHEDOP_PUTINFO => match limit as u32 {
                    us @ (0 | 100..=500_000) => sched::set_ratelimit_us(us),
                    _ => return Err(Errno::EINVAL),
                },
                _ => return Err(Errno::EINVAL),
            }
            op.set_payload(&sc::SchedulerOp { u: [u64::from(sched::ratelimit_us()), 0], ..s });
            Ok(())
        }
        sc::OP_PCITOPOINFO => {
            let p = payload::<sc::Pcitopoinfo>(op)?;
            for i in 0..u64::from(p.num_devs.min(4096)) {
                guest::copy_element_to_guest(GuestHandle::<u32>::new(p.nodes), i, &sc::INVALID_ID)?;
            }
            Ok(())
        }
        sc::OP_GET_CPU_FEATURESET => featureset(op),
        sc::OP_GET_CPU_POLICY => cpu_policy(op),
        _ => Err(Errno::ENOSYS),
    }
}

/// S1. Positions are counted in 32 bits, as the tools do: a log of more than 4 GiB starts over.
fn read_console(op: &mut Sysctl) -> Result<(), Errno> {
    let mut r = payload::<sc::Readconsole>(op)?;
    let mut from = if r.incremental != 0 { u64::from(r.index) } else { 0 };
    let mut done = 0u32;
    let mut chunk = [0u8; 256];
    while done < r.count {
        let want = (r.count - done).min(chunk.len() as u32) as usize;
        let (n, next) = console::read_log(from, chunk.get_mut(..want).unwrap_or(&mut []));
        if n == 0 {
            break;
        }
        guest::write_bytes(r.buffer.wrapping_add(u64::from(done)), chunk.get(..n).unwrap_or(&[]))?;
        done += n as u32;
        from = next;
    }
    if r.clear != 0 {
        console::clear_log();
    }
    r.index = from as u32;
    r.count = done;
    op.set_payload(&r);
    Ok(())
}

fn physinfo() -> sc::Physinfo {
    let cpus = percpu::online();
    let features = policy::featureset(Source::Machine);
    let mut hw_cap = [0; 8];
    for (to, from) in hw_cap.iter_mut().zip(features) {
        *to = from;
    }
    sc::Physinfo {
        threads_per_core: 1,
        cores_per_socket: cpus,
        nr_cpus: cpus,
        max_cpu_id: cpus.saturating_sub(1),
        nr_nodes: 1,
        max_node_id: 0,
        cpu_khz: timer::tsc_khz() as u32,
        capabilities: sc::physcap::PV | sc::physcap::GNTTAB_V1,
        total_pages: alloc::total_pages(),
        free_pages: alloc::free_pages(),
        max_mfn: frame::count().saturating_sub(1),
        hw_cap,
        ..Default::default()
    }
}

/// S5: how often each hypercall was called, on all CPUs together.
fn counters(op: &mut Sysctl) -> Result<(), Errno> {
    let mut p = payload::<sc::PerfcOp>(op)?;
    let cpus = || (0..percpu::online()).filter_map(|c| percpu::hypercalls_of(CpuId(c)));
    if p.cmd == sc::PERFCOP_RESET {
        cpus().flatten().for_each(|n| n.store(0, Ordering::Relaxed));
    } else if p.cmd != sc::PERFCOP_QUERY {
        return Err(Errno::EINVAL);
    }
    for (i, h) in (0u64..).zip(LIST) {
        if p.desc != 0 {
            let mut d = sc::PerfcDesc { name: [0; 80], nr_vals: 1 };
            for (to, from) in d.name.iter_mut().take(79).zip(h.name.bytes()) {
                *to = from;
            }
            guest::copy_element_to_guest(GuestHandle::new(p.desc), i, &d)?;
        }
        if p.val != 0 {
            let n: u64 = cpus().filter_map(|c| c.get(h.number)).map(|n| n.load(Ordering::Relaxed)).sum();
            guest::copy_element_to_guest(GuestHandle::new(p.val), i, &(n as u32))?;
        }
    }
    p.nr_counters = LIST.len() as u32;
    p.nr_vals = LIST.len() as u32;
    op.set_payload(&p);
    Ok(())
}

/// S6.
fn list(op: &mut Sysctl) -> Result<(), Errno> {
    let mut l = payload::<sc::Getdomaininfolist>(op)?;
    let buffer = GuestHandle::<Getdomaininfo>::new(l.buffer);
    let (mut n, mut from) = (0, u32::from(l.first_domain));
    while n < l.max_domains.min(MAX_LIST) {
        let Some(d) = slots::next(from) else { break };
        from = u32::from(d.id.0) + 1;
        guest::copy_element_to_guest(buffer, u64::from(n), &domctl::info_of(&d))?;
        n += 1;
    }
    l.num_domains = n;
    op.set_payload(&l);
    Ok(())
}

/// S16: every CPU a core of its own in one socket. (Sharing between threads is not looked at yet, here and in the
/// scheduler.)
fn topology(op: &mut Sysctl) -> Result<(), Errno> {
    let mut t = payload::<sc::Cputopoinfo>(op)?;
    let there = percpu::online();
    if t.cputopo != 0 {
        if t.num_cpus < there {
            // The tools ask for the count first.
            return Err(Errno::ENOBUFS);
        }
        for i in 0..there {
            let line = sc::Cputopo { core: i, socket: 0, node: 0 };
            guest::copy_element_to_guest(GuestHandle::new(t.cputopo), u64::from(i), &line)?;
        }
    }
    t.num_cpus = there;
    op.set_payload(&t);
    Ok(())
}

/// S17: one node with everything.
fn numa(op: &mut Sysctl) -> Result<(), Errno> {
    let mut n = payload::<sc::Numainfo>(op)?;
    if n.num_nodes != 0 && n.meminfo != 0 {
        let m = sc::Meminfo { memsize: alloc::total_pages() << 12, memfree: alloc::free_pages() << 12 };
        guest::copy_to_guest(GuestHandle::new(n.meminfo), &m)?;
    }
    if n.num_nodes != 0 && n.distance != 0 {
        guest::copy_to_guest(GuestHandle::<u32>::new(n.distance), &LOCAL_DISTANCE)?;
    }
    n.num_nodes = 1;
    op.set_payload(&n);
    Ok(())
}

/// S18: one pool, 0, with all CPUs and domains.
fn cpupool(op: &mut Sysctl) -> Result<(), Errno> {
    let mut p = payload::<sc::CpupoolOp>(op)?;
    match p.op {
        sc::CPUPOOL_OP_INFO => {
            // The first pool from that id on; any pool will do for "any".
            if p.cpupool_id != 0 {
                return Err(Errno::ENOENT);
            }
            p.sched_id = SCHEDULER;
            p.n_dom = slots::all().count() as u32;
            bitmap::write(&p.cpumap, bitmap::online().bits())?;
        }
        sc::CPUPOOL_OP_FREEINFO => bitmap::write(&p.cpumap, 0)?,
        sc::CPUPOOL_OP_MOVEDOMAIN if p.cpupool_id == 0 => {}
        sc::CPUPOOL_OP_CREATE..=sc::CPUPOOL_OP_MOVEDOMAIN => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENOSYS),
    }
    op.set_payload(&p);
    Ok(())
}

/// S26.
fn featureset(op: &mut Sysctl) -> Result<(), Errno> {
    let mut f = payload::<sc::CpuFeatureset>(op)?;
    let source = match f.index {
        sc::featureset::RAW | sc::featureset::HOST => Source::Machine,
        sc::featureset::PV | sc::featureset::PV_MAX => Source::Guest,
        sc::featureset::HVM | sc::featureset::HVM_MAX => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let words = policy::featureset(source);
    if f.features == 0 {
        f.nr_features = words.len() as u32;
        op.set_payload(&f);
        return Ok(());
    }
    let n = (f.nr_features as usize).min(words.len());
    for (i, w) in (0u64..).zip(words.iter().take(n)) {
        guest::copy_element_to_guest(GuestHandle::<u32>::new(f.features), i, w)?;
    }
    let short = n < words.len();
    f.nr_features = n as u32;
    op.set_payload(&f);
    if short { Err(Errno::ENOBUFS) } else { Ok(()) }
}

/// S29.
fn cpu_policy(op: &mut Sysctl) -> Result<(), Errno> {
    let mut p = payload::<sc::CpuPolicy>(op)?;
    if p.rsvd != 0 {
        return Err(Errno::EINVAL);
    }
    let source = match p.index {
        sc::policy::RAW | sc::policy::HOST => Source::Machine,
        sc::policy::PV_MAX | sc::policy::PV_DEFAULT => Source::Guest,
        sc::policy::HVM_MAX | sc::policy::HVM_DEFAULT => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    if p.leaves == 0 {
        p.nr_leaves = policy::MAX_LEAVES;
    } else {
        let mut n = 0;
        policy::for_each_leaf(source, &mut |l: Leaf| {
            if n >= p.nr_leaves {
                return Err(Errno::ENOBUFS);
            }
            guest::copy_element_to_guest(GuestHandle::new(p.leaves), u64::from(n), &l)?;
            n += 1;
            Ok(())
        })?;
        p.nr_leaves = n;
    }
    // We show no MSRs that depend on the policy.
    p.nr_msrs = if p.msrs == 0 { policy::MAX_MSRS } else { 0 };
    op.set_payload(&p);
    Ok(())
}
