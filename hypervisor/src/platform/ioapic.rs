//! IOAPICs: where interrupt lines come in (82093AA data sheet). Only the hypervisor writes their entries.
//!
//! No locking here: [`super::irq`] owns all IOAPICs and calls under its lock.

use super::ioremap;
use arrayvec::ArrayVec;

/// When a line counts as asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// On its edge.
    Edge,
    /// As long as it is asserted.
    Level,
}

/// Which voltage asserts a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High.
    High,
    /// Low.
    Low,
}

/// A redirection entry: fixed delivery to one CPU, by its physical APIC id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Vector it raises.
    pub vector: u8,
    /// APIC id of the CPU.
    pub destination: u8,
    /// How the line asks.
    pub trigger: Trigger,
    /// How the line is wired.
    pub polarity: Polarity,
    /// Whether it is kept quiet.
    pub masked: bool,
}

impl Entry {
    /// The two register words, low one first.
    pub const fn encode(self) -> (u32, u32) {
        let low = self.vector as u32
            | match self.polarity {
                Polarity::High => 0,
                Polarity::Low => 1 << 13,
            }
            | match self.trigger {
                Trigger::Edge => 0,
                Trigger::Level => 1 << 15,
            }
            | (self.masked as u32) << 16;
        (low, (self.destination as u32) << 24)
    }
}

/// Register numbers.
const ID: u32 = 0;
const VERSION: u32 = 1;
const ARBITRATION: u32 = 2;
const TABLE: u32 = 0x10;

/// One IOAPIC.
pub struct IoApic {
    /// Machine address of its registers.
    pub phys: u64,
    /// First global interrupt number.
    pub gsi_base: u32,
    /// Lines it has.
    pub pins: u32,
    #[cfg(target_os = "none")]
    va: u64,
    #[cfg(not(target_os = "none"))]
    fake: [u32; 0x40],
}

impl IoApic {
    /// Maps the IOAPIC at `phys` and masks all its lines. `None` when it cannot be mapped or is not there.
    #[cfg(target_os = "none")]
    pub fn new(phys: u64, gsi_base: u32) -> Option<Self> {
        // SAFETY: the firmware says that an IOAPIC's registers are there.
        let va = unsafe { ioremap::map(phys, 0x20, ioremap::Caching::Uncached)? };
        let mut me = IoApic { phys, gsi_base, pins: 0, va };
        let version = me.read(VERSION);
        if version == u32::MAX {
            return None;
        }
        me.pins = (version >> 16 & 0xff) + 1;
        for pin in 0..me.pins {
            me.write(TABLE + 2 * pin, 1 << 16);
        }
        Some(me)
    }

    /// A pretended IOAPIC of 24 lines, for host tests.
    #[cfg(not(target_os = "none"))]
    pub fn new(phys: u64, gsi_base: u32) -> Option<Self> {
        let _ = ioremap::Caching::Uncached;
        Some(IoApic { phys, gsi_base, pins: 24, fake: [1 << 16; 0x40] })
    }

    #[cfg(target_os = "none")]
    fn read(&self, reg: u32) -> u32 {
        // SAFETY: mapped by `new`; index and data register (the owner's lock keeps them together).
        unsafe {
            (self.va as *mut u32).write_volatile(reg);
            ((self.va + 0x10) as *const u32).read_volatile()
        }
    }

    #[cfg(target_os = "none")]
    fn write(&mut self, reg: u32, value: u32) {
        // SAFETY: as in `read`; values are composed by `Entry::encode`.
        unsafe {
            (self.va as *mut u32).write_volatile(reg);
            ((self.va + 0x10) as *mut u32).write_volatile(value);
        }
    }

    #[cfg(not(target_os = "none"))]
    fn read(&self, reg: u32) -> u32 {
        self.fake.get(reg as usize).copied().unwrap_or(0)
    }

    #[cfg(not(target_os = "none"))]
    fn write(&mut self, reg: u32, value: u32) {
        if let Some(r) = self.fake.get_mut(reg as usize) {
            *r = value;
        }
    }

    /// Programs a line.
    pub fn set(&mut self, pin: u32, e: Entry) {
        if pin >= self.pins {
            return;
        }
        let (low, high) = e.encode();
        // Masked while the halves do not fit together.
        self.write(TABLE + 2 * pin, low | 1 << 16);
        self.write(TABLE + 2 * pin + 1, high);
        if !e.masked {
            self.write(TABLE + 2 * pin, low);
        }
    }

    /// Masks a line that is programmed as `e`, or lets it go again: one register write.
    pub fn set_mask(&mut self, pin: u32, e: Entry, masked: bool) {
        if pin < self.pins {
            self.write(TABLE + 2 * pin, Entry { masked, ..e }.encode().0);
        }
    }

    /// A register as dom0 may read it (PHYSDEVOP_apic_read).
    pub fn register(&self, reg: u32) -> Option<u32> {
        let known = matches!(reg, ID | VERSION | ARBITRATION) || (TABLE..TABLE + 2 * self.pins).contains(&reg);
        known.then(|| self.read(reg))
    }
}

/// Finds the IOAPIC and line of a global interrupt.
pub fn find(all: &mut ArrayVec<IoApic, 16>, gsi: u32) -> Option<(&mut IoApic, u32)> {
    all.iter_mut().find_map(|a| {
        let pin = gsi.checked_sub(a.gsi_base)?;
        (pin < a.pins).then_some((a, pin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_as_the_data_sheet_says() {
        let e = Entry { vector: 0x41, destination: 3, trigger: Trigger::Edge, polarity: Polarity::High, masked: false };
        assert_eq!(e.encode(), (0x41, 0x0300_0000));
        let e = Entry { trigger: Trigger::Level, polarity: Polarity::Low, masked: true, ..e };
        assert_eq!(e.encode(), (0x1_a041, 0x0300_0000));
    }

    #[test]
    fn lines_are_found_and_masked() {
        let mut all = ArrayVec::new();
        all.push(IoApic::new(0xfec0_0000, 0).unwrap());
        all.push(IoApic::new(0xfec0_1000, 24).unwrap());
        assert!(find(&mut all, 48).is_none());
        let (a, pin) = find(&mut all, 26).unwrap();
        assert_eq!((a.phys, pin), (0xfec0_1000, 2));
        let e = Entry { vector: 0x50, destination: 0, trigger: Trigger::Level, polarity: Polarity::Low, masked: false };
        a.set(pin, e);
        assert_eq!(a.register(0x14), Some(0xa050));
        a.set_mask(pin, e, true);
        assert_eq!(a.register(0x14), Some(0x1_a050));
        a.set_mask(pin, e, false);
        assert_eq!(a.register(0x14), Some(0xa050));
        assert_eq!(a.register(0x40), None);
    }
}
