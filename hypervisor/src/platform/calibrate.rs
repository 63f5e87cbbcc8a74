//! How fast the TSC and the local APIC's timer run, measured against a clock of known frequency: ACPI's timer, or where
//! there is none the PIT's channel 2.
//!
//! A sample is as good as its ends: each is known only to lie between two readings of the TSC. An emulator's or SMM's
//! pause there spoils a sample, so several are taken and the sharpest counts.

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// TSC ticks between the middles of the two ends.
    pub tsc: u64,
    /// How many of them are uncertain.
    pub doubt: u64,
    /// Ticks of the known clock.
    pub reference: u64,
}

/// An end of a sample: the known clock's event lies between two TSC values.
#[derive(Clone, Copy, Debug)]
struct End(u64, u64);

impl End {
    fn middle(self) -> u64 {
        self.0 / 2 + self.1 / 2
    }
    fn width(self) -> u64 {
        self.1.saturating_sub(self.0)
    }
}

fn sample(start: End, end: End, reference: u64) -> Sample {
    Sample { tsc: end.middle().saturating_sub(start.middle()), doubt: start.width() + end.width(), reference }
}

/// Samples at most.
const ROUNDS: usize = 10;

/// Takes samples until one is sharp to 50 ppm, or there were enough; gives the TSC's kHz by the sharpest. `hz` is the
/// known clock's frequency. `None` when the clock does not run.
pub fn measure(hz: u64, mut take: impl FnMut() -> Option<Sample>) -> Option<u64> {
    let mut best: Option<Sample> = None;
    for _ in 0..ROUNDS {
        let s = take()?;
        if best.is_none_or(|b| u128::from(s.doubt) * u128::from(b.tsc) < u128::from(b.doubt) * u128::from(s.tsc)) {
            best = Some(s);
        }
        if best.is_some_and(|b| b.doubt.saturating_mul(20_000) < b.tsc) {
            break;
        }
    }
    best.filter(|b| b.reference != 0)
        .map(|b| (u128::from(b.tsc) * u128::from(hz) / u128::from(b.reference) / 1000) as u64)
        .filter(|khz| *khz != 0)
}

#[cfg(target_os = "none")]
pub use machine::{apic_khz, tsc_khz};

#[cfg(target_os = "none")]
mod machine {
    use super::*;
    use crate::platform::acpi::{self, Register};
    use crate::platform::lapic;
    use crate::platform::timer::tsc_now;
    use x86_64::instructions::port::Port;

    const PM_TIMER_HZ: u64 = 3_579_545;
    const PIT_HZ: u64 = 1_193_182;
    /// About 10 ms of each clock.
    const PM_TICKS: u32 = 35_800;
    const PIT_TICKS: u16 = 11_930;
    /// Readings after which a clock counts as stopped: far more than 10 ms of them.
    const PATIENCE: u32 = 5_000_000;

    fn bracket<T>(f: impl FnOnce() -> T) -> (T, End) {
        let before = tsc_now();
        let v = f();
        (v, End(before, tsc_now()))
    }

    /// A sample by ACPI's timer, which counts 24 bits at least.
    fn pm_sample(port: u16) -> Option<Sample> {
        let read = || {
            // SAFETY: the FADT's PM timer; reading it has no effect.
            bracket(|| unsafe { Port::<u32>::new(port).read() } & 0xff_ffff)
        };
        let (first, start) = read();
        for _ in 0..PATIENCE {
            let (now, end) = read();
            let passed = now.wrapping_sub(first) & 0xff_ffff;
            if passed >= PM_TICKS {
                return Some(sample(start, end, passed.into()));
            }
        }
        None
    }

    /// A sample by the PIT's channel 2, which sets bit 5 of port 0x61 when it has counted down.
    fn pit_sample() -> Option<Sample> {
        let (mut gate, mut mode, mut data) = (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
        // SAFETY: channel 2 and its gate, which nobody else uses during boot; the speaker stays off.
        unsafe {
            let open = gate.read() & !2 | 1;
            gate.write(open & !1);
            mode.write(0b1011_0000u8);
            data.write(PIT_TICKS as u8);
            data.write((PIT_TICKS >> 8) as u8);
            let ((), start) = bracket(|| gate.write(open));
            let mut before = tsc_now();
            for _ in 0..PATIENCE {
                let (value, end) = bracket(|| gate.read());
                if value & 0x20 != 0 {
                    return Some(sample(start, End(before, end.1), PIT_TICKS.into()));
                }
                before = end.0;
            }
        }
        None
    }

    /// The TSC's frequency in kHz. Boot CPU, after `acpi::init`, interrupts off.
    pub fn tsc_khz() -> Option<u64> {
        let by_acpi = match acpi::tables().fadt.and_then(|f| f.pm_timer) {
            Some(Register::Port(p)) => measure(PM_TIMER_HZ, || pm_sample(p)),
            _ => None,
        };
        by_acpi.or_else(|| measure(PIT_HZ, pit_sample))
    }

    /// The frequency in kHz at which the local APIC's timer counts, against a TSC of `tsc_khz`.
    pub fn apic_khz(tsc_khz: u64) -> Option<u64> {
        measure(tsc_khz * 1000, || {
            lapic::start_timer(u32::MAX);
            let (first, start) = bracket(lapic::timer_left);
            let until = start.1 + tsc_khz * 10;
            while tsc_now() < until {
                core::hint::spin_loop();
            }
            let (last, end) = bracket(lapic::timer_left);
            lapic::start_timer(0);
            // Here the APIC's ticks are what is measured, and the TSC is the known clock.
            let s = sample(start, end, 0);
            let ticks = u64::from(first.wrapping_sub(last));
            (s.tsc != 0).then(|| Sample { tsc: ticks, doubt: s.doubt * ticks / s.tsc, reference: s.tsc })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sharpest_sample_counts() {
        // A clock of 1 MHz, a TSC of 2 GHz; the first two samples were disturbed at their ends.
        let mut samples = [(26_000_000, 9_000_000, 10_000), (20_400_000, 800_000, 10_000), (20_000_100, 200, 10_000)]
            .into_iter()
            .map(|(tsc, doubt, reference)| Sample { tsc, doubt, reference });
        assert_eq!(measure(1_000_000, || samples.next()), Some(2_000_010));
        assert_eq!(samples.next(), None, "and no more than needed were taken");
    }

    #[test]
    fn never_sharp_takes_the_best_of_ten() {
        let mut n = 0;
        let khz = measure(1_000_000, || {
            n += 1;
            Some(Sample { tsc: 20_000_000 + n * 1000, doubt: 100_000 * n, reference: 10_000 })
        });
        assert_eq!((khz, n), (Some(2_000_100), 10));
    }

    #[test]
    fn a_stopped_clock_measures_nothing() {
        assert_eq!(measure(1_000_000, || None), None);
        assert_eq!(measure(1_000_000, || Some(Sample { tsc: 5, doubt: 0, reference: 0 })), None);
    }

    #[test]
    fn ends() {
        let s = sample(End(100, 110), End(1100, 1130), 7);
        assert_eq!(s, Sample { tsc: 1010, doubt: 40, reference: 7 });
    }
}
