//! Model checks: the real code of several CPUs under every order of events, or very many of them.
//!
//! Within [`explore`] each CPU is a coroutine of `shuttle`, whose schedulers choose at every atomic operation
//! ([`crate::atomic`]), at every lock, and in every turn of a waiting loop who goes on. A CPU has its own
//! [`CpuLocal`](crate::arch::percpu::CpuLocal); memory, the frame table and everything else that is shared is the test
//! thread's.
//!
//! *Stores of x86 are late.* With [`Stores::Late`], what a CPU stores by anything weaker than `SeqCst` waits in its store
//! buffer, where only that CPU sees it: until its next locked instruction or fence, or until chance lets it out, in order.
//! That is all that x86 does beside executing one operation after the other (x86-TSO), so orderings that are too weak for
//! the machine show. In a third of the orders nothing leaves a buffer by chance, in a third little does: a store that is
//! late for long is what shows how late it may be. What the compiler might reorder does not show: between accesses to
//! different words that are weaker than they must be on another architecture.
//!
//! *Points that make no difference are left out.* The order of looks at what nobody changes is no matter: a model names
//! such words ([`quiet`]), most entries of its tables, and a change of one fails it. Looks at the same word in a row (a
//! preemption point for each entry of a table) are a point each only now and then. What is left is tried all the more often.
//!
//! `HOSPES_MODEL_RUNS=n` multiplies the number of orders tried by n (`./qemu-run.sh test --long`).

pub mod atomics;
mod events;
mod grants;
mod locks;
pub mod tlb;

use crate::arch::percpu::{host, pending};
use core::ops::Range;
use core::sync::atomic::Ordering;
use shuttle::rand::Rng;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::vec::Vec;

/// How stores behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// They are seen at once.
    AtOnce,
    /// They may wait in the CPU's store buffer.
    Late,
}

/// A store that others do not see yet.
#[derive(Clone, Copy)]
struct Buffered {
    at: usize,
    size: usize,
    value: u64,
}

std::thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static LATE: Cell<bool> = const { Cell::new(false) };
    static BUFFERS: RefCell<Vec<Vec<Buffered>>> = const { RefCell::new(Vec::new()) };
    /// CPUs that have ended.
    static ENDED: Cell<u64> = const { Cell::new(0) };
    /// CPUs that halt.
    static HALTED: Cell<u64> = const { Cell::new(0) };
    static CPUS: Cell<u32> = const { Cell::new(0) };
    static POINTS: Cell<u64> = const { Cell::new(0) };
    /// Of how many chances a store leaves its buffer at one; `None`: at none, only when it must.
    static LEAVES: Cell<Option<u32>> = const { Cell::new(None) };
    /// Memory that nobody changes while the model runs.
    static QUIET: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
    /// The word that was looked at last, and by whom.
    static LOOKED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Of how many looks in a row at one word one is a point.
const ONE_LOOK_IN: u32 = 16;

/// A CPU that would halt for good, since all is done: unwinds to [`run`].
struct Finished;

fn me() -> usize {
    host::me() as usize
}

/// Another CPU may go first here.
pub fn point() {
    if ACTIVE.get() && !std::thread::panicking() {
        let me = host::me();
        POINTS.set(POINTS.get() + 1);
        LOOKED.set((0, 0));
        shuttle::thread::sleep(core::time::Duration::ZERO);
        host::set_me(me);
        while LATE.get() && BUFFERS.with_borrow(|b| !b[me as usize].is_empty()) && LEAVES.get().is_some_and(one_in) {
            let first = BUFFERS.with_borrow_mut(|b| b[me as usize].remove(0));
            first.write();
        }
    }
}

/// [`point`] before a look at the word at `at`.
fn point_of_look(at: usize) {
    if !ACTIVE.get() || is_quiet(at) {
        return;
    }
    let look = (at, me());
    if LOOKED.get() != look || one_in(ONE_LOOK_IN) {
        point();
    }
    LOOKED.set(look);
}

/// [`point`] before a change of the word at `at`.
fn point_of_change(at: usize) {
    if ACTIVE.get() {
        assert!(!is_quiet(at), "what nobody changes, by the model's word, is changed");
        point();
    }
}

/// One chance in `n`, as the order of events has it.
pub fn one_in(n: u32) -> bool {
    shuttle::rand::thread_rng().gen_range(0..n) == 0
}

/// Nobody changes what stands in `range` while the next [`run`] lasts.
pub fn quiet(range: Range<usize>) {
    QUIET.with_borrow_mut(|q| q.push(range));
}

fn is_quiet(at: usize) -> bool {
    QUIET.with_borrow(|q| q.iter().any(|r| r.contains(&at)))
}

/// A moment in one CPU's work that others may wait for. Two short stretches that must meet for something to go wrong, at
/// the ends of long ones, hardly ever do by chance alone.
#[derive(Clone, Default)]
pub struct Moment(std::sync::Arc<core::sync::atomic::AtomicBool>);

impl Moment {
    /// It has come.
    pub fn comes(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Goes on when it has come, in every other order of events; at once in the others.
    pub fn perhaps_wait(&self) {
        if one_in(2) {
            self.wait();
        }
    }

    /// Goes on when it has come.
    pub fn wait(&self) {
        while !self.0.load(Ordering::SeqCst) {
            wait();
        }
    }
}

/// This CPU waits for another: that one goes on.
pub fn wait() {
    if ACTIVE.get() {
        let me = host::me();
        drain();
        LOOKED.set((0, 0));
        shuttle::thread::yield_now();
        host::set_me(me);
    }
}

/// This CPU halts until something is pending for it. Where nothing will ever come, since every CPU has ended or halts, it
/// ends.
pub fn halt() {
    if !ACTIVE.get() {
        return;
    }
    let me = host::me();
    let idle = |cpu: u32| host::local(cpu).pending.0.load(Ordering::SeqCst) & !pending::OF_VCPU == 0;
    drain();
    HALTED.set(HALTED.get() | 1 << me);
    while idle(me) {
        let quiet = ENDED.get() | HALTED.get();
        if (0..CPUS.get()).all(|cpu| quiet >> cpu & 1 != 0 && (ENDED.get() >> cpu & 1 != 0 || idle(cpu))) {
            std::panic::resume_unwind(Box::new(Finished));
        }
        wait();
    }
    HALTED.set(HALTED.get() & !(1 << me));
}

/// All this CPU has stored is seen by others from now on.
pub fn drain() {
    if ACTIVE.get() && LATE.get() {
        let all = BUFFERS.with_borrow_mut(|b| core::mem::take(&mut b[me()]));
        all.into_iter().for_each(Buffered::write);
    }
}

/// Whether `size` bytes stored to `at` wait in the buffer from here on.
fn store(at: usize, size: usize, value: u64) -> bool {
    let late = ACTIVE.get() && LATE.get();
    if late {
        BUFFERS.with_borrow_mut(|b| b[me()].push(Buffered { at, size, value }));
    }
    late
}

/// What this CPU itself has stored to `at`, if others do not see it yet.
fn forwarded(at: usize, size: usize) -> Option<u64> {
    if !ACTIVE.get() || !LATE.get() {
        return None;
    }
    let found =
        BUFFERS.with_borrow(|b| b[me()].iter().rev().find(|s| s.at < at + size && at < s.at + s.size).copied())?;
    if (found.at, found.size) == (at, size) {
        return Some(found.value);
    }
    // Parts of a word: the CPU would wait for the buffer, too.
    drain();
    None
}

impl Buffered {
    fn write(self) {
        use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Release};
        // SAFETY: the address and size of an atomic of the code under test, which outlives the model's run.
        unsafe {
            match self.size {
                1 => (*(self.at as *const AtomicU8)).store(self.value as u8, Release),
                4 => (*(self.at as *const AtomicU32)).store(self.value as u32, Release),
                _ => (*(self.at as *const AtomicU64)).store(self.value, Release),
            }
        }
    }
}

/// What a CPU does in a model.
pub type Work = Box<dyn FnOnce() + Send>;

/// Lets CPU n do `works[n]`, all at the same time, until all have ended. Within [`explore`] only.
pub fn run(works: Vec<Work>) {
    let n = works.len();
    host::bring_up(n as u32);
    BUFFERS.with_borrow_mut(|b| *b = std::vec![Vec::new(); n]);
    ENDED.set(0);
    HALTED.set(0);
    CPUS.set(n as u32);
    LEAVES.set([Some(2), Some(8), None][shuttle::rand::thread_rng().gen_range(0..3)]);
    // What the model does before and after, alone, is no matter of order.
    ACTIVE.set(true);
    let threads: Vec<_> = works
        .into_iter()
        .enumerate()
        .map(|(cpu, work)| {
            shuttle::thread::spawn(move || {
                host::set_me(cpu as u32);
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                host::set_me(cpu as u32);
                drain();
                ENDED.set(ENDED.get() | 1 << cpu);
                if let Err(panic) = ended
                    && !panic.is::<Finished>()
                {
                    std::panic::resume_unwind(panic);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a CPU of the model failed");
    }
    ACTIVE.set(false);
    QUIET.with_borrow_mut(Vec::clear);
    host::set_me(0);
}

/// Runs `model`, which calls [`run`], under `orders` orders of events: half of them chosen evenly, half of them with few
/// changes between CPUs (PCT), which finds bugs that need long stretches. Prints what was done. A wait without an end is a
/// failure: more than `steps` points.
pub fn explore(
    name: &str,
    stores: Stores,
    orders: usize,
    steps: usize,
    model: impl Fn() + Send + Sync + Clone + 'static,
) {
    let orders =
        orders * std::env::var("HOSPES_MODEL_RUNS").map_or(1, |n| n.parse().expect("HOSPES_MODEL_RUNS is a number"));
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(steps);
    config.stack_size = 1 << 20;
    let _machine = host::Restore;
    LATE.set(stores == Stores::Late);
    POINTS.set(0);
    let done = std::sync::Arc::new(core::sync::atomic::AtomicUsize::new(0));
    let counted = {
        let (model, done) = (model, done.clone());
        move || {
            model();
            done.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
    };
    let start = std::time::Instant::now();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let seed = 0x5eed;
        let random = shuttle::scheduler::RandomScheduler::new_from_seed(seed, orders.div_ceil(2));
        shuttle::Runner::new(random, config.clone()).run(counted.clone());
        let pct = shuttle::scheduler::PctScheduler::new_from_seed(seed, 4, orders / 2);
        shuttle::Runner::new(pct, config).run(counted);
    }));
    ACTIVE.set(false);
    LATE.set(false);
    QUIET.with_borrow_mut(Vec::clear);
    let done = done.load(core::sync::atomic::Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    std::println!("{name}, stores {stores:?}: {done} orders, {} points, {seconds:.1} s", POINTS.get());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Both kinds of stores, `orders` orders each.
pub fn explore_both(name: &str, orders: usize, steps: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
    explore(name, Stores::AtOnce, orders, steps, model.clone());
    explore(name, Stores::Late, orders, steps, model);
}
