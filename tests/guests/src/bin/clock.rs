//! The guest's clock on four vCPUs at once: it never goes back, neither on one vCPU nor from one to another, also where
//! vCPUs share CPUs and change them; and the secondary copy (VCPUOP_register_vcpu_time_memory_area) tells the same time.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guests::mem::read64;
use guests::prelude::*;
use pv_abi::sched;
use pv_abi::vcpu::*;

guests::kernel!(run);

/// The newest time anybody has read.
static NEWEST: AtomicU64 = AtomicU64::new(0);
/// How often a later reading was earlier, and by how much at most.
static BACK: AtomicU64 = AtomicU64::new(0);
static WORST: AtomicU64 = AtomicU64::new(0);
static READINGS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static READY: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);

/// One reading: whatever was published before it began must not be newer.
fn read() {
    let published = NEWEST.load(Ordering::SeqCst);
    let now = events::now();
    if now < published {
        BACK.fetch_add(1, Ordering::SeqCst);
        WORST.fetch_max(published - now, Ordering::SeqCst);
    }
    NEWEST.fetch_max(now, Ordering::SeqCst);
    READINGS[smp::cpu()].fetch_add(1, Ordering::SeqCst);
}

fn body() {
    READY.fetch_add(1, Ordering::SeqCst);
    while STOP.load(Ordering::SeqCst) == 0 {
        for _ in 0..200 {
            read();
        }
        // Others get the CPU now and then, so vCPUs wander.
        call(nr::SCHED_OP, &[sched::OP_YIELD, 0]);
    }
    READY.fetch_sub(1, Ordering::SeqCst);
    call(nr::VCPU_OP, &[OP_DOWN, smp::cpu() as u64, 0]);
}

fn run() {
    let n = smp::count();
    if n < 4 {
        report::skip("the domain has fewer than four vCPUs");
    }
    for cpu in 1..n {
        smp::start(cpu, body);
    }
    check("all vCPUs came up", events::wait_ms(20_000, || READY.load(Ordering::SeqCst) == n as u32 - 1));
    let end = events::now() + 1_500_000_000;
    while events::now() < end {
        for _ in 0..200 {
            read();
        }
        call(nr::SCHED_OP, &[sched::OP_YIELD, 0]);
    }
    STOP.store(1, Ordering::SeqCst);
    check("all vCPUs went down", events::wait_ms(20_000, || READY.load(Ordering::SeqCst) == 0));
    for (cpu, readings) in READINGS.iter().enumerate() {
        check(f!("vCPU {cpu} read the clock often"), readings.load(Ordering::SeqCst) > 100);
    }
    let (back, worst) = (BACK.load(Ordering::SeqCst), WORST.load(Ordering::SeqCst));
    // Real Xen keeps a clock for each CPU and sets it right once a second: in an emulator, whose TSCs run together but
    // not evenly, its guests see it go back by milliseconds. Ours is one clock where the TSCs are one.
    if back != 0 && is_hospes() {
        report::fail(f!("the clock went back {back} times, by {worst} ns at most"));
    }
    secondary();
}

/// Whether this is Hospes, by the version string.
fn is_hospes() -> bool {
    let mut extra = [0u8; 16];
    call(nr::XEN_VERSION, &[pv_abi::version::OP_EXTRAVERSION, extra.as_mut_ptr() as u64]).must("extraversion");
    extra.windows(6).any(|w| w == b"hospes")
}

/// The copy that Linux gives its vDSO.
fn secondary() {
    let area = Page::alloc();
    let mut a = MemoryArea { addr: area.va };
    call(nr::VCPU_OP, &[OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, core::ptr::from_mut(&mut a) as u64]).must("register");
    let at = events::info(0) + pv_abi::shared_info::vcpu_info::TIME as u64;
    check("the copy's version is even", read64(area.va) & 1 == 0);
    check("it has the same scale", read64(area.va + 24) & 0xff_ffff_ffff == read64(at + 24) & 0xff_ffff_ffff);
    check("it has a time", read64(area.va + 16) != 0);
    // Time from the copy, as a vDSO computes it.
    let copy = || {
        let (stamp, system, scale) = (read64(area.va + 8), read64(area.va + 16), read64(area.va + 24));
        // SAFETY: rdtsc has no precondition.
        let delta = unsafe { core::arch::x86_64::_rdtsc() }.wrapping_sub(stamp);
        let shift = (scale >> 32) as i8;
        let delta = if shift < 0 { delta >> -shift } else { delta << shift };
        system.wrapping_add(((u128::from(delta) * u128::from(scale as u32)) >> 32) as u64)
    };
    let (before, middle, after) = (events::now(), copy(), events::now());
    check("it tells the same time", before <= middle + 1000 && middle <= after + 1000);
    events::wait_ms(30, || false);
    let (before, middle, after) = (events::now(), copy(), events::now());
    check("and later too", before <= middle + 1000 && middle <= after + 1000);
}
