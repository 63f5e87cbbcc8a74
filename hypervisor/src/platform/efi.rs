//! What UEFI firmware tells about itself, for dom0: a PV kernel finds ACPI's and SMBIOS' tables through it.
//!
//! The loader has left the boot services, and nobody calls the runtime services: the machine's clock, reset and
//! power-off work without them. Layouts: UEFI 2.10, 4.2 (table header), 4.3 (system table).

use arrayvec::ArrayVec;
use boot::multiboot::EfiRange;
use spin::Once;

/// The parts of the system table that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemTable {
    /// UEFI's version: major in the upper half, 10 * minor in the lower.
    pub revision: u32,
    /// Version of the runtime services' table, the same way; 0 if it cannot be read.
    pub runtime_revision: u32,
    /// Who made the firmware: UTF-16 without the NUL at the end; cut if it is long.
    pub vendor: ArrayVec<u16, 100>,
    /// The maker's own number for it.
    pub vendor_revision: u32,
    /// Machine address of the configuration tables' list.
    pub tables: u64,
    /// Entries of that list.
    pub table_count: u32,
}

static TABLE: Once<SystemTable> = Once::new();
static RANGES: Once<&'static [EfiRange]> = Once::new();

/// The system table; `None` on a machine that a BIOS started.
pub fn system_table() -> Option<&'static SystemTable> {
    TABLE.get()
}

/// The firmware's description of the memory at `address`.
pub fn range_of(address: u64) -> Option<EfiRange> {
    RANGES.get()?.iter().find(|r| r.base <= address && address - r.base < r.len).copied()
}

/// Bytes of the system table.
const SYSTEM_TABLE: usize = 120;
/// Bytes of any table's header.
const HEADER: usize = 24;

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl SystemTable {
    /// Reads the table at `at`; `read` gives bytes of machine memory.
    pub fn read<'a>(at: u64, read: impl Fn(u64, usize) -> Option<&'a [u8]>) -> Option<SystemTable> {
        let b = read(at, SYSTEM_TABLE)?;
        if b.get(..8)? != b"IBI SYST" {
            return None;
        }
        let runtime = read(u64_at(b, 88)?, HEADER).filter(|h| h.get(..8) == Some(b"RUNTSERV"));
        let mut t = SystemTable {
            revision: u32_at(b, 8)?,
            runtime_revision: runtime.and_then(|h| u32_at(h, 8)).unwrap_or(0),
            vendor: ArrayVec::new(),
            vendor_revision: u32_at(b, 32)?,
            tables: u64_at(b, 112)?,
            table_count: u32::try_from(u64_at(b, 104)?).ok()?,
        };
        let vendor = u64_at(b, 24)?;
        for n in 0..t.vendor.capacity() as u64 {
            let Some(&[low, high]) = vendor.checked_add(2 * n).and_then(|at| read(at, 2)) else {
                break;
            };
            match u16::from_le_bytes([low, high]) {
                0 => break,
                unit => t.vendor.push(unit),
            }
        }
        Some(t)
    }
}

/// Reads the system table at `at`, and keeps the memory map. Boot CPU, once, with the page allocator running.
#[cfg(target_os = "none")]
pub fn init(at: u64, ranges: &'static [EfiRange]) {
    match SystemTable::read(at, super::acpi::firmware_memory) {
        Some(t) => {
            log::info!("UEFI {}.{}", t.revision >> 16, (t.revision & 0xffff) / 10);
            TABLE.call_once(|| t);
            RANGES.call_once(|| ranges);
        }
        None => log::warn!("the UEFI system table at {at:#x} cannot be read: dom0 will find no ACPI tables"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from 0x1000 on: the system table, the runtime services' header, the vendor's name.
    fn memory() -> Vec<u8> {
        let mut m = vec![0; 0x300];
        let mut put = |at: usize, bytes: &[u8]| m[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"IBI SYST");
        put(8, &(2u32 << 16 | 70).to_le_bytes());
        put(24, &0x1200u64.to_le_bytes());
        put(32, &7u32.to_le_bytes());
        put(88, &0x1100u64.to_le_bytes());
        put(104, &9u64.to_le_bytes());
        put(112, &0x7ff_1234u64.to_le_bytes());
        put(0x100, b"RUNTSERV");
        put(0x108, &(2u32 << 16 | 60).to_le_bytes());
        put(0x200, &[b'E', 0, b'D', 0, b'K', 0]);
        m
    }

    fn table(m: &[u8]) -> Option<SystemTable> {
        SystemTable::read(0x1000, |at, len| m.get((at as usize).checked_sub(0x1000)?..)?.get(..len))
    }

    #[test]
    fn a_table_is_read() {
        let t = table(&memory()).unwrap();
        assert_eq!((t.revision, t.runtime_revision, t.vendor_revision), (0x2_0046, 0x2_003c, 7));
        assert_eq!((t.tables, t.table_count), (0x7ff_1234, 9));
        assert_eq!(String::from_utf16(&t.vendor).unwrap(), "EDK");
    }

    #[test]
    fn what_is_wrong_is_refused_or_left_out() {
        let mut m = memory();
        m[0x100] = b'x';
        m[24] = 0xff; // the vendor's name ends with the memory
        m[25] = 0x12;
        let t = table(&m).unwrap();
        assert_eq!((t.runtime_revision, t.vendor.len()), (0, 0));
        m[0] = b'x';
        assert_eq!(table(&m), None);
        assert_eq!(table(&memory()[..119]), None);
        let long = memory().into_iter().take(0x200).chain([b'x', 0].repeat(300)).collect::<Vec<_>>();
        assert_eq!(table(&long).unwrap().vendor.len(), 100);
    }
}
