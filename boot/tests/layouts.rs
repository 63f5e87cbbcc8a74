//! Layouts: no two things share a page, everything a kernel may rely on holds, and what was built is what was planned.

mod common;

use boot::builder::{BuildError, build};
use boot::kernel::KernelImage;
use boot::layout::{DomainPlan, Layout, LayoutError};
use common::elf::{ElfBuilder, INIT_P2M, VIRT_BASE, linux_notes, note, number};
use common::ram::{self, Ram, WriteFailed};
use common::{check_image, walk};
use proptest::prelude::*;
use pv_abi::ids::Pfn;

const ENTRY: u64 = VIRT_BASE + 0x1040;
const PLAN: DomainPlan = DomainPlan { nr_pages: 4096, ramdisk_len: 10_000, is_dom0: false, cmdline: "console=hvc0" };

/// Notes of a kernel with or without p2m and initrd outside of the initial mapping.
fn notes(base: u64, init_p2m: Option<u64>, mod_start_pfn: bool) -> Vec<u8> {
    let mut notes = [number(1, base + 0x1040), number(3, base), note(5, b"xen-3.0\0")].concat();
    notes.extend(init_p2m.map(|va| number(15, va)).unwrap_or_default());
    notes.extend(if mod_start_pfn { number(16, 1) } else { vec![] });
    notes
}

fn check_ranges(layout: &Layout) {
    let one = |pfn: Option<Pfn>| pfn.map_or(0..0, |p| p.0..p.0 + 1);
    let tables = layout.p2m_region().map_or(0..0, |r| r.start..layout.p2m.start);
    let mut ranges = vec![
        layout.kernel.clone(),
        layout.ramdisk.clone(),
        layout.page_tables.clone(),
        layout.p2m.clone(),
        tables,
        one(Some(layout.start_info)),
        one(layout.xenstore),
        one(layout.console),
        one(Some(layout.stack)),
    ];
    ranges.retain(|r| !r.is_empty());
    ranges.sort_by_key(|r| r.start);
    for pair in ranges.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{layout:#?}");
    }
    assert!(ranges.last().unwrap().end <= layout.nr_pages);
    assert!(layout.end.0 <= layout.nr_pages && ranges.last().unwrap().end <= layout.end.0);
    // What Xen's interface promises of the order within the mapping.
    assert!(layout.kernel.end <= layout.start_info.0 && layout.start_info.0 < layout.page_tables.start);
    assert_eq!(layout.stack.0, layout.page_tables.end);
    assert!(layout.stack.0 + 1 + 128 <= layout.mapped().end);
}

#[test]
fn a_kernel_like_linux_is_built_as_planned() {
    let file = ElfBuilder::linux().file();
    let kernel = KernelImage::parse(&file).unwrap();
    for is_dom0 in [false, true] {
        for ramdisk_len in [0, 1, 4096, 1_000_001] {
            let plan = DomainPlan { nr_pages: 12_345, ramdisk_len, is_dom0, cmdline: "root=/dev/xvda1 console=hvc0" };
            let (layout, memory, start) = ram::build(&kernel, &plan);
            check_ranges(&layout);
            check_image(&kernel, &plan, &layout, &memory, &start);
            assert_eq!(start.entry, kernel.entry());
            assert_eq!(layout.immovable().start, 0x1000);
        }
    }
}

#[test]
fn the_hypercall_page_is_filled() {
    let page = VIRT_BASE + 0x3000;
    let file = ElfBuilder::small([linux_notes(ENTRY), number(2, page)].concat()).file();
    let kernel = KernelImage::parse(&file).unwrap();
    let (_, memory, start) = ram::build(&kernel, &PLAN);
    let (frame, _) = walk(&memory, start.cr3_mfn, page).unwrap();
    assert_eq!(Some(frame), start.hypercall_page_mfn);
    assert_eq!(memory.page(frame)[32 * 17 + 4], 17);
}

#[test]
fn pages_without_a_frame() {
    let file = ElfBuilder::small(linux_notes(ENTRY)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    let layout = Layout::plan(&kernel, &PLAN).unwrap();
    let ramdisk = ram::ramdisk(PLAN.ramdisk_len);
    // Beyond what the start needs a domain may have holes: it has been given less than its maximum.
    let mut memory = Ram::new(PLAN.nr_pages);
    memory.populated = layout.end.0;
    let start = build(&kernel, &layout, &mut memory, &ram::params(&PLAN, &ramdisk)).unwrap();
    check_image(&kernel, &PLAN, &layout, &memory, &start);
    // Within it may not.
    memory.populated = layout.end.0 - 1;
    let error = build(&kernel, &layout, &mut memory, &ram::params(&PLAN, &ramdisk)).unwrap_err();
    assert_eq!(error, BuildError::NoFrame(layout.end.0 - 1));
}

#[test]
fn a_failing_write_is_told() {
    let file = ElfBuilder::small(linux_notes(ENTRY)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    let layout = Layout::plan(&kernel, &PLAN).unwrap();
    let ramdisk = ram::ramdisk(PLAN.ramdisk_len);
    for (pfn, what) in [
        (layout.kernel.start, "kernel"),
        (layout.ramdisk.start + 1, "initrd"),
        (layout.p2m.start, "p2m list"),
        (layout.page_tables.start + 2, "page tables"),
        (layout.start_info.0, "start_info page"),
    ] {
        let mut memory = Ram::new(PLAN.nr_pages);
        memory.fail_at = Some(Pfn(pfn));
        let error = build(&kernel, &layout, &mut memory, &ram::params(&PLAN, &ramdisk)).unwrap_err();
        assert_eq!(error, BuildError::Memory { what, source: WriteFailed(Pfn(pfn)) });
        assert_eq!(error.to_string(), format!("writing the domain's {what} failed: page {pfn} cannot be mapped"));
    }
}

#[test]
fn what_was_planned_must_be_what_is_built() {
    let file = ElfBuilder::small(linux_notes(ENTRY)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    let layout = Layout::plan(&kernel, &PLAN).unwrap();
    let mut memory = Ram::new(PLAN.nr_pages);
    let error = build(&kernel, &layout, &mut memory, &ram::params(&PLAN, &[0; 9_999])).unwrap_err();
    assert_eq!(error, BuildError::RamdiskChanged { have: 9_999, planned: 10_000 });
    let long = "x".repeat(1024);
    let mut params = ram::params(&PLAN, &[]);
    params.cmdline = &long;
    assert_eq!(
        build(&kernel, &layout, &mut memory, &params).unwrap_err(),
        BuildError::Cmdline(LayoutError::CmdlineTooLong(1024))
    );
}

#[test]
fn plans_that_cannot_work() {
    let file = ElfBuilder::linux().file();
    let kernel = KernelImage::parse(&file).unwrap();
    let error = |plan: &DomainPlan| Layout::plan(&kernel, plan).unwrap_err();
    // The smallest domain works, one page less does not, and the message says how much is needed.
    let needed = Layout::plan(&kernel, &PLAN.with_pages(20_000)).map(|l| l.end.0).unwrap();
    let least = (needed - 40..=needed).find(|n| Layout::plan(&kernel, &PLAN.with_pages(*n)).is_ok()).unwrap();
    match error(&PLAN.with_pages(least - 1)) {
        LayoutError::NotEnoughMemory { needed, have } => {
            assert_eq!((needed, have), (least, least - 1))
        }
        other => panic!("{other:?}"),
    }
    assert!(error(&PLAN.with_pages(1000)).to_string().contains("give it more memory"));
    assert!(matches!(error(&PLAN.with_pages(0)), LayoutError::NotEnoughMemory { .. }));
    assert_eq!(error(&PLAN.with_pages(u64::MAX)), LayoutError::TooLarge(u64::MAX));
    assert!(matches!(error(&DomainPlan { ramdisk_len: u64::MAX, ..PLAN }), LayoutError::NotEnoughMemory { .. }));
    let long = "y".repeat(1024);
    assert_eq!(error(&DomainPlan { cmdline: &long, ..PLAN }), LayoutError::CmdlineTooLong(1024));
    assert_eq!(error(&DomainPlan { cmdline: "a\0b", ..PLAN }), LayoutError::CmdlineNul);
    // Without MOD_START_PFN the initrd must fit into the mapping.
    let file = ElfBuilder::small(notes(VIRT_BASE, Some(INIT_P2M), false)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    let plan = DomainPlan { nr_pages: 1 << 20, ramdisk_len: 1 << 30, ..PLAN };
    assert!(matches!(Layout::plan(&kernel, &plan).unwrap_err(), LayoutError::MappingTooLarge(_)));
    // A p2m in the kernel's own 512 GiB.
    let near = 0xffff_ff80_0000_0000;
    let file = ElfBuilder::small(notes(VIRT_BASE, Some(near), true)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    assert_eq!(
        Layout::plan(&kernel, &PLAN).unwrap_err(),
        LayoutError::P2mMeetsKernel { init_p2m: near, virt_base: VIRT_BASE }
    );
    // A p2m so near the end of its slot that the list does not fit.
    let late = (2 << 39) - 4096;
    let file = ElfBuilder::small(notes(VIRT_BASE, Some(late), true)).file();
    let kernel = KernelImage::parse(&file).unwrap();
    assert!(
        Layout::plan(&kernel, &PLAN.with_pages(512)).is_err_and(|e| matches!(e, LayoutError::NotEnoughMemory { .. }))
    );
    assert_eq!(Layout::plan(&kernel, &PLAN).unwrap_err(), LayoutError::P2mTooLarge(8));
}

trait WithPages {
    fn with_pages(&self, nr_pages: u64) -> Self;
}

impl WithPages for DomainPlan<'_> {
    fn with_pages(&self, nr_pages: u64) -> Self {
        DomainPlan { nr_pages, ..*self }
    }
}

/// Bases whose mappings begin in the middle of tables, too.
const BASES: [u64; 5] = [VIRT_BASE, 0, 0xffff_ffff_7fe0_0000, 0xffff_8800_3ffe_f000, 0x7f_ffff_f000];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_plan_is_sound_and_every_build_walks(
        base in prop::sample::select(&BASES[..]),
        at in 0u64..3000,
        bss in 1u64..4_000_000,
        nr_pages in 1u64..12_000,
        ramdisk_len in 0u64..3_000_000,
        by_pfn in any::<bool>(),
        init_p2m in prop::option::of(prop::sample::select(&[INIT_P2M, 0xffff_c000_0000_0000, 0x7e_0000_3000][..])),
        is_dom0 in any::<bool>(),
    ) {
        let mut elf = ElfBuilder::small(notes(base, init_p2m, by_pfn));
        elf.loads[0] = (0, at * 4096, vec![0x90; 5000], 5000 + bss);
        elf.notes.extend(number(1, base + at * 4096 + 1));
        let file = elf.file();
        let kernel = KernelImage::parse(&file).unwrap();
        let plan = DomainPlan { nr_pages, ramdisk_len, is_dom0, cmdline: "x" };
        match Layout::plan(&kernel, &plan) {
            Ok(layout) => {
                check_ranges(&layout);
                let (layout, memory, start) = ram::build(&kernel, &plan);
                check_image(&kernel, &plan, &layout, &memory, &start);
            }
            Err(LayoutError::NotEnoughMemory { needed, have }) => prop_assert!(needed > have && have == nr_pages),
            Err(LayoutError::P2mMeetsKernel { .. }) => {
                let slots = base >> 39..=(base + (1 << 30) - 1) >> 39;
                prop_assert!(init_p2m.is_some_and(|va| slots.contains(&(va >> 39))));
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Large domains: the arithmetic alone.
    #[test]
    fn plans_of_any_size(nr_pages in any::<u64>(), ramdisk_len in any::<u64>(), shift in 0u32..50) {
        let file = ElfBuilder::linux().file();
        let kernel = KernelImage::parse(&file).unwrap();
        let plan = DomainPlan { nr_pages: nr_pages >> shift, ramdisk_len: ramdisk_len >> shift, ..PLAN };
        if let Ok(layout) = Layout::plan(&kernel, &plan) {
            check_ranges(&layout);
            prop_assert!(layout.p2m.end - layout.p2m.start == plan.nr_pages.div_ceil(512));
        }
    }
}
