//! Timers of vCPUs: single-shot, periodic, and the deadline of a poll.
//!
//! A running vCPU's timers are in no queue: the CPU's hardware deadline is the earliest of them, the end of its slice
//! and the head of the CPU's queue. A vCPU that leaves the CPU puts its earliest deadline into that CPU's queue.
//! Another vCPU that changes its timers puts it into the queue of the CPU it is on itself, even if it runs elsewhere:
//! that entry is good for one deadline, and the CPU where it runs is told to look at the rest.

use super::{now, watchdog};
use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::{self, pending, this_cpu};
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::domain::{Life, Vcpu, VcpuRef};
use crate::events;
use crate::fallible::OutOfMemory;
use crate::platform::timer::{self, NEVER};
use crate::sched;
use crate::sched::queue::SortedQueue;
use crate::sync::{Lock, Rank};
use pv_abi::event::VIRQ_TIMER;

static QUEUES: [Lock<SortedQueue<VcpuRef>>; MAX_CPUS] =
    [const { Lock::new(Rank::Timers, SortedQueue::new()) }; MAX_CPUS];

/// Makes room for `total` vCPUs in every CPU's queue.
pub fn reserve(total: usize) -> Result<(), OutOfMemory> {
    QUEUES.iter().take(percpu::online() as usize).try_for_each(|q| q.lock().try_reserve(total))
}

/// The earliest deadline of a vCPU, or [`NEVER`].
fn earliest(v: &Vcpu) -> u64 {
    // 0 is "off" in all of them.
    let at = |n: &AtomicU64| match n.load(Ordering::Relaxed) {
        0 => NEVER,
        n => n,
    };
    let periodic = if v.periodic.load(Ordering::Relaxed) != 0 { at(&v.periodic_next) } else { NEVER };
    let own = at(&v.singleshot).min(periodic).min(at(&v.poll_deadline));
    own.min(at(&v.sched.capped_until)).min(at(&v.watchdog))
}

/// The earliest deadline in this CPU's queue, or [`NEVER`].
fn queued() -> u64 {
    QUEUES.get(this_cpu().id.0 as usize).and_then(|q| q.lock().first_key()).unwrap_or(NEVER)
}

/// When the scheduler wants to look at the running vCPU again.
fn slice_end(v: &VcpuRef) -> u64 {
    sched::look_again_at(v, v.domain().share.cap() != 0)
}

/// Delivers what is due of `v`.
fn fire(v: &VcpuRef, now: u64) {
    let due = |at: u64| at != 0 && at <= now;
    let s = v.singleshot.load(Ordering::Relaxed);
    if due(s) && v.singleshot.compare_exchange(s, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        events::send_vcpu_virq(v, VIRQ_TIMER);
    }
    let period = v.periodic.load(Ordering::Relaxed);
    let next = v.periodic_next.load(Ordering::Relaxed);
    if period != 0 && next <= now {
        // Missed ticks are not made up for.
        v.periodic_next.store(now.saturating_add(period), Ordering::Relaxed);
        if next != 0 {
            events::send_vcpu_virq(v, VIRQ_TIMER);
        }
    }
    let p = v.poll_deadline.load(Ordering::Relaxed);
    if due(p) && v.poll_deadline.compare_exchange(p, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        events::end_poll(v);
    }
    if due(v.sched.capped_until.load(Ordering::Relaxed)) {
        sched::uncap(v);
    }
    if due(v.watchdog.load(Ordering::Relaxed)) {
        watchdog::run(v.domain(), now);
    }
}

/// The vCPU has left this CPU: its deadline goes into the queue.
pub fn park(v: &VcpuRef) {
    unpark(v);
    if keeps_timers(v) {
        queue_here(v);
    }
}

/// Only vCPUs that are up keep timers running, and watchdogs bark whoever is down.
fn keeps_timers(v: &Vcpu) -> bool {
    !v.down.load(Ordering::Acquire) || v.watchdog.load(Ordering::Relaxed) != 0
}

/// Puts a vCPU that has a deadline into this CPU's queue, unless it is in one: a CPU that has just delivered its last
/// timer and the one it has left since may both want to. The deadline is read after that is decided, so it is the
/// newest, whoever wins. `timer_cpu` changes under the lock of the queue it names.
fn queue_here(v: &VcpuRef) {
    let cpu = this_cpu().id.0;
    let Some(q) = QUEUES.get(cpu as usize) else {
        return;
    };
    let mut q = q.lock();
    if v.sched.timer_cpu.compare_exchange(0, cpu + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    // Whoever takes a dying domain apart takes its vCPUs out of the queues once, and may have been here already.
    let at = if v.domain().life() == Life::Alive { earliest(v) } else { NEVER };
    v.sched.timer_key.store(at, Ordering::Relaxed);
    let queued = at != NEVER && q.insert(at, v.clone()).is_ok();
    debug_assert!(queued || at == NEVER, "a timer queue without room");
    if !queued {
        v.sched.timer_cpu.store(0, Ordering::Release);
    }
}

/// The vCPU gets a CPU: out of the queue.
pub fn unpark(v: &VcpuRef) {
    let at = v.sched.timer_cpu.load(Ordering::Acquire);
    if let Some(q) = (at as usize).checked_sub(1).and_then(|c| QUEUES.get(c)) {
        let mut q = q.lock();
        if v.sched.timer_cpu.compare_exchange(at, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let taken = q.remove(v.sched.timer_key.load(Ordering::Relaxed), |other| other.same(v));
            debug_assert!(taken.is_some(), "not in the timer queue it is said to be in");
            drop(q);
            drop(taken);
        }
    }
}

/// Delivers what is due on this CPU: of the running vCPU and of the queue. The slice's end asks for a reschedule.
pub fn run(current: Option<&VcpuRef>) {
    let t = now();
    if let Some(v) = current {
        fire(v, t);
        if t >= v.sched.slice_end.load(Ordering::Relaxed) {
            this_cpu().raise(pending::RESCHED);
        }
    }
    let Some(q) = QUEUES.get(this_cpu().id.0 as usize) else {
        return;
    };
    loop {
        let mut guard = q.lock();
        if guard.first_key().is_none_or(|k| k > t) {
            break;
        }
        let Some((_, v)) = guard.pop() else { break };
        v.sched.timer_cpu.store(0, Ordering::Release);
        drop(guard);
        fire(&v, t);
        // It may run by now, and then keeps its timers itself.
        if v.sched.state.load(Ordering::Acquire) != sched::state::RUNNING {
            queue_here(&v);
        }
    }
}

/// Programs this CPU's hardware timer. `running`: a vCPU runs here.
pub fn program(running: bool) {
    let own = match &*this_cpu().current.borrow() {
        Some(r) if running => earliest(&r.vcpu).min(slice_end(&r.vcpu)),
        _ => NEVER,
    };
    timer::set_deadline(queued().min(own));
}

/// Reprograms after the running vCPU changed its own timers; fires what is past at once.
pub fn changed(v: &VcpuRef) {
    let mut at = earliest(v);
    let now = now();
    if at <= now {
        fire(v, now);
        at = earliest(v);
    }
    timer::set_deadline(at.min(queued()).min(slice_end(v)));
}

/// As [`changed`], for a vCPU that does not run here: it waits, or runs on another CPU.
pub fn changed_by_another(v: &VcpuRef) {
    // The new times are there before we look where it is: a CPU that puts it into its queue behind this sees them.
    fence(Ordering::SeqCst);
    unpark(v);
    if !keeps_timers(v) {
        return;
    }
    queue_here(v);
    sched::look_at_timers(v);
    this_cpu().raise(pending::TIMER);
}
