//! Floor 1: the machine's devices.

pub mod console;
pub mod irq;
#[cfg(target_os = "none")]
pub mod lapic;
#[cfg(target_os = "none")]
pub mod pic;
pub mod ports;
pub mod reset;
#[cfg(target_os = "none")]
pub mod serial;
pub mod smp;
pub mod timer;
pub mod tlb;
