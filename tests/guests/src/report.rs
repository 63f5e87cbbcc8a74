//! The transcript and the verdict.
use crate::mem::Racy;
use crate::{child, console, hypercall::call_ref};
use core::arch::asm;
use core::fmt::{self, Display};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use pv_abi::{hypercall::nr, sched};

static FAILURES: AtomicU32 = AtomicU32::new(0);

/// The first thing that went wrong, as far as the hypervisor's report of a crash shows a stack.
static FIRST: Racy<[u8; 128]> = Racy::new([0; 128]);
static KEPT: AtomicBool = AtomicBool::new(false);

/// Keeps what went wrong first for the report of the crash: the console may be what the test has hurt.
pub fn keep(what: fmt::Arguments<'_>) {
    struct Short(usize);
    impl fmt::Write for Short {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            // SAFETY: only who set `KEPT` writes here.
            let text = unsafe { &mut *FIRST.get() };
            for b in s.bytes() {
                *text.get_mut(self.0).ok_or(fmt::Error)? = b;
                self.0 += 1;
            }
            Ok(())
        }
    }
    if !KEPT.swap(true, Ordering::SeqCst) {
        let _ = fmt::write(&mut Short(0), what);
    }
}

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
    keep(what);
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
    keep(what);
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
    let read = child::inside::is() || console::drain();
    // A domU's console may be one of those that the test has hurt: its tools see this.
    if !console::privileged() {
        if !read {
            let [prod, cons, port, remote] = console::state();
            keep(format_args!(
                "{verdict}, but nobody reads the console: {prod:#x} {cons:#x} port {port} to {remote:#x}"
            ));
        }
        if !read || matches!(verdict, "fail" | "error") {
            crash();
        }
    }
    shutdown(0)
}

/// Ends this domain by a crash, with what went wrong first on the stack, where the hypervisor's report shows it.
fn crash() -> ! {
    let mut reason = sched::Shutdown { reason: 3 };
    // SAFETY: the stack is not needed any more: there is no way back.
    unsafe {
        asm!("mov rsp, r13", "2: mov eax, {nr}", "mov edi, {op}", "mov rsi, r12", "syscall", "jmp 2b",
            in("r13") FIRST.addr(), nr = const nr::SCHED_OP, op = const sched::OP_SHUTDOWN,
            in("r12") &raw mut reason, options(noreturn))
    }
}

/// SCHEDOP_shutdown with `reason` (0 power off, 1 reboot, 2 suspend, 3 crash).
pub fn shutdown(reason: u32) -> ! {
    loop {
        call_ref(nr::SCHED_OP, sched::OP_SHUTDOWN, &mut sched::Shutdown { reason });
    }
}
