//! Multiboot information, as GRUB and QEMU leave it, and damaged.

use boot::multiboot::{
    BootError, BootInfo, MAGIC_1, MAGIC_2, MAX_MODULES, MAX_RANGES, NotReadable, PhysRead, RangeKind, strip_name,
};
use proptest::prelude::*;

/// Physical memory: pieces at addresses.
#[derive(Default, Clone)]
struct Memory(Vec<(u64, Vec<u8>)>);

impl PhysRead for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), NotReadable> {
        let (base, bytes) =
            self.0.iter().find(|(base, bytes)| addr >= *base && addr - base < bytes.len() as u64).ok_or(NotReadable)?;
        let start = (addr - base) as usize;
        buf.copy_from_slice(bytes.get(start..start + buf.len()).ok_or(NotReadable)?);
        Ok(())
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|w| w.to_le_bytes()).collect()
}

// Multiboot 2.

const INFO: u32 = 0x1_0000;

/// The information with these tags and an end tag.
fn tags(tags: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![0; 8];
    for (kind, content) in tags.iter().chain([&(0, vec![])]) {
        body.extend(words(&[*kind, content.len() as u32 + 8]));
        body.extend(content);
        body.resize(body.len().next_multiple_of(8), 0xcc);
    }
    let total = body.len() as u32;
    body[..4].copy_from_slice(&total.to_le_bytes());
    body
}

fn map(entries: &[(u64, u64, u32)]) -> (u32, Vec<u8>) {
    let mut content = words(&[24, 0]);
    for (base, len, kind) in entries {
        content.extend(longs(&[*base, *len]));
        content.extend(words(&[*kind, 0]));
    }
    (6, content)
}

fn efi_map(stride: usize, entries: &[(u32, u64, u64, u64)]) -> Vec<u8> {
    let mut content = words(&[stride as u32, 1]);
    for (kind, base, pages, attributes) in entries {
        let mut entry = words(&[*kind, 0]);
        entry.extend(longs(&[*base, 0, *pages, *attributes]));
        entry.resize(stride, 0xcc);
        content.extend(entry);
    }
    content
}

fn rsdp(revision: u8) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0BOCHS ".to_vec();
    rsdp.push(revision);
    rsdp.extend(0x7fe_1234u32.to_le_bytes());
    rsdp[8] = rsdp.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    if revision >= 2 {
        rsdp.extend(36u32.to_le_bytes());
        rsdp.extend(0x7fe_5678u64.to_le_bytes());
        rsdp.extend([0; 4]);
        rsdp[32] = rsdp.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    }
    rsdp
}

fn grub() -> Vec<(u32, Vec<u8>)> {
    let mut module = words(&[0x200_0000, 0x280_0000]);
    module.extend(b"placeholder root=/dev/ram0 console=hvc0\0");
    let mut initrd = words(&[0x300_0000, 0x300_0001]);
    initrd.extend(b"\0");
    vec![
        (1, b"placeholder com1=115200,8n1 console=com1 \0".to_vec()),
        (2, b"GRUB 2.06-13+deb12u1\0".to_vec()),
        (21, words(&[0x10_0000])),
        (3, module),
        (3, initrd),
        (4, words(&[639, 0x1f_0000])),
        map(&[
            (0, 0x9fc00, 1),
            (0x9fc00, 0x400, 2),
            (0x10_0000, 0x7fee_0000, 1),
            (0xfffc_0000, 0x4_0000, 2),
            (0x1_0000_0000, 0x8000_0000, 1),
            (5, 0, 1),
            (0x7fe_0000, 0x2_0000, 3),
            (0x8000_0000, 1, 99),
            (u64::MAX, 7, 5),
        ]),
        (8, [longs(&[0xb8000]), words(&[160, 80, 25]), vec![16, 2, 0, 0]].concat()),
        (12, longs(&[0x7f00_0000])),
        (17, efi_map(48, &[(9, 0x7fe_0000, 0x20, 0xf), (7, 0, 0, 0), (0, u64::MAX - 4095, u64::MAX, 1)])),
        (15, rsdp(2)),
        (14, rsdp(0)),
        (99, vec![1, 2, 3]),
    ]
}

fn read2(content: Vec<u8>) -> Result<BootInfo, BootError> {
    let mut info = BootInfo::new();
    info.read(MAGIC_2, INFO, &Memory(vec![(INFO.into(), content)])).map(|()| info)
}

#[test]
fn what_grub_leaves() {
    let info = read2(tags(&grub())).unwrap();
    assert_eq!(info.loader.as_str(), "GRUB 2.06-13+deb12u1");
    assert_eq!(info.args(), "com1=115200,8n1 console=com1");
    let kernel = info.dom0_kernel().unwrap();
    assert_eq!((kernel.start, kernel.end, kernel.len()), (0x200_0000, 0x280_0000, 0x80_0000));
    assert_eq!(info.module_args(kernel), "root=/dev/ram0 console=hvc0");
    assert_eq!(info.dom0_initrd().map(|m| (m.len(), m.is_empty(), m.cmdline.as_str())), Some((1, false, "")));
    assert_eq!(info.basic_memory, Some((639, 0x1f_0000)));
    let ranges: Vec<_> = info.ranges.iter().map(|r| (r.base, r.end(), r.kind)).collect();
    use RangeKind::*;
    assert_eq!(
        ranges,
        [
            (0, 0x9fc00, Ram),
            (0x9fc00, 0xa0000, Reserved),
            (0x10_0000, 0x7ffe_0000, Ram),
            (0xfffc_0000, 0x1_0000_0000, Reserved),
            (0x1_0000_0000, 0x1_8000_0000, Ram),
            (0x7fe_0000, 0x800_0000, AcpiReclaimable),
            (0x8000_0000, 0x8000_0001, Reserved),
        ]
    );
    let screen = info.framebuffer.unwrap();
    assert_eq!(
        (screen.addr, screen.pitch, screen.width, screen.height, screen.bpp, screen.kind),
        (0xb8000, 160, 80, 25, 16, 2)
    );
    assert_eq!(info.efi_system_table, Some(0x7f00_0000));
    let efi: Vec<_> = info.efi_ranges.iter().map(|r| (r.base, r.len, r.kind, r.attributes)).collect();
    assert_eq!(efi, [(0x7fe_0000, 0x2_0000, 9, 0xf), (u64::MAX - 4095, 4095, 0, 1)]);
    // The newer root pointer wins although the older came later.
    let rsdp = info.rsdp.unwrap();
    assert_eq!((rsdp.revision, rsdp.rsdt, rsdp.xsdt), (2, 0x7fe_1234, Some(0x7fe_5678)));
    assert_eq!(info.cut, Default::default());
}

#[test]
fn what_is_missing_is_named() {
    let without = |kind: u32| tags(&grub().into_iter().filter(|(k, _)| *k != kind).collect::<Vec<_>>());
    assert_eq!(read2(without(6)).unwrap_err(), BootError::NoMemoryMap);
    let info = read2(without(3)).unwrap();
    assert_eq!(info.dom0_kernel().unwrap_err(), BootError::NoDom0Kernel);
    assert!(BootError::NoDom0Kernel.to_string().contains("module2"));
    let mut info = BootInfo::new();
    assert_eq!(info.read(0, INFO, &Memory::default()).unwrap_err(), BootError::BadMagic(0));
    let unreadable = info.read(MAGIC_2, INFO, &Memory::default()).unwrap_err();
    assert_eq!(unreadable, BootError::Unreadable { what: "multiboot information", addr: INFO.into() });
}

#[test]
fn damaged_tags_are_named() {
    let damaged = |what| Err::<BootInfo, _>(BootError::Damaged(what));
    let with = |kind: u32, content: Vec<u8>| {
        let mut all = grub();
        all.retain(|(k, _)| *k != kind);
        all.push((kind, content));
        read2(tags(&all))
    };
    assert_eq!(with(3, words(&[1])), damaged("list of modules"));
    assert_eq!(with(3, words(&[5, 4])), damaged("list of modules"));
    assert_eq!(with(6, words(&[23, 0])), damaged("memory map"));
    assert_eq!(with(6, words(&[24])), damaged("memory map"));
    assert_eq!(with(8, vec![0; 21]), damaged("framebuffer description"));
    assert_eq!(with(17, efi_map(39, &[])), damaged("EFI information"));
    assert_eq!(with(12, vec![0; 7]), damaged("EFI information"));
    let mut bad = rsdp(2);
    bad[30] ^= 1;
    assert_eq!(with(15, bad), damaged("copy of the ACPI root pointer"));
    assert_eq!(with(15, rsdp(2)[..35].to_vec()), damaged("copy of the ACPI root pointer"));
    // A truncated whole: cut in the middle of it, or with a size that is not its own.
    let whole = tags(&grub());
    for size in [0u32, 15, 64, whole.len() as u32 - 8, u32::MAX] {
        let mut cut = whole.clone();
        cut[..4].copy_from_slice(&size.to_le_bytes());
        assert_eq!(read2(cut), damaged("multiboot information"), "{size}");
    }
}

#[test]
fn too_much_is_cut_and_told() {
    let many: Vec<_> = (0..MAX_RANGES as u64 + 3).map(|n| (n << 20, 1 << 20, 1)).collect();
    let mut all = vec![map(&many), (1, vec![b'x'; 5000])];
    all.extend((0..MAX_MODULES + 2).map(|_| (3, words(&[1, 2]))));
    let info = read2(tags(&all)).unwrap();
    assert_eq!((info.ranges.len(), info.modules.len(), info.cmdline.len()), (MAX_RANGES, MAX_MODULES, 1023));
    assert_eq!((info.cut.ranges, info.cut.modules, info.cut.cmdlines), (3, 2, 1));
    assert_eq!(info.cut.to_string(), "3 memory ranges and 2 modules were ignored, 1 command lines cut");
}

// Multiboot 1.

/// Memory as QEMU's -kernel and -initrd leave it.
fn qemu() -> Memory {
    let mut info = vec![0; 116];
    let mut put = |at: usize, word: u32| info[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(0, 1 | 4 | 8 | 0x40 | 0x200);
    put(4, 639);
    put(8, 130_048);
    put(16, 0x2000);
    put(20, 2);
    put(24, 0x3000);
    put(44, 3 * 24);
    put(48, 0x4000);
    put(64, 0x5000);
    let mut map = vec![];
    for (base, len, kind) in [(0u64, 0x9fc00u64, 1), (0xf0000, 0x10000, 2), (0x10_0000, 0x7ee_0000, 1)] {
        map.extend(words(&[20]));
        map.extend(longs(&[base, len]));
        map.extend(words(&[kind]));
    }
    Memory(vec![
        (0x1000, info),
        (0x2000, b"dist/hospes com1=115200,8n1 noreboot\0".to_vec()),
        (0x2100, b"/tmp/vmlinuz console=hvc0\0".to_vec()),
        (0x2200, b"initrd.gz\0".to_vec()),
        (0x3000, words(&[0x100_0000, 0x180_0000, 0x2100, 0, 0x180_1000, 0x190_0000, 0x2200, 0])),
        (0x4000, map),
        (0x5000, b"qemu\0".to_vec()),
    ])
}

#[test]
fn what_qemu_leaves() {
    let mut info = BootInfo::new();
    info.read(MAGIC_1, 0x1000, &qemu()).unwrap();
    assert_eq!((info.loader.as_str(), info.args()), ("qemu", "com1=115200,8n1 noreboot"));
    assert_eq!(info.module_args(info.dom0_kernel().unwrap()), "console=hvc0");
    assert_eq!(info.module_args(info.dom0_initrd().unwrap()), "");
    assert_eq!(info.ranges.len(), 3);
    assert_eq!((info.ranges[2].base, info.ranges[2].len, info.ranges[2].kind), (0x10_0000, 0x7ee_0000, RangeKind::Ram));
    assert_eq!((info.basic_memory, info.rsdp, info.framebuffer), (Some((639, 130_048)), None, None));
}

#[test]
fn multiboot1_information_that_is_not_there() {
    let error = |change: fn(&mut Memory)| {
        let mut memory = qemu();
        change(&mut memory);
        BootInfo::new().read(MAGIC_1, 0x1000, &memory).unwrap_err()
    };
    assert_eq!(error(|m| m.0[0].1[0] = 1 | 4 | 8), BootError::NoMemoryMap);
    assert_eq!(error(|m| m.0[0].1[49] = 0x44), BootError::Unreadable { what: "memory map", addr: 0x4400 });
    assert_eq!(error(|m| m.0[0].1[44] = 3 * 24 - 1), BootError::Damaged("memory map"));
    assert_eq!(error(|m| m.0[5].1[0] = 19), BootError::Damaged("memory map"));
    assert_eq!(error(|m| m.0[0].1[20] = 3), BootError::Unreadable { what: "list of modules", addr: 0x3020 });
    assert_eq!(error(|m| m.0[0].1[22] = 1), BootError::Damaged("list of modules"));
    assert_eq!(error(|m| m.0[1].1.truncate(11)), BootError::Unreadable { what: "command line", addr: 0x200b });
    assert_eq!(error(|m| m.0[0].1.truncate(80)), BootError::Unreadable { what: "multiboot information", addr: 0x1000 });
}

#[test]
fn file_names_and_placeholders_are_no_arguments() {
    for (loader, cmdline, args) in [
        ("qemu", "dist/hospes", ""),
        ("qemu", "hospes  loglvl=all ", "loglvl=all"),
        ("qemu", "x placeholder a b", "a b"),
        ("GRUB 2.06", "placeholder", ""),
        ("GRUB 2.06", "  placeholder  a b", "a b"),
        ("GRUB 2.06", "loglvl=all placeholder", "loglvl=all placeholder"),
        ("GRUB 2.06", "", ""),
        ("other", "/boot/hospes noreboot", "noreboot"),
        ("other", "(hd0,0)/hospes noreboot", "noreboot"),
    ] {
        assert_eq!(strip_name(loader, cmdline), args, "{loader}: {cmdline}");
    }
}

proptest! {
    /// Any change of a few bytes gives information or an error, and what is given is sound.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), v2 in any::<bool>()) {
        let mut memory = if v2 { Memory(vec![(INFO.into(), tags(&grub()))]) } else { qemu() };
        for (n, (at, value)) in changes.into_iter().enumerate() {
            let pieces = memory.0.len();
            let piece = &mut memory.0[n % pieces].1;
            let at = at.index(piece.len());
            piece[at] = value;
        }
        let mut info = BootInfo::new();
        let (magic, addr) = if v2 { (MAGIC_2, INFO) } else { (MAGIC_1, 0x1000) };
        if info.read(magic, addr, &memory).is_ok() {
            prop_assert!(info.ranges.iter().all(|r| r.len > 0 && r.base.checked_add(r.len).is_some()));
            prop_assert!(info.modules.iter().all(|m| m.start <= m.end));
        }
    }
}
