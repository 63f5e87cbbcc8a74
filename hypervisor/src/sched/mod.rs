//! The scheduler: weighted fair queueing, one run queue a CPU.
//!
//! Each vCPU has a *virtual time* that runs slower the more weight its domain has; a CPU runs the waiting vCPU that is
//! furthest behind. A vCPU that wakes starts no further back than [`WAKE_CREDIT`] behind its queue, so sleeping earns
//! a prompt wake-up but no hoard. CPUs whose queue is empty take waiting vCPUs from others before they halt.
//!
//! # Who may do what
//! A vCPU's [`Entity::state`] says where it is: `IDLE` (in no queue), `QUEUED` (in exactly one), `RUNNING` (owned by a
//! CPU). Whoever moves it out of `IDLE` does so by compare-and-swap and then puts it into a queue. A CPU that stops
//! running a vCPU parks its state, publishes `IDLE`, and only then asks again whether it may run: with the waker's
//! order (clear the reason to wait, then try `IDLE` → `QUEUED`) one of the two always sees the other.

pub mod queue;
pub mod switch;

use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::{self, CpuId, pending, this_cpu};
use crate::domain::VcpuRef;
use crate::fallible::OutOfMemory;
use crate::platform;
use crate::sync::{self, Lock, Rank};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use queue::SortedQueue;

/// Longest time a vCPU runs while others wait, ns.
pub const SLICE: u64 = 10_000_000;
/// How far behind its queue's virtual time a waking vCPU may start, ns.
pub const WAKE_CREDIT: u64 = 5_000_000;
/// A waking vCPU preempts the running one when it is at least this far behind it, ns.
pub const PREEMPT_MARGIN: u64 = 500_000;
/// Weight at which virtual time runs like real time.
pub const DEFAULT_WEIGHT: u64 = 256;

/// States of [`Entity::state`].
pub mod state {
    #![allow(missing_docs)]
    pub const IDLE: u8 = 0;
    pub const QUEUED: u8 = 1;
    pub const RUNNING: u8 = 2;
}

/// The scheduler's part of a vCPU.
pub struct Entity {
    /// See [`state`].
    pub state: AtomicU8,
    /// CPU it runs, waits or last ran on.
    pub cpu: AtomicU32,
    /// Virtual time, ns.
    pub vtime: AtomicU64,
    /// System time when it last got a CPU, ns.
    pub since: AtomicU64,
    /// CPU time it has had, ns.
    pub cpu_time: AtomicU64,
    /// CPU whose timer queue holds its deadlines + 1, 0 = none.
    pub timer_cpu: AtomicU32,
}

impl Entity {
    /// In no queue.
    pub const fn new() -> Self {
        Entity {
            state: AtomicU8::new(state::IDLE),
            cpu: AtomicU32::new(0),
            vtime: AtomicU64::new(0),
            since: AtomicU64::new(0),
            cpu_time: AtomicU64::new(0),
            timer_cpu: AtomicU32::new(0),
        }
    }
}

impl Default for Entity {
    fn default() -> Self {
        Self::new()
    }
}

/// What waits for one CPU.
pub struct RunQueue {
    /// By virtual time.
    pub waiting: SortedQueue<VcpuRef>,
    /// Virtual time of the vCPU that runs; only moves forward.
    pub vtime: u64,
    /// Virtual time of the running vCPU when it started, and its weight; `None` while idle.
    pub running: Option<u64>,
}

static QUEUES: [Lock<RunQueue>; MAX_CPUS] =
    [const { Lock::new(Rank::RunQueue, RunQueue { waiting: SortedQueue::new(), vtime: 0, running: None }) }; MAX_CPUS];
static IDLE: crate::arch::cpumask::AtomicCpuMask = crate::arch::cpumask::AtomicCpuMask::empty();
static VCPUS: AtomicU32 = AtomicU32::new(0);

/// Makes room in every queue for `n` more vCPUs. Called when a domain gets its vCPUs.
pub fn admit(n: u32) -> Result<(), OutOfMemory> {
    let total = VCPUS.fetch_add(n, Ordering::AcqRel).saturating_add(n) as usize;
    let made = QUEUES
        .iter()
        .take(percpu::online() as usize)
        .try_for_each(|q| q.lock().waiting.try_reserve(total))
        .and_then(|()| crate::time::timers::reserve(total));
    if made.is_err() {
        VCPUS.fetch_sub(n, Ordering::AcqRel);
    }
    made
}

/// The domain's `n` vCPUs are gone.
pub fn dismiss(n: u32) {
    VCPUS.fetch_sub(n, Ordering::AcqRel);
}

/// Room for the vCPUs that exist, on a CPU that just came up.
pub fn reserve_for_cpu(cpu: CpuId) -> Result<(), OutOfMemory> {
    let total = VCPUS.load(Ordering::Acquire) as usize;
    QUEUES.get(cpu.0 as usize).map_or(Ok(()), |q| q.lock().waiting.try_reserve(total))
}

/// Whether the vCPU may have a CPU now.
pub fn may_run(v: &VcpuRef) -> bool {
    v.runnable() && v.domain().may_run()
}

/// Lets `v` run if it may: to be called after anything that kept it from running went away. Any CPU may call it.
pub fn wake(v: &VcpuRef) {
    fence(Ordering::SeqCst);
    if !may_run(v) {
        return;
    }
    if v.sched.state.compare_exchange(state::IDLE, state::QUEUED, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
        crate::time::runstate::changed(v, crate::domain::vcpu::RunState::Runnable);
        enqueue(v, true);
    }
}

/// Puts a vCPU whose state is already `QUEUED` into the queue of the best CPU.
pub(crate) fn enqueue(v: &VcpuRef, waking: bool) {
    let cpu = choose_cpu(v);
    let Some(q) = QUEUES.get(cpu.0 as usize) else { return };
    let mut q = q.lock();
    let floor = if waking { q.vtime.saturating_sub(WAKE_CREDIT) } else { q.vtime.saturating_sub(WAKE_CREDIT * 8) };
    let vtime = v.sched.vtime.load(Ordering::Relaxed).max(floor);
    v.sched.vtime.store(vtime, Ordering::Relaxed);
    v.sched.cpu.store(cpu.0, Ordering::Release);
    // Room was reserved when the vCPU was admitted.
    let inserted = q.waiting.insert(vtime, v.clone());
    debug_assert!(inserted.is_ok());
    let preempt = match q.running {
        None => true,
        Some(_) => waking && vtime.saturating_add(PREEMPT_MARGIN) < q.vtime,
    };
    drop(q);
    if preempt {
        resched(cpu);
    }
}

/// Asks `cpu` to schedule.
pub fn resched(cpu: CpuId) {
    if cpu == this_cpu().id {
        this_cpu().raise(pending::RESCHED);
    } else if let Some(word) = percpu::pending_of(cpu) {
        if word.fetch_or(pending::RESCHED, Ordering::AcqRel) & pending::RESCHED == 0 {
            platform::smp::kick(cpu);
        }
    }
}

/// The CPU for a vCPU that wants one: the one it knows if idle, else an idle one, else the one it knows.
fn choose_cpu(v: &VcpuRef) -> CpuId {
    let last = v.sched.cpu.load(Ordering::Relaxed);
    let allowed = v.allowed_cpus();
    let online = percpu::online();
    let ok = |c: u32| c < online && allowed.contains(CpuId(c));
    let idle = IDLE.load();
    if ok(last) && idle.contains(CpuId(last)) {
        return CpuId(last);
    }
    if let Some(c) = (0..online).find(|&c| ok(c) && idle.contains(CpuId(c))) {
        return CpuId(c);
    }
    if ok(last) { CpuId(last) } else { CpuId((0..online).find(|&c| ok(c)).unwrap_or(0)) }
}

/// The next vCPU for this CPU: the one furthest behind in its own queue, else one that waits elsewhere.
/// Entries that may not run any more go back to `IDLE` on the way.
pub(crate) fn pick() -> Option<VcpuRef> {
    let me = this_cpu().id;
    take_from(me.0 as usize, me).or_else(|| {
        let n = percpu::online() as usize;
        (1..n).find_map(|i| take_from((me.0 as usize + i) % n, me))
    })
}

fn take_from(queue: usize, me: CpuId) -> Option<VcpuRef> {
    let q = QUEUES.get(queue)?;
    loop {
        let (_, v) = q.lock().waiting.take(|v| v.allowed_cpus().contains(me))?;
        // RUNNING is published before the question is asked: who pauses the vCPU either is seen here, or sees it
        // running and waits.
        v.sched.cpu.store(me.0, Ordering::Release);
        v.sched.state.store(state::RUNNING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if may_run(&v) {
            return Some(v);
        }
        retire(&v);
    }
}

/// A vCPU that was QUEUED or RUNNING goes to no queue, unless it may run after all.
pub(crate) fn retire(v: &VcpuRef) {
    v.sched.state.store(state::IDLE, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    wake(v);
}

/// Virtual time of what waits first here, if anything waits.
pub(crate) fn first_waiting() -> Option<u64> {
    QUEUES.get(this_cpu().id.0 as usize)?.lock().waiting.first_key()
}

/// Notes what this CPU runs from now on.
pub(crate) fn set_running(v: Option<&VcpuRef>) {
    let me = this_cpu().id;
    if let Some(q) = QUEUES.get(me.0 as usize) {
        let mut q = q.lock();
        q.running = v.map(|v| v.sched.vtime.load(Ordering::Relaxed));
        if let Some(vt) = q.running {
            q.vtime = q.vtime.max(vt);
        }
    }
    if v.is_some() { IDLE.remove(me) } else { IDLE.insert(me) }
}

/// Charges the running vCPU for the time since it was last charged.
pub(crate) fn charge(v: &VcpuRef, now: u64) {
    let ran = now.saturating_sub(v.sched.since.swap(now, Ordering::Relaxed));
    let weight = u64::from(v.domain().weight.load(Ordering::Relaxed)).max(1);
    v.sched.cpu_time.fetch_add(ran, Ordering::Relaxed);
    let vt = v.sched.vtime.fetch_add(ran.saturating_mul(DEFAULT_WEIGHT) / weight, Ordering::Relaxed);
    if let Some(q) = QUEUES.get(this_cpu().id.0 as usize) {
        let mut q = q.lock();
        q.vtime = q.vtime.max(vt);
    }
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
            core::hint::spin_loop();
            sync::serve_requests();
        }
    }
}
