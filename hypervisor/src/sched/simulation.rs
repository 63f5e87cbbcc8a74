//! The scheduler under simulated machines: many CPUs, vCPUs, weights, caps, affinities and sleepers, in steps of 100 µs of
//! simulated time. After each step every vCPU must be where its state says, in exactly one place, and no CPU may idle
//! while a vCPU waits that may run there.

use super::core::{Ask, Core, Entity, LOOK_AROUND, SLICE, Task, state};
use super::share::Share;
use crate::arch::cpumask::CpuMask;
use crate::arch::percpu::CpuId;
use proptest::prelude::*;
use std::boxed::Box;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::vec;
use std::vec::Vec;

const STEP: u64 = 100_000;
const SECOND: u64 = 1_000_000_000;

std::thread_local! {
    /// What waits for its budget: until when, which vCPU.
    static CAPPED: RefCell<Vec<(u64, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` ns, then sleeps `sleep` ns, and so on; `sleep` 0 never sleeps.
#[derive(Clone, Copy, Debug)]
struct Habit {
    work: u64,
    sleep: u64,
}

const SPIN: Habit = Habit { work: 1, sleep: 0 };

struct Vcpu {
    id: usize,
    entity: Entity,
    share: Arc<Share>,
    peers: u32,
    habit: Habit,
    blocked: AtomicBool,
    wakes_at: AtomicU64,
    woken_at: AtomicU64,
    worked: AtomicU64,
    longest_wait: AtomicU64,
    waits: AtomicU64,
    wakes: AtomicU64,
}

#[derive(Clone)]
struct T(Arc<Vcpu>);

impl Task for T {
    fn entity(&self) -> &Entity {
        &self.0.entity
    }
    fn share(&self) -> &Share {
        &self.0.share
    }
    fn may_run(&self) -> bool {
        !self.0.blocked.load(SeqCst)
    }
    fn peers(&self) -> u32 {
        self.0.peers
    }
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    fn woken(&self) {}
    fn capped(&self, until: u64) {
        CAPPED.with(|c| c.borrow_mut().push((until, self.0.id)));
    }
}

/// A domain: weight, cap, and its vCPUs' hard affinity and habit.
#[derive(Clone, Debug)]
struct Dom {
    weight: u32,
    cap: u32,
    vcpus: Vec<(u64, Habit)>,
}

fn spinners(weight: u32, cap: u32, n: usize) -> Dom {
    Dom { weight, cap, vcpus: vec![(u64::MAX, SPIN); n] }
}

struct Machine {
    core: Box<Core<T>>,
    online: CpuMask,
    running: Vec<Option<T>>,
    asked: Vec<bool>,
    idle: Vec<bool>,
    tasks: Vec<T>,
    owner: Vec<usize>,
    now: u64,
}

impl Machine {
    fn new(cpus: usize, doms: &[Dom]) -> Self {
        CAPPED.with(|c| c.borrow_mut().clear());
        let online = CpuMask::from_bits(if cpus == 64 { u64::MAX } else { (1 << cpus) - 1 });
        let (mut tasks, mut owner) = (Vec::new(), Vec::new());
        for (d, dom) in doms.iter().enumerate() {
            let share = Arc::new(Share::new());
            share.set_weight(dom.weight);
            share.set_cap(dom.cap);
            for (hard, habit) in &dom.vcpus {
                let entity = Entity::new();
                entity.hard.store(CpuMask::from_bits(*hard));
                tasks.push(T(Arc::new(Vcpu {
                    id: tasks.len(),
                    entity,
                    share: share.clone(),
                    peers: dom.vcpus.len() as u32,
                    habit: *habit,
                    blocked: AtomicBool::new(true),
                    wakes_at: AtomicU64::new(STEP),
                    woken_at: AtomicU64::new(0),
                    worked: AtomicU64::new(0),
                    longest_wait: AtomicU64::new(0),
                    waits: AtomicU64::new(0),
                    wakes: AtomicU64::new(0),
                })));
                owner.push(d);
            }
        }
        let core = Box::new(Core::new());
        core.reserve(cpus as u32, tasks.len()).unwrap();
        Machine {
            core,
            online,
            running: vec![None; cpus],
            asked: vec![true; cpus],
            idle: vec![false; cpus],
            tasks,
            owner,
            now: 0,
        }
    }

    fn act(&mut self, ask: Ask) {
        match ask {
            // Whether a slice counts is looked at in each step.
            Ask::Nothing | Ask::Slice(_) => {}
            Ask::Schedule(c) => self.asked[c.0 as usize] = true,
        }
    }

    fn wake(&mut self, t: &T) {
        t.0.blocked.store(false, SeqCst);
        t.0.woken_at.store(self.now, SeqCst);
        t.0.worked.store(0, SeqCst);
        let ask = self.core.wake(t, self.online);
        self.act(ask);
    }

    /// As `switch::schedule`.
    fn schedule(&mut self, cpu: usize) {
        self.asked[cpu] = false;
        let me = CpuId(cpu as u32);
        if let Some(t) = self.running[cpu].take() {
            self.core.charge(me, &t, self.now);
            if self.core.keeps(me, &t, self.now, self.online) {
                self.running[cpu] = Some(t);
                return;
            }
            let e = t.entity();
            let until = e.capped_until.load(SeqCst);
            if until != 0 {
                t.capped(until);
            }
            let ask = if t.may_run() && until == 0 {
                e.state.store(state::QUEUED, SeqCst);
                self.core.enqueue(&t, false, self.online)
            } else {
                self.core.retire(&t, self.online)
            };
            self.act(ask);
        }
        let mut asks = Vec::new();
        if self.idle[cpu] {
            self.core.busy(me);
            self.idle[cpu] = false;
        }
        let mut next = self.core.next(me, self.now, self.online, |a| asks.push(a));
        if next.is_none() {
            self.core.idle(me);
            self.idle[cpu] = true;
            next = self.core.next(me, self.now, self.online, |a| asks.push(a));
            if next.is_some() {
                self.core.busy(me);
                self.idle[cpu] = false;
            }
        }
        if let Some(t) = &next {
            let woken = t.0.woken_at.swap(0, SeqCst);
            if woken != 0 {
                t.0.longest_wait.fetch_max(self.now - woken, SeqCst);
                t.0.waits.fetch_add(self.now - woken, SeqCst);
                t.0.wakes.fetch_add(1, SeqCst);
            }
        }
        self.running[cpu] = next;
        asks.into_iter().for_each(|a| self.act(a));
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        let due: Vec<usize> = CAPPED.with(|c| {
            let mut c = c.borrow_mut();
            let due = c.iter().filter(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
            c.retain(|(at, _)| *at > now);
            due
        });
        for id in due {
            let t = self.tasks[id].clone();
            let ask = self.core.uncap(&t, self.online);
            self.act(ask);
        }
        for t in self.tasks.clone() {
            let at = t.0.wakes_at.load(SeqCst);
            if at != 0 && at <= now {
                t.0.wakes_at.store(0, SeqCst);
                self.wake(&t);
            }
        }
        for cpu in 0..self.running.len() {
            let mut look = self.asked[cpu];
            if let Some(t) = self.running[cpu].clone() {
                let v = &t.0;
                let worked = v.worked.fetch_add(STEP, SeqCst) + STEP;
                if v.habit.sleep != 0 && worked >= v.habit.work {
                    v.blocked.store(true, SeqCst);
                    v.wakes_at.store(now + v.habit.sleep, SeqCst);
                    look = true;
                }
                let end = v.entity.slice_end.load(SeqCst);
                let more = if v.share.cap() != 0 || self.core.anyone_waits(CpuId(cpu as u32)) {
                    0
                } else {
                    LOOK_AROUND - SLICE
                };
                look |= now >= end + more;
            }
            if look {
                self.schedule(cpu);
            }
        }
        // What was asked meanwhile is done before time goes on.
        for _ in 0..2 * self.running.len() {
            for cpu in 0..self.running.len() {
                if self.asked[cpu] {
                    self.schedule(cpu);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let mut waiting = Vec::new();
        for t in &self.tasks {
            let places = self.running.iter().flatten().filter(|r| r.same(t)).count();
            match t.entity().state.load(SeqCst) {
                state::RUNNING => assert_eq!(places, 1, "vCPU {} runs in {places} places", t.0.id),
                state::QUEUED => {
                    assert_eq!(places, 0);
                    waiting.push(t);
                }
                _ => {
                    assert_eq!(places, 0);
                    let lost = t.may_run() && t.entity().capped_until.load(SeqCst) == 0;
                    assert!(!lost, "vCPU {} is lost at {}", t.0.id, self.now);
                }
            }
        }
        for (cpu, r) in self.running.iter().enumerate() {
            if r.is_none() {
                let could = waiting.iter().find(|t| t.entity().hard_now().contains(CpuId(cpu as u32)));
                assert!(could.is_none(), "CPU {cpu} idles at {} while vCPU {} waits", self.now, could.unwrap().0.id);
            }
            if let Some(t) = r {
                assert!(t.entity().hard.load().contains(CpuId(cpu as u32)) || self.now < 2 * STEP);
            }
        }
    }

    fn run(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// CPU time of each domain, in CPUs, over `time` from now.
    fn shares(&mut self, time: u64) -> Vec<f64> {
        let before: Vec<u64> = self.tasks.iter().map(|t| t.entity().cpu_time.load(SeqCst)).collect();
        self.run(time);
        let mut sum = vec![0.0; self.owner.iter().max().map_or(0, |m| m + 1)];
        for (i, t) in self.tasks.iter().enumerate() {
            let running = self.running.iter().flatten().any(|r| r.same(t));
            let open = if running { self.now - t.entity().since.load(SeqCst) } else { 0 };
            sum[self.owner[i]] += (t.entity().cpu_time.load(SeqCst) + open - before[i]) as f64 / time as f64;
        }
        sum
    }
}

/// Weighted shares of spinning vCPUs on `cpus` CPUs, none of which can have more than one CPU.
fn fair(cpus: usize, doms: &[Dom]) -> Vec<f64> {
    let mut share = vec![0.0; doms.len()];
    let mut open: Vec<usize> = (0..doms.len()).collect();
    let mut left = cpus as f64;
    loop {
        let weight: f64 = open.iter().map(|&d| f64::from(doms[d].weight) * doms[d].vcpus.len() as f64).sum();
        let full: Vec<usize> =
            open.iter().copied().filter(|&d| f64::from(doms[d].weight) * left / weight >= 1.0).collect();
        if full.is_empty() {
            for &d in &open {
                share[d] = f64::from(doms[d].weight) * doms[d].vcpus.len() as f64 * left / weight;
            }
            return share;
        }
        for d in full {
            share[d] = doms[d].vcpus.len() as f64;
            left -= share[d];
            open.retain(|&o| o != d);
        }
        if open.is_empty() {
            return share;
        }
    }
}

fn assert_shares(got: &[f64], wanted: &[f64], what: &str) {
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!(
            (g - w).abs() <= w * 0.05,
            "{what}: domain {i} has {g:.3} CPUs instead of {w:.3} ({got:.3?} of {wanted:.3?})"
        );
    }
}

#[test]
fn weights_are_obeyed_over_all_cpus() {
    let cases: &[(usize, &[Dom])] = &[
        (1, &[spinners(256, 0, 1), spinners(512, 0, 1)]),
        (1, &[spinners(64, 0, 1), spinners(256, 0, 2), spinners(1024, 0, 1)]),
        (1, &[spinners(1, 0, 1), spinners(100, 0, 1)]),
        (2, &[spinners(256, 0, 1), spinners(256, 0, 1), spinners(256, 0, 1)]),
        (2, &[spinners(256, 0, 2), spinners(512, 0, 2)]),
        (2, &[spinners(1024, 0, 1), spinners(256, 0, 1), spinners(256, 0, 1)]),
        (4, &[spinners(256, 0, 4), spinners(128, 0, 4), spinners(64, 0, 4)]),
        (8, &[spinners(256, 0, 3), spinners(300, 0, 9), spinners(700, 0, 5)]),
    ];
    for (cpus, doms) in cases {
        let mut m = Machine::new(*cpus, doms);
        m.run(SECOND);
        assert_shares(&m.shares(30 * SECOND), &fair(*cpus, doms), &std::format!("{cpus} CPUs, {doms:?}"));
    }
}

#[test]
fn caps_are_obeyed_and_what_they_leave_is_used() {
    let mut m = Machine::new(1, &[spinners(256, 30, 1)]);
    assert_shares(&m.shares(30 * SECOND), &[0.3], "alone");
    let mut m = Machine::new(2, &[spinners(256, 50, 1), spinners(256, 120, 4)]);
    assert_shares(&m.shares(30 * SECOND), &[0.5, 1.2], "more than there is to use");
    let mut m = Machine::new(4, &[spinners(1000, 250, 8), spinners(256, 0, 8)]);
    let got = m.shares(30 * SECOND);
    assert_shares(&got, &[2.5], "many vCPUs under one cap");
    assert!((got[0] + got[1] - 4.0).abs() < 0.001, "the others use the rest: {got:?}");
    let mut m = Machine::new(1, &[spinners(256, 10, 1), spinners(256, 0, 1), spinners(512, 5, 3)]);
    assert_shares(&m.shares(30 * SECOND), &[0.1, 0.85, 0.05], "small caps");
}

#[test]
fn pinned_vcpus_share_their_cpu_and_others_go_round_them() {
    let pinned = |cpus: u64, weight| Dom { weight, cap: 0, vcpus: vec![(cpus, SPIN)] };
    // Three on CPU 0, one free: it has CPU 1 for itself.
    let mut m = Machine::new(2, &[pinned(1, 256), pinned(1, 256), pinned(1, 512), pinned(3, 256)]);
    m.run(SECOND);
    assert_shares(&m.shares(30 * SECOND), &[0.25, 0.25, 0.5, 1.0], "three pinned to one");
    // One more on CPU 1: they share it.
    let mut m = Machine::new(2, &[pinned(1, 256), pinned(1, 256), pinned(1, 256), pinned(2, 256), pinned(3, 256)]);
    m.run(SECOND);
    assert_shares(&m.shares(30 * SECOND), &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.5, 0.5], "and one to the other");
}

#[test]
fn a_wake_up_waits_a_slice_at_most_whoever_spins() {
    let light = Habit { work: 200_000, sleep: 20_000_000 };
    for cpus in [1, 2, 4] {
        let mut doms = vec![spinners(256, 0, 2 * cpus)];
        doms.extend((0..3).map(|_| Dom { weight: 256, cap: 0, vcpus: vec![(u64::MAX, light)] }));
        let mut m = Machine::new(cpus, &doms);
        // All come into being at once; what counts is how it goes on.
        m.run(SECOND / 10);
        m.tasks.iter().for_each(|t| t.0.longest_wait.store(0, SeqCst));
        m.run(10 * SECOND);
        for t in m.tasks.iter().filter(|t| t.0.habit.sleep != 0) {
            let (longest, sum, n) = (t.0.longest_wait.load(SeqCst), t.0.waits.load(SeqCst), t.0.wakes.load(SeqCst));
            assert!(longest <= SLICE + 2_000_000, "{cpus} CPUs: vCPU {} waited {longest} ns", t.0.id);
            assert!(sum / n < 1_000_000, "{cpus} CPUs: vCPU {} waits {} ns on average", t.0.id, sum / n);
        }
    }
}

#[test]
fn a_vcpu_that_slept_long_does_not_take_everything() {
    let late = Habit { work: 60 * SECOND, sleep: 1 };
    let mut m = Machine::new(1, &[spinners(256, 0, 1), Dom { weight: 256, cap: 0, vcpus: vec![(u64::MAX, late)] }]);
    m.tasks[1].0.wakes_at.store(20 * SECOND, SeqCst);
    m.run(20 * SECOND);
    let got = m.shares(SECOND);
    assert!((got[0] - 0.5).abs() < 0.05, "after 20 s of sleep: {got:?}");
    // Nor does one starve that ran alone on a CPU while others shared.
    let alone = Dom { weight: 256, cap: 0, vcpus: vec![(2, SPIN)] };
    let mut m = Machine::new(2, &[Dom { weight: 256, cap: 0, vcpus: vec![(1, SPIN); 4] }, alone]);
    m.run(20 * SECOND);
    let t = m.tasks[4].clone();
    t.entity().hard.store(CpuMask::from_bits(1));
    m.asked[1] = true;
    m.run(SECOND / 10);
    let got = m.shares(5 * SECOND);
    assert!((got[1] - 0.2).abs() < 0.03, "moved to the crowd: {got:?}");
}

#[test]
fn vcpu_affinity_can_change_while_it_waits() {
    let mut m = Machine::new(2, &[Dom { weight: 256, cap: 0, vcpus: vec![(1, SPIN); 3] }]);
    m.run(SECOND / 10);
    let queued = m.tasks.iter().find(|t| t.entity().state.load(SeqCst) == state::QUEUED).unwrap().clone();
    queued.entity().hard.store(CpuMask::from_bits(2));
    let ask = m.core.requeue(&queued, m.online).unwrap();
    m.act(ask);
    m.run(STEP);
    assert!(m.running[1].as_ref().is_some_and(|r| r.same(&queued)));
    assert!(m.core.requeue(&queued, m.online).is_none(), "it is in no queue");
    m.run(SECOND / 10);
}

fn habit() -> impl Strategy<Value = Habit> {
    prop_oneof![
        2 => Just(SPIN),
        2 => (50_000u64..30_000_000, 100_000u64..50_000_000).prop_map(|(work, sleep)| Habit { work, sleep }),
    ]
}

fn dom(cpus: usize) -> impl Strategy<Value = Dom> {
    let all = (1u64 << cpus) - 1;
    let mask = prop_oneof![3 => Just(u64::MAX), 1 => 1..=all];
    (1u32..2000, prop_oneof![2 => Just(0u32), 1 => 1u32..300], prop::collection::vec((mask, habit()), 1..6))
        .prop_map(|(weight, cap, vcpus)| Dom { weight, cap, vcpus })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the domains do: nobody is lost, no CPU idles while somebody waits for it, no cap is exceeded, and nobody
    /// who wants to run goes without for long.
    #[test]
    fn nobody_is_lost((cpus, doms) in (1usize..8).prop_flat_map(|c| (Just(c), prop::collection::vec(dom(c), 1..6)))) {
        let mut m = Machine::new(cpus, &doms);
        let got = m.shares(2 * SECOND);
        for (d, g) in doms.iter().zip(&got) {
            prop_assert!(d.cap == 0 || *g <= f64::from(d.cap) / 100.0 * 1.02 + 0.03, "cap {} and {g} CPUs", d.cap);
            prop_assert!(*g > 0.0);
        }
    }

    /// Spinning vCPUs of any weights get their shares.
    #[test]
    fn shares_are_fair((cpus, weights) in (1usize..6, prop::collection::vec((128u32..1024, 1usize..4), 2..5))) {
        let doms: Vec<Dom> = weights.iter().map(|&(w, n)| spinners(w, 0, n)).collect();
        let mut m = Machine::new(cpus, &doms);
        m.run(SECOND);
        assert_shares(&m.shares(30 * SECOND), &fair(cpus, &doms), "random");
    }
}

/// An idle CPU that was spoken for by one vCPU runs another that may run nowhere else: the first must not wait there while
/// a third CPU idles. (Found by `nobody_is_lost`.)
#[test]
fn who_is_overtaken_on_an_idle_cpu_is_passed_on() {
    let h = |work, sleep| Habit { work, sleep };
    let a = u64::MAX;
    let few = Dom {
        weight: 1,
        cap: 1,
        vcpus: vec![(a, SPIN), (a, SPIN), (a, h(510_713, 9_380_269)), (56, h(24_760_112, 11_840_698))],
    };
    let many = Dom {
        weight: 1761,
        cap: 0,
        vcpus: vec![
            (72, h(13_558_856, 1_539_540)),
            (a, h(6_716_413, 9_401_783)),
            (a, h(3_637_755, 4_018_164)),
            (86, SPIN),
        ],
    };
    Machine::new(7, &[few, many]).run(2 * SECOND);
}
