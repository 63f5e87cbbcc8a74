//! Output through console_io: dom0's way to the serial line. A child domain's goes to the pages it shares, a domU's that
//! tools built to its console ring.
use crate::hypercall::call;
use crate::{child, events, mem, start};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use pv_abi::start_info::SIF_PRIVILEGED;
use pv_abi::{console::CONSOLEIO_WRITE, console::ring, hypercall::nr};

/// Collects a line, so that the hypervisor's own messages cannot split it.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Line {
    fn flush(&mut self) {
        if self.used > 0 {
            if child::inside::is() {
                child::inside::log(&self.bytes[..self.used]);
            } else if !privileged() {
                ring_write(&self.bytes[..self.used]);
            } else {
                call(nr::CONSOLE_IO, &[CONSOLEIO_WRITE, self.used as u64, self.bytes.as_ptr() as u64]);
            }
            self.used = 0;
        }
    }
}

/// Is this dom0?
pub fn privileged() -> bool {
    start::start_info().flags & SIF_PRIVILEGED != 0
}

fn ring_page() -> u64 {
    mem::page_of_mfn(start::start_info().console0).va
}

/// One of the ring's counters.
fn index(at: usize) -> &'static AtomicU32 {
    // SAFETY: four bytes in the ring's page, which the start-of-day mapping reaches and the console daemon shares.
    unsafe { &*((ring_page() + at as u64) as *const AtomicU32) }
}

/// Waits, not for long, until a domU's reader has everything: it stops to read when the domain does.
pub fn drain() {
    if !privileged() {
        events::wait_ms(2000, || {
            index(ring::OUT_CONS).load(Ordering::Acquire) == index(ring::OUT_PROD).load(Ordering::Relaxed)
        });
    }
}

/// Into a domU's console ring. What finds no room within a while is lost: the test goes on without a reader.
fn ring_write(bytes: &[u8]) {
    static BUSY: AtomicBool = AtomicBool::new(false);
    let start = start::start_info();
    let page = ring_page();
    let mut tries = 0;
    while BUSY.swap(true, Ordering::Acquire) && tries < 1_000_000 {
        tries += 1;
    }
    for b in bytes {
        let at = index(ring::OUT_PROD).load(Ordering::Relaxed);
        let mut tries = 0;
        while at.wrapping_sub(index(ring::OUT_CONS).load(Ordering::Acquire)) >= ring::OUT_SIZE as u32 && tries < 1000 {
            events::send(start.console1);
            call(nr::SCHED_OP, &[pv_abi::sched::OP_YIELD, 0]);
            tries += 1;
        }
        let to = page + ring::OUT as u64 + u64::from(at % ring::OUT_SIZE as u32);
        // SAFETY: a byte of the ring.
        unsafe { (to as *mut u8).write_volatile(*b) };
        index(ring::OUT_PROD).store(at.wrapping_add(1), Ordering::Release);
    }
    BUSY.store(false, Ordering::Release);
    events::send(start.console1);
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = b;
            self.used += 1;
        }
        Ok(())
    }
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    let mut out = Line { bytes: [0; 256], used: 0 };
    let _ = fmt::Write::write_fmt(&mut out, format_args!("{text}\n"));
    out.flush();
}
