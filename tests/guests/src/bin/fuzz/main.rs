//! A fuzzer that is a guest: random but structured hypercalls, page-table updates, privileged instructions and user
//! code, on all vCPUs at once, until the time or the steps are up. What it attacks: everything a guest can reach. What
//! must happen: the machine stays up, nobody else notices, the audit is clean, and this kernel's own memory that it
//! gave to nobody is as it left it.
//!
//! Command line: `seed=N` (default 1), `seconds=N` (default 10), `steps=N` (no limit), `cpus=N` (all), `say=N` (seconds
//! between two progress lines, default 10), `trace=1` (say each step), `bytes=1` (user code of random bytes,
//! too: QEMU does not always survive it, a CPU does). One vCPU with one seed and a number of steps does the same each time.
//!
//! It runs as dom0 and as a domU. What would end it by its own wish is left out: shutdown, the platform's power-off,
//! resets of devices, base pointers and segment bases that its own code cannot run with.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports, reason = "only the bare target runs"))]

mod calls;
mod code;
mod counts;
mod guard;
mod memory;
mod tools;
mod words;
mod world;

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use guests::prelude::*;
use words::Rng;
use world::{Worker, World};

guests::kernel!(run);

static STEPS: [AtomicU64; guests::start::MAX_CPUS] = [const { AtomicU64::new(0) }; guests::start::MAX_CPUS];
static END: AtomicU64 = AtomicU64::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
static READY: AtomicUsize = AtomicUsize::new(1);
static DONE: AtomicUsize = AtomicUsize::new(0);
static SEED: AtomicU64 = AtomicU64::new(1);

/// A number from the command line.
fn option(name: &str) -> Option<u64> {
    let line = &guests::start::start_info().cmd_line;
    let text = core::str::from_utf8(line.split(|b| *b == 0).next()?).ok()?;
    text.split_ascii_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn run() {
    let seed = option("seed").unwrap_or(1);
    let seconds = option("seconds").unwrap_or(10);
    SEED.store(seed, Ordering::SeqCst);
    LIMIT.store(option("steps").unwrap_or(u64::MAX), Ordering::SeqCst);
    // The last vCPU of three or more is not run: its turn is to be set up wrongly.
    let there = smp::count();
    let cpus = option("cpus").map_or(there.min(2), |n| n as usize).clamp(1, there);
    world::init(cpus, option("trace").is_some(), option("bytes").is_some());
    guard::init_first();
    guests::console::line(f!("fuzz: seed {seed}, {cpus} vCPUs, {seconds} s, domain {}", World::get().own_id));
    END.store(events::now() + seconds * 1_000_000_000, Ordering::SeqCst);
    let mut say = Say::new();
    for cpu in 1..cpus {
        smp::start(cpu, worker);
    }
    // One that has no handlers yet would not outlive the first NMI.
    check("all vCPUs are there", events::wait_ms(60_000, || READY.load(Ordering::SeqCst) == cpus));
    work(0, &mut || say.now_and_then());
    let all = events::wait_ms(60_000, || {
        // A vCPU that user code keeps busy with upcalls masked.
        world::nudge(cpus);
        DONE.load(Ordering::SeqCst) == cpus
    });
    world::calm_down();
    say.mend();
    check("all vCPUs came to their end", all);
    counts::summary(STEPS.iter().map(|s| s.load(Ordering::Relaxed)).sum());
    check("memory that was given to nobody is as it was", World::get().canaries_live());
    World::get().look_at_canaries();
}

fn worker() {
    guard::init_other();
    READY.fetch_add(1, Ordering::SeqCst);
    work(smp::cpu(), &mut || ());
}

fn work(cpu: usize, each: &mut dyn FnMut()) {
    let mut w = Worker::new(cpu, Rng::new(SEED.load(Ordering::SeqCst) * 0x1_0001 + cpu as u64));
    while events::now() < END.load(Ordering::SeqCst)
        && STEPS[cpu].load(Ordering::Relaxed) < LIMIT.load(Ordering::SeqCst)
    {
        guard::run(&mut || w.step());
        w.mend();
        STEPS[cpu].fetch_add(1, Ordering::Relaxed);
        each();
    }
    w.settle();
    DONE.fetch_add(1, Ordering::SeqCst);
}

/// Progress, for whoever watches.
struct Say {
    console: guests::console::Way,
    next: u64,
    every: u64,
    seen: [u64; guests::start::MAX_CPUS],
}

impl Say {
    fn new() -> Say {
        let every = option("say").unwrap_or(10) * 1_000_000_000;
        let console = guests::console::way();
        Say { console, next: events::now() + every, every, seen: [0; guests::start::MAX_CPUS] }
    }

    /// A port that was closed by chance is no reason to be silent.
    fn mend(&self) {
        if self.console.mend() {
            guests::console::line(f!("fuzz: the port of its console was closed; it has another"));
        }
    }

    fn now_and_then(&mut self) {
        let now = events::now();
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        self.mend();
        let steps: u64 = STEPS.iter().map(|s| s.load(Ordering::Relaxed)).sum();
        counts::progress(steps);
        for (seen, steps) in self.seen.iter_mut().zip(&STEPS) {
            let now = steps.load(Ordering::Relaxed);
            if now != 0 && now == *seen && now < LIMIT.load(Ordering::Relaxed) {
                world::nudge(guests::start::MAX_CPUS);
            }
            *seen = now;
        }
    }
}
