//! ELF images with Xen notes, and where a domain's first image is laid out from them.

use std::ops::Range;
use std::time::Duration;

use boot::bzimage::locate;
use boot::kernel::{KernelImage, MAX_SEGMENTS};
use boot::layout::{DomainPlan, Layout};
use fuzzing::{Fuzzer, Rng, mutate};
use pv_abi::ids::Pfn;

use crate::common::check_image;
use crate::common::elf::{ElfBuilder, INIT_P2M, VIRT_BASE, bzimage, linux_notes, note, number};
use crate::common::ram::build;

const PAGE: u64 = 4096;

fn notes(rng: &mut Rng, entry: u64) -> Vec<u8> {
    let mut notes = if rng.one_in(6) { vec![] } else { linux_notes(entry) };
    for _ in 0..rng.below(4) {
        let kind = rng.below(20) as u32;
        let address = *rng.pick(&[VIRT_BASE, INIT_P2M, entry & !0xfff, 0, 0xffff_8800_0000_0000, 0x10_0000]);
        notes.extend(match rng.below(4) {
            0 => number(kind, address),
            1 => number(kind, rng.number()),
            2 => note(kind, &rng.bytes(24)),
            _ => note(kind, rng.pick(&["yes\0", "xen-3.0\0", "linux\0", "!a|!b| !c\0", "!\0"]).as_bytes()),
        });
    }
    notes
}

fn elf(rng: &mut Rng) -> ElfBuilder {
    let mut loads = vec![];
    let mut at = PAGE * (1 + rng.below(600) as u64);
    let first = at;
    let most = if rng.one_in(20) { MAX_SEGMENTS + 2 } else { 4 };
    for _ in 0..1 + rng.below(most) {
        let file = rng.below(9000);
        let mem = file as u64 + if rng.one_in(2) { 0 } else { rng.below(40_000) as u64 };
        loads.push((VIRT_BASE + at, at, vec![rng.bits() as u8; file], mem));
        at += mem + if rng.one_in(3) { 0 } else { rng.below(100_000) as u64 };
    }
    if rng.one_in(3) && loads.len() > 1 {
        let (a, b) = (rng.below(loads.len()), rng.below(loads.len()));
        loads.swap(a, b);
    }
    let entry = VIRT_BASE + first + rng.below(100) as u64;
    ElfBuilder {
        class: 2,
        machine: 62,
        kind: 2,
        loads,
        notes: notes(rng, entry),
        notes_in_section: rng.one_in(4),
        section: rng.one_in(8).then_some("__xen_guest"),
    }
}

/// What holds of an image that is taken.
fn check_kernel(image: &[u8], kernel: &KernelImage<'_>) {
    let mut end = 0;
    assert!((1..=MAX_SEGMENTS).contains(&kernel.segments().len()));
    let span = kernel.span();
    for segment in kernel.segments() {
        let range = segment.range();
        assert!(range.start >= end && range.start < range.end && range.end - range.start == segment.mem_len);
        assert!(segment.data.len() as u64 <= segment.mem_len && span.start <= range.start && range.end <= span.end);
        assert!(
            image.as_ptr_range().start <= segment.data.as_ptr_range().start
                && segment.data.as_ptr_range().end <= image.as_ptr_range().end
        );
        end = range.end;
    }
    assert!(span.end <= 1 << 30 && kernel.required_size() == span.end);
    assert!(span.contains(&kernel.entry().wrapping_sub(kernel.virt_base())));
    let canonical = |va: u64| (va as i64) << 16 >> 16 == va as i64;
    assert!(canonical(kernel.virt_base()) && canonical(kernel.virt_base().wrapping_add((1 << 30) - 1)));
    assert!(kernel.virt_base().is_multiple_of(PAGE));
    assert!(kernel.notes().required_features().all(|name| !name.starts_with('!') || name.len() < image.len()));
}

/// What holds of every layout: parts in order, apart, and within the domain.
fn check_layout(layout: &Layout, plan: &DomainPlan<'_>) {
    assert!(layout.end.0 <= plan.nr_pages);
    let one = |pfn: Option<Pfn>| pfn.map_or(0..0, |p| p.0..p.0 + 1);
    let parts: [Range<u64>; 8] = [
        layout.kernel.clone(),
        layout.ramdisk.clone(),
        layout.p2m.clone(),
        one(Some(layout.start_info)),
        one(layout.xenstore),
        one(layout.console),
        layout.page_tables.clone(),
        one(Some(layout.stack)),
    ];
    for (n, a) in parts.iter().enumerate() {
        assert!(a.start <= a.end && a.end <= layout.end.0, "{a:?} {layout:?}");
        for b in &parts[n + 1..] {
            assert!(
                a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start,
                "{a:?} and {b:?} overlap: {layout:?}"
            );
        }
    }
    assert!(layout.p2m.end - layout.p2m.start >= (plan.nr_pages * 8).div_ceil(PAGE));
    assert!((layout.ramdisk.end - layout.ramdisk.start) * PAGE >= plan.ramdisk_len);
    assert!(layout.mapped().end > layout.stack.0 + 128 && layout.mapped().end <= layout.end.0);
}

#[test]
fn fuzz_kernel_image() {
    let fuzzer = Fuzzer {
        name: "fuzz_kernel_image",
        target: super::TARGET,
        cases: 20_000,
        heap: 80 << 20,
        time: Duration::from_secs(20),
    };
    fuzzer.run(|rng| {
        let mut image = elf(rng).file();
        if !rng.one_in(4) {
            let other = elf(rng).file();
            mutate(rng, &mut image, &[&other]);
        }
        let wrapped = bzimage(&image);
        let mut file = wrapped.clone();
        if rng.one_in(4) {
            mutate(rng, &mut file, &[&wrapped]);
        }
        let Ok(payload) = locate(&file) else {
            return false;
        };
        let Some(image) = payload.as_plain() else {
            return false;
        };
        let Ok(kernel) = KernelImage::parse(image) else {
            return false;
        };
        check_kernel(image, &kernel);

        let cmdline = if rng.one_in(10) { "x".repeat(rng.below(1100)) } else { "console=hvc0".into() };
        let pages = if rng.one_in(2) { rng.number() } else { 1024 * (1 + rng.below(6) as u64) };
        let ramdisk = if rng.one_in(8) { rng.number() } else { rng.below(300_000) as u64 };
        let plan = DomainPlan { nr_pages: pages, ramdisk_len: ramdisk, is_dom0: rng.one_in(2), cmdline: &cmdline };
        match Layout::plan(&kernel, &plan) {
            Ok(layout) => {
                check_layout(&layout, &plan);
                // Building takes long without optimisation.
                if pages <= 6144 && rng.one_in(200) {
                    let (layout, memory, start) = build(&kernel, &plan);
                    check_image(&kernel, &plan, &layout, &memory, &start);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        true
    });
}

/// Headers of a bzImage that point anywhere.
#[test]
fn fuzz_bzimage() {
    let fuzzer = Fuzzer {
        name: "fuzz_bzimage",
        target: super::TARGET,
        cases: 30_000,
        heap: 1 << 20,
        time: Duration::from_secs(1),
    };
    fuzzer.run(|rng| {
        let magic = *rng.pick(&[
            &b"\x7fELF"[..],
            b"\x1f\x8b",
            b"\xfd7zXZ\0",
            b"\x28\xb5\x2f\xfd",
            b"\x02\x21\x4c\x18",
            b"BZh",
            b"zz",
        ]);
        let mut file = bzimage(&[magic, &rng.bytes(600)].concat());
        for (at, size) in [(0x1f1, 1), (0x206, 2), (0x248, 4), (0x24c, 4)] {
            if rng.one_in(6) {
                file[at..at + size].copy_from_slice(&rng.number().to_le_bytes()[..size]);
            }
        }
        if rng.one_in(4) {
            mutate(rng, &mut file, &[]);
        }
        match locate(&file) {
            Ok(payload) => {
                if let Some(plain) = payload.as_plain() {
                    assert!(plain.starts_with(b"\x7fELF"));
                }
                payload.scratch_bytes() <= 160 << 10
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    });
}
