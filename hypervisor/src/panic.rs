//! The end of the hypervisor by its own fault: all CPUs stop, one reports, then the machine halts or reboots.

use crate::arch::cr;
use crate::arch::dump::{Backtrace, Regs, guard_page};
use crate::arch::layout::MAX_CPUS;
use crate::arch::msr;
use crate::arch::percpu::{self, CpuId, this_cpu};
use crate::arch::regs::GuestRegs;
use crate::arch::symbols::Symbol;
use crate::platform::{console, lapic, reset, serial, timer, watchdog};
use crate::sync;
use core::fmt::Display;
use core::panic::PanicInfo;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// CPU that panics + 1.
static PANICKING: AtomicU32 = AtomicU32::new(0);
/// Where each other CPU was when it was stopped: its frame, on the NMI stack it never leaves.
static STOPPED: [AtomicPtr<GuestRegs>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
/// How long the others may take to stop, ns.
const PATIENCE: u64 = 500_000_000;
/// Events shown of the CPU that panics, and of each other.
const EVENTS: (usize, usize) = (16, 4);

/// A Rust panic.
pub fn panicked(info: &PanicInfo) -> ! {
    let (rbp, rip): (u64, u64);
    // SAFETY: reads registers.
    unsafe { core::arch::asm!("mov {}, rbp", "lea {}, [rip]", out(reg) rbp, out(reg) rip, options(nomem, nostack)) };
    let begun = begin();
    log::error!("PANIC on CPU {begun}: {}", info.message());
    if let Some(l) = info.location() {
        log::error!("at {}:{}", l.file(), l.line());
    }
    end(Backtrace(rbp, rip))
}

/// A fault of the hypervisor itself, on any of its stacks.
pub fn fault(regs: &GuestRegs, cr2: u64) -> ! {
    let begun = begin();
    match (regs.entry_vector, guard_page(cr2)) {
        (8 | 14, Some(stack)) => {
            log::error!("PANIC on CPU {begun}: the {stack} stack is used up (cr2 {cr2:#x})")
        }
        (14, None) => log::error!("PANIC on CPU {begun}: page fault in the hypervisor, {cr2:#x}"),
        (v, _) => log::error!("PANIC on CPU {begun}: exception {v} in the hypervisor"),
    }
    log::error!("{}", Regs(regs));
    end(Backtrace(regs.rbp, regs.rip))
}

/// A machine check: the CPU says that hardware is broken, whatever it ran. Nothing is known of what can still be trusted,
/// so the machine stops; what the banks say stands in the log.
pub fn machine_check(regs: &GuestRegs) -> ! {
    let begun = begin();
    log::error!("PANIC on CPU {begun}: machine check");
    let (status, banks) = msr::machine_check();
    log::error!("machine-check status {:#x}, {banks} banks", status.unwrap_or(0));
    for bank in 0..banks {
        if let Some((status, address, misc)) = msr::machine_check_bank(bank) {
            log::error!("bank {bank}: status {status:#x} address {address:#x} misc {misc:#x}");
        }
    }
    log::error!("{}", Regs(regs));
    end(Backtrace(regs.rbp, regs.rip))
}

/// A non-maskable interrupt, on its own stack: somebody panics and wants this CPU stopped, the watchdog asks where it is,
/// or the machine has something to say, which is counted.
pub fn nmi(regs: &GuestRegs) {
    let panicking = PANICKING.load(Ordering::SeqCst);
    let me = this_cpu().id.0;
    if panicking != 0 && panicking != me + 1 {
        if let Some(slot) = STOPPED.get(me as usize) {
            slot.store(ptr::from_ref(regs).cast_mut(), Ordering::SeqCst);
        }
        reset::halt()
    }
    if let Some(away) = watchdog::stuck(timer::system_time()) {
        let begun = begin();
        log::error!("PANIC on CPU {begun}: watchdog: stuck for {} s", away / 1_000_000_000);
        log::error!("{}", Regs(regs));
        end(Backtrace(regs.rbp, regs.rip))
    }
    crate::platform::irq::nmi();
}

/// Makes this CPU the one that reports, and stops the others. A panic while this runs stops at once.
fn begin() -> u32 {
    let me = this_cpu().id.0;
    match PANICKING.compare_exchange(0, me + 1, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        // Another CPU is reporting, and about to stop this one.
        Err(other) if other != me + 1 => reset::halt(),
        // The report itself went wrong.
        Err(_) => {
            serial::emergency(b"\r\n(HOS) panic in the panic report\r\n");
            reset::halt()
        }
    }
    sync::stop_checking_order();
    let others = || (0..percpu::online()).filter(|c| *c != me);
    for c in others() {
        lapic::send_nmi(CpuId(c));
    }
    let until = timer::system_time() + PATIENCE;
    let stopped = |c: u32| STOPPED.get(c as usize).is_none_or(|s| !s.load(Ordering::SeqCst).is_null());
    while !others().all(stopped) && timer::system_time() < until {
        core::hint::spin_loop();
    }
    // The report goes on whoever held the console's locks: they may be this CPU's own.
    // SAFETY: the other CPUs have stopped; one that did not can at worst garble the report.
    unsafe { console::break_locks() };
    me
}

/// The rest of the report, and the end.
fn end(backtrace: impl Display) -> ! {
    log::error!("cr2 {:#x} cr3 {:#x} cr4 {:#x}", cr::read_cr2(), cr::read_cr3(), cr::read_cr4());
    log::error!("{backtrace}");
    let me = this_cpu().id;
    // SAFETY: this CPU's own data, whose owner (this very CPU) has stopped working.
    if let Some((dom, vcpu)) = unsafe { percpu::runs(me) } {
        log::error!("d{dom}v{vcpu} runs here; as it entered:");
        // SAFETY: this CPU's guest frame: plain words, whatever their state.
        log::error!("{}", Regs(unsafe { &*percpu::guest_frame(me) }));
    }
    events(me, EVENTS.0);
    for c in (0..percpu::online()).map(CpuId).filter(|c| *c != me) {
        others(c);
    }
    reset::reboot()
}

fn others(c: CpuId) {
    let frame = STOPPED.get(c.0 as usize).map_or(ptr::null_mut(), |s| s.load(Ordering::SeqCst));
    if frame.is_null() {
        log::error!("CPU {} could not be stopped", c.0);
        return;
    }
    // SAFETY: that CPU has stopped for ever, with its frame on its stack.
    let (regs, runs) = unsafe { (&*frame, percpu::runs(c)) };
    match runs {
        Some((dom, vcpu)) if regs.cs & 3 != 0 => {
            log::error!("CPU {} was in d{dom}v{vcpu} at {:#x}", c.0, regs.rip)
        }
        _ => log::error!("CPU {} was at {}", c.0, Symbol(regs.rip)),
    }
    events(c, EVENTS.1);
}

fn events(c: CpuId, n: usize) {
    if let Some(ring) = percpu::trace_of(c) {
        log::error!("CPU {}'s last events, newest first:", c.0);
        for (event, rip) in ring.newest(n) {
            log::error!("  {event} ({rip:#x})");
        }
    }
}
