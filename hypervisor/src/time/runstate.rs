//! How long each vCPU ran, waited, was blocked or offline; and the guest's copy of that.

use super::now;
use crate::domain::VcpuRef;
use crate::domain::vcpu::{Accounting, RunState};
use crate::mm::guest;
use core::sync::atomic::Ordering;
use pv_abi::ids::GuestHandle;
use pv_abi::mmu::VMASST_RUNSTATE_UPDATE_FLAG;
use pv_abi::vcpu::RunstateInfo;

/// The vCPU is in state `to` from now on.
pub fn changed(v: &VcpuRef, to: RunState) {
    changed_at(v, to, now());
}

/// The vCPU is in state `to` since system time `at`.
pub fn changed_at(v: &VcpuRef, to: RunState, at: u64) {
    let mut a = v.accounting.lock();
    account(&mut a, at);
    a.state = to;
}

fn account(a: &mut Accounting, at: u64) {
    let spent = at.saturating_sub(a.since);
    if let Some(t) = a.time.get_mut(a.state as usize) {
        *t += spent;
    }
    a.since = a.since.max(at);
}

/// The ABI's view.
pub fn info(v: &VcpuRef) -> RunstateInfo {
    let mut a = v.accounting.lock();
    account(&mut a, now());
    RunstateInfo { state: a.state as u32, pad: 0, state_entry_time: a.since, time: a.time }
}

/// Writes the guest's copies, runstate and secondary clock. They are guest-kernel addresses: only called while the
/// vCPU runs here with its kernel tables loaded.
pub fn write_copies(v: &VcpuRef) {
    let (area, time_area) = {
        let a = v.accounting.lock();
        (a.area, a.time_area)
    };
    if let Some(area) = area {
        let mut i = info(v);
        const ENTRY_TIME: u64 = 8;
        const UPDATE: u64 = 1 << 63;
        let flagged = v.domain().vm_assist.load(Ordering::Relaxed) >> VMASST_RUNSTATE_UPDATE_FLAG & 1 != 0;
        if flagged {
            i.state_entry_time |= UPDATE;
            let h = GuestHandle::<u64>::new(area.0.wrapping_add(ENTRY_TIME));
            let _ = guest::copy_to_guest(h, &i.state_entry_time);
        }
        let _ = guest::copy_to_guest(GuestHandle::new(area.0), &i);
        if flagged {
            let h = GuestHandle::<u64>::new(area.0.wrapping_add(ENTRY_TIME));
            let _ = guest::copy_to_guest(h, &(i.state_entry_time & !UPDATE));
        }
    }
    if let Some(area) = time_area {
        let mut t = super::time_info();
        t.version = 2;
        let _ = guest::copy_to_guest(GuestHandle::new(area.0), &t);
    }
}
