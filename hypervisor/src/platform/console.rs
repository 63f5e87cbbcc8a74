//! The hypervisor's console: its log, what guests print through it, and input for dom0.
//!
//! Everything printed also goes to a ring that the tools read (sysctl readconsole). Input that comes in on the serial
//! line waits in a small ring until dom0 fetches it.

use crate::sync::{Lock, Rank};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};
use log::{LevelFilter, Log, Metadata, Record};

/// Bytes of log kept.
const RING: usize = 128 * 1024;
const INPUT: usize = 1024;

struct Ring {
    bytes: [u8; RING],
    /// Bytes ever written; the last RING of them are kept.
    written: u64,
    /// Where the tools' incremental reading stands when they clear.
    cleared: u64,
}

static OUTPUT: Lock<Ring> = Lock::new(Rank::Console, Ring { bytes: [0; RING], written: 0, cleared: 0 });

struct Input {
    bytes: [u8; INPUT],
    head: usize,
    len: usize,
}

static IN: Lock<Input> = Lock::new(Rank::Console, Input { bytes: [0; INPUT], head: 0, len: 0 });

/// Prints bytes as they are.
pub fn write(bytes: &[u8]) {
    {
        let mut r = OUTPUT.lock();
        for &b in bytes {
            let at = (r.written % RING as u64) as usize;
            if let Some(slot) = r.bytes.get_mut(at) {
                *slot = b;
            }
            r.written += 1;
        }
    }
    #[cfg(target_os = "none")]
    super::serial::write(bytes);
}

/// Copies log text from position `from` (bytes ever written) on into `dst`; returns how much and the position behind it.
/// Text that was overwritten meanwhile is skipped.
pub fn read_log(from: u64, dst: &mut [u8]) -> (usize, u64) {
    let r = OUTPUT.lock();
    let start = from.max(r.cleared).max(r.written.saturating_sub(RING as u64)).min(r.written);
    let n = ((r.written - start) as usize).min(dst.len());
    for (i, d) in dst.iter_mut().take(n).enumerate() {
        *d = r.bytes.get(((start + i as u64) % RING as u64) as usize).copied().unwrap_or(0);
    }
    (n, start + n as u64)
}

/// Forgets the log so far.
pub fn clear_log() {
    let mut r = OUTPUT.lock();
    r.cleared = r.written;
}

/// Takes what the serial line brought; true when there was anything.
pub fn poll_input() -> bool {
    let mut any = false;
    #[cfg(target_os = "none")]
    while let Some(b) = super::serial::read() {
        let mut i = IN.lock();
        if i.len < INPUT {
            let at = (i.head + i.len) % INPUT;
            if let Some(slot) = i.bytes.get_mut(at) {
                *slot = b;
            }
            i.len += 1;
        }
        any = true;
    }
    any |= IN.lock().len != 0;
    any
}

/// Hands waiting input over.
pub fn take_input(dst: &mut [u8]) -> usize {
    let mut i = IN.lock();
    let n = dst.len().min(i.len);
    for d in dst.iter_mut().take(n) {
        *d = i.bytes.get(i.head).copied().unwrap_or(0);
        i.head = (i.head + 1) % INPUT;
        i.len -= 1;
    }
    n
}

struct Logger;
static LOGGER: Logger = Logger;
static LEVEL: AtomicU8 = AtomicU8::new(3);

struct Line {
    buf: arrayvec::ArrayVec<u8, 1024>,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for &b in s.as_bytes() {
            if self.buf.try_push(b).is_err() {
                write(&self.buf);
                self.buf.clear();
                let _ = self.buf.try_push(b);
            }
        }
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, m: &Metadata) -> bool {
        m.level() as u8 <= LEVEL.load(Ordering::Relaxed)
    }
    fn log(&self, r: &Record) {
        if !self.enabled(r.metadata()) {
            return;
        }
        let mut line = Line { buf: arrayvec::ArrayVec::new() };
        let _ = writeln!(line, "(HOS) {}", r.args());
        write(&line.buf);
    }
    fn flush(&self) {}
}

/// Starts the log, or changes its level: 0 nothing, 1 errors, 2 warnings, 3 information, 4 debug.
pub fn init_log(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
    // The second call only changes the level.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Frees the console from whoever holds it: for the panic path only.
///
/// # Safety
/// No other CPU goes on printing; the holder does not go on.
#[cfg(target_os = "none")]
pub unsafe fn break_locks() {
    // SAFETY: the caller's.
    unsafe {
        OUTPUT.force_unlock();
        super::serial::break_lock();
    }
}
