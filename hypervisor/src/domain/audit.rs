//! The audit: every reference in the machine counted again ([`crate::mm::audit`]), for all domains at once.
//!
//! All vCPUs but the caller's are paused meanwhile, so nothing changes. It takes time in proportion to the machine's
//! memory and is not preemptible: a tool for tests, which dom0 calls, and which runs when the machine stops.

use super::{DomainRef, VcpuRef, slots};
use crate::mm::audit::{Recount, Report};
use crate::mm::page_type::Kind;
use crate::mm::tables::VcpuTables;
use crate::sched;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use pv_abi::errno::Errno;

/// One audit at a time: two would wait for each other's vCPUs.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// What an audit found.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Domains there are, dying ones included.
    pub domains: u64,
    /// Frames, tables, differences.
    pub report: Report,
}

/// Keeps everything else from running while it lives.
struct Stopped {
    domains: Vec<DomainRef>,
    /// The vCPU that goes on.
    but: Option<VcpuRef>,
}

impl Stopped {
    fn try_new(but: Option<&VcpuRef>) -> Result<Stopped, Errno> {
        let mut s = Stopped { domains: Vec::new(), but: but.cloned() };
        for d in slots::all() {
            s.domains.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            s.domains.push(d);
        }
        s.vcpus(|v| {
            v.pause_count.fetch_add(1, Ordering::SeqCst);
        });
        s.vcpus(sched::sync_off_cpu);
        Ok(s)
    }

    fn vcpus(&self, mut f: impl FnMut(&VcpuRef)) {
        for d in &self.domains {
            for v in d.vcpus() {
                if let Some(v) = VcpuRef::new(d, v.id)
                    && !self.but.as_ref().is_some_and(|b| b.same(&v))
                {
                    f(&v);
                }
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.vcpus(|v| {
            v.pause_count.fetch_sub(1, Ordering::SeqCst);
            sched::wake(v);
        });
    }
}

/// Counts everything again. `current` is the vCPU that asks, with its tables; `None` when no vCPU runs on this CPU.
///
/// # Errors
/// `EBUSY` while another audit runs, `ENOMEM`.
pub fn run(current: Option<(&VcpuRef, &VcpuTables)>) -> Result<Audit, Errno> {
    if RUNNING.swap(true, Ordering::AcqRel) {
        return Err(Errno::EBUSY);
    }
    let _long = crate::platform::watchdog::pause();
    let audit = count(current);
    RUNNING.store(false, Ordering::Release);
    audit
}

fn count(current: Option<(&VcpuRef, &VcpuTables)>) -> Result<Audit, Errno> {
    let mut sums = Recount::try_new()?;
    let stopped = Stopped::try_new(current.map(|(v, _)| v))?;
    if let Some((_, tables)) = current {
        tables.references().for_each(|(mfn, kind)| sums.typed(mfn, kind));
    }
    for d in &stopped.domains {
        sums.domain(&d.mem);
        sums.reference(d.shared.mfn());
        d.grants.for_each_frame(|mfn| sums.reference(mfn));
        d.grants.for_each_mapping(
            |_, mfn, writable| {
                if writable { sums.typed(mfn, Kind::Writable) } else { sums.reference(mfn) }
            },
        );
        if let Some(mfn) = d.pirqs.page() {
            sums.typed(mfn, Kind::Writable);
        }
        for v in d.vcpus() {
            if let Some(mfn) = v.info.registered() {
                sums.typed(mfn, Kind::Writable);
            }
            if let Some(arch) = v.parked.lock().as_ref() {
                arch.tables.references().for_each(|(mfn, kind)| sums.typed(mfn, kind));
            }
        }
    }
    Ok(Audit { domains: stopped.domains.len() as u64, report: sums.compare() })
}

/// Writes the result to the log.
pub fn log(audit: &Audit) {
    let r = &audit.report;
    if r.clean() {
        log::info!(
            "audit: clean ({} domains, {} frames, {} page tables, {} references)",
            audit.domains,
            r.frames,
            r.tables,
            r.references
        );
        return;
    }
    log::error!("audit: {} differences in {} frames", r.total, r.frames);
    for d in &r.differences {
        log::error!("audit: {d}");
    }
}

/// The audit of a machine that is about to stop; no vCPU runs on this CPU.
pub fn at_exit() {
    let longest = crate::arch::instruments::longest();
    if longest.ticks != 0 {
        log::info!(
            "longest time without a preemption point: {} ticks in hypercall {} ({:#x})",
            longest.ticks,
            longest.hypercall,
            longest.argument
        );
    }
    match run(None) {
        Ok(a) => log(&a),
        Err(e) => log::warn!("audit: not done ({e})"),
    }
}

/// Whether a dying domain's pages are all given back, but for those its own vCPUs' registered `vcpu_info` keep until
/// the domain object goes.
pub(super) fn nothing_left(d: &DomainRef) -> bool {
    let kept = d.vcpus().iter().filter(|v| v.info.registered().is_some()).count() as u64;
    // Mostly the number alone says it; the list is only gone through when it is short.
    if d.mem.pages() > kept {
        return false;
    }
    let mut references = 0u64;
    d.mem.for_each_frame(|f| references = references.saturating_add(u64::from(f.references())));
    references == kept
}
