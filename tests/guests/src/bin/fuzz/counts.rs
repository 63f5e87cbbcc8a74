//! What was tried: hypercalls and their operations, and how often each succeeded.

use core::sync::atomic::{AtomicU32, Ordering};
use guests::prelude::*;
use pv_abi::subops::FAMILIES;

const CALLS: usize = 64;
const OPS: usize = 128;

static TRIED: [[AtomicU32; OPS]; CALLS] = [const { [const { AtomicU32::new(0) }; OPS] }; CALLS];
static WORKED: [[AtomicU32; OPS]; CALLS] = [const { [const { AtomicU32::new(0) }; OPS] }; CALLS];
static OTHERS: AtomicU32 = AtomicU32::new(0);
static CODE: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// An operation was tried, and worked or not.
pub fn note(number: u64, op: u64, worked: bool) {
    let slot = |t: &'static [[AtomicU32; OPS]; CALLS]| t.get(number as usize)?.get(op as usize);
    let Some(tried) = slot(&TRIED) else {
        OTHERS.fetch_add(1, Ordering::Relaxed);
        return;
    };
    tried.fetch_add(1, Ordering::Relaxed);
    if worked && let Some(w) = slot(&WORKED) {
        w.fetch_add(1, Ordering::Relaxed);
    }
}

/// A piece of code ran, in user or kernel mode.
pub fn note_code(user: bool) {
    CODE[usize::from(user)].fetch_add(1, Ordering::Relaxed);
}

fn sum(t: &[[AtomicU32; OPS]; CALLS]) -> u64 {
    t.iter().flatten().map(|n| u64::from(n.load(Ordering::Relaxed))).sum()
}

/// A progress line.
pub fn progress(steps: u64) {
    guests::console::line(f!("fuzz: {steps} steps, {} operations, {} worked", sum(&TRIED), sum(&WORKED)));
}

/// The figures at the end, and the operations of the ABI's list that were never tried or never worked.
pub fn summary(steps: u64) {
    progress(steps);
    let (mut known, mut tried, mut worked) = (0, 0, 0);
    for family in FAMILIES {
        for op in family.ops {
            known += 1;
            let at = |t: &[[AtomicU32; OPS]; CALLS]| {
                t.get(family.hypercall).and_then(|f| f.get(op.number as usize)).map_or(0, |n| n.load(Ordering::Relaxed))
            };
            tried += u32::from(at(&TRIED) != 0);
            worked += u32::from(at(&WORKED) != 0);
            if at(&TRIED) == 0 {
                guests::console::line(f!("fuzz: never tried: {} of hypercall {}", op.name, family.hypercall));
            }
        }
    }
    let calls = TRIED.iter().filter(|f| f.iter().any(|n| n.load(Ordering::Relaxed) != 0)).count();
    guests::console::line(f!(
        "fuzz: coverage: {calls} hypercalls, {tried} of {known} operations tried, {worked} worked at least once"
    ));
    guests::console::line(f!(
        "fuzz: code: {} pieces in kernel mode, {} in user mode; {} calls with other numbers",
        CODE[0].load(Ordering::Relaxed),
        CODE[1].load(Ordering::Relaxed),
        OTHERS.load(Ordering::Relaxed)
    ));
}
