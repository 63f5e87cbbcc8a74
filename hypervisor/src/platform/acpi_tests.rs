//! The table reader against made-up firmware, good and bad.

use super::*;
use std::vec;
use std::vec::Vec;

/// Machine memory from address 0x1000 on.
pub(super) struct Firmware(pub(super) Vec<u8>);
pub(super) const BASE: u64 = 0x1000;

pub(super) fn seal(t: &mut [u8], at: usize) {
    t[at] = 0;
    t[at] = 0u8.wrapping_sub(t.iter().fold(0, |s: u8, x| s.wrapping_add(*x)));
}

impl Firmware {
    pub(super) fn add(&mut self, signature: &[u8; 4], body: &[u8]) -> u64 {
        let mut t = vec![0u8; HEADER];
        t[..4].copy_from_slice(signature);
        t.extend_from_slice(body);
        let len = t.len() as u32;
        t[4..8].copy_from_slice(&len.to_le_bytes());
        seal(&mut t, 9);
        let at = BASE + self.0.len() as u64;
        self.0.extend_from_slice(&t);
        at
    }
    pub(super) fn read(&self, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(BASE)?).ok()?;
        self.0.get(start..start.checked_add(len)?)
    }
}

pub(super) fn rsdp(root: u64, wide: bool) -> Vec<u8> {
    let mut r = vec![0u8; 36];
    r[..8].copy_from_slice(b"RSD PTR ");
    if wide {
        r[15] = 2;
        r[24..32].copy_from_slice(&root.to_le_bytes());
    } else {
        r[16..20].copy_from_slice(&(root as u32).to_le_bytes());
    }
    seal(&mut r[..20], 8);
    seal(&mut r, 32);
    r
}

fn madt_body() -> Vec<u8> {
    let mut b = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    b.extend([0, 8, 0, 0, 1, 0, 0, 0]); // CPU, APIC id 0
    b.extend([0, 8, 1, 2, 1, 0, 0, 0]); // CPU 1, APIC id 2
    b.extend([0, 8, 2, 4, 0, 0, 0, 0]); // disabled
    b.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]); // x2APIC id 0x100, UID 7
    b.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    b.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]); // IRQ 0 -> GSI 2
    b.extend([2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0]); // IRQ 9 level, high
    b
}

pub(super) fn fadt_body(dsdt: u64, long: bool) -> Vec<u8> {
    let mut b = vec![0u8; if long { 244 } else { 116 } - HEADER];
    let mut put = |at: usize, v: &[u8]| b[at - HEADER..at - HEADER + v.len()].copy_from_slice(v);
    put(40, &(dsdt as u32).to_le_bytes());
    put(46, &9u16.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(108, &[0x32]);
    put(112, &(1u32 << 10).to_le_bytes());
    if long {
        put(116, &[1, 8, 0, 0]);
        put(120, &0xcf9u64.to_le_bytes());
        put(128, &[0x0f]);
        put(140, &dsdt.to_le_bytes());
    }
    b
}

/// `Name (_S5_, Package (4) { 5, 0, 0, 0 })`.
pub(super) const S5: [u8; 12] = [0x08, b'_', b'S', b'5', b'_', 0x12, 0x07, 0x04, 0x0a, 5, 0, 0];

fn machine(wide: bool) -> (Vec<u8>, Firmware) {
    let mut f = Firmware(Vec::new());
    let dsdt = f.add(b"DSDT", &S5);
    let mut entries = vec![f.add(b"APIC", &madt_body()), f.add(b"FACP", &fadt_body(dsdt, wide))];
    let mut mcfg = vec![0u8; 8];
    mcfg.extend(0xb000_0000u64.to_le_bytes());
    mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
    entries.push(f.add(b"MCFG", &mcfg));
    let body: Vec<u8> = entries
        .iter()
        .flat_map(|e| if wide { e.to_le_bytes().to_vec() } else { (*e as u32).to_le_bytes().to_vec() })
        .collect();
    let root = f.add(if wide { b"XSDT" } else { b"RSDT" }, &body);
    (rsdp(root, wide), f)
}

#[test]
fn everything_is_found() {
    for wide in [false, true] {
        let (rsdp, f) = machine(wide);
        let (root, is_wide) = root_of(&rsdp).unwrap();
        assert_eq!(is_wide, wide);
        let t = Tables::read(root, wide, |at, len| f.read(at, len)).unwrap();
        let ids: Vec<_> = t.cpus.iter().map(|c| (c.apic_id, c.acpi_id)).collect();
        assert_eq!(ids, [(0, 0), (2, 1), (0x100, 7)]);
        assert_eq!(t.ioapics[..], [IoApicEntry { address: 0xfec0_0000, gsi_base: 0 }]);
        assert_eq!(t.isa(0).unwrap().gsi, 2);
        assert_eq!(t.isa(9).unwrap().flags, 0xd);
        assert_eq!(t.isa(1), None);
        assert_eq!(t.ecam[..], [Ecam { base: 0xb000_0000, segment: 0, first_bus: 0, last_bus: 255 }]);
        assert_eq!(t.s5, Some((5, 0)));
        let f = t.fadt.unwrap();
        assert_eq!((f.sci, f.century), (9, 0x32));
        assert_eq!(f.pm1_control, [Some(Register::Port(0x604)), None]);
        assert_eq!(f.pm_timer, Some(Register::Port(0x608)));
        assert_eq!(f.reset, wide.then_some((Register::Port(0xcf9), 0x0f)), "a short FADT has no reset register");
        assert_eq!(t.ranges.len(), 5);
    }
}

#[test]
fn the_root_is_found_by_scanning() {
    let (rsdp, _) = machine(true);
    let mut area = vec![0u8; 0x400];
    area[0x230..0x230 + 36].copy_from_slice(&rsdp);
    assert_eq!(scan(&area), Some(0x230));
    area[0x230 + 10] ^= 1;
    assert_eq!(scan(&area), None);
}

#[test]
fn bad_tables_are_left_out_and_nothing_panics() {
    let (rsdp, f) = machine(true);
    let (root, wide) = root_of(&rsdp).unwrap();
    // Every byte of the firmware spoilt, one after the other.
    for i in 0..f.0.len() {
        let mut bad = Firmware(f.0.clone());
        bad.0[i] ^= 0xff;
        let _ = Tables::read(root, wide, |at, len| bad.read(at, len));
    }
    // Cut off anywhere.
    for len in 0..f.0.len() {
        let cut = Firmware(f.0[..len].to_vec());
        let _ = Tables::read(root, wide, |at, len| cut.read(at, len));
    }
    // A MADT entry of length 0 or beyond the end stops the walk.
    for len in [0u8, 1, 200] {
        let mut t = Tables::default();
        let mut b = vec![0u8; HEADER];
        b.extend(madt_body());
        b[HEADER + 8 + 8 + 1] = len;
        t.madt(&b);
        assert_eq!(t.cpus.len(), 1);
    }
}

#[test]
fn s5_forms() {
    assert_eq!(s5(&[b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0x00, 0x00, 0, 0]), Some((0, 0)));
    assert_eq!(s5(&[b'_', b'S', b'5', b'_', 0x12, 0x46, 0x00, 0x04, 0x0a, 7, 0x0a, 6]), Some((7, 6)));
    assert_eq!(s5(&[b'_', b'S', b'5', b'_', 0x12]), None);
    assert_eq!(s5(&[b'_', b'S', b'5', b'_', 0x5b]), None);
    assert_eq!(s5(&[b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0x0a, 9, 0, 0]), None, "types have three bits");
}
