//! The end of the hypervisor by its own fault: one report, then halt or reboot.

use crate::arch::cr;
use crate::arch::dump::Backtrace;
use crate::arch::percpu::this_cpu;
use crate::platform::{console, reset, serial};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

/// CPU that panics + 1.
static PANICKING: AtomicU32 = AtomicU32::new(0);

/// Reports a panic and stops the machine. A panic while this runs stops at once.
pub fn panicked(info: &PanicInfo) -> ! {
    let me = this_cpu().id.0 + 1;
    match PANICKING.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        // Another CPU is reporting.
        Err(other) if other != me => reset::halt(),
        // The report itself went wrong.
        Err(_) => {
            serial::emergency(b"\r\n(HOS) panic in the panic report\r\n");
            reset::halt()
        }
    }
    let (rbp, rip): (u64, u64);
    // SAFETY: reads registers.
    unsafe { core::arch::asm!("mov {}, rbp", "lea {}, [rip]", out(reg) rbp, out(reg) rip, options(nomem, nostack)) };
    // The report goes on whoever held the console's locks: they may be this CPU's own.
    // SAFETY: other CPUs that go on can at worst garble the report.
    unsafe { console::break_locks() };
    log::error!("PANIC on CPU {}: {}", me - 1, info.message());
    if let Some(l) = info.location() {
        log::error!("at {}:{}", l.file(), l.line());
    }
    log::error!("cr2 {:#x} cr3 {:#x} {}", cr::read_cr2(), cr::read_cr3(), Backtrace(rbp, rip));
    reset::reboot()
}
