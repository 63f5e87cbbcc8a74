//! Output through console_io: dom0's way to the serial line. A child domain's goes to the pages it shares, a domU's that
//! tools built to its console ring.
use crate::hypercall::call;
use crate::{child, events, mem, start};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use pv_abi::start_info::SIF_PRIVILEGED;
use pv_abi::{console::CONSOLEIO_WRITE, console::ring, event, hypercall::nr};

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

/// The port of a domU's console, where another than the builder's is bound now; 0: that one.
static PORT: AtomicU32 = AtomicU32::new(0);

fn port() -> u32 {
    match PORT.load(Ordering::Relaxed) {
        0 => start::start_info().console1,
        other => other,
    }
}

/// Where a port of a domU leads: the domain and its port.
fn peer(port: u32) -> Option<(u16, u32)> {
    let mut s = event::Status { dom: 0x7ff0, port, ..Default::default() };
    (events::op(event::OP_STATUS, &mut s).0 == 0 && s.status == event::STATUS_INTERDOMAIN)
        .then_some((s.u[0] as u16, s.u[1]))
}

/// A domU's way to its reader, so that it can be made again ([`Way::mend`]) when the test has closed the port.
#[derive(Clone, Copy)]
pub struct Way(Option<(u16, u32)>);

/// As it is now; none for dom0.
pub fn way() -> Way {
    Way(if privileged() { None } else { peer(port()) })
}

impl Way {
    /// Takes or binds another port if this way is gone; true if there is another now.
    pub fn mend(&self) -> bool {
        let Some((dom, remote)) = self.0.filter(|p| peer(port()) != Some(*p)) else {
            return false;
        };
        // Somebody may have bound the reader's end already; or else all ports may be in use, by the test.
        let there = (1..4096).find(|p| peer(*p) == self.0);
        let bind = || {
            let mut b = event::BindInterdomain { remote_dom: dom, remote_port: remote, ..Default::default() };
            (events::op(event::OP_BIND_INTERDOMAIN, &mut b).0 == 0).then_some(b.local_port)
        };
        let new = there.or_else(bind).or_else(|| {
            for p in 16..32 {
                events::close(p);
            }
            bind()
        });
        if let Some(new) = new {
            PORT.store(new, Ordering::Relaxed);
        }
        new.is_some()
    }
}

/// Waits, not for long, until a domU's reader has everything: it stops to read when the domain does. Whether it has.
pub fn drain() -> bool {
    privileged()
        || events::wait_ms(5000, || {
            events::send(port());
            index(ring::OUT_CONS).load(Ordering::Acquire) == index(ring::OUT_PROD).load(Ordering::Relaxed)
        })
}

/// A domU's counters, port, and where that leads.
pub fn state() -> [u64; 4] {
    let at = |i| u64::from(index(i).load(Ordering::Relaxed));
    let remote = peer(port()).map_or(u64::MAX, |(dom, remote)| u64::from(dom) << 32 | u64::from(remote));
    [at(ring::OUT_PROD), at(ring::OUT_CONS), u64::from(port()), remote]
}

/// Into a domU's console ring. What finds no room within a while is lost: the test goes on without a reader.
fn ring_write(bytes: &[u8]) {
    static BUSY: AtomicBool = AtomicBool::new(false);
    let page = ring_page();
    let mut tries = 0;
    while BUSY.swap(true, Ordering::Acquire) && tries < 1_000_000 {
        tries += 1;
    }
    for b in bytes {
        let at = index(ring::OUT_PROD).load(Ordering::Relaxed);
        let mut tries = 0;
        while at.wrapping_sub(index(ring::OUT_CONS).load(Ordering::Acquire)) >= ring::OUT_SIZE as u32 && tries < 1000 {
            events::send(port());
            call(nr::SCHED_OP, &[pv_abi::sched::OP_YIELD, 0]);
            tries += 1;
        }
        let to = page + ring::OUT as u64 + u64::from(at % ring::OUT_SIZE as u32);
        // SAFETY: a byte of the ring.
        unsafe { (to as *mut u8).write_volatile(*b) };
        index(ring::OUT_PROD).store(at.wrapping_add(1), Ordering::Release);
    }
    BUSY.store(false, Ordering::Release);
    events::send(port());
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
