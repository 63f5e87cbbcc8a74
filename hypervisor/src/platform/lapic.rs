//! The local APIC: interrupts of this CPU, its timer, and messages to other CPUs (SDM vol. 3 ch. 11).

use crate::arch::layout::{IOREMAP, MAX_CPUS};
use crate::arch::msr::{self, nr};
use crate::arch::paging::{self, flag};
use crate::arch::percpu::{CpuId, this_cpu};
use crate::mm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use pv_abi::ids::Mfn;

/// Timer interrupt.
pub const VECTOR_TIMER: u8 = 0xf0;
/// "Look at your pending word."
pub const VECTOR_KICK: u8 = 0xf1;
/// APIC error.
pub const VECTOR_ERROR: u8 = 0xfe;
/// Spurious interrupt.
pub const VECTOR_SPURIOUS: u8 = 0xff;

const ID: u32 = 0x20;
const TPR: u32 = 0x80;
const EOI: u32 = 0xb0;
const ESR: u32 = 0x280;
const SVR: u32 = 0xf0;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

static X2APIC: AtomicBool = AtomicBool::new(false);
/// APIC id of each CPU.
static APIC_ID: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

fn read(reg: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on: the registers are MSRs.
        unsafe { msr::rdmsr(0x800 + (reg >> 4)) as u32 }
    } else {
        // SAFETY: mapped by `init`.
        unsafe { ((IOREMAP + u64::from(reg)) as *const u32).read_volatile() }
    }
}

fn write(reg: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: as in `read`; values are the ones this module composes.
        unsafe { msr::wrmsr(0x800 + (reg >> 4), u64::from(value)) };
    } else {
        // SAFETY: mapped by `init`.
        unsafe { ((IOREMAP + u64::from(reg)) as *mut u32).write_volatile(value) };
    }
}

/// Maps the registers and sets up the boot CPU's APIC. Boot CPU, once, after `mm::init`.
pub fn init() {
    // SAFETY: APIC_BASE exists on every 64-bit CPU.
    let base = unsafe { msr::rdmsr(nr::APIC_BASE) };
    if base >> 10 & 1 != 0 {
        X2APIC.store(true, Ordering::Relaxed);
    } else {
        let pa = base & 0x000f_ffff_ffff_f000;
        // SAFETY: device registers into the window kept for them.
        let mapped =
            unsafe { paging::map(IOREMAP, pa, 4096, flag::DEVICE, || mm::alloc::page().and_then(|m| m.to_addr())) };
        assert!(mapped.is_ok(), "no memory to map the local APIC");
    }
    mm::device::hide(Mfn(base >> 12 & 0xff_ffff_ffff));
    init_cpu();
}

/// Sets up this CPU's APIC.
pub fn init_cpu() {
    let id = if X2APIC.load(Ordering::Relaxed) { read(ID) } else { read(ID) >> 24 };
    this_cpu().apic_id.set(id);
    if let Some(slot) = APIC_ID.get(this_cpu().id.0 as usize) {
        slot.store(id, Ordering::Relaxed);
    }
    write(TPR, 0);
    write(LVT_LINT0, 1 << 16);
    write(LVT_LINT1, 0x400);
    write(LVT_ERROR, u32::from(VECTOR_ERROR));
    write(SVR, 0x100 | u32::from(VECTOR_SPURIOUS));
    write(TIMER_DIVIDE, 0b0011); // by 16
    write(LVT_TIMER, u32::from(VECTOR_TIMER));
    write(TIMER_INITIAL, 0);
    eoi();
}

/// Ends the interrupt in service.
#[inline(always)]
pub fn eoi() {
    write(EOI, 0);
}

/// Starts the one-shot timer with `count` ticks (of the bus clock / 16); 0 stops it.
#[inline(always)]
pub fn start_timer(count: u32) {
    write(TIMER_INITIAL, count);
}

/// Ticks the timer has left.
pub fn timer_left() -> u32 {
    read(TIMER_CURRENT)
}

fn icr(apic: u32, low: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC ICR.
        unsafe { msr::wrmsr(0x830, u64::from(apic) << 32 | u64::from(low)) };
    } else {
        while read(ICR_LOW) & 1 << 12 != 0 {
            core::hint::spin_loop();
        }
        write(ICR_HIGH, apic << 24);
        write(ICR_LOW, low);
    }
}

/// Interrupts CPU `cpu`.
pub fn send_ipi(cpu: CpuId, vector: u8) {
    let Some(apic) = APIC_ID.get(cpu.0 as usize) else {
        return;
    };
    icr(apic.load(Ordering::Relaxed), 0x4000 | u32::from(vector));
}

/// Non-maskable interrupt to CPU `cpu`.
pub fn send_nmi(cpu: CpuId) {
    if let Some(apic) = APIC_ID.get(cpu.0 as usize) {
        icr(apic.load(Ordering::Relaxed), 0x4400);
    }
}

/// INIT to the CPU with this APIC id.
pub fn send_init(apic: u32) {
    icr(apic, 0x4500);
}

/// Start-up message: begin at physical page `page`.
pub fn send_sipi(apic: u32, page: u8) {
    icr(apic, 0x4600 | u32::from(page));
}

/// This CPU's APIC id.
pub fn id_of(cpu: CpuId) -> u32 {
    APIC_ID.get(cpu.0 as usize).map_or(0, |a| a.load(Ordering::Relaxed))
}

/// Reads and clears this CPU's error register.
pub fn take_error() -> u32 {
    // A write latches what has happened since the last one.
    write(ESR, 0);
    read(ESR)
}
