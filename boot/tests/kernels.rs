//! ELF images: what is read out of them, and what is refused.

mod common;

use boot::kernel::{KernelError, KernelImage, MAX_SEGMENTS};
use common::elf::{ElfBuilder, INIT_P2M, VIRT_BASE, linux_notes, note, number};
use proptest::prelude::*;

const ENTRY: u64 = VIRT_BASE + 0x1040;

fn error(elf: &ElfBuilder) -> KernelError {
    KernelImage::parse(&elf.file()).map(|_| ()).unwrap_err()
}

#[test]
fn a_kernel_like_linux() {
    let file = ElfBuilder::linux().file();
    let kernel = KernelImage::parse(&file).unwrap();
    assert_eq!(kernel.entry(), VIRT_BASE + 0x100_0040);
    assert_eq!(kernel.virt_base(), VIRT_BASE);
    assert_eq!(kernel.span(), 0x100_0000..0x130_0000 + 1_234_567);
    assert_eq!(kernel.required_size(), 0x130_0000 + 1_234_567);
    // The per-CPU segment has p_vaddr 0 and is placed by p_paddr.
    let places: Vec<_> = kernel.segments().map(|s| (s.paddr, s.data.len(), s.mem_len)).collect();
    assert_eq!(places, [(0x100_0000, 70_000, 70_000), (0x120_0000, 5000, 5000), (0x130_0000, 9000, 1_234_567)]);
    let notes = kernel.notes();
    assert_eq!((notes.guest_os, notes.xen_version), (Some("linux"), Some("xen-3.0")));
    assert_eq!((notes.init_p2m, notes.mod_start_pfn, notes.pae), (Some(INIT_P2M), true, true));
    assert_eq!((notes.supported_features, notes.l1_mfn_valid), (Some(0x8801), Some((1, 1))));
    assert_eq!(notes.required_features().collect::<Vec<_>>(), ["writable_page_tables"]);
    assert_eq!((notes.hypercall_page, notes.pvh, notes.count), (None, false, 11));
}

#[test]
fn notes_may_lie_in_a_section_only() {
    let mut elf = ElfBuilder::linux();
    elf.notes_in_section = true;
    let file = elf.file();
    assert_eq!(KernelImage::parse(&file).unwrap().entry(), VIRT_BASE + 0x100_0040);
}

#[test]
fn other_notes_and_odd_sizes_do_not_disturb() {
    let mut notes = vec![];
    notes.extend([4u32.to_le_bytes(), 20u32.to_le_bytes(), 3u32.to_le_bytes()].concat());
    notes.extend(b"GNU\0aaaabbbbccccddddeeee");
    notes.extend([5u32.to_le_bytes(), 1u32.to_le_bytes(), 1u32.to_le_bytes()].concat());
    notes.extend(b"Long\0\0\0\0x\0\0\0");
    notes.extend(note(77, b"unknown to us"));
    notes.extend(linux_notes(ENTRY));
    let file = ElfBuilder::small(notes).file();
    let kernel = KernelImage::parse(&file).unwrap();
    assert_eq!((kernel.entry(), kernel.notes().count), (ENTRY, 12));
}

#[test]
fn paddr_offset_is_subtracted() {
    let mut elf = ElfBuilder::small(linux_notes(ENTRY).into_iter().chain(number(4, 0x40_0000)).collect());
    elf.loads[0].1 += 0x40_0000;
    let file = elf.file();
    assert_eq!(KernelImage::parse(&file).unwrap().span().start, 0x1000);
    elf.loads[0].1 = 0x3f_f000;
    assert_eq!(error(&elf), KernelError::BadSegment(0));
}

#[test]
fn kernels_that_cannot_be_pv_guests() {
    let small = ElfBuilder::small;
    assert_eq!(error(&small(vec![])), KernelError::NoXenNotes);
    assert!(KernelError::NoXenNotes.to_string().contains("built without CONFIG_XEN_PV"));
    let mut old = small(vec![]);
    old.section = Some("__xen_guest");
    assert_eq!(error(&old), KernelError::OldStyleNotes);
    assert_eq!(error(&small(note(18, &0x100_0000u32.to_le_bytes()))), KernelError::PvhOnly);
    assert_eq!(error(&small(number(3, VIRT_BASE))), KernelError::NoEntry);
    assert_eq!(error(&small(linux_notes(VIRT_BASE + 0x4000))), KernelError::EntryOutside(VIRT_BASE + 0x4000));
    assert_eq!(error(&small([linux_notes(ENTRY), note(5, b"xen-4.0\0")].concat())), KernelError::WrongAbi);
    let bad = |kind, value| error(&small([linux_notes(ENTRY), number(kind, value)].concat()));
    for base in [0xffff_8000_0000_0000, 0x8000_0000_0000, VIRT_BASE + 1, u64::MAX, 0xffff_ffff_c000_0000] {
        assert_eq!(bad(3, base), KernelError::BadAddress { name: "VIRT_BASE", value: base });
        assert_eq!(bad(15, base), KernelError::BadAddress { name: "INIT_P2M", value: base });
    }
    for page in [ENTRY, VIRT_BASE + 0x4000, 0] {
        assert_eq!(bad(2, page), KernelError::BadAddress { name: "HYPERCALL_PAGE", value: page });
    }
}

#[test]
fn files_that_are_no_amd64_kernels() {
    let linux = ElfBuilder::linux;
    assert_eq!(KernelImage::parse(b"MZ\x90\0").map(|_| ()).unwrap_err(), KernelError::NotElf);
    assert_eq!(KernelImage::parse(&linux().file()[..40]).map(|_| ()).unwrap_err(), KernelError::BadHeaders);
    assert_eq!(error(&ElfBuilder { machine: 183, ..linux() }), KernelError::NotX86_64 { class: 2, machine: 183 });
    assert!(matches!(error(&ElfBuilder { class: 1, machine: 3, ..linux() }), KernelError::NotX86_64 { class: 1, .. }));
    assert_eq!(error(&ElfBuilder { kind: 1, ..linux() }), KernelError::NotExecutable(1));
    let file = linux().file();
    assert_eq!(KernelImage::parse(&file[..60_000]).map(|_| ()).unwrap_err(), KernelError::BadHeaders);
}

#[test]
fn segments_that_cannot_be_loaded() {
    let with = |loads| ElfBuilder { loads, ..ElfBuilder::small(linux_notes(ENTRY)) };
    let seg = |paddr, file: usize, mem| (0, paddr, vec![1; file], mem);
    assert_eq!(error(&with(vec![])), KernelError::NoSegments);
    assert_eq!(error(&with(vec![seg(0x1000, 10, 9)])), KernelError::BadSegment(0));
    assert_eq!(error(&with(vec![seg(0x1000, 1, 4096), seg(u64::MAX - 5, 1, 4096)])), KernelError::BadSegment(1));
    assert_eq!(error(&with(vec![seg(0x1000, 1, 1 << 30)])), KernelError::BadSegment(0));
    assert_eq!(error(&with(vec![seg(0x1000, 1, 4097), seg(0x2000, 1, 5)])), KernelError::Overlap(0x2000));
    let many = (0..=MAX_SEGMENTS as u64).map(|n| seg(0x1000 * n, 1, 1)).collect();
    assert_eq!(error(&with(many)), KernelError::TooManySegments);
    // The file ends within a segment: the notes come first here, so that they are still found.
    let mut file = ElfBuilder::small(linux_notes(ENTRY)).file();
    let filesz = 64 + 32;
    file[filesz..filesz + 8].copy_from_slice(&0x10_0000u64.to_le_bytes());
    assert_eq!(KernelImage::parse(&file).map(|_| ()).unwrap_err(), KernelError::TruncatedSegment(0));
}

proptest! {
    /// Whatever single bytes of the headers or notes are changed, the answer is a kernel or an error.
    #[test]
    fn damaged_headers_never_panic(changes in prop::collection::vec((0usize..700, any::<u8>()), 1..6), from_end in any::<bool>()) {
        let mut file = ElfBuilder::small(linux_notes(ENTRY)).file();
        let len = file.len();
        for (at, value) in changes {
            let at = if from_end { len - 1 - at } else { at };
            file[at] = value;
        }
        if let Ok(kernel) = KernelImage::parse(&file) {
            // What parse() promises.
            prop_assert!(kernel.segments().len() > 0);
            prop_assert!(kernel.span().end <= 1 << 30);
        }
    }
}
