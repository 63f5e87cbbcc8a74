//! The machine's clock: TSC as system time, the local APIC's timer for deadlines.

use core::sync::atomic::{AtomicI8, AtomicU32, AtomicU64, Ordering};

static TSC_KHZ: AtomicU64 = AtomicU64::new(1_000_000);
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
static MUL: AtomicU32 = AtomicU32::new(0);
static SHIFT: AtomicI8 = AtomicI8::new(0);

/// How TSC ticks become nanoseconds in the ABI's clock: `(ticks << shift) * mul >> 32` (a negative shift goes right).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// 32-bit fraction.
    pub mul: u32,
    /// Shift of the ticks before it.
    pub shift: i8,
}

impl Scale {
    /// For a TSC of `khz` kHz. The fraction is normalised to its top bit, for the best precision.
    pub fn for_khz(khz: u64) -> Scale {
        let khz = khz.max(1);
        let mut shift = 0i8;
        // ns per tick = 1e6 / khz = mul / 2^32 * 2^shift.
        let mut num = 1_000_000u128 << 32;
        let den = u128::from(khz);
        while num / den >= 1 << 32 {
            num >>= 1;
            shift += 1;
        }
        while num / den < 1 << 31 {
            num <<= 1;
            shift -= 1;
        }
        Scale { mul: (num / den) as u32, shift }
    }

    /// Nanoseconds of `ticks`.
    #[inline(always)]
    pub fn ns(self, ticks: u64) -> u64 {
        let t = if self.shift >= 0 { ticks.wrapping_shl(self.shift as u32) } else { ticks >> -i32::from(self.shift) };
        ((u128::from(t) * u128::from(self.mul)) >> 32) as u64
    }
}

/// The TSC.
#[inline(always)]
pub fn tsc_now() -> u64 {
    // SAFETY: RDTSC has no effect; every 64-bit CPU has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// TSC frequency.
pub fn tsc_khz() -> u64 {
    TSC_KHZ.load(Ordering::Relaxed)
}

/// Scale of the guest clocks.
#[inline(always)]
pub fn scale() -> Scale {
    Scale { mul: MUL.load(Ordering::Relaxed), shift: SHIFT.load(Ordering::Relaxed) }
}

/// One moment, a microsecond after the clocks started (a system time of 0 could pass for none), as TSC and system time.
pub fn anchor() -> (u64, u64) {
    let tsc = BOOT_TSC.load(Ordering::Relaxed).wrapping_add(tsc_khz() / 1000);
    (tsc, ns_at(tsc))
}

/// Nanoseconds since boot at TSC value `tsc`.
#[inline(always)]
pub fn ns_at(tsc: u64) -> u64 {
    scale().ns(tsc.wrapping_sub(BOOT_TSC.load(Ordering::Relaxed)))
}

/// Nanoseconds since boot.
#[inline(always)]
pub fn system_time() -> u64 {
    ns_at(tsc_now())
}

/// Ticks a nanosecond of the TSC and of the APIC timer, as fractions of 2^32: deadlines are set often, and divisions
/// are slow.
static TSC_PER_NS: AtomicU64 = AtomicU64::new(0);
static APIC_PER_NS: AtomicU64 = AtomicU64::new(0);

/// No deadline: as system time, a time that never comes.
pub const NEVER: u64 = u64::MAX;

/// Longest time a deadline is set for, ns: what is later fires early and is set anew. (10 s; the products below stay
/// far from overflowing for any clock below 400 GHz.)
const FARTHEST: u64 = 10_000_000_000;

/// This CPU's timer has fired, and stands still until it is set again. Should it have been set anew while the interrupt
/// waited, it is set once more: whoever handles the interrupt programs the next deadline.
pub fn fired() {
    let cpu = crate::arch::percpu::this_cpu();
    cpu.armed.set(NEVER);
    cpu.deadline.set(u64::MAX);
}

/// Programs this CPU's timer to fire at system time `at`, ns, or [`NEVER`]. A past time fires at once.
///
/// Setting it again for the same time is left out: a register of the local APIC costs more than all the rest of a
/// reschedule.
pub fn set_deadline(at: u64) {
    let cpu = crate::arch::percpu::this_cpu();
    let at = super::watchdog::bound(at);
    if cpu.armed.replace(at) == at {
        return;
    }
    if at == NEVER {
        cpu.deadline.set(u64::MAX);
        #[cfg(target_os = "none")]
        super::lapic::start_timer(0);
        return;
    }
    let tsc = tsc_now();
    let left = at.saturating_sub(ns_at(tsc)).min(FARTHEST);
    let ticks = |per_ns: &AtomicU64| ((u128::from(left) * u128::from(per_ns.load(Ordering::Relaxed))) >> 32) as u64;
    cpu.deadline.set(tsc.wrapping_add(ticks(&TSC_PER_NS)));
    #[cfg(target_os = "none")]
    super::lapic::start_timer(ticks(&APIC_PER_NS).clamp(1, 0xffff_ffff) as u32);
}

/// Whether this CPU's deadline has passed (its interrupt may still wait, since interrupts are off).
#[inline(always)]
pub fn deadline_passed() -> bool {
    tsc_now() >= crate::arch::percpu::this_cpu().deadline.get()
}

/// Finds out how fast the clocks run, and starts system time. Boot CPU, after `acpi::init` and `lapic::init`, interrupts
/// off.
///
/// # Errors
/// When the machine has no clock of known frequency that runs.
#[cfg(target_os = "none")]
pub fn calibrate() -> Result<(), &'static str> {
    use super::calibrate;
    let tsc = calibrate::tsc_khz().ok_or("neither ACPI's timer nor the PIT runs: the TSC's frequency is unknown")?;
    let apic = calibrate::apic_khz(tsc).ok_or("the local APIC's timer does not run")?;
    TSC_KHZ.store(tsc, Ordering::Relaxed);
    TSC_PER_NS.store((tsc << 32) / 1_000_000, Ordering::Relaxed);
    APIC_PER_NS.store((apic << 32) / 1_000_000, Ordering::Relaxed);
    let s = Scale::for_khz(tsc);
    MUL.store(s.mul, Ordering::Relaxed);
    SHIFT.store(s.shift, Ordering::Relaxed);
    BOOT_TSC.store(tsc_now(), Ordering::Relaxed);
    log::info!("TSC {} MHz, APIC timer {apic} kHz", tsc / 1000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_exact_enough() {
        for khz in [400_000u64, 1_000_000, 2_893_304, 5_000_000, 32_768] {
            let s = Scale::for_khz(khz);
            let hour = khz * 3_600_000;
            let ns = s.ns(hour);
            let off = ns.abs_diff(3_600_000_000_000);
            assert!(off < 3_600_000_000_000 / 1_000_000, "{khz}: {off} ns off in an hour");
            assert!(s.mul >= 1 << 31);
        }
    }
}
