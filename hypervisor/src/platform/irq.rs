//! Interrupts: the hypervisor's own, and those passed on to guests.

use crate::arch::regs::GuestRegs;
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Physical interrupts a domain has.
pub struct Pirqs;

impl Pirqs {
    /// None.
    pub const fn new() -> Self {
        Pirqs
    }
}

/// Whether `pirq` is the domain's.
pub fn mapped(_: DomId, _: u32) -> bool {
    false
}

/// Delivers `pirq` from now on.
///
/// # Errors
/// `EPERM` when it is not the domain's.
pub fn bind(_: DomId, _: u32, _: bool) -> Result<(), Errno> {
    Err(Errno::EPERM)
}

/// Stops delivering.
pub fn unbind(_: DomId, _: u32) {}

/// An NMI on this CPU.
pub fn nmi(_: &GuestRegs) {}

/// Handles interrupt `vector` on this CPU.
#[cfg(target_os = "none")]
pub fn handle(vector: u8) {
    use crate::arch::percpu::{pending, this_cpu};
    use super::lapic;
    match vector {
        lapic::VECTOR_TIMER => this_cpu().raise(pending::TIMER),
        lapic::VECTOR_KICK => {}
        lapic::VECTOR_SPURIOUS => return,
        _ => {}
    }
    lapic::eoi();
}
