//! Guest time: the clock in vcpu_info, the wallclock in shared_info, timers and runstates.

pub mod runstate;
pub mod timers;
pub mod watchdog;

use crate::domain::{Domain, VcpuRef};
use crate::platform::timer;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::shared_info::{VcpuTimeInfo, WALLCLOCK};

/// Nanoseconds since boot.
#[inline(always)]
pub fn now() -> u64 {
    timer::system_time()
}

/// Clock data as guests get it. Flag 0 (TSC_STABLE): all CPUs' TSCs run together.
///
/// It is the same at every time and on every CPU. A pair taken anew now and then is rounded anew, and a guest that reads
/// its clock on both sides of that sees it go back by a nanosecond.
pub fn time_info() -> VcpuTimeInfo {
    let s = timer::scale();
    let (tsc_timestamp, system_time) = timer::anchor();
    VcpuTimeInfo {
        tsc_timestamp,
        system_time,
        tsc_to_system_mul: s.mul,
        tsc_shift: s.shift,
        flags: 1,
        ..VcpuTimeInfo::default()
    }
}

/// Refreshes the clock in the vCPU's vcpu_info.
pub fn publish_to(v: &VcpuRef) {
    v.info.write_time(&time_info());
}

/// Wallclock seconds (Unix) and nanoseconds at system time 0.
static BOOT_SECONDS: AtomicU64 = AtomicU64::new(0);
static BOOT_NANOS: AtomicU64 = AtomicU64::new(0);

/// Sets the wallclock: it was `seconds`.`nanos` (Unix) at system time `at`.
pub fn set_wallclock(seconds: u64, nanos: u32, at: u64) {
    let t = (u128::from(seconds) * 1_000_000_000 + u128::from(nanos)).saturating_sub(u128::from(at));
    BOOT_SECONDS.store((t / 1_000_000_000) as u64, Ordering::Relaxed);
    BOOT_NANOS.store((t % 1_000_000_000) as u64, Ordering::Relaxed);
    for d in crate::domain::slots::all() {
        publish_wallclock(&d);
    }
}

/// Writes the wallclock into the domain's shared_info.
pub fn publish_wallclock(d: &Domain) {
    let sec = BOOT_SECONDS.load(Ordering::Relaxed).wrapping_add(d.time_offset.load(Ordering::Relaxed));
    let version = d.shared.load_u32(WALLCLOCK) | 1;
    d.shared.store_u32(WALLCLOCK, version);
    d.shared.store_u32(WALLCLOCK + 4, sec as u32);
    d.shared.store_u32(WALLCLOCK + 8, BOOT_NANOS.load(Ordering::Relaxed) as u32);
    d.shared.store_u32(WALLCLOCK + 12, (sec >> 32) as u32);
    d.shared.store_u32(WALLCLOCK, version.wrapping_add(1));
}
