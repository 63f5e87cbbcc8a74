//! Message-signalled interrupts: a device raises one by writing a word to the CPU's interrupt window (SDM vol. 3
//! §11.11). Messages are the hypervisor's; a device's driver only switches the capability on and off.
//!
//! No locking here: [`super::irq`] calls under its lock.

use super::ioremap::{self, Caching};
use super::pci::{Config, Function};
use crate::fallible::try_push;
use crate::mm;
use alloc::vec::Vec;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

const CAP_MSI: u8 = 5;
const CAP_MSIX: u8 = 0x11;
/// MSI control: enable, number of messages enabled, 64-bit address, mask register.
const MSI_ENABLE: u16 = 1;
const MSI_ENABLED_MESSAGES: u16 = 7 << 4;
const MSI_64: u16 = 1 << 7;
const MSI_MASKABLE: u16 = 1 << 8;
/// Bytes of an MSI-X table entry.
const ENTRY: u64 = 16;

/// Message that raises `vector` on the CPU with this APIC id: address, data. Fixed delivery, edge.
pub const fn message(vector: u8, apic: u8) -> (u32, u32) {
    (0xfee0_0000 | (apic as u32) << 12, vector as u32)
}

/// An interrupt source that was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Msi {
    /// The function's one message.
    Plain {
        /// Whose.
        function: Function,
        /// Where its capability is.
        cap: u16,
    },
    /// An entry of the function's MSI-X table.
    Table {
        /// Whose.
        function: Function,
        /// Which.
        entry: u16,
        /// Where it is mapped.
        va: u64,
    },
}

/// What dom0 said of a message it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose.
    pub function: Function,
    /// MSI-X: which entry.
    pub entry: u16,
    /// MSI-X: address of the BAR with the table; 0 = plain MSI.
    pub table_base: u64,
}

/// MSI-X tables that are mapped: first frame's address, virtual address, bytes.
#[derive(Default)]
pub struct Maps(Vec<(u64, u64, u64)>);

impl Maps {
    /// None.
    pub const fn new() -> Self {
        Maps(Vec::new())
    }

    fn get(&mut self, pa: u64, len: u64) -> Option<u64> {
        if let Some(m) = self.0.iter().find(|m| m.0 == pa && m.2 >= len) {
            return Some(m.1);
        }
        self.0.try_reserve(1).ok()?;
        // A table that cannot be kept from dom0 is not used.
        protect(pa, len).ok()?;
        // SAFETY: the device's MSI-X table, as its configuration space says; device registers hold no Rust objects.
        let va = unsafe { ioremap::map(pa, len, Caching::Uncached)? };
        try_push(&mut self.0, (pa, va, len)).ok()?;
        Some(va)
    }
}

/// Where a function's MSI-X table is: machine address and number of entries.
fn table(c: &impl Config, f: Function, table_base: u64) -> Option<(u64, u16)> {
    let cap = c.capability(f, CAP_MSIX)?;
    let entries = (c.read16(f, cap + 2) & 0x7ff) + 1;
    let place = c.read32(f, cap + 4);
    // A virtual function's BARs read as zero: there dom0's word counts.
    let base = c.bar(f, (place & 7) as u8).or(Some(table_base).filter(|b| *b != 0))?;
    Some((base.checked_add(u64::from(place & !7))?, entries))
}

impl Msi {
    /// Finds the message dom0 asks for, masked.
    ///
    /// # Errors
    /// `ENODEV` when the function has no such capability, `EINVAL` for an entry beyond the table, `ENOMEM` when the
    /// table cannot be mapped.
    pub fn set_up(c: &impl Config, maps: &mut Maps, r: Request) -> Result<Msi, Errno> {
        let function = r.function;
        let msi = if r.table_base == 0 {
            Msi::Plain { function, cap: c.capability(function, CAP_MSI).ok_or(Errno::ENODEV)? }
        } else {
            let (pa, entries) = table(c, function, r.table_base).ok_or(Errno::ENODEV)?;
            if r.entry >= entries {
                return Err(Errno::EINVAL);
            }
            let base = maps.get(pa, u64::from(entries) * ENTRY).ok_or(Errno::ENOMEM)?;
            Msi::Table { function, entry: r.entry, va: base + u64::from(r.entry) * ENTRY }
        };
        msi.set_mask(c, true);
        Ok(msi)
    }

    /// Whether it is the same source.
    pub fn is(&self, r: &Request) -> bool {
        match *self {
            Msi::Plain { function, .. } => function == r.function && r.table_base == 0,
            Msi::Table { function, entry, .. } => function == r.function && entry == r.entry && r.table_base != 0,
        }
    }

    /// Writes the message.
    pub fn set_message(&self, c: &impl Config, vector: u8, apic: u8) {
        let (address, data) = message(vector, apic);
        match *self {
            Msi::Plain { function: f, cap } => {
                let control = c.read16(f, cap + 2);
                c.write(f, cap + 2, 2, u32::from(control & !MSI_ENABLED_MESSAGES));
                c.write(f, cap + 4, 4, address);
                if control & MSI_64 != 0 {
                    c.write(f, cap + 8, 4, 0);
                    c.write(f, cap + 12, 2, data);
                } else {
                    c.write(f, cap + 8, 2, data);
                }
            }
            Msi::Table { va, .. } => {
                table_write(va, address);
                table_write(va + 4, 0);
                table_write(va + 8, data);
            }
        }
    }

    /// Keeps it quiet, or lets it go. A function without a mask register is switched off instead.
    pub fn set_mask(&self, c: &impl Config, masked: bool) {
        match *self {
            Msi::Plain { function: f, cap } => {
                let control = c.read16(f, cap + 2);
                if control & MSI_MASKABLE != 0 {
                    let at = cap + if control & MSI_64 != 0 { 16 } else { 12 };
                    let bits = c.read32(f, at);
                    c.write(f, at, 4, if masked { bits | 1 } else { bits & !1 });
                }
                if masked {
                    if control & MSI_MASKABLE == 0 {
                        c.write(f, cap + 2, 2, u32::from(control & !MSI_ENABLE));
                    }
                } else {
                    c.write(f, cap + 2, 2, u32::from(control | MSI_ENABLE));
                }
            }
            // Vector control: bit 0 masks, the rest is reserved.
            Msi::Table { va, .. } => table_write(va + 12, masked.into()),
        }
    }
}

/// Writes a word of an MSI-X table.
fn table_write(va: u64, v: u32) {
    #[cfg(target_os = "none")]
    // SAFETY: inside a table mapped by `Maps::get` for ever.
    unsafe {
        (va as *mut u32).write_volatile(v);
    }
    let _ = (va, v);
}

/// Whether a write of `size` bytes at `offset` would touch a message or a mask: everything of the MSI capability behind
/// its control word. (The tables' BARs and MSI-X' control word are dom0's.)
pub fn is_ours(c: &impl Config, f: Function, offset: u16, size: usize) -> bool {
    let Some(cap) = c.capability(f, CAP_MSI) else {
        return false;
    };
    let control = c.read16(f, cap + 2);
    let mut end = cap + if control & MSI_64 != 0 { 14 } else { 10 };
    if control & MSI_MASKABLE != 0 {
        end = cap + if control & MSI_64 != 0 { 20 } else { 16 };
    }
    offset < end && offset + size as u16 > cap + 4
}

/// dom0 may map the pages of a table read-only from now on.
fn protect(pa: u64, len: u64) -> Result<(), Errno> {
    mm::device::read_only(Mfn(pa >> 12), Mfn(pa.saturating_add(len).saturating_sub(1) >> 12)).map_err(|_| Errno::ENOMEM)
}

/// A device appeared: its MSI-X table, if it has one, is read-only for dom0 from now on.
///
/// # Errors
/// `ENOMEM`: the table could not be noted down.
pub fn protect_table(c: &impl Config, f: Function) -> Result<(), Errno> {
    table(c, f, 0).map_or(Ok(()), |(pa, entries)| protect(pa, u64::from(entries) * ENTRY))
}

#[cfg(test)]
mod tests {
    use super::super::pci::testing::Fake;
    use super::*;

    const F: Function = Function { segment: 0, bus: 1, devfn: 8 };

    fn with_msi(control: [u8; 2]) -> Fake {
        Fake::new(&[(0, &[1, 2, 3, 4]), (6, &[0x10]), (0x34, &[0x50]), (0x50, &[CAP_MSI, 0, control[0], control[1]])])
    }

    #[test]
    fn messages() {
        assert_eq!(message(0x41, 0), (0xfee0_0000, 0x41));
        assert_eq!(message(0xef, 5), (0xfee0_5000, 0xef));
    }

    #[test]
    fn plain_64_bit_maskable() {
        let dev = with_msi([0xb0, 1]); // 64-bit, maskable, 8 messages enabled
        let r = Request { function: F, entry: 0, table_base: 0 };
        let m = Msi::set_up(&dev, &mut Maps::new(), r).unwrap();
        assert!(m.is(&r) && !m.is(&Request { table_base: 1, ..r }));
        assert_eq!(dev.at(0x60, 1), [1], "masked at first");
        m.set_message(&dev, 0x41, 2);
        assert_eq!(dev.at(0x52, 2), [0x80, 1], "one message");
        assert_eq!(dev.at(0x54, 4), 0xfee0_2000u32.to_le_bytes());
        assert_eq!(dev.at(0x58, 6), [0, 0, 0, 0, 0x41, 0]);
        m.set_mask(&dev, false);
        assert_eq!(dev.at(0x60, 1), [0]);
        assert_eq!(dev.at(0x52, 1), [0x81]);
    }

    #[test]
    fn plain_32_bit_without_mask() {
        let dev = with_msi([1, 0]);
        let m = Msi::set_up(&dev, &mut Maps::new(), Request { function: F, entry: 0, table_base: 0 }).unwrap();
        assert_eq!(dev.at(0x52, 1), [0], "switched off");
        m.set_message(&dev, 0x42, 0);
        assert_eq!(dev.at(0x58, 2), [0x42, 0]);
        m.set_mask(&dev, false);
        assert_eq!(dev.at(0x52, 1), [1]);
    }

    #[test]
    fn refused() {
        let none = Fake::new(&[(0, &[1, 2, 3, 4])]);
        let r = Request { function: F, entry: 0, table_base: 0 };
        assert_eq!(Msi::set_up(&none, &mut Maps::new(), r), Err(Errno::ENODEV));
        // An MSI-X table of two entries at BAR 0 + 0x1000.
        let dev = Fake::new(&[
            (0, &[1, 2, 3, 4]),
            (6, &[0x10]),
            (0x34, &[0x50]),
            (0x50, &[CAP_MSIX, 0, 1, 0, 0, 0x10, 0, 0]),
            (0x10, &[0, 0, 0, 0xfe]),
        ]);
        assert_eq!(table(&dev, F, 0), Some((0xfe00_1000, 2)));
        assert!(!mm::device::is_read_only(Mfn(0xfe001)));
        assert_eq!(protect_table(&dev, F), Ok(()));
        assert!(mm::device::is_read_only(Mfn(0xfe001)) && !mm::device::is_read_only(Mfn(0xfe002)));
        assert_eq!(protect_table(&none, F), Ok(()), "nothing to protect");
        let r = Request { function: F, entry: 2, table_base: 0xfe00_0000 };
        assert_eq!(Msi::set_up(&dev, &mut Maps::new(), r), Err(Errno::EINVAL));
    }

    #[test]
    fn dom0_may_write_control_but_not_messages() {
        let dev = with_msi([0x80, 0]);
        for (offset, size, ours) in
            [(0x52, 2, false), (0x50, 4, false), (0x54, 4, true), (0x5c, 2, true), (0x52, 4, true), (0x5e, 2, false)]
        {
            assert_eq!(is_ours(&dev, F, offset, size), ours, "{offset:#x}");
        }
    }
}
