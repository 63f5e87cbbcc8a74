//! Fuzzing with the stable toolchain, as ordinary tests.
//!
//! A *case* is a function of a seeded random source: it makes an input (from a grammar, or by damaging a good sample),
//! hands it to a parser and asserts what must hold of the answer. [`Fuzzer::run`] runs it for many seeds. Every case is
//! also watched for what no parser may do: panic (arithmetic that overflows is one, these tests have debug assertions),
//! take more memory than stated, or take longer.
//!
//! | variable | what it does |
//! |---|---|
//! | none | seeds 0, 1, 2 … up to the number the test states: the same on every run, some seconds |
//! | `HOSPES_FUZZ_SECONDS=n` | that long instead, from a seed chosen by the clock (`./qemu-run.sh test --long`) |
//! | `HOSPES_FUZZ_SEED=n` | that one seed: what a failure prints to be replayed |
//!
//! Property tests (`proptest`) stay where inputs are values. Here an input is a file: shrinking says little, what counts is
//! the number of inputs tried, and a failure must replay from one number on any machine, whatever version of a crate of
//! random numbers is in use. So the generator is our own, ten lines.

mod mutate;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use mutate::mutate;

/// A reproducible source of random numbers (SplitMix64).
pub struct Rng(u64);

impl Rng {
    /// The source of one case.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The bias is of no interest here.
        self.bits().checked_rem(n as u64).unwrap_or(0) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `from`, which is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Some bytes, fewer than `most`.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most);
        (0..len).map(|_| self.bits() as u8).collect()
    }

    /// A number of the kind that finds mistakes: near 0, near a power of two, near the largest, or any.
    pub fn number(&mut self) -> u64 {
        let near = (self.below(5) as u64).wrapping_sub(2);
        match self.below(6) {
            0 => self.below(16) as u64,
            1 => near,
            2 => (1u64 << self.below(64)).wrapping_add(near),
            3 => u64::from(self.bits() as u32),
            4 => self.bits() >> self.below(64),
            _ => self.bits(),
        }
    }
}

/// What a case reports: did the parser take the input?
pub type Accepted = bool;

/// A set of cases, and what none of them may exceed.
pub struct Fuzzer<'a> {
    /// The test's name, as `cargo test` takes it.
    pub name: &'a str,
    /// How the test is run, between `cargo test` and its name: `-p boot --test fuzz`.
    pub target: &'a str,
    /// Seeds of a quick run.
    pub cases: u64,
    /// Bytes of heap that one case may hold at any time, its own input included.
    pub heap: usize,
    /// CPU time one case may take.
    pub time: Duration,
}

impl Fuzzer<'_> {
    /// Runs the cases. A failing one prints its seed and how to replay it. At the end of a run it is an error if no input
    /// was taken, or none refused: then the generator is at fault.
    pub fn run(&self, case: impl Fn(&mut Rng) -> Accepted) {
        if let Some(seed) = variable("HOSPES_FUZZ_SEED") {
            self.one(seed, &case);
            return;
        }
        let start = Instant::now();
        let (first, until) = match variable("HOSPES_FUZZ_SECONDS") {
            None => (0, None),
            Some(seconds) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
                (Rng::new(now).bits() >> 1, Some(start + Duration::from_secs(seconds)))
            }
        };
        let (mut done, mut accepted) = (0u64, 0u64);
        while until.map_or(done < self.cases, |end| done < self.cases || Instant::now() < end) {
            accepted += u64::from(self.one(first.wrapping_add(done), &case));
            done += 1;
        }
        println!(
            "{}: {done} inputs from seed {first} on, {accepted} taken, in {:.1} s",
            self.name,
            start.elapsed().as_secs_f64()
        );
        assert!(accepted != 0, "{}: no input was taken", self.name);
        assert!(accepted != done, "{}: no input was refused", self.name);
    }

    fn one(&self, seed: u64, case: &impl Fn(&mut Rng) -> Accepted) -> Accepted {
        let before = heap::start();
        let begin = cpu_time();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let accepted = case(&mut Rng::new(seed));
            let took = cpu_time().saturating_sub(begin);
            assert!(took <= self.time, "it took {took:?}, and may take {:?}", self.time);
            let peak = heap::peak(before);
            assert!(peak <= self.heap, "it held {peak} bytes of heap, and may hold {}", self.heap);
            accepted
        }));
        match result {
            Ok(accepted) => accepted,
            Err(panic) => {
                eprintln!("{}: seed {seed} fails; replay it:", self.name);
                eprintln!("  HOSPES_FUZZ_SEED={seed} cargo test {} {} -- --nocapture", self.target, self.name);
                resume_unwind(panic)
            }
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// CPU time of this thread: a busy machine does not make it pass faster.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The system's allocator, which counts what each thread holds. A test program that fuzzes makes it its global allocator;
/// without that the limit on memory is not checked.
pub struct Counting;

// SAFETY: everything is the system allocator's; beside it numbers are counted in cells of the thread, which are made
// without allocating and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        heap::add(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        heap::add(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        heap::add(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        heap::add(size as isize - layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
}

mod heap {
    use super::Cell;

    thread_local! {
        static HELD: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    pub fn add(bytes: isize) {
        HELD.set(HELD.get().wrapping_add(bytes));
        PEAK.set(PEAK.get().max(HELD.get()));
    }

    /// Forgets the peak; gives what is held now.
    pub fn start() -> isize {
        PEAK.set(HELD.get());
        HELD.get()
    }

    /// The most that was held since [`start`] gave `before`, beyond that.
    pub fn peak(before: isize) -> usize {
        usize::try_from(PEAK.get() - before).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
