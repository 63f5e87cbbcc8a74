//! What a loader leaves: of both versions, whole and damaged.

use std::cell::Cell;
use std::time::Duration;

use boot::multiboot::{
    BootInfo, MAGIC_1, MAGIC_2, MAX_CMDLINE, MAX_MODULES, MAX_RANGES, NotReadable, PhysRead, RangeKind,
};
use fuzzing::{Fuzzer, Rng, mutate};

/// Pieces of physical memory at addresses; counts what is read of them.
struct Memory {
    pieces: Vec<(u64, Vec<u8>)>,
    reads: Cell<u64>,
}

impl PhysRead for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), NotReadable> {
        self.reads.set(self.reads.get() + 1);
        let (base, bytes) = self
            .pieces
            .iter()
            .find(|(base, bytes)| addr.checked_sub(*base).is_some_and(|off| off < bytes.len() as u64))
            .ok_or(NotReadable)?;
        let start = (addr - base) as usize;
        buf.copy_from_slice(bytes.get(start..start + buf.len()).ok_or(NotReadable)?);
        Ok(())
    }
}

/// What a loader was told to pass on.
#[derive(Default)]
struct Told {
    /// Base, length, kind.
    ranges: Vec<(u64, u64, u32)>,
    /// Start, end, arguments.
    modules: Vec<(u32, u32, String)>,
    cmdline: String,
    loader: String,
    /// EFI: kind, base, pages, attributes.
    efi: Vec<(u32, u64, u64, u64)>,
}

fn text(rng: &mut Rng) -> String {
    const WORDS: [&str; 8] = ["placeholder", "/boot/hospes", "(hd0)/x", "com1=115200", "noreboot", "", "-", "quiet"];
    let mut text: Vec<&str> = (0..rng.below(6)).map(|_| *rng.pick(&WORDS)).collect();
    if rng.one_in(30) {
        text.extend(["long"; 250]);
    }
    text.join([" ", "  ", "\t"][rng.below(3)])
}

impl Told {
    fn random(rng: &mut Rng) -> Told {
        let count = |rng: &mut Rng, most: usize| {
            if rng.one_in(20) { most + rng.below(4) } else { rng.below(7) }
        };
        let mut told =
            Told { cmdline: text(rng), loader: (*rng.pick(&["qemu", "GRUB 2.06", ""])).into(), ..Told::default() };
        for _ in 0..count(rng, MAX_RANGES) {
            told.ranges.push((rng.number(), rng.number(), rng.below(8) as u32));
        }
        for _ in 0..count(rng, MAX_MODULES) {
            let (a, b) = (rng.bits() as u32, rng.bits() as u32);
            told.modules.push((a.min(b), a.max(b), text(rng)));
        }
        for _ in 0..rng.below(5) {
            told.efi.push((rng.below(16) as u32, rng.number() & !0xfff, rng.number(), rng.bits()));
        }
        told
    }

    /// What must come out.
    fn check(&self, info: &BootInfo) {
        let kind = |n: u32| match n {
            1 => RangeKind::Ram,
            3 => RangeKind::AcpiReclaimable,
            4 => RangeKind::AcpiNvs,
            5 => RangeKind::Unusable,
            _ => RangeKind::Reserved,
        };
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .map(|(base, len, k)| (*base, (*len).min(u64::MAX - base), kind(*k)))
            .filter(|r| r.1 != 0)
            .collect();
        assert!(
            info.ranges.iter().map(|r| (r.base, r.len, r.kind)).eq(ranges.iter().take(MAX_RANGES).copied()),
            "ranges"
        );
        assert_eq!(info.cut.ranges as usize, ranges.len().saturating_sub(MAX_RANGES));
        let cut = |text: &str| text[..text.len().min(MAX_CMDLINE)].to_owned();
        let modules = self.modules.iter().map(|(a, b, text)| (u64::from(*a), u64::from(*b), cut(text)));
        assert!(
            info.modules.iter().map(|m| (m.start, m.end, m.cmdline.to_string())).eq(modules.take(MAX_MODULES)),
            "modules"
        );
        assert_eq!(info.cut.modules as usize, self.modules.len().saturating_sub(MAX_MODULES));
        assert_eq!((info.cmdline.as_str(), info.loader.as_str()), (cut(&self.cmdline).as_str(), self.loader.as_str()));
    }

    /// As multiboot2 passes it; the tags in any order.
    fn v2(&self, rng: &mut Rng) -> Vec<u8> {
        let words = |w: &[u32]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let text = |t: &str| [t.as_bytes(), b"\0"].concat();
        let stride = 24 + 8 * rng.below(3);
        let mut map = words(&[stride as u32, 0]);
        for (base, len, kind) in &self.ranges {
            let entry = [&base.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat();
            map.extend(entry.into_iter().chain(std::iter::repeat(0xcc)).take(stride));
        }
        let stride = 40 + 8 * rng.below(3);
        let mut efi = words(&[stride as u32, 1]);
        for (kind, base, pages, attributes) in &self.efi {
            let numbers = [*base, 0, *pages, *attributes].map(u64::to_le_bytes).concat();
            let entry = [&kind.to_le_bytes()[..], &[0; 4], &numbers].concat();
            efi.extend(entry.into_iter().chain(std::iter::repeat(0xcc)).take(stride));
        }
        let mut tags = vec![(1, text(&self.cmdline)), (2, text(&self.loader)), (6, map), (17, efi)];
        tags.extend([
            (4, words(&[639, 0x1f_0000])),
            (12, vec![1; 8]),
            (8, vec![3; 24]),
            (99, rng.bytes(40)),
            (15, rsdp(rng)),
        ]);
        for at in (1..tags.len()).rev() {
            tags.swap(at, rng.below(at + 1));
        }
        // Modules stay in their order, since that counts.
        for (start, end, args) in &self.modules {
            tags.push((3, [words(&[*start, *end]), text(args)].concat()));
        }
        tags.push((0, vec![]));
        let mut body = vec![0; 8];
        for (kind, content) in tags {
            body.extend(words(&[kind, content.len() as u32 + 8]));
            body.extend(content);
            body.resize(body.len().next_multiple_of(8), 0xcc);
        }
        let total = body.len() as u32;
        body[..4].copy_from_slice(&total.to_le_bytes());
        body
    }

    /// As multiboot1 passes it: pieces at many places. The first is the structure.
    fn v1(&self) -> Vec<(u64, Vec<u8>)> {
        let mut header = vec![0u8; 116];
        let mut pieces = vec![];
        let mut at = 0x2000u32;
        let mut place = |bytes: Vec<u8>| {
            let start = at;
            at += (bytes.len() as u32 + 64).next_multiple_of(64);
            pieces.push((start.into(), bytes));
            start
        };
        let text = |t: &str| [t.as_bytes(), b"\0"].concat();
        let mut put = |off: usize, word: u32| header[off..off + 4].copy_from_slice(&word.to_le_bytes());
        put(0, 1 | 4 | 8 | 0x40 | 0x200 | 0x1000);
        put(16, place(text(&self.cmdline)));
        put(64, place(text(&self.loader)));
        let mut list = vec![];
        for (start, end, args) in &self.modules {
            list.extend([*start, *end, place(text(args)), 0].map(u32::to_le_bytes).concat());
        }
        put(20, self.modules.len() as u32);
        put(24, place(list));
        let mut map = vec![];
        for (base, len, kind) in &self.ranges {
            map.extend(
                [&20u32.to_le_bytes()[..], &base.to_le_bytes(), &len.to_le_bytes(), &kind.to_le_bytes()].concat(),
            );
        }
        put(44, map.len() as u32);
        put(48, place(map));
        pieces.insert(0, (0x1000, header));
        pieces
    }
}

fn rsdp(rng: &mut Rng) -> Vec<u8> {
    let mut r = b"RSD PTR \0BOCHS \x02".to_vec();
    r.extend((rng.bits() as u32).to_le_bytes());
    r[8] = r.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    r.extend(36u32.to_le_bytes());
    r.extend(rng.bits().to_le_bytes());
    r.extend([0; 4]);
    r[32] = r.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    r
}

/// What holds of all information that is taken.
fn check(info: &BootInfo) {
    assert!(info.ranges.iter().all(|r| r.len > 0 && r.base.checked_add(r.len) == Some(r.end())));
    assert!(info.ranges.iter().any(|r| r.kind == RangeKind::Ram));
    assert!(info.efi_ranges.iter().all(|r| r.len > 0 && r.base.checked_add(r.len).is_some()));
    assert!(info.modules.iter().all(|m| m.start <= m.end && m.end - m.start == m.len()));
    assert!(info.info.0.checked_add(info.info.1).is_some());
    if let Some(rsdp) = info.rsdp {
        let (start, len) = info.info;
        assert!(
            rsdp.addr >= start && rsdp.addr + 20 <= start + len,
            "the root pointer's copy is within the information"
        );
    }
    let texts = info.modules.iter().map(|m| (&m.cmdline, info.module_args(m))).chain([(&info.cmdline, info.args())]);
    for (whole, args) in texts {
        assert!(
            whole.is_ascii() && !whole.contains('\0') && args.trim() == args && whole.contains(args),
            "{whole:?} {args:?}"
        );
    }
    assert_eq!(info.dom0_kernel().is_ok(), !info.modules.is_empty());
}

/// Reads it, with bounded effort: every byte of the information is looked at a small number of times.
fn read(magic: u32, addr: u32, pieces: Vec<(u64, Vec<u8>)>, most_reads: u64) -> Option<BootInfo> {
    let memory = Memory { pieces, reads: Cell::new(0) };
    let mut info = BootInfo::new();
    let taken = info.read(magic, addr, &memory).is_ok();
    assert!(memory.reads.get() <= most_reads, "{} reads", memory.reads.get());
    if taken {
        check(&info);
    }
    taken.then_some(info)
}

fn fuzzer(name: &str, cases: u64) -> Fuzzer<'_> {
    Fuzzer { name, target: super::TARGET, cases, heap: 1 << 20, time: Duration::from_secs(2) }
}

#[test]
fn fuzz_multiboot2() {
    fuzzer("fuzz_multiboot2", 20_000).run(|rng| {
        let told = Told::random(rng);
        let mut body = told.v2(rng);
        let whole = rng.one_in(4);
        if !whole {
            let other = Told::random(rng).v2(rng);
            let pointer = rsdp(rng);
            mutate(rng, &mut body, &[&other, &pointer]);
            if rng.one_in(2) && body.len() >= 4 {
                // A size that is right, so that what is inside counts.
                let total = body.len() as u32;
                body[..4].copy_from_slice(&total.to_le_bytes());
            }
        }
        let most = 4 * body.len() as u64 + 100;
        let info = read(MAGIC_2, 0x1_0000, vec![(0x1_0000, body)], most);
        if whole {
            assert_eq!(
                info.is_some(),
                told.ranges.iter().any(|(base, len, kind)| *kind == 1 && *len != 0 && *base != u64::MAX)
            );
            if let Some(info) = &info {
                told.check(info);
            }
        }
        info.is_some()
    });
}

#[test]
fn fuzz_multiboot1() {
    fuzzer("fuzz_multiboot1", 20_000).run(|rng| {
        let told = Told::random(rng);
        let mut pieces = told.v1();
        let whole = rng.one_in(4);
        if !whole {
            let other = Told::random(rng).v1();
            let others: Vec<&[u8]> = other.iter().map(|(_, bytes)| &bytes[..]).collect();
            for _ in 0..1 + rng.below(3) {
                let at = if rng.one_in(2) { 0 } else { rng.below(pieces.len()) };
                mutate(rng, &mut pieces[at].1, &others);
            }
            if rng.one_in(8) {
                // Something that is readable up to the last byte of 32-bit space.
                pieces.push((0xffff_ff00, rng.bytes(0x100)));
            }
        }
        // At most 4096 modules, each with a text of 1024 bytes that may be the same.
        let info = read(MAGIC_1, 0x1000, pieces, 4096 * 1026 + 4096 + 3000);
        if whole {
            assert_eq!(
                info.is_some(),
                told.ranges.iter().any(|(base, len, kind)| *kind == 1 && *len != 0 && *base != u64::MAX)
            );
            if let Some(info) = &info {
                told.check(info);
            }
        }
        info.is_some()
    });
}
