//! ACPI's static tables: CPUs, interrupt controllers, power registers, PCI configuration space. (AML is dom0's.)
//!
//! The tables are read by own code over byte slices: it is total, whatever a firmware wrote; the crate `acpi` (5.2.0,
//! the only version for stable without an allocator) subtracts lengths unchecked and reads old tables past their end.

use arrayvec::ArrayVec;
use spin::Once;

/// A CPU as the MADT lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Local APIC id.
    pub apic_id: u32,
    /// Processor UID: how AML names it.
    pub acpi_id: u32,
}

/// An IOAPIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicEntry {
    /// Machine address of its registers.
    pub address: u64,
    /// First global interrupt number.
    pub gsi_base: u32,
}

/// An ISA interrupt that is wired otherwise than to the line of its own number, edge-triggered, active high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA number.
    pub irq: u8,
    /// Global number.
    pub gsi: u32,
    /// MPS INTI flags: bits 0-1 polarity (3 = low), bits 2-3 trigger (3 = level).
    pub flags: u16,
}

/// A piece of memory-mapped PCI configuration space (MCFG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Machine address of bus 0's space.
    pub base: u64,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// Where a register is (generic address structure, or a port of the old fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// A machine address.
    Memory(u64),
}

/// What matters of the FADT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// System control interrupt (ISA number).
    pub sci: u16,
    /// Where the DSDT is.
    pub dsdt: u64,
    /// PM1a and PM1b control registers.
    pub pm1_control: [Option<Register>; 2],
    /// The 3.58 MHz timer.
    pub pm_timer: Option<Register>,
    /// Reset register and the value that resets.
    pub reset: Option<(Register, u8)>,
    /// CMOS register of the century, 0 if none.
    pub century: u8,
}

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// CPUs that may be used, in the order of the table.
    pub cpus: ArrayVec<Cpu, 256>,
    /// CPUs that are there but more than we can list.
    pub more_cpus: u32,
    /// IOAPICs.
    pub ioapics: ArrayVec<IoApicEntry, 16>,
    /// ISA exceptions.
    pub overrides: ArrayVec<Override, 32>,
    /// Fixed hardware.
    pub fadt: Option<Fadt>,
    /// PCI configuration space.
    pub ecam: ArrayVec<Ecam, 16>,
    /// `(SLP_TYPa, SLP_TYPb)` of S5, if the DSDT says it plainly.
    pub s5: Option<(u8, u8)>,
    /// Every table: machine address and bytes.
    pub ranges: ArrayVec<(u64, u32), 96>,
}

static TABLES: Once<Tables> = Once::new();

/// What the machine's tables say; before [`init`], and on machines without ACPI, nothing.
pub fn tables() -> &'static Tables {
    static NONE: Once<Tables> = Once::new();
    TABLES.get().unwrap_or_else(|| NONE.call_once(Tables::default))
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn sums_to_zero(b: &[u8]) -> bool {
    b.iter().fold(0u8, |s, x| s.wrapping_add(*x)) == 0
}

/// Bytes of a table's header.
const HEADER: usize = 36;
/// Longer tables are not believed.
const LONGEST: u32 = 16 << 20;
/// Tables beyond that are not looked at: a root table that is damaged may name the same one two million times.
const MOST_TABLES: usize = 256;

/// The root table an RSDP names: its address, and whether entries have 8 bytes (XSDT).
pub fn root_of(rsdp: &[u8]) -> Option<(u64, bool)> {
    if rsdp.get(..8)? != b"RSD PTR " || !sums_to_zero(rsdp.get(..20)?) {
        return None;
    }
    if *rsdp.get(15)? >= 2
        && let Some(xsdt) = u64_at(rsdp, 24).filter(|a| *a != 0)
        && sums_to_zero(rsdp.get(..36)?)
    {
        return Some((xsdt, true));
    }
    u32_at(rsdp, 16).filter(|a| *a != 0).map(|a| (a.into(), false))
}

/// Finds the RSDP in a piece of BIOS memory: it stands on a 16-byte boundary. Gives its offset.
pub fn scan(memory: &[u8]) -> Option<usize> {
    (0..memory.len()).step_by(16).find(|at| memory.get(*at..).is_some_and(|m| root_of(m).is_some()))
}

impl Tables {
    /// Reads everything from the root table at `root` on; `wide`: it is an XSDT. `read` gives `len` bytes of machine
    /// memory.
    pub fn read<'a>(root: u64, wide: bool, read: impl Fn(u64, usize) -> Option<&'a [u8]>) -> Option<Tables> {
        let table = |at: u64| -> Option<&'a [u8]> {
            let len = u32_at(read(at, HEADER)?, 4).filter(|l| *l >= HEADER as u32 && *l <= LONGEST)?;
            read(at, len as usize)
        };
        let mut t = Tables::default();
        let root_table = table(root).filter(|b| sums_to_zero(b))?;
        let _ = t.ranges.try_push((root, root_table.len() as u32));
        for entry in root_table.get(HEADER..)?.chunks_exact(if wide { 8 } else { 4 }).take(MOST_TABLES) {
            let at = if wide { u64_at(entry, 0) } else { u32_at(entry, 0).map(u64::from) }.unwrap_or(0);
            let Some(b) = table(at) else { continue };
            let _ = t.ranges.try_push((at, b.len() as u32));
            let signature = b.get(..4).unwrap_or_default();
            if !sums_to_zero(b) {
                log::warn!("ACPI table {} at {at:#x} has a bad checksum; not used", signature.escape_ascii());
                continue;
            }
            match signature {
                b"APIC" => t.madt(b),
                b"FACP" => t.fadt = fadt(b),
                b"MCFG" => t.mcfg(b),
                _ => {}
            }
        }
        if let Some(f) = t.fadt
            && let Some(dsdt) = table(f.dsdt)
        {
            let _ = t.ranges.try_push((f.dsdt, dsdt.len() as u32));
            t.s5 = dsdt.get(HEADER..).and_then(s5);
        }
        Some(t)
    }

    /// MADT (ACPI 6.5 §5.2.12).
    fn madt(&mut self, b: &[u8]) {
        let mut at = HEADER + 8;
        while let (Some(&kind), Some(&len)) = (b.get(at), b.get(at + 1)) {
            let Some(e) = b.get(at..at + usize::from(len)).filter(|_| len >= 2) else {
                break;
            };
            self.madt_entry(kind, e);
            at += usize::from(len);
        }
    }

    fn madt_entry(&mut self, kind: u8, e: &[u8]) -> Option<()> {
        match kind {
            0 => self.cpu(Cpu { acpi_id: (*e.get(2)?).into(), apic_id: (*e.get(3)?).into() }, u32_at(e, 4)?),
            9 => self.cpu(Cpu { apic_id: u32_at(e, 4)?, acpi_id: u32_at(e, 12)? }, u32_at(e, 8)?),
            1 => {
                let a = IoApicEntry { address: u32_at(e, 4)?.into(), gsi_base: u32_at(e, 8)? };
                let _ = self.ioapics.try_push(a);
            }
            2 if *e.get(2)? == 0 => {
                let o = Override { irq: *e.get(3)?, gsi: u32_at(e, 4)?, flags: u16_at(e, 8)? };
                let _ = self.overrides.try_push(o);
            }
            _ => {}
        }
        Some(())
    }

    fn cpu(&mut self, c: Cpu, flags: u32) {
        // Bit 0: enabled. What is only "online capable" (bit 1) has nothing to run on yet.
        if flags & 1 != 0 && !self.cpus.iter().any(|o| o.apic_id == c.apic_id) && self.cpus.try_push(c).is_err() {
            self.more_cpus += 1;
        }
    }

    fn mcfg(&mut self, b: &[u8]) {
        for e in b.get(HEADER + 8..).unwrap_or_default().chunks_exact(16) {
            if let (Some(base), Some(segment), [.., first_bus, last_bus, _, _, _, _]) = (u64_at(e, 0), u16_at(e, 8), e)
            {
                let _ = self.ecam.try_push(Ecam { base, segment, first_bus: *first_bus, last_bus: *last_bus });
            }
        }
    }

    /// The override of ISA interrupt `irq`, if there is one.
    pub fn isa(&self, irq: u8) -> Option<&Override> {
        self.overrides.iter().find(|o| o.irq == irq)
    }
}

/// A generic address structure.
fn generic(b: &[u8], at: usize) -> Option<Register> {
    let address = u64_at(b, at.checked_add(4)?).filter(|a| *a != 0)?;
    match *b.get(at)? {
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

/// FADT (ACPI 6.5 §5.2.9). Extended fields count where the table is long enough to have them.
fn fadt(b: &[u8]) -> Option<Fadt> {
    let port = |at| u32_at(b, at).filter(|p| *p != 0).and_then(|p| u16::try_from(p).ok()).map(Register::Port);
    Some(Fadt {
        dsdt: u64_at(b, 140).filter(|a| *a != 0).or(u32_at(b, 40).map(u64::from))?,
        sci: u16_at(b, 46)?,
        pm1_control: [generic(b, 172).or(port(64)), generic(b, 184).or(port(68))],
        pm_timer: generic(b, 208).or(port(76)),
        century: b.get(108).copied().unwrap_or(0),
        // Flag bit 10: the reset register exists.
        reset: u32_at(b, 112).filter(|flags| flags & 1 << 10 != 0).and_then(|_| Some((generic(b, 116)?, *b.get(128)?))),
    })
}

/// Finds `Name (_S5_, Package () { a, b, .. })` in AML, without interpreting it: that form is what firmwares write.
fn s5(aml: &[u8]) -> Option<(u8, u8)> {
    let at = aml.windows(4).position(|w| w == b"_S5_")?;
    let b = aml.get(at + 4..)?;
    // PackageOp, PkgLength (1 to 4 bytes, bits 6-7 of the first say how many follow), NumElements.
    if *b.first()? != 0x12 {
        return None;
    }
    let mut i = 2 + usize::from(*b.get(1)? >> 6);
    let count = *b.get(i)?;
    i += 1;
    let mut value = || -> Option<u8> {
        let op = *b.get(i)?;
        i += 1;
        match op {
            0x00 => Some(0),
            0x01 => Some(1),
            0x0a => {
                i += 1;
                b.get(i - 1).copied()
            }
            _ => None,
        }
    };
    let a = value()?;
    let second = if count > 1 { value()? } else { a };
    (a < 8 && second < 8).then_some((a, second))
}

#[cfg(target_os = "none")]
mod hardware {
    use super::*;
    use crate::platform::ioremap::{self, Caching};
    use x86_64::instructions::port::Port;

    /// Bytes of the firmware's tables. What [`ioremap::map`] asks of its caller holds during boot.
    pub(in crate::platform) fn firmware_memory(at: u64, len: usize) -> Option<&'static [u8]> {
        // SAFETY: firmware tables, mapped read-only for ever; nobody writes them once the firmware has handed over.
        unsafe {
            let va = ioremap::map(at, len as u64, Caching::WriteBack)?;
            Some(core::slice::from_raw_parts(va as *const u8, len))
        }
    }

    /// Reads the tables. `root` is the root table the loader's RSDP names (and whether it is an XSDT); without one the
    /// areas of a BIOS are searched, if a `bios` started the machine. Boot CPU, once, with the page allocator running.
    pub fn init(root: Option<(u64, bool)>, bios: bool) {
        let found = root
            .or_else(|| if bios { search() } else { None })
            .and_then(|(at, wide)| Tables::read(at, wide, firmware_memory));
        match found {
            Some(t) => {
                log::info!("ACPI: {} CPUs, {} IOAPICs, {} tables", t.cpus.len(), t.ioapics.len(), t.ranges.len());
                TABLES.call_once(|| t);
            }
            None => log::warn!("no ACPI tables: one CPU, and no interrupts of devices"),
        }
    }

    /// Looks for an RSDP where a BIOS puts it: the first KiB of its extended data area, or its ROM.
    fn search() -> Option<(u64, bool)> {
        let in_area = |at, len| {
            let area = firmware_memory(at, len)?;
            root_of(area.get(scan(area)?..)?)
        };
        let ebda = firmware_memory(0x40e, 2).and_then(|b| u16_at(b, 0)).map_or(0, |s| u64::from(s) << 4);
        let in_ebda = if (0x8_0000..0xa_0000).contains(&ebda) { in_area(ebda, 1024) } else { None };
        in_ebda.or_else(|| in_area(0xe_0000, 0x2_0000))
    }

    /// A byte of BIOS data below 1 MiB.
    pub fn bios_byte(at: u16) -> Option<u8> {
        firmware_memory(at.into(), 1)?.first().copied()
    }

    fn read16(r: Register) -> u16 {
        match r {
            // SAFETY: the FADT says that this is a PM1 control register; reading has no effect.
            Register::Port(p) => unsafe { Port::<u16>::new(p).read() },
            Register::Memory(at) => {
                // SAFETY: as above.
                unsafe { ioremap::map(at, 2, Caching::Uncached).map_or(0, |va| (va as *const u16).read_volatile()) }
            }
        }
    }

    fn write16(r: Register, v: u16) {
        match r {
            // SAFETY: as in `read16`; the caller means to change the machine's power state.
            Register::Port(p) => unsafe { Port::<u16>::new(p).write(v) },
            Register::Memory(at) => {
                // SAFETY: as above.
                unsafe {
                    if let Some(va) = ioremap::map(at, 2, Caching::Uncached) {
                        (va as *mut u16).write_volatile(v);
                    }
                }
            }
        }
    }

    /// PM1 control: sleep type (bits 10-12) and sleep enable (bit 13).
    const SLEEP_TYPE: u16 = 7 << 10;
    const SLEEP_ENABLE: u16 = 1 << 13;

    /// Writes PM1 control values for S5; returns only if the machine stays on.
    pub fn enter_s5(values: [u16; 2]) {
        let Some(f) = tables().fadt else { return };
        // Type first, then type with enable, as ACPI 6.5 §16.1.2 has it.
        for enable in [0, SLEEP_ENABLE] {
            for (register, value) in f.pm1_control.iter().zip(values) {
                if let Some(r) = *register {
                    write16(r, value & !SLEEP_ENABLE | enable);
                }
            }
        }
        for _ in 0..10_000_000 {
            core::hint::spin_loop();
        }
    }

    /// Powers off with the sleep types of the DSDT; returns if that is not possible.
    pub fn power_off() {
        let t = tables();
        let (Some((a, b)), Some(f)) = (t.s5, t.fadt) else {
            return;
        };
        let value = |r: Option<Register>, kind: u8| r.map_or(0, read16) & !SLEEP_TYPE | u16::from(kind) << 10;
        let [pm1a, pm1b] = f.pm1_control;
        enter_s5([value(pm1a, a), value(pm1b, b)]);
    }

    /// Resets through the FADT's register; returns if there is none, or it does not work.
    pub fn reset() {
        let Some((register, value)) = tables().fadt.and_then(|f| f.reset) else {
            return;
        };
        // SAFETY: the FADT says that this write resets the machine.
        unsafe {
            match register {
                Register::Port(p) => Port::<u8>::new(p).write(value),
                Register::Memory(at) => {
                    if let Some(va) = ioremap::map(at, 1, Caching::Uncached) {
                        (va as *mut u8).write_volatile(value);
                    }
                }
            }
        }
        for _ in 0..1_000_000 {
            core::hint::spin_loop();
        }
    }
}

#[cfg(target_os = "none")]
pub(in crate::platform) use hardware::firmware_memory;
#[cfg(target_os = "none")]
pub use hardware::{bios_byte, enter_s5, init, power_off, reset};

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "acpi_fuzz.rs"]
mod fuzz;
