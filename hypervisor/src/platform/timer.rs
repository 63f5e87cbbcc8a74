//! The machine's clock: TSC as system time, the local APIC's timer for deadlines.

use core::sync::atomic::{AtomicI8, AtomicU32, AtomicU64, Ordering};

static TSC_KHZ: AtomicU64 = AtomicU64::new(1_000_000);
static APIC_KHZ: AtomicU64 = AtomicU64::new(1_000_000);
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
        (u128::from(t) * u128::from(self.mul) >> 32) as u64
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

/// When this CPU's timer fires, in TSC ticks; `u64::MAX` = never.
static DEADLINE: [AtomicU64; crate::arch::layout::MAX_CPUS] =
    [const { AtomicU64::new(u64::MAX) }; crate::arch::layout::MAX_CPUS];

/// What this CPU's timer was last set for, in system time; `u64::MAX` = it stands still. Setting it again for the same
/// time is left out: a register of the local APIC costs more than all the rest of a reschedule.
static ARMED: [AtomicU64; crate::arch::layout::MAX_CPUS] =
    [const { AtomicU64::new(u64::MAX) }; crate::arch::layout::MAX_CPUS];

/// This CPU's timer has fired, and stands still until it is set again. Should it have been set anew while the interrupt
/// waited, it is set once more: whoever handles the interrupt programs the next deadline.
pub fn fired() {
    if let Some(a) = ARMED.get(crate::arch::percpu::this_cpu().id.0 as usize) {
        a.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Programs this CPU's timer to fire at system time `ns`, or never. A past time fires at once.
pub fn set_deadline(ns: Option<u64>) {
    let me = crate::arch::percpu::this_cpu().id.0 as usize;
    let (Some(slot), Some(armed)) = (DEADLINE.get(me), ARMED.get(me)) else { return };
    if armed.load(Ordering::Relaxed) == ns.unwrap_or(u64::MAX) {
        return;
    }
    armed.store(ns.unwrap_or(u64::MAX), Ordering::Relaxed);
    let Some(at) = ns else {
        slot.store(u64::MAX, Ordering::Relaxed);
        #[cfg(target_os = "none")]
        super::lapic::start_timer(0);
        return;
    };
    let left = at.saturating_sub(system_time());
    slot.store(tsc_now().saturating_add(left.saturating_mul(tsc_khz()) / 1_000_000), Ordering::Relaxed);
    #[cfg(target_os = "none")]
    {
        // The divider is 16; far deadlines fire early and are set anew.
        let ticks = u128::from(left) * u128::from(APIC_KHZ.load(Ordering::Relaxed)) / 1_000_000;
        super::lapic::start_timer(ticks.clamp(1, 0xffff_ffff) as u32);
    }
}

/// Whether this CPU's deadline has passed (its interrupt may still wait, since interrupts are off).
#[inline(always)]
pub fn deadline_passed() -> bool {
    let me = crate::arch::percpu::this_cpu().id.0 as usize;
    DEADLINE.get(me).is_some_and(|d| tsc_now() >= d.load(Ordering::Relaxed))
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
    APIC_KHZ.store(apic, Ordering::Relaxed);
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
