//! What a CPU did last: a small ring for each, read when the hypervisor dies.
//!
//! Recording is a handful of plain stores, so it is always on.

use super::percpu::this_cpu;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Events kept for each CPU.
const KEPT: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Hypercall of this number, below 0x4000; what goes with it is its first argument (all are made at one place).
    Hypercall(u16),
    /// Exception of the guest.
    Exception(u8),
    /// Interrupt of this vector.
    Interrupt(u8),
    /// vCPU of a domain gets the CPU.
    Runs(u16, u16),
}

/// An event is one word: the low 48 bits of RIP (or what else there is to say) above 16 bits of kind and number.
impl Event {
    #[inline(always)]
    fn pack(self, rip: u64) -> u64 {
        match self {
            Event::Hypercall(n) => rip << 16 | u64::from(n),
            Event::Exception(v) => rip << 16 | 0x4000 | u64::from(v),
            Event::Interrupt(v) => rip << 16 | 0x8000 | u64::from(v),
            Event::Runs(d, v) => u64::from(d) << 48 | u64::from(v) << 32 | 0xc000,
        }
    }

    fn unpack(w: u64) -> Option<(Event, u64)> {
        let (rip, number) = ((w as i64 >> 16) as u64, (w & 0x3fff) as u16);
        Some(match w >> 14 & 3 {
            _ if w == 0 => return None,
            0 => (Event::Hypercall(number), rip),
            1 => (Event::Exception(number as u8), rip),
            2 => (Event::Interrupt(number as u8), rip),
            _ => (Event::Runs((w >> 48) as u16, (w >> 32) as u16), 0),
        })
    }
}

/// A CPU's ring. Its index is a byte and wraps by itself.
pub struct Ring {
    next: AtomicU8,
    events: [AtomicU64; KEPT],
}

impl Ring {
    /// An empty ring.
    pub const fn new() -> Self {
        Ring { next: AtomicU8::new(0), events: [const { AtomicU64::new(0) }; KEPT] }
    }

    /// Notes an event and the guest's RIP then, or what the event says goes with it (0: nothing). By the ring's own CPU only.
    #[inline(always)]
    pub fn note(&self, event: Event, rip: u64) {
        let n = self.next.load(Ordering::Relaxed);
        self.next.store(n.wrapping_add(1), Ordering::Relaxed);
        if let Some(slot) = self.events.get(usize::from(n)) {
            slot.store(event.pack(rip), Ordering::Relaxed);
        }
    }

    /// The newest `n` events, newest first.
    pub fn newest(&self, n: usize) -> impl Iterator<Item = (Event, u64)> + '_ {
        let next = usize::from(self.next.load(Ordering::Relaxed));
        (1..=n.min(KEPT)).filter_map(move |back| {
            Event::unpack(self.events.get(next.wrapping_sub(back) % KEPT)?.load(Ordering::Relaxed))
        })
    }
}

impl Default for Ring {
    fn default() -> Self {
        Ring::new()
    }
}

/// Notes an event of this CPU.
#[inline(always)]
pub fn note(event: Event, rip: u64) {
    this_cpu().trace.note(event, rip);
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Event::Hypercall(n) => {
                let known = pv_abi::hypercall::LIST.iter().find(|h| h.number == usize::from(n));
                write!(f, "hypercall {n} {}", known.map_or("?", |h| h.name))
            }
            Event::Exception(v) => write!(f, "exception {v}"),
            Event::Interrupt(v) => write!(f, "interrupt {v:#x}"),
            Event::Runs(d, v) => write!(f, "d{d}v{v} runs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_newest_come_first_and_old_ones_go() {
        let r = Ring::new();
        assert_eq!(r.newest(4).count(), 0);
        for n in 0..1000 {
            r.note(Event::Hypercall(n), 0xffff_ffff_8000_0000 + u64::from(n));
        }
        let got: Vec<_> = r.newest(2).collect();
        assert_eq!(
            got,
            [(Event::Hypercall(999), 0xffff_ffff_8000_03e7), (Event::Hypercall(998), 0xffff_ffff_8000_03e6)]
        );
        assert_eq!(r.newest(1000).count(), KEPT);
    }

    #[test]
    fn events_survive_packing() {
        for e in [Event::Hypercall(55), Event::Exception(14), Event::Interrupt(0xf0)] {
            for rip in [0x40_1000, 0xffff_ffff_8100_0000, 0x7fff_ffff_ffff] {
                assert_eq!(Event::unpack(e.pack(rip)), Some((e, rip)));
            }
        }
        assert_eq!(Event::unpack(Event::Runs(0x7ff0, 127).pack(5)), Some((Event::Runs(0x7ff0, 127), 0)));
        assert_eq!(Event::unpack(0), None);
    }
}
