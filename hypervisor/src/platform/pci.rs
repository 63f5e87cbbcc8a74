//! PCI configuration space: ours, and dom0's accesses to it.
//!
//! dom0 drives PCI itself through ports 0xcf8 and 0xcfc. Its address register is virtual, so that our own accesses
//! between two of its do no harm, and its writes to MSI messages and masks are dropped: those are the hypervisor's.

use super::msi;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU32, Ordering};

/// A function of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// PCI segment.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device (bits 3-7) and function (bits 0-2).
    pub devfn: u8,
}

impl core::fmt::Display for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.segment, self.bus, self.devfn >> 3, self.devfn & 7)
    }
}

/// Access to configuration space; tests have their own.
pub trait Config {
    /// Reads the aligned double word at `offset`. What is not there reads as all ones.
    fn read32(&self, f: Function, offset: u16) -> u32;
    /// Writes 1, 2 or 4 bytes.
    fn write(&self, f: Function, offset: u16, size: usize, value: u32);

    /// Reads a word.
    fn read16(&self, f: Function, offset: u16) -> u16 {
        (self.read32(f, offset & !3) >> (8 * u32::from(offset & 2))) as u16
    }

    /// Offset of capability `id`, if the function has it.
    fn capability(&self, f: Function, id: u8) -> Option<u16> {
        // Status bit 4: there is a list.
        if self.read32(f, 0) == u32::MAX || self.read16(f, 6) & 1 << 4 == 0 {
            return None;
        }
        let mut at = (self.read32(f, 0x34) & 0xfc) as u16;
        // A list has at most 48 entries; a longer one is a circle.
        for _ in 0..48 {
            if at < 0x40 {
                return None;
            }
            let header = self.read32(f, at);
            if header as u8 == id {
                return Some(at);
            }
            at = (header >> 8 & 0xfc) as u16;
        }
        None
    }

    /// Machine address in base-address register `index`, if it is memory.
    fn bar(&self, f: Function, index: u8) -> Option<u64> {
        if index > 5 {
            return None;
        }
        let at = 0x10 + 4 * u16::from(index);
        let low = self.read32(f, at);
        if low & 1 != 0 {
            return None;
        }
        let high = if low & 6 == 4 && index < 5 { self.read32(f, at + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        (address != 0).then_some(address)
    }
}

/// The machine's configuration space.
pub struct Machine;

static PORTS: Lock<()> = Lock::new(Rank::Pci, ());

fn address(f: Function, offset: u16) -> u32 {
    1 << 31 | u32::from(f.bus) << 16 | u32::from(f.devfn) << 8 | u32::from(offset & 0xfc)
}

/// Reads through the ports: `address` as in 0xcf8, the data bytes from `byte` (0 to 3) on.
#[cfg(target_os = "none")]
fn port_read(address: u32, byte: u16, size: usize) -> u32 {
    use x86_64::instructions::port::Port;
    let _lock = PORTS.lock();
    let data = 0xcfc + (byte & 3);
    // SAFETY: configuration reads; the lock keeps address and data together.
    unsafe {
        Port::<u32>::new(0xcf8).write(address);
        match size {
            1 => Port::<u8>::new(data).read().into(),
            2 => Port::<u16>::new(data).read().into(),
            _ => Port::<u32>::new(0xcfc).read(),
        }
    }
}

#[cfg(target_os = "none")]
fn port_write(address: u32, byte: u16, size: usize, v: u32) {
    use x86_64::instructions::port::Port;
    let _lock = PORTS.lock();
    let data = 0xcfc + (byte & 3);
    // SAFETY: by the hypervisor, or by dom0, which owns the devices; the lock keeps address and data together.
    unsafe {
        Port::<u32>::new(0xcf8).write(address);
        match size {
            1 => Port::<u8>::new(data).write(v as u8),
            2 => Port::<u16>::new(data).write(v as u16),
            _ => Port::<u32>::new(0xcfc).write(v),
        }
    }
}

#[cfg(not(target_os = "none"))]
fn port_read(_: u32, _: u16, _: usize) -> u32 {
    let _lock = PORTS.lock();
    u32::MAX
}

#[cfg(not(target_os = "none"))]
fn port_write(_: u32, _: u16, _: usize, _: u32) {
    let _lock = PORTS.lock();
}

impl Config for Machine {
    fn read32(&self, f: Function, offset: u16) -> u32 {
        // Capabilities of interest stand in the first 256 bytes, which the ports reach; further segments are not used.
        if f.segment != 0 || offset > 0xff {
            return u32::MAX;
        }
        port_read(address(f, offset), 0, 4)
    }

    fn write(&self, f: Function, offset: u16, size: usize, value: u32) {
        if f.segment == 0 && offset <= 0xff {
            port_write(address(f, offset), offset & 3, size, value);
        }
    }
}

/// dom0's address register (0xcf8).
static GUEST_ADDRESS: AtomicU32 = AtomicU32::new(0);

/// Whether a port access of `size` bytes is one to the configuration ports. (0xcf9, one byte, is the reset register.)
pub const fn is_config(port: u16, size: usize) -> bool {
    matches!(port, 0xcfc..=0xcff) || (port == 0xcf8 && size == 4)
}

/// dom0 reads a configuration port.
pub fn guest_read(port: u16, size: usize) -> u32 {
    let address = GUEST_ADDRESS.load(Ordering::Relaxed);
    if port == 0xcf8 {
        return address;
    }
    if address >> 31 == 0 || usize::from(port & 3) + size > 4 {
        return u32::MAX;
    }
    port_read(address, port & 3, size)
}

/// dom0 writes a configuration port.
pub fn guest_write(port: u16, size: usize, value: u32) {
    if port == 0xcf8 {
        GUEST_ADDRESS.store(value, Ordering::Relaxed);
        return;
    }
    let address = GUEST_ADDRESS.load(Ordering::Relaxed);
    let byte = port & 3;
    if address >> 31 == 0 || usize::from(byte) + size > 4 {
        return;
    }
    let f = Function { segment: 0, bus: (address >> 16) as u8, devfn: (address >> 8) as u8 };
    let offset = (address & 0xfc) as u16 + byte;
    // The plain header is by far the most written; capabilities start behind it.
    if offset >= 0x40 && msi::is_ours(&Machine, f, offset, size) {
        log::debug!("dom0's write to MSI registers of {f} at {offset:#x} dropped");
        return;
    }
    port_write(address, byte, size, value);
}

#[cfg(test)]
pub mod testing {
    //! A device made of memory.
    use super::*;
    use core::cell::RefCell;
    use std::vec::Vec;

    /// 256 bytes of configuration space, the same for every function.
    pub struct Fake(pub RefCell<Vec<u8>>);

    impl Fake {
        /// A device with the given bytes at the given offsets.
        pub fn new(parts: &[(usize, &[u8])]) -> Self {
            let mut b = std::vec![0u8; 256];
            for (at, bytes) in parts {
                b[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
            Fake(RefCell::new(b))
        }
        /// Bytes at an offset.
        pub fn at(&self, offset: usize, len: usize) -> Vec<u8> {
            self.0.borrow()[offset..offset + len].to_vec()
        }
    }

    impl Config for Fake {
        fn read32(&self, _: Function, offset: u16) -> u32 {
            let b = self.0.borrow();
            u32::from_le_bytes(b[usize::from(offset)..usize::from(offset) + 4].try_into().unwrap())
        }
        fn write(&self, _: Function, offset: u16, size: usize, value: u32) {
            let at = usize::from(offset);
            self.0.borrow_mut()[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Fake;
    use super::*;

    const F: Function = Function { segment: 0, bus: 0, devfn: 0x18 };

    #[test]
    fn capabilities_are_walked_and_circles_end() {
        let dev =
            Fake::new(&[(0, &[1, 2, 3, 4]), (6, &[0x10]), (0x34, &[0x40]), (0x40, &[9, 0x50]), (0x50, &[5, 0x40])]);
        assert_eq!(dev.capability(F, 5), Some(0x50));
        assert_eq!(dev.capability(F, 9), Some(0x40));
        assert_eq!(dev.capability(F, 0x11), None);
        let none = Fake::new(&[(0, &[0xff; 4]), (6, &[0x10]), (0x34, &[0x40]), (0x40, &[5, 0])]);
        assert_eq!(none.capability(F, 5), None);
    }

    #[test]
    fn base_addresses() {
        let dev = Fake::new(&[
            (0x10, &[4, 0x40, 0, 0xfe, 1, 0, 0, 0]), // 64-bit
            (0x18, &[1, 0xc0, 0, 0]),                // I/O
            (0x1c, &[8, 0, 0x10, 0xfe]),             // 32-bit
        ]);
        assert_eq!(dev.bar(F, 0), Some(0x1_fe00_4000));
        assert_eq!(dev.bar(F, 2), None);
        assert_eq!(dev.bar(F, 3), Some(0xfe10_0000));
        assert_eq!(dev.bar(F, 4), None);
        assert_eq!(dev.bar(F, 6), None);
    }

    #[test]
    fn what_the_config_ports_are() {
        assert!(is_config(0xcf8, 4) && is_config(0xcfc, 1) && is_config(0xcfe, 2));
        assert!(!is_config(0xcf9, 1) && !is_config(0xcf8, 1) && !is_config(0xd00, 4));
    }
}
