//! How late a domain's timers are beside a domain that spins on the same CPU: at most one slice of the scheduler, and less than
//! a millisecond on average, since who sleeps comes before who spins. One tick is one instruction here, so what else the
//! machine does cannot be seen.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::prelude::*;
use pv_abi::domctl as dc;
use pv_abi::sched;

guests::kernel!(run);

/// How often the sleeper sleeps.
const ROUNDS: u64 = 80;
/// The most a wake-up may wait for its CPU, ns: a slice (10 ms), and a millisecond for all the rest.
const LIMIT: u64 = 11_000_000;

/// The child's words.
const WORK: usize = 0;
const LATEST: usize = 1;
const SUM: usize = 2;
const OVER_1_MS: usize = 3;

/// Sleeps 2 to 14 ms at a time, notes how late it comes back, and works for a while.
fn sleeper() {
    use child::inside::word;
    let work = word(WORK).load(SeqCst);
    let (mut latest, mut sum, mut over) = (0, 0, 0);
    for round in 0..ROUNDS {
        let due = events::now() + 2_000_000 + round * 7919 % 13 * 1_000_000;
        let mut poll = sched::Poll { timeout: due, ..Default::default() };
        call_ref(nr::SCHED_OP, sched::OP_POLL, &mut poll);
        let woke = events::now();
        let late = woke.saturating_sub(due);
        latest = late.max(latest);
        sum += late;
        over += u64::from(late > 1_000_000);
        while events::now() < woke + work {}
    }
    word(LATEST).store(latest, SeqCst);
    word(SUM).store(sum, SeqCst);
    word(OVER_1_MS).store(over, SeqCst);
}

/// Never lets go of its CPU.
fn spinner() {
    loop {
        child::inside::word(0).fetch_add(1, SeqCst);
    }
}

/// `weight` under the credit2 scheduler.
fn set_weight(child: &Child, weight: u64) {
    let op = dc::SchedulerOp { sched_id: dc::SCHEDULER_CREDIT2, cmd: dc::SCHEDOP_PUTINFO, u: [weight, 0] };
    child::domctl(&mut dc::Domctl::with(dc::OP_SCHEDULER_OP, child.id, &op)).must("scheduler_op");
}

/// A sleeper that works for `work` µs each time, beside a spinner of that weight (0: beside nobody).
fn case(name: &str, work: u64, weight: u64) {
    let sleeper = Child::build(sleeper, Spec::default());
    sleeper.word(WORK).store(work * 1000, SeqCst);
    let spinner = (weight != 0).then(|| Child::build(spinner, Spec::default()));
    if let Some(spinner) = &spinner {
        set_weight(spinner, weight);
        spinner.unpause().must("unpause");
        let spins = || {
            child::nap(500);
            spinner.word(0).load(SeqCst) != 0
        };
        check(f!("{name}: the other one spins"), events::wait_ms(5000, spins));
    }
    sleeper.unpause().must("unpause");
    // Seldom: the one that waits here is not to be in their way.
    while matches!(sleeper.state(), child::State::Built | child::State::Running) {
        child::nap(100_000);
    }
    expect(f!("{name}: how the sleeper ended"), sleeper.wait(), child::State::Finished);
    let word = |i| sleeper.word(i).load(SeqCst);
    let (latest, mean) = (word(LATEST), word(SUM) / ROUNDS);
    guests::console::line(f!(
        "wakeup: {name}: {} us late on average, {} us at most, more than 1 ms in {} of {ROUNDS}",
        mean / 1000,
        latest / 1000,
        word(OVER_1_MS)
    ));
    check(f!("{name}: no wake-up is later than a slice"), latest < LIMIT);
    check(f!("{name}: on average they are less than a millisecond late"), mean < 1_000_000);
    if let Some(spinner) = spinner {
        spinner.destroy();
    }
    sleeper.destroy();
}

fn run() {
    case("alone", 0, 0);
    case("beside one that spins", 0, 256);
    case("and works for 3 ms each time", 3000, 256);
    case("beside one of four times the weight", 0, 1024);
}
