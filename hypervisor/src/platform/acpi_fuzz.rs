//! The table reader against firmware made up by chance: whole tables must be read as they were meant, damaged ones must do
//! no harm and take bounded effort.

use std::cell::Cell;
use std::time::Duration;

use fuzzing::{Fuzzer, Rng, mutate};

use super::tests::{BASE, Firmware, S5, fadt_body, rsdp, seal};
use super::*;

const TARGET: &str = "-p hypervisor --lib";

/// A MADT's body and what is to be read from it.
fn madt(rng: &mut Rng) -> (Vec<u8>, Tables) {
    let mut expected = Tables::default();
    let mut body = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    let many = rng.one_in(20);
    let most = if many { 600 } else { 24 };
    for _ in 0..rng.below(most) {
        match rng.below(6) {
            0 | 1 => {
                let flags = rng.below(4) as u32;
                let (acpi_id, apic_id) = (rng.bits() as u8, if many { rng.bits() as u8 } else { rng.below(12) as u8 });
                body.extend([0, 8, acpi_id, apic_id]);
                body.extend(flags.to_le_bytes());
                expect_cpu(&mut expected, Cpu { apic_id: apic_id.into(), acpi_id: acpi_id.into() }, flags);
            }
            2 => {
                let (apic_id, acpi_id, flags) = (rng.number() as u32, rng.bits() as u32, rng.below(4) as u32);
                body.extend([9, 16, 0, 0]);
                body.extend([apic_id, flags, acpi_id].map(u32::to_le_bytes).concat());
                expect_cpu(&mut expected, Cpu { apic_id, acpi_id }, flags);
            }
            3 => {
                let (address, gsi_base) = (rng.bits() as u32, rng.number() as u32);
                body.extend([1, 12, 0, 0]);
                body.extend([address, gsi_base].map(u32::to_le_bytes).concat());
                let _ = expected.ioapics.try_push(IoApicEntry { address: address.into(), gsi_base });
            }
            4 => {
                let (bus, irq, gsi, flags) =
                    (rng.below(2) as u8, rng.below(16) as u8, rng.number() as u32, rng.bits() as u16);
                body.extend([2, 10, bus, irq]);
                body.extend(gsi.to_le_bytes());
                body.extend(flags.to_le_bytes());
                if bus == 0 {
                    let _ = expected.overrides.try_push(Override { irq, gsi, flags });
                }
            }
            _ => {
                // A kind we do not know, or one that is too short for what it is.
                let content = rng.bytes(6);
                body.extend([*rng.pick(&[4, 7, 12, 0, 1, 9]), content.len() as u8 + 2]);
                if body[body.len() - 2] < 4 && content.len() == 6 {
                    let len = body.len();
                    body[len - 2] = 12;
                }
                body.extend(content);
            }
        }
    }
    (body, expected)
}

fn expect_cpu(t: &mut Tables, cpu: Cpu, flags: u32) {
    if flags & 1 != 0 && t.cpus.iter().all(|c| c.apic_id != cpu.apic_id) && t.cpus.try_push(cpu).is_err() {
        t.more_cpus += 1;
    }
}

/// What holds of all tables, whatever the firmware wrote.
fn check(t: &Tables, firmware: &Firmware) {
    let end = BASE + firmware.0.len() as u64;
    for (at, len) in &t.ranges {
        assert!(*len >= 36 && *at >= BASE && at + u64::from(*len) <= end, "a range that could not be read");
    }
    for (n, cpu) in t.cpus.iter().enumerate() {
        assert!(t.cpus.iter().skip(n + 1).all(|other| other.apic_id != cpu.apic_id), "a CPU is listed twice");
    }
    assert!(t.more_cpus == 0 || t.cpus.is_full());
    assert!(t.s5.is_none_or(|(a, b)| a < 8 && b < 8));
    if let Some(f) = t.fadt {
        let registers = f.pm1_control.iter().flatten().chain(&f.pm_timer).chain(f.reset.as_ref().map(|(r, _)| r));
        assert!(registers.into_iter().all(|r| !matches!(r, Register::Port(0) | Register::Memory(0))));
    }
}

/// Reads the tables, counting what is read: each table's head and body once.
fn read(root: u64, wide: bool, firmware: &Firmware) -> Option<Tables> {
    let reads = Cell::new(0);
    let tables = Tables::read(root, wide, |at, len| {
        reads.set(reads.get() + 1);
        firmware.read(at, len)
    });
    assert!(reads.get() <= 2 * (MOST_TABLES + 2), "{} reads", reads.get());
    if let Some(t) = &tables {
        check(t, firmware);
    }
    tables
}

fn fuzzer(name: &str, cases: u64) -> Fuzzer<'_> {
    Fuzzer { name, target: TARGET, cases, heap: 4 << 20, time: Duration::from_secs(2) }
}

#[test]
fn fuzz_acpi_tables() {
    fuzzer("fuzz_acpi_tables", 6000).run(|rng| {
        let (wide, whole) = (rng.one_in(2), rng.one_in(3));
        let mut f = Firmware(Vec::new());
        let damage = |rng: &mut Rng, mut body: Vec<u8>| {
            if !whole && rng.one_in(2) {
                mutate(rng, &mut body, &[&S5]);
            }
            body
        };
        let (values, s5) = (rng.below(8) as u8, [&b"junk"[..], &S5].concat());
        let mut aml = [&rng.bytes(40)[..], &s5].concat();
        let at = aml.len() - 3;
        aml[at] = values;
        let body = damage(rng, aml);
        let dsdt = f.add(b"DSDT", &body);
        let (body, expected) = madt(rng);
        let body = damage(rng, body);
        let mut entries = vec![f.add(b"APIC", &body)];
        let body = damage(rng, fadt_body(dsdt, wide));
        entries.push(f.add(b"FACP", &body));
        let segments = rng.below(20);
        let mut mcfg = vec![0u8; 8];
        for n in 0..segments {
            mcfg.extend(rng.bits().to_le_bytes());
            mcfg.extend([n as u8, 0, 0, rng.bits() as u8, 0, 0, 0, 0]);
        }
        let body = damage(rng, mcfg);
        entries.push(f.add(b"MCFG", &body));
        if !whole {
            // Tables that are there twice, not there, or far too many.
            let more = if rng.one_in(20) { 2000 } else { rng.below(4) };
            for _ in 0..more {
                entries.push(if rng.one_in(3) { rng.number() } else { *rng.pick(&entries) });
            }
        }
        let body: Vec<u8> = entries
            .iter()
            .flat_map(|e| if wide { e.to_le_bytes().to_vec() } else { (*e as u32).to_le_bytes().to_vec() })
            .collect();
        let root = f.add(if wide { b"XSDT" } else { b"RSDT" }, &body);
        let mut pointer = rsdp(root, wide);
        if !whole && rng.one_in(4) {
            // Lengths and checksums are wrong, too.
            mutate(rng, &mut f.0, &[]);
            mutate(rng, &mut pointer, &[]);
            if pointer.len() >= 36 && rng.one_in(2) {
                seal(&mut pointer[..20], 8);
                seal(&mut pointer[..36], 32);
            }
        }
        let Some((root, is_wide)) = root_of(&pointer) else {
            assert!(!whole);
            return false;
        };
        let tables = read(root, is_wide, &f);
        if whole {
            let t = tables.as_ref().expect("whole tables are read");
            assert_eq!(
                (&t.cpus, t.more_cpus, &t.ioapics, &t.overrides),
                (&expected.cpus, expected.more_cpus, &expected.ioapics, &expected.overrides)
            );
            assert_eq!((t.ecam.len(), t.s5, is_wide), (segments.min(16), Some((values, 0)), wide));
            assert_eq!(t.fadt.map(|f| (f.sci, f.dsdt)), Some((9, dsdt)));
        }
        tables.is_some()
    });
}

/// The search for the root pointer in a BIOS' memory.
#[test]
fn fuzz_acpi_root_pointer() {
    fuzzer("fuzz_acpi_root_pointer", 20_000).run(|rng| {
        let mut area = vec![0u8; rng.below(0x400)];
        let at = rng.below(0x400);
        let mut pointer = rsdp(rng.number(), rng.one_in(2));
        if rng.one_in(3) {
            mutate(rng, &mut pointer, &[]);
        }
        let end = (at + pointer.len()).min(area.len());
        if let Some(to) = area.get_mut(at..end) {
            to.copy_from_slice(&pointer[..to.len()]);
        }
        let found = scan(&area);
        if let Some(found) = found {
            assert!(found % 16 == 0 && area[found..].starts_with(b"RSD PTR "));
            assert!(
                root_of(&area[found..]).is_some_and(|(root, wide)| root != 0 && (wide || root <= u64::from(u32::MAX)))
            );
        }
        found.is_some()
    });
}

/// UEFI's system table.
#[test]
fn fuzz_efi_system_table() {
    use crate::platform::efi::SystemTable;
    fuzzer("fuzz_efi_system_table", 20_000).run(|rng| {
        let mut memory = vec![0u8; 0x300];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"IBI SYST");
        put(24, &(BASE + 0x200 + rng.below(0x110) as u64).to_le_bytes());
        put(88, &(BASE + 0x100).to_le_bytes());
        put(104, &rng.number().to_le_bytes());
        put(112, &rng.number().to_le_bytes());
        put(0x100, b"RUNTSERV");
        for at in (0x200..0x300).step_by(2).take(rng.below(128)) {
            put(at, &[b'a', 0]);
        }
        if rng.one_in(2) {
            mutate(rng, &mut memory, &[]);
        }
        let firmware = Firmware(memory);
        let reads = Cell::new(0);
        let table = SystemTable::read(BASE, |at, len| {
            reads.set(reads.get() + 1);
            firmware.read(at, len)
        });
        assert!(reads.get() <= 103, "{} reads", reads.get());
        assert!(table.as_ref().is_none_or(|t| !t.vendor.contains(&0)));
        table.is_some()
    });
}
