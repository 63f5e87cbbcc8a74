//! Who runs where: the decisions of the scheduler, without the machine.
//!
//! Each vCPU has a *virtual time* that runs slower the more weight its domain has. Each CPU has a queue of waiting vCPUs
//! in the order of their virtual times and runs the one furthest behind, for a slice. Virtual times of all CPUs are
//! compared with each other: a vCPU that waits elsewhere and is a slice further behind than everything here is taken
//! over, so shares come out right over all CPUs, not only on each. A CPU looks around that way when its own queue is
//! empty, and once a slice otherwise; CPUs on which nothing waits look around every [`LOOK_AROUND`].
//!
//! A CPU's queue has a virtual time of its own, that of the furthest behind, which only moves forward while there is
//! anything. A vCPU that wakes is set no further back from it than [`WAKE_CREDIT`], so that sleeping earns a prompt
//! wake-up but no hoard, and no further ahead than two slices of its own. One that moves is set no further from it than
//! [`MOVE_SLICES`], so that what it used up where more was to be had does not count against it for long.
//!
//! # No vCPU is lost
//! [`Entity::state`] says where a vCPU is: `IDLE` (in no queue), `QUEUED` (in exactly one), `RUNNING` (owned by a CPU).
//! Whoever moves it out of `IDLE` does so by compare-and-swap and then queues it. A CPU that stops running a vCPU
//! publishes `IDLE`, and only then asks again whether it may run: with the waker's order (clear the reason to wait, then
//! try `IDLE` → `QUEUED`) one of the two always sees the other.
//!
//! A CPU that finds nothing enters the idle mask and looks once more before it halts; whoever queues a vCPU looks at the
//! idle mask afterwards. So of a CPU that goes idle and a vCPU that begins to wait, one sees the other, wherever it waits.

use super::queue::SortedQueue;
use super::share::{Share, UsedUp};
use crate::arch::cpumask::{AtomicCpuMask, CpuMask};
use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::CpuId;
use crate::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use crate::fallible::OutOfMemory;
use crate::sync::{Lock, Rank};

/// Longest time a vCPU runs while others wait, ns.
pub const SLICE: u64 = 10_000_000;
/// How often a CPU whose queue is empty looks for vCPUs that wait elsewhere, ns.
pub const LOOK_AROUND: u64 = 20_000_000;
/// How far behind its queue's virtual time a waking vCPU may start, ns.
pub const WAKE_CREDIT: u64 = 5_000_000;
/// How far from its new queue's virtual time a vCPU may start that is moved, in slices of its own. Where vCPUs may run
/// anywhere they stay closer together than that by themselves.
pub const MOVE_SLICES: u64 = 8;
/// A waking vCPU preempts the running one when it is at least this far behind it, ns.
pub const PREEMPT_MARGIN: u64 = 500_000;
/// What a yielding vCPU puts itself behind others, once, ns.
pub const YIELD_BIAS: u64 = 1_000_000;
/// Shortest slice of a capped vCPU, ns.
pub const SHORTEST: u64 = 100_000;

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
    /// System time up to which it is charged, ns.
    pub since: AtomicU64,
    /// System time when it got its CPU, ns.
    pub started: AtomicU64,
    /// System time at which its slice ends, ns.
    pub slice_end: AtomicU64,
    /// CPU time it has had, ns.
    pub cpu_time: AtomicU64,
    /// Its domain's budget was used up: it may run again at this system time. 0 = it may run.
    pub capped_until: AtomicU64,
    /// It asked to let others run first.
    pub yielded: AtomicBool,
    /// CPUs it may run on.
    pub hard: AtomicCpuMask,
    /// CPUs it prefers.
    pub soft: AtomicCpuMask,
    /// SCHEDOP_pin_override: the one CPU it runs on meanwhile, + 1; 0 = none.
    pub pin_override: AtomicU32,
    /// CPU whose timer queue holds its deadlines + 1, 0 = none.
    pub timer_cpu: AtomicU32,
    /// The deadline it has there.
    pub timer_key: AtomicU64,
}

impl Entity {
    /// In no queue, may run anywhere.
    pub const fn new() -> Self {
        Entity {
            state: AtomicU8::new(state::IDLE),
            cpu: AtomicU32::new(0),
            vtime: AtomicU64::new(0),
            since: AtomicU64::new(0),
            started: AtomicU64::new(0),
            slice_end: AtomicU64::new(0),
            cpu_time: AtomicU64::new(0),
            capped_until: AtomicU64::new(0),
            yielded: AtomicBool::new(false),
            hard: AtomicCpuMask::all(),
            soft: AtomicCpuMask::all(),
            pin_override: AtomicU32::new(0),
            timer_cpu: AtomicU32::new(0),
            timer_key: AtomicU64::new(0),
        }
    }

    /// The CPUs it may run on now.
    #[inline]
    pub fn hard_now(&self) -> CpuMask {
        match self.pin_override.load(Ordering::Relaxed) {
            0 => self.hard.load(),
            n => CpuMask::only(CpuId(n - 1)),
        }
    }

    /// CPUs it may run on, and those of them it should. A mask without CPUs that are online counts as all.
    fn allowed(&self, online: CpuMask) -> (CpuMask, CpuMask) {
        let or_all = |m: CpuMask, all: CpuMask| {
            if m.and(all).is_empty() { all } else { m.and(all) }
        };
        let hard = or_all(self.hard_now(), online);
        (hard, or_all(self.soft.load(), hard))
    }
}

impl Default for Entity {
    fn default() -> Self {
        Self::new()
    }
}

/// What is scheduled: vCPUs, and in tests what stands for them.
pub trait Task: Clone {
    /// Its part that is ours.
    fn entity(&self) -> &Entity;
    /// Its domain's share.
    fn share(&self) -> &Share;
    /// Whether anything but a cap keeps it from running.
    fn may_run(&self) -> bool;
    /// vCPUs of its domain, which share the budget.
    fn peers(&self) -> u32;
    /// Whether both are the same.
    fn same(&self, other: &Self) -> bool;
    /// It wants a CPU from now on.
    fn woken(&self);
    /// Its domain's budget is used up: [`Core::uncap`] is to be called at system time `until`.
    fn capped(&self, until: u64);
}

/// What a CPU is to be asked for.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// To schedule.
    Schedule(CpuId),
    /// To set its timer: somebody waits there, so the running vCPU's slice counts from now on.
    Slice(CpuId),
}

struct Queue<T> {
    waiting: SortedQueue<T>,
    /// Virtual time of the furthest behind, running or waiting.
    vtime: u64,
}

/// One CPU's part. What others look at without the lock is published beside the queue.
#[repr(align(128))]
struct Cpu<T> {
    queue: Lock<Queue<T>>,
    /// Virtual time of the first that waits; `u64::MAX` = nobody.
    head: AtomicU64,
    /// Virtual time of what runs, as it was when last charged; 0 = nothing runs.
    current: AtomicU64,
    /// System time of the last look at other CPUs.
    looked: AtomicU64,
}

impl<T: Task> Cpu<T> {
    const fn new() -> Self {
        Cpu {
            queue: Lock::new(Rank::RunQueue, Queue { waiting: SortedQueue::new(), vtime: 0 }),
            head: AtomicU64::new(u64::MAX),
            current: AtomicU64::new(0),
            looked: AtomicU64::new(0),
        }
    }

    /// After a change of the queue or of what runs; with the lock held.
    fn publish(&self, q: &mut Queue<T>) {
        let head = q.waiting.first_key().unwrap_or(u64::MAX);
        self.head.store(head, Ordering::SeqCst);
        let current = match self.current.load(Ordering::Relaxed) {
            0 => u64::MAX,
            vt => vt,
        };
        let behind = head.min(current);
        if behind != u64::MAX {
            q.vtime = q.vtime.max(behind);
        }
    }
}

/// The scheduler of all CPUs.
pub struct Core<T> {
    cpus: [Cpu<T>; MAX_CPUS],
    /// CPUs that look for work. A bit is taken out by whoever sends work there, or by the CPU.
    idle: AtomicCpuMask,
    /// CPUs on which somebody waits. Changes with the queue's lock held.
    waiting: AtomicCpuMask,
    /// Shortest time a vCPU runs before another preempts it, ns.
    ratelimit: AtomicU64,
}

impl<T: Task> Core<T> {
    /// Nothing runs and nothing waits.
    pub const fn new() -> Self {
        Core {
            cpus: [const { Cpu::new() }; MAX_CPUS],
            idle: AtomicCpuMask::empty(),
            waiting: AtomicCpuMask::empty(),
            // Xen's default.
            ratelimit: AtomicU64::new(1_000_000),
        }
    }

    fn cpu(&self, id: CpuId) -> Option<&Cpu<T>> {
        self.cpus.get(id.0 as usize)
    }

    /// Shortest time a vCPU runs before another preempts it, ns.
    pub fn ratelimit(&self) -> u64 {
        self.ratelimit.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub fn set_ratelimit(&self, ns: u64) {
        self.ratelimit.store(ns, Ordering::Relaxed);
    }

    /// Makes room for `total` vCPUs in the queues of the first `cpus` CPUs.
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&self, cpus: u32, total: usize) -> Result<(), OutOfMemory> {
        self.cpus.iter().take(cpus as usize).try_for_each(|c| c.queue.lock().waiting.try_reserve(total))
    }

    /// Lets `t` run if it may: to be called after anything that kept it from running went away. Any CPU may call it.
    pub fn wake(&self, t: &T, online: CpuMask) -> Ask {
        fence(Ordering::SeqCst);
        let e = t.entity();
        if !t.may_run() || e.capped_until.load(Ordering::SeqCst) != 0 {
            return Ask::Nothing;
        }
        if e.state.compare_exchange(state::IDLE, state::QUEUED, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Ask::Nothing;
        }
        t.woken();
        self.enqueue(t, true, online)
    }

    /// Its domain has a budget again, or no cap any more.
    pub fn uncap(&self, t: &T, online: CpuMask) -> Ask {
        t.entity().capped_until.store(0, Ordering::SeqCst);
        self.wake(t, online)
    }

    /// A vCPU that was `QUEUED` or `RUNNING` goes to no queue, unless it may run after all.
    pub fn retire(&self, t: &T, online: CpuMask) -> Ask {
        t.entity().state.store(state::IDLE, Ordering::SeqCst);
        self.wake(t, online)
    }

    /// The CPU a vCPU should wait for, and whether that is an idle one, which is now spoken for: the CPU it knows if that
    /// is idle, else an idle one it prefers, else any idle one; else the one it knows, unless another runs something that
    /// is more than a slice further ahead.
    fn choose(&self, e: &Entity, online: CpuMask) -> (CpuId, bool) {
        let last = CpuId(e.cpu.load(Ordering::Relaxed));
        let (hard, soft) = e.allowed(online);
        for wanted in [soft, hard] {
            let idle = self.idle.load().and(wanted);
            let found = if idle.contains(last) { Some(last) } else { idle.iter().next() };
            if let Some(c) = found
                && self.idle.take(c)
            {
                return (c, true);
            }
        }
        let ahead = |c: CpuId| self.cpu(c).map_or(0, |c| c.current.load(Ordering::Relaxed));
        let mut best = if soft.contains(last) { last } else { soft.iter().next().unwrap_or(CpuId(0)) };
        let mut most = ahead(best).saturating_add(SLICE);
        for c in soft.iter() {
            let a = ahead(c);
            if a > most {
                (best, most) = (c, a);
            }
        }
        (best, false)
    }

    /// Puts a vCPU whose state is `QUEUED` already, and which is in no queue, into that of the best CPU.
    pub fn enqueue(&self, t: &T, waking: bool, online: CpuMask) -> Ask {
        let e = t.entity();
        let (cpu, idle) = self.choose(e, online);
        let Some(c) = self.cpu(cpu) else {
            return Ask::Nothing;
        };
        let mut q = c.queue.lock();
        let moved = e.cpu.swap(cpu.0, Ordering::AcqRel) != cpu.0;
        let alone = q.waiting.is_empty();
        if waking || moved {
            if alone && c.current.load(Ordering::Relaxed) == 0 {
                // What this CPU did last is no measure of how far ahead the vCPU is.
                q.vtime = q.vtime.max(e.vtime.load(Ordering::Relaxed));
            }
            settle(t, &q, waking);
        }
        let vtime = e.vtime.load(Ordering::Relaxed);
        // Room was reserved when the vCPU was admitted.
        let inserted = q.waiting.insert(vtime, t.clone());
        debug_assert!(inserted.is_ok(), "a run queue without room");
        c.publish(&mut q);
        self.waiting.insert(cpu);
        drop(q);
        if idle {
            return Ask::Schedule(cpu);
        }
        // A CPU that went idle since then may not have seen it.
        let (hard, _) = e.allowed(online);
        if let Some(free) = self.idle.load().and(hard).iter().next()
            && self.idle.take(free)
        {
            return Ask::Schedule(free);
        }
        if waking && vtime.saturating_add(PREEMPT_MARGIN) < c.current.load(Ordering::Relaxed) {
            return Ask::Schedule(cpu);
        }
        if alone { Ask::Slice(cpu) } else { Ask::Nothing }
    }

    /// Takes the first vCPU of `queue` that may run on `me`; it is `RUNNING` then.
    fn take_from(&self, queue: CpuId, me: CpuId) -> Option<T> {
        let c = self.cpu(queue)?;
        let mut q = c.queue.lock();
        let (_, t) = q.waiting.take(|t| t.entity().hard_now().contains(me) || queue == me)?;
        c.publish(&mut q);
        if q.waiting.is_empty() {
            self.waiting.remove(queue);
        }
        let e = t.entity();
        e.cpu.store(me.0, Ordering::Release);
        // RUNNING is published before anybody asks whether it may run: who pauses the vCPU either is seen then, or sees
        // it running and waits.
        e.state.store(state::RUNNING, Ordering::SeqCst);
        drop(q);
        if queue != me
            && let Some(own) = self.cpu(me)
        {
            let q = own.queue.lock();
            if !q.waiting.is_empty() {
                settle(&t, &q, false);
            }
        }
        fence(Ordering::SeqCst);
        Some(t)
    }

    /// Of the vCPUs that wait, the one for `me`: the furthest behind in its own queue, or one elsewhere that is more than
    /// a slice further behind (any, if the own queue is empty).
    fn take(&self, me: CpuId, now: u64) -> Option<T> {
        let own = self.cpu(me)?;
        let mut elsewhere = self.waiting.load().without(me);
        let head = own.head.load(Ordering::SeqCst);
        let due = now >= own.looked.load(Ordering::Relaxed).saturating_add(SLICE);
        if !elsewhere.is_empty() && (head == u64::MAX || due) {
            own.looked.store(now, Ordering::Relaxed);
            // The CPU whose first is furthest behind, then the next: what waits there may be pinned.
            while let Some((c, vt)) = self.furthest_behind(elsewhere) {
                if head != u64::MAX && vt.saturating_add(SLICE) >= head {
                    break;
                }
                if let Some(t) = self.take_from(c, me) {
                    return Some(t);
                }
                elsewhere = elsewhere.without(c);
            }
        }
        self.take_from(me, me)
    }

    fn furthest_behind(&self, of: CpuMask) -> Option<(CpuId, u64)> {
        of.iter()
            .map(|c| (c, self.cpu(c).map_or(u64::MAX, |c| c.head.load(Ordering::SeqCst))))
            .filter(|(_, vt)| *vt != u64::MAX)
            .min_by_key(|(_, vt)| *vt)
    }

    /// The next vCPU for this CPU, `RUNNING` and with a slice; what may not run any more is retired on the way.
    pub fn next(&self, me: CpuId, now: u64, online: CpuMask, mut ask: impl FnMut(Ask)) -> Option<T> {
        loop {
            let t = self.take(me, now)?;
            if !t.may_run() {
                ask(self.retire(&t, online));
                continue;
            }
            match t.share().left(now) {
                Ok(left) => {
                    let e = t.entity();
                    e.since.store(now, Ordering::Relaxed);
                    e.started.store(now, Ordering::Relaxed);
                    e.slice_end.store(now.saturating_add(slice(&t, left, online)), Ordering::Relaxed);
                    self.runs(me, Some(&t));
                    ask(self.pass_on(me));
                    return Some(t);
                }
                Err(until) => {
                    self.cap(&t, until);
                    ask(self.retire(&t, online));
                }
            }
        }
    }

    /// `me` has chosen: should others still wait here whom an idle CPU may run, that CPU is to come for them. (An idle
    /// CPU was spoken for by one vCPU and has met another that was sooner, or may run nowhere else.)
    fn pass_on(&self, me: CpuId) -> Ask {
        let idle = self.idle.load();
        if idle.is_empty() || !self.anyone_waits(me) {
            return Ask::Nothing;
        }
        let Some(c) = self.cpu(me) else {
            return Ask::Nothing;
        };
        let q = c.queue.lock();
        let free = q.waiting.iter().find_map(|t| t.entity().hard_now().and(idle).iter().find(|&c| self.idle.take(c)));
        free.map_or(Ask::Nothing, Ask::Schedule)
    }

    fn cap(&self, t: &T, UsedUp(until): UsedUp) {
        t.entity().capped_until.store(until, Ordering::SeqCst);
        t.capped(until);
    }

    /// Notes what `me` runs from now on. What it leaves counts until it runs something else or idles, so that the vCPU
    /// which is queued again meanwhile finds this CPU no emptier than it is.
    fn runs(&self, me: CpuId, t: Option<&T>) {
        let Some(c) = self.cpu(me) else { return };
        let mut q = c.queue.lock();
        let vtime = t.map_or(0, |t| t.entity().vtime.load(Ordering::Relaxed).max(1));
        c.current.store(vtime, Ordering::Relaxed);
        if vtime != 0 && q.waiting.is_empty() {
            // Nobody to be compared with: the queue's time is the vCPU's.
            q.vtime = vtime;
        }
        c.publish(&mut q);
    }

    /// Charges the vCPU that `me` runs for the time since it was last charged.
    pub fn charge(&self, me: CpuId, t: &T, now: u64) {
        let e = t.entity();
        let ran = now.saturating_sub(e.since.swap(now, Ordering::Relaxed));
        e.cpu_time.fetch_add(ran, Ordering::Relaxed);
        e.vtime.fetch_add(t.share().virtual_time(ran), Ordering::Relaxed);
        t.share().spend(ran);
        self.runs(me, Some(t));
    }

    /// Whether the vCPU that runs on `me`, and was charged up to `now`, goes on; it has a slice then.
    pub fn keeps(&self, me: CpuId, t: &T, now: u64, online: CpuMask) -> bool {
        let e = t.entity();
        let yielded = e.yielded.swap(false, Ordering::Relaxed);
        let (hard, _) = e.allowed(online);
        if !t.may_run() || !hard.contains(me) {
            return false;
        }
        let left = match t.share().left(now) {
            Ok(left) => left,
            Err(until) => {
                e.capped_until.store(until.0, Ordering::SeqCst);
                return false;
            }
        };
        let over = now >= e.slice_end.load(Ordering::Relaxed);
        let mut mine = e.vtime.load(Ordering::Relaxed);
        if yielded {
            mine = mine.saturating_add(YIELD_BIAS);
        } else if !over {
            mine = mine.saturating_sub(PREEMPT_MARGIN);
        }
        if self.other_first(me, mine, now, over) {
            let earliest = e.started.load(Ordering::Relaxed).saturating_add(self.ratelimit());
            if yielded || over || now >= earliest {
                return false;
            }
            // It has only just begun: the other one's turn comes when it had its minimum.
            e.slice_end.fetch_min(earliest, Ordering::Relaxed);
            return true;
        }
        if over {
            e.slice_end.store(now.saturating_add(slice(t, left, online)), Ordering::Relaxed);
        }
        true
    }

    /// Whether somebody else is to run on `me` before a vCPU at virtual time `mine`.
    fn other_first(&self, me: CpuId, mine: u64, now: u64, look_around: bool) -> bool {
        let Some(own) = self.cpu(me) else {
            return false;
        };
        if own.head.load(Ordering::SeqCst) < mine {
            return true;
        }
        let elsewhere = self.waiting.load().without(me);
        if !look_around || elsewhere.is_empty() {
            return false;
        }
        // It will be taken, if it may run here; the look is for `take`.
        let behind = self.furthest_behind(elsewhere).is_some_and(|(_, vt)| vt.saturating_add(SLICE) < mine);
        if !behind {
            own.looked.store(now, Ordering::Relaxed);
        }
        behind
    }

    /// Whether anybody waits for `me`.
    pub fn anyone_waits(&self, me: CpuId) -> bool {
        self.cpu(me).is_some_and(|c| c.head.load(Ordering::SeqCst) != u64::MAX)
    }

    /// `me` has found nothing to run: from now on it is sent work. It must look once more before it halts.
    pub fn idle(&self, me: CpuId) {
        self.runs(me, None);
        self.idle.insert(me);
        fence(Ordering::SeqCst);
    }

    /// `me` does not idle any more.
    pub fn busy(&self, me: CpuId) {
        self.idle.remove(me);
    }

    /// Takes `t` out of its queue and puts it into that of the best CPU, after its affinity changed. The result says
    /// whether it was in a queue at all.
    pub fn requeue(&self, t: &T, online: CpuMask) -> Option<Ask> {
        let from = CpuId(t.entity().cpu.load(Ordering::Acquire));
        let c = self.cpu(from)?;
        let mut q = c.queue.lock();
        q.waiting.take(|other| other.same(t))?;
        c.publish(&mut q);
        if q.waiting.is_empty() {
            self.waiting.remove(from);
        }
        drop(q);
        Some(self.enqueue(t, false, online))
    }
}

impl<T: Task> Default for Core<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets a vCPU that wakes or moves into a queue neither too far back nor too far ahead there.
fn settle<T: Task>(t: &T, q: &Queue<T>, waking: bool) {
    let e = t.entity();
    let moved = t.share().virtual_time(MOVE_SLICES * SLICE);
    let (back, ahead) = if waking { (WAKE_CREDIT, t.share().virtual_time(2 * SLICE)) } else { (moved, moved) };
    let vt = e.vtime.load(Ordering::Relaxed);
    let to = vt.clamp(q.vtime.saturating_sub(back), q.vtime.saturating_add(ahead));
    e.vtime.store(to, Ordering::Relaxed);
}

/// How long a vCPU may run at once whose domain has `left` ns of its budget: its part of it, since others of the domain
/// may run at the same time.
fn slice<T: Task>(t: &T, left: u64, online: CpuMask) -> u64 {
    if left == u64::MAX {
        return SLICE;
    }
    (left / u64::from(t.peers().min(online.count()).max(1))).clamp(SHORTEST, SLICE)
}
