//! The scheduler: weighted fair queueing with caps, one run queue a CPU.
//!
//! [`core`] decides, [`share`] keeps a domain's weight and budget, [`switch`] changes what the CPU runs. This file puts
//! the decisions to work on the machine: it is the scheduler of vCPUs.

pub mod core;
pub mod queue;
pub mod share;
#[cfg(test)]
mod simulation;
pub mod switch;

pub use self::core::{Entity, SLICE, state};

use self::core::{Ask, Core, LOOK_AROUND, Task};
use crate::arch::cpumask::CpuMask;
use crate::arch::percpu::{self, CpuId, pending, this_cpu};
use crate::atomic::{AtomicU32, Ordering, fence};
use crate::domain::vcpu::RunState;
use crate::domain::{Vcpu, VcpuRef};
use crate::fallible::OutOfMemory;
use crate::platform::{self, timer::NEVER, tlb};
use crate::sync;
use share::Share;

static CORE: Core<VcpuRef> = Core::new();
static VCPUS: AtomicU32 = AtomicU32::new(0);

impl Task for VcpuRef {
    fn entity(&self) -> &Entity {
        &self.sched
    }
    fn share(&self) -> &Share {
        &self.domain().share
    }
    fn may_run(&self) -> bool {
        self.runnable() && self.domain().may_run()
    }
    fn peers(&self) -> u32 {
        self.domain().vcpus().len() as u32
    }
    fn same(&self, other: &Self) -> bool {
        VcpuRef::same(self, other)
    }
    fn woken(&self) {
        crate::time::runstate::changed(self, RunState::Runnable);
    }
    fn capped(&self, _until: u64) {
        // The time to go on is one of the vCPU's deadlines.
        crate::time::timers::park(self);
    }
}

/// Makes room in every queue for `n` more vCPUs. Called when a domain gets its vCPUs, after all CPUs are up.
///
/// # Errors
/// Out of memory; nothing has changed then.
pub fn admit(n: u32) -> Result<(), OutOfMemory> {
    let total = VCPUS.fetch_add(n, Ordering::AcqRel).saturating_add(n) as usize;
    let made = CORE.reserve(percpu::online(), total).and_then(|()| crate::time::timers::reserve(total));
    if made.is_err() {
        VCPUS.fetch_sub(n, Ordering::AcqRel);
    }
    made
}

/// The domain's `n` vCPUs are gone.
pub fn dismiss(n: u32) {
    VCPUS.fetch_sub(n, Ordering::AcqRel);
}

/// Whether the vCPU may have a CPU now, caps aside.
pub fn may_run(v: &VcpuRef) -> bool {
    v.may_run()
}

fn act(ask: Ask) {
    match ask {
        Ask::Nothing => {}
        Ask::Schedule(cpu) => resched(cpu),
        // Its timers are looked at and the next deadline is set.
        Ask::Slice(cpu) => raise(cpu, pending::TIMER),
    }
}

/// Lets `v` run if it may: to be called after anything that kept it from running went away. Any CPU may call it.
pub fn wake(v: &VcpuRef) {
    act(CORE.wake(v, tlb::online()));
}

/// The budget of the vCPU's domain was renewed, or its cap is gone.
pub fn uncap(v: &VcpuRef) {
    act(CORE.uncap(v, tlb::online()));
}

/// Puts a vCPU whose state is `QUEUED`, and which is in no queue, into the queue of the best CPU.
pub(crate) fn enqueue(v: &VcpuRef) {
    match CORE.enqueue(v, false, tlb::online()) {
        // Whatever is entered here next sets the timer anyway.
        Ask::Slice(cpu) if cpu == this_cpu().id => {}
        ask => act(ask),
    }
}

/// A vCPU that was QUEUED or RUNNING goes to no queue, unless it may run after all.
pub(crate) fn retire(v: &VcpuRef) {
    act(CORE.retire(v, tlb::online()));
}

/// The vCPU that is to run here, `RUNNING`.
pub(crate) fn next(now: u64) -> Option<VcpuRef> {
    CORE.next(this_cpu().id, now, tlb::online(), act)
}

/// Charges the vCPU that runs here; whether it goes on.
pub(crate) fn keeps(v: &VcpuRef, now: u64) -> bool {
    let me = this_cpu().id;
    CORE.charge(me, v, now);
    CORE.keeps(me, v, now, tlb::online())
}

/// This CPU found nothing to run, or stops looking.
pub(crate) fn set_idle(idle: bool) {
    let me = this_cpu().id;
    if idle { CORE.idle(me) } else { CORE.busy(me) }
}

/// System time at which the vCPU that runs here must be looked at again, or [`NEVER`]: the end of its slice, if others
/// wait here or its domain is capped; otherwise this CPU's next look at what waits elsewhere.
pub(crate) fn look_again_at(v: &Vcpu, capped: bool) -> u64 {
    let end = v.sched.slice_end.load(Ordering::Relaxed);
    if capped || CORE.anyone_waits(this_cpu().id) {
        end
    } else if percpu::online() > 1 {
        end.saturating_add(LOOK_AROUND - SLICE)
    } else {
        NEVER
    }
}

/// Shortest time a vCPU runs before a waking one preempts it, µs (`sysctl scheduler_op`, credit2's rate limit).
pub fn ratelimit_us() -> u32 {
    (CORE.ratelimit() / 1000) as u32
}

/// Changes it.
pub fn set_ratelimit_us(us: u32) {
    CORE.set_ratelimit(u64::from(us) * 1000);
}

/// Changes on which CPUs a vCPU may run (`hard`) and which of them it prefers (`soft`), and moves it if it is elsewhere.
pub fn set_affinity(v: &VcpuRef, hard: Option<CpuMask>, soft: Option<CpuMask>) {
    let e = &v.sched;
    if let Some(m) = soft {
        e.soft.store(m);
    }
    let Some(m) = hard else { return };
    e.hard.store(m);
    fence(Ordering::SeqCst);
    // It may be picked up meanwhile by a CPU that still saw the old mask; but then it is RUNNING, and that CPU is told.
    loop {
        match e.state.load(Ordering::SeqCst) {
            state::QUEUED if !m.contains(CpuId(e.cpu.load(Ordering::Acquire))) => {
                if let Some(ask) = CORE.requeue(v, tlb::online()) {
                    return act(ask);
                }
                sync::serve_requests();
            }
            state::RUNNING => {
                if !m.contains(CpuId(e.cpu.load(Ordering::Acquire))) {
                    kick(v);
                }
                return;
            }
            _ => return,
        }
    }
}

/// Something about the vCPU's share changed: if it runs, its CPU looks at it again now.
pub fn look_again(v: &VcpuRef) {
    v.sched.slice_end.store(0, Ordering::Relaxed);
    kick(v);
}

/// The timers of `v` changed: if it runs, its CPU sets the next deadline anew.
pub fn look_at_timers(v: &VcpuRef) {
    if v.sched.state.load(Ordering::SeqCst) == state::RUNNING {
        raise(CpuId(v.sched.cpu.load(Ordering::Acquire)), pending::TIMER);
    }
}

fn raise(cpu: CpuId, bits: u32) {
    if cpu == this_cpu().id {
        this_cpu().raise(bits);
    } else if let Some(word) = percpu::pending_of(cpu)
        && word.fetch_or(bits, Ordering::AcqRel) & bits == 0
    {
        platform::smp::kick(cpu);
    }
}

/// Asks `cpu` to schedule.
pub fn resched(cpu: CpuId) {
    raise(cpu, pending::RESCHED);
}

/// `v` may not run any more: if it does, its CPU looks for something else soon.
pub fn kick(v: &VcpuRef) {
    fence(Ordering::SeqCst);
    if v.sched.state.load(Ordering::SeqCst) == state::RUNNING {
        resched(CpuId(v.sched.cpu.load(Ordering::Acquire)));
    }
}

/// Waits until `v` runs nowhere. The caller has made sure that it may not run again, and does not run on `v` itself;
/// and nothing that a guest starts may wait so for a vCPU that could be waiting for it in turn: tools wait for the
/// vCPUs of other domains only.
pub fn sync_off_cpu(v: &VcpuRef) {
    loop {
        fence(Ordering::SeqCst);
        if v.sched.state.load(Ordering::SeqCst) != state::RUNNING {
            return;
        }
        resched(CpuId(v.sched.cpu.load(Ordering::Acquire)));
        while v.sched.state.load(Ordering::SeqCst) == state::RUNNING {
            crate::atomic::spin_loop();
            sync::serve_requests();
        }
    }
}
