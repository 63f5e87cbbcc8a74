//! Floor 1: the machine's devices.

#[cfg(target_os = "none")]
pub mod acpi;
pub mod console;
#[cfg(target_os = "none")]
pub mod ioapic;
pub mod irq;
#[cfg(target_os = "none")]
pub mod lapic;
pub mod ports;
pub mod reset;
#[cfg(target_os = "none")]
pub mod serial;
pub mod smp;
pub mod timer;
pub mod tlb;
