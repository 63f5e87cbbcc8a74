//! Ends of the machine: reboot, power-off, halt.

use core::sync::atomic::{AtomicBool, Ordering};

/// `noreboot`: stay halted where the machine would reboot.
pub static NO_REBOOT: AtomicBool = AtomicBool::new(false);

/// Stops this CPU for ever.
pub fn halt() -> ! {
    #[cfg(target_os = "none")]
    loop {
        // SAFETY: interrupts off, halt.
        unsafe {
            core::arch::asm!("cli; hlt", options(nomem, nostack));
        }
    }
    #[cfg(not(target_os = "none"))]
    panic!("halt");
}

/// Restarts the machine, or halts it if so told on the command line.
pub fn reboot() -> ! {
    if NO_REBOOT.load(Ordering::Relaxed) {
        log::info!("halted (noreboot); reset the machine by hand");
        halt();
    }
    #[cfg(target_os = "none")]
    {
        super::acpi::reset();
        use x86_64::instructions::port::Port;
        // SAFETY: reset by the chipset's reset port, then the keyboard controller, then a triple fault.
        unsafe {
            Port::<u8>::new(0xcf9).write(0x02);
            Port::<u8>::new(0xcf9).write(0x06);
            for _ in 0..1_000_000 {
                core::hint::spin_loop();
            }
            Port::<u8>::new(0x64).write(0xfe);
            for _ in 0..1_000_000 {
                core::hint::spin_loop();
            }
            let none = [0u16; 5];
            core::arch::asm!("lidt [{}]", "ud2", in(reg) &none, options(noreturn));
        }
    }
    #[cfg(not(target_os = "none"))]
    halt()
}

/// Powers the machine off through ACPI, or halts where that is not possible.
pub fn power_off() -> ! {
    #[cfg(target_os = "none")]
    super::acpi::power_off();
    log::info!("the machine may be switched off now");
    halt()
}

/// As [`power_off`], with dom0's values for the PM1a and PM1b control registers.
pub fn power_off_with(values: [u16; 2]) -> ! {
    #[cfg(target_os = "none")]
    super::acpi::enter_s5(values);
    let _ = values;
    power_off()
}
