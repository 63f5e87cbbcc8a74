//! D5 getdomaininfo, and the lines of sysctl getdomaininfolist.

use super::Done;
use crate::domain::{DomainRef, Life, VcpuRef, slots};
use crate::sched;
use crate::time::runstate;
use core::sync::atomic::Ordering;
use pv_abi::domctl::{Domctl, Getdomaininfo, INVALID_MAX_VCPU_ID, dominf};
use pv_abi::errno::Errno;

/// What the tools want to know of a domain. A snapshot: the domain goes on meanwhile.
pub fn info_of(d: &DomainRef) -> Getdomaininfo {
    let (mut online, mut cpu_time, mut running, mut blocked) = (0u32, 0u64, false, true);
    for v in d.vcpus() {
        if let Some(v) = VcpuRef::new(d, v.id) {
            let [ran, ..] = runstate::info(&v).time;
            cpu_time = cpu_time.wrapping_add(ran);
        }
        if v.down.load(Ordering::Relaxed) {
            continue;
        }
        online += 1;
        blocked &= v.blocked.load(Ordering::Relaxed);
        running |= v.sched.state.load(Ordering::Relaxed) == sched::state::RUNNING;
    }
    let mut flags = 0;
    let mut set = |bit: u32, on: bool| flags |= if on { bit } else { 0 };
    // The tools take this for "is gone but for its name", so not before its resources are back.
    set(dominf::DYING, d.life() == Life::Dead);
    set(dominf::PAUSED, d.tool_pauses.load(Ordering::Relaxed) != 0);
    set(dominf::BLOCKED, online != 0 && blocked);
    set(dominf::RUNNING, running);
    if let Some(reason) = d.shutdown_reason() {
        flags |= dominf::SHUTDOWN | u32::from(reason) << dominf::SHUTDOWN_SHIFT;
    }
    Getdomaininfo {
        domain: d.id.0,
        flags,
        tot_pages: d.mem.pages(),
        max_pages: d.mem.max_pages(),
        shared_info_frame: d.shared.mfn().0,
        cpu_time,
        nr_online_vcpus: online,
        // No vCPU: 0 - 1, which is the ABI's "none".
        max_vcpu_id: (d.vcpus().len() as u32).checked_sub(1).unwrap_or(INVALID_MAX_VCPU_ID),
        handle: *d.handle.lock(),
        ..Default::default()
    }
}

/// D5: of the domain asked for or, as 4.17's tools expect, the next one behind it.
///
/// # Errors
/// `ESRCH` when there is none.
pub(super) fn get(op: &mut Domctl) -> Result<Done, Errno> {
    let d = slots::next(u32::from(op.domain)).ok_or(Errno::ESRCH)?;
    op.domain = d.id.0;
    op.set_payload(&info_of(&d));
    Ok(Done::Copy)
}
