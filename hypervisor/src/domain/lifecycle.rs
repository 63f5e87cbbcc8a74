//! How domains stop: shutdown, crash, destruction.

use super::current::should_preempt;
use super::{Domain, DomainRef, Life, ShutdownReason, VcpuRef, audit, slots};
use crate::arch::percpu::{pending, this_cpu};
use crate::events;
use crate::sched;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::event::VIRQ_DOM_EXC;
use pv_abi::ids::DomId;

/// How far a destruction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Teardown {
    /// Not begun.
    #[default]
    None,
    /// vCPUs are stopped, channels closed; references of vCPUs and grants go next.
    Stopped,
    /// Only memory is left.
    Memory,
}

/// Why the machine is to stop: a [`ShutdownReason`] + 1, 0 while it is not.
static STOP: AtomicU32 = AtomicU32::new(0);

/// dom0's values for the power registers, one in each half, and bit 32 when it gave some.
static POWER_VALUES: AtomicU64 = AtomicU64::new(0);

/// dom0 powers the machine off with its values for the PM1a and PM1b control registers.
pub fn power_off_with(d: &DomainRef, [a, b]: [u16; 2]) {
    POWER_VALUES.store(1 << 32 | u64::from(b) << 16 | u64::from(a), Ordering::Release);
    shutdown(d, ShutdownReason::PowerOff);
}

/// The domain stops for `reason`: all its vCPUs pause; the tools are told. dom0's stop is the machine's, as soon as the
/// CPU has nothing running any more ([`stop_machine_if_asked`]).
pub fn shutdown(d: &DomainRef, reason: ShutdownReason) {
    // What the domain announced counts (SCHEDOP_shutdown_code).
    let code = d.shutdown_code.load(Ordering::Acquire);
    let reason = ShutdownReason::from_abi(code).unwrap_or(reason);
    if d.shutdown.compare_exchange(0, reason as u32 + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    if d.id == DomId::DOM0 {
        STOP.store(reason as u32 + 1, Ordering::Release);
    }
    pause(d);
    this_cpu().raise(pending::RESCHED);
    events::send_dom0_virq(VIRQ_DOM_EXC);
}

/// Stops the machine if dom0 stopped. Called between two vCPUs, when the CPU runs none: the audit needs each vCPU's
/// state parked. Only one CPU gets past the first line.
#[inline]
pub fn stop_machine_if_asked() {
    if STOP.load(Ordering::Relaxed) != 0
        && let Some(reason) = STOP.swap(0, Ordering::AcqRel).checked_sub(1).and_then(ShutdownReason::from_abi)
    {
        stop_machine(reason)
    }
}

#[cold]
fn stop_machine(reason: ShutdownReason) -> ! {
    use crate::platform::reset;
    audit::at_exit();
    match reason {
        ShutdownReason::PowerOff | ShutdownReason::Suspend => {
            log::info!("dom0 powered off");
            match POWER_VALUES.load(Ordering::Acquire) {
                0 => reset::power_off(),
                v => reset::power_off_with([v as u16, (v >> 16) as u16]),
            }
        }
        ShutdownReason::Reboot | ShutdownReason::SoftReset => {
            log::info!("dom0 asked for a reboot");
            reset::reboot()
        }
        ShutdownReason::Crash | ShutdownReason::Watchdog => {
            log::error!("dom0 crashed");
            reset::reboot()
        }
    }
}

/// Keeps all vCPUs of the domain from running; does not wait until they stopped.
pub fn pause(d: &Domain) {
    d.pause_count.fetch_add(1, Ordering::SeqCst);
    for v in d.vcpus() {
        if v.sched.state.load(Ordering::SeqCst) == sched::state::RUNNING {
            sched::resched(crate::arch::percpu::CpuId(v.sched.cpu.load(Ordering::Relaxed)));
        }
    }
}

/// Keeps all vCPUs from running and waits until none does. Not for the caller's own domain.
pub fn pause_and_wait(d: &DomainRef) {
    pause(d);
    for v in d.vcpus() {
        if let Some(v) = VcpuRef::new(d, v.id) {
            sched::sync_off_cpu(&v);
        }
    }
}

/// Takes one pause back.
pub fn unpause(d: &DomainRef) {
    if d.pause_count.fetch_sub(1, Ordering::SeqCst) == 1 {
        for v in d.vcpus() {
            if let Some(v) = VcpuRef::new(d, v.id) {
                sched::wake(&v);
            }
        }
    }
}

/// Takes the domain apart, as far as it gets before something more urgent comes.
///
/// # Errors
/// `EAGAIN`: call again.
pub fn destroy(d: &DomainRef) -> Result<(), Errno> {
    if d.advance_life(Life::Dying) {
        pause(d);
        d.mem.dying.store(true, Ordering::Release);
    }
    let mut progress = d.teardown.try_lock().ok_or(Errno::EAGAIN)?;
    if *progress == Teardown::None {
        crate::time::watchdog::forget(d);
        for v in d.vcpus() {
            if let Some(v) = VcpuRef::new(d, v.id) {
                sched::sync_off_cpu(&v);
                crate::time::timers::unpark(&v);
                events::end_poll(&v);
            }
        }
        if !events::close_all(d) {
            return Err(Errno::EAGAIN);
        }
        d.pirqs.release(d.id);
        *progress = Teardown::Stopped;
    }
    if *progress == Teardown::Stopped {
        if !crate::grants::release_mappings(d) {
            return Err(Errno::EAGAIN);
        }
        for v in d.vcpus() {
            let taken = v.parked.lock().take();
            if let Some(mut arch) = taken {
                arch.tables.clear(&d.mem, v.id);
                // It never runs again: its state goes here, one vCPU after the other.
                drop(arch);
                if should_preempt() {
                    return Err(Errno::EAGAIN);
                }
            }
        }
        *progress = Teardown::Memory;
    }
    if !d.mem.relinquish() {
        return Err(Errno::EAGAIN);
    }
    drop(progress);
    if d.advance_life(Life::Dead) {
        sched::dismiss(d.vcpus().len() as u32);
        log::info!("domain {} destroyed", d.id);
        if !bury(d) {
            log::info!("domain {} keeps its id: others still map {} of its pages", d.id, d.mem.pages());
        }
        events::send_dom0_virq(VIRQ_DOM_EXC);
    }
    Ok(())
}

/// Empties the slot of a dead domain, if none of its pages is left. Pages that others map keep the domain: they are
/// accounted to it, so its id must not be given to another.
fn bury(d: &DomainRef) -> bool {
    let done = d.life() == Life::Dead && audit::nothing_left(d);
    if done {
        slots::remove(d.id);
    }
    done
}

/// Empties the slots of dead domains whose last page went. For the softirq, after the memory said so.
pub fn bury_dead() {
    let mut any = false;
    for d in slots::all() {
        any |= bury(&d);
    }
    if any {
        events::send_dom0_virq(VIRQ_DOM_EXC);
    }
}

/// Lets a domain that shut down run again (a migration that did not happen).
pub fn resume(d: &DomainRef) {
    if d.shutdown.swap(0, Ordering::AcqRel) != 0 {
        unpause(d);
    }
}
