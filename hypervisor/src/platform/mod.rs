//! Floor 1: the machine's devices.

pub mod acpi;
pub mod calibrate;
pub mod console;
pub mod devices;
pub mod efi;
pub mod ioapic;
pub mod ioremap;
pub mod irq;
#[cfg(target_os = "none")]
pub mod lapic;
pub mod machine;
pub mod msi;
pub mod pci;
#[cfg(target_os = "none")]
pub mod pic;
pub mod pirqs;
pub mod ports;
pub mod reset;
pub mod rtc;
#[cfg(target_os = "none")]
pub mod serial;
pub mod smp;
pub mod timer;
pub mod tlb;
pub mod watchdog;
