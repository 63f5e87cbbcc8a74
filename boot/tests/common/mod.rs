//! What several tests share: synthetic kernels, a domain's memory, and the walk that checks a built image.
#![allow(dead_code)] // each test file uses its part

pub mod elf;
pub mod ram;

use boot::builder::StartOfDay;
use boot::kernel::KernelImage;
use boot::layout::{DomainPlan, Layout};
use pv_abi::ids::{Mfn, Pfn};
use pv_abi::start_info::StartInfo;
use ram::{Ram, SHARED_INFO};
use zerocopy::FromBytes;

/// What a walk of the page tables ends in: the frame, and the flags of the L4, L3, L2 and L1 entries.
pub fn walk(memory: &Ram, cr3: Mfn, va: u64) -> Option<(Mfn, [u64; 4])> {
    let mut table = cr3;
    let mut flags = [0; 4];
    for (level, flag) in (1..=4).rev().zip(&mut flags) {
        let slot = (va >> (3 + 9 * level)) & 0x1ff;
        let entry = memory.entry(table, slot as usize);
        *flag = entry & 0xfff0_0000_0000_0fff;
        if entry & 1 == 0 {
            return None;
        }
        table = Mfn((entry & 0x000f_ffff_ffff_f000) >> 12);
    }
    Some((table, flags))
}

/// Checks a built image against its plan, from what a guest would see: through its page tables only.
pub fn check_image(kernel: &KernelImage, plan: &DomainPlan, layout: &Layout, memory: &Ram, start: &StartOfDay) {
    let mfn = |pfn: u64| memory.frame(Pfn(pfn)).unwrap();
    let base = kernel.virt_base();
    let mapped = layout.mapped();
    assert_eq!(mapped.start, 0);
    assert_eq!(start.cr3_mfn, mfn(layout.page_tables.start));

    // Every page of the initial mapping, with the flags of Xen's own builder; nothing right behind it.
    for pfn in mapped.clone() {
        let (frame, flags) =
            walk(memory, start.cr3_mfn, base + pfn * 4096).unwrap_or_else(|| panic!("{pfn:#x} unmapped"));
        let l1 = if layout.page_tables.contains(&pfn) { 0x21 } else { 0x63 };
        assert_eq!((frame, flags), (mfn(pfn), [0x67, 0x67, 0x67, l1]), "pfn {pfn:#x}");
    }
    assert_eq!(walk(memory, start.cr3_mfn, base.wrapping_add(mapped.end * 4096)), None);
    if layout.p2m_mapping.is_some() && layout.p2m_va != 0 {
        assert_eq!(walk(memory, start.cr3_mfn, layout.p2m_va.wrapping_sub(4096)), None);
    }

    // No more entries than those: every present entry of every table is accounted for.
    let p2m_pages = layout.p2m.end - layout.p2m.start;
    let tables = layout.page_tables.clone().chain(layout.p2m_region().map_or(0..0, |r| r.start..layout.p2m.start));
    let tables: Vec<u64> = tables.collect();
    let present: u64 =
        tables.iter().map(|pfn| (0..512).filter(|n| memory.entry(mfn(*pfn), *n) & 1 != 0).count() as u64).sum();
    let leaves = mapped.end + if layout.p2m_mapping.is_some() { p2m_pages } else { 0 };
    assert_eq!(present, leaves + tables.len() as u64 - 1);

    // The p2m list, seen at its virtual address.
    for page in 0..p2m_pages {
        let (frame, flags) = walk(memory, start.cr3_mfn, layout.p2m_va + page * 4096).expect("p2m is mapped");
        assert_eq!(flags, [0x67, 0x67, 0x67, 0x63]);
        for n in 0..512 {
            let pfn = page * 512 + n;
            let expected =
                if pfn < plan.nr_pages { memory.frame(Pfn(pfn)).map_or(u64::MAX, |m| m.0) } else { u64::MAX };
            assert_eq!(memory.entry(frame, n as usize), expected, "p2m[{pfn:#x}]");
        }
    }

    // The kernel's bytes, zeroes behind them, and over all that the hypercall page, wherever it asks for it.
    let read = |paddr: u64, len: u64| memory.read_physical(paddr, len as usize);
    let hypercalls = kernel.notes().hypercall_page.map(|va| va.wrapping_sub(base));
    for segment in kernel.segments() {
        let mut expected = segment.data.to_vec();
        expected.resize(segment.mem_len as usize, 0);
        if let Some(page) = hypercalls {
            let (start, end) = (page.max(segment.paddr), (page + 4096).min(segment.paddr + segment.mem_len));
            if start < end {
                let there = (start - segment.paddr) as usize..(end - segment.paddr) as usize;
                let contents = &boot::hypercall_page::contents()[(start - page) as usize..(end - page) as usize];
                expected[there].copy_from_slice(contents);
            }
        }
        assert!(read(segment.paddr, segment.mem_len) == expected, "segment at {:#x}", segment.paddr);
    }

    // start_info, found where rsi points.
    assert_eq!(start.start_info_va, base + layout.start_info.0 * 4096);
    let (frame, _) = walk(memory, start.cr3_mfn, start.start_info_va).unwrap();
    assert_eq!(frame, start.start_info_mfn);
    let (info, rest) = StartInfo::read_from_prefix(memory.page(frame)).unwrap();
    let magic = if plan.is_dom0 && kernel.notes().pae { "xen-3.0-x86_64p" } else { "xen-3.0-x86_64" };
    assert_eq!(info.magic.split(|b| *b == 0).next().unwrap(), magic.as_bytes());
    assert_eq!(info.nr_pages, plan.nr_pages);
    assert_eq!(info.shared_info, SHARED_INFO);
    assert_eq!(info.pt_base, base + layout.page_tables.start * 4096);
    assert_eq!(info.nr_pt_frames, layout.page_tables.end - layout.page_tables.start);
    assert_eq!(info.mfn_list, layout.p2m_va);
    assert_eq!(info.cmd_line.split(|b| *b == 0).next().unwrap(), plan.cmdline.as_bytes());
    let by_pfn = kernel.notes().mod_start_pfn;
    if plan.is_dom0 {
        assert_eq!(info.flags, 3 | if by_pfn && plan.ramdisk_len > 0 { 8 } else { 0 });
        assert_eq!((info.store_mfn, info.store_evtchn), (0, 0));
        assert_eq!(info.console0, 0x490 | (ram::VGA.len() as u64) << 32);
        assert!(rest.starts_with(&ram::VGA));
    } else {
        assert_eq!(info.flags, 0x10 | if by_pfn { 8 } else { 0 });
        assert_eq!((Mfn(info.store_mfn), info.store_evtchn), (start.xenstore_mfn.unwrap(), 7));
        assert_eq!((Mfn(info.console0), info.console1), (start.console_mfn.unwrap(), 8));
        for page in [start.xenstore_mfn, start.console_mfn] {
            assert!(memory.page(page.unwrap()).iter().all(|b| *b == 0));
        }
    }

    // The initrd, found as the guest would find it.
    assert_eq!(info.mod_len, plan.ramdisk_len);
    if plan.ramdisk_len != 0 {
        let paddr = if by_pfn { info.mod_start * 4096 } else { info.mod_start - base };
        assert!(read(paddr, plan.ramdisk_len) == ram::ramdisk(plan.ramdisk_len), "initrd");
    }
    match layout.p2m_region() {
        Some(region) => {
            assert_eq!((info.first_p2m_pfn, info.first_p2m_pfn + info.nr_p2m_frames), (region.start, region.end))
        }
        None => assert_eq!((info.first_p2m_pfn, info.nr_p2m_frames), (0, 0)),
    }

    // The stack is one page whose top is rsp, and behind it at least 512 KiB are mapped, up to a multiple of 4 MiB.
    assert_eq!(start.stack_va, base + (layout.stack.0 + 1) * 4096);
    assert!(mapped.end - layout.stack.0 > 128);
    assert_eq!((base + mapped.end * 4096) % (4 << 20), 0);
}
