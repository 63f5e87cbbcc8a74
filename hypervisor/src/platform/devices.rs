//! The PCI functions dom0 has told of (PHYSDEVOP_pci_device_add and its elder brothers).

use super::{irq, pci};
use crate::sync::{Lock, Rank};
use alloc::vec::Vec;
use pv_abi::errno::Errno;

/// The devices dom0 has told of, sorted by segment, bus and function.
static DEVICES: Lock<Vec<u32>> = Lock::new(Rank::Irq, Vec::new());
/// More than any machine has.
const MAX_DEVICES: usize = 8192;

fn key(f: pci::Function) -> u32 {
    u32::from(f.segment) << 16 | u32::from(f.bus) << 8 | u32::from(f.devfn)
}

/// Whether dom0 has told of a device.
///
/// # Errors
/// `ENODEV` if not.
pub fn known(f: pci::Function) -> Result<(), Errno> {
    DEVICES.lock().binary_search(&key(f)).map(|_| ()).map_err(|_| Errno::ENODEV)
}

/// dom0 says that a device is gone.
///
/// # Errors
/// `ENODEV` if it had not told of it.
pub fn removed(f: pci::Function) -> Result<(), Errno> {
    let mut d = DEVICES.lock();
    let at = d.binary_search(&key(f)).map_err(|_| Errno::ENODEV)?;
    d.remove(at);
    Ok(())
}

/// dom0 found a device: its MSI-X table becomes read-only for it. Telling of it again changes nothing.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`.
pub fn added(f: pci::Function) -> Result<(), Errno> {
    {
        let mut d = DEVICES.lock();
        if let Err(at) = d.binary_search(&key(f)) {
            if d.len() >= MAX_DEVICES {
                return Err(Errno::ENOSPC);
            }
            d.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            d.insert(at, key(f));
        }
    }
    irq::protect_table(f)
}
