//! The transcript and the verdict.
use crate::{child, console, hypercall::call_ref};
use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU32, Ordering};
use pv_abi::{hypercall::nr, sched};

static FAILURES: AtomicU32 = AtomicU32::new(0);

/// A number in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An observation that only the transcript's comparison judges.
pub fn obs(name: impl Display, value: impl Display) {
    console::line(format_args!("obs: {name} = {value}"));
}

/// An observation with the value the ABI asks for; another one fails the test, which goes on.
pub fn expect<T: Display + PartialEq>(name: impl Display, got: T, want: T) {
    console::line(format_args!("obs: {name} = {got}"));
    if got != want {
        fail(format_args!("{name}: wanted {want}, got {got}"));
    }
}

/// An observation that must be true.
pub fn check(name: impl Display, holds: bool) {
    expect(name, holds, true);
}

/// Notes that the hypervisor is wrong.
pub fn fail(what: fmt::Arguments<'_>) {
    console::line(format_args!("fail: {what}"));
    FAILURES.fetch_add(1, Ordering::Relaxed);
}

/// Ends the test: passed unless something failed.
pub fn finish() -> ! {
    let failures = FAILURES.load(Ordering::Relaxed);
    if child::inside::is() {
        child::inside::end(failures, false);
    }
    end(if failures == 0 { "pass" } else { "fail" })
}

/// Ends the test: the test itself is wrong or cannot go on.
pub fn error(what: fmt::Arguments<'_>) -> ! {
    console::line(format_args!("error: {what}"));
    if child::inside::is() {
        child::inside::end(FAILURES.load(Ordering::Relaxed), true);
    }
    end("error")
}

/// Ends the test: this machine cannot show it.
pub fn skip(why: &str) -> ! {
    console::line(format_args!("skip: {why}"));
    end("skip")
}

fn end(verdict: &str) -> ! {
    console::line(format_args!("VERDICT: {verdict}"));
    console::drain();
    // A domU's console may be one of those that the test has hurt: its tools see this.
    let crashed = !console::privileged() && matches!(verdict, "fail" | "error");
    shutdown(if crashed { 3 } else { 0 })
}

/// SCHEDOP_shutdown with `reason` (0 power off, 1 reboot, 2 suspend, 3 crash).
pub fn shutdown(reason: u32) -> ! {
    loop {
        call_ref(nr::SCHED_OP, sched::OP_SHUTDOWN, &mut sched::Shutdown { reason });
    }
}
