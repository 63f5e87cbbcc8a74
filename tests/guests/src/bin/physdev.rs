//! physdev_op: interrupts and devices of the machine, good and bad arguments. (I/O rights are `ioports`' subject;
//! MSI-X preparation of functions without MSI-X, which Xen 4.17 does not survive, is `hostile_msix`'s.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::event;
use pv_abi::physdev::*;

guests::kernel!(run);

/// Lines of the machine's one IOAPIC, and numbers beyond.
const LINES: [u32; 10] = [0, 1, 2, 4, 9, 16, 23, 24, 255, u32::MAX];

fn op<T>(cmd: u64, mut arg: T) -> Ret {
    call_ref(nr::PHYSDEV_OP, cmd, &mut arg)
}

fn run() {
    for cmd in 0..36u64 {
        for (name, at) in bad::POINTERS {
            obs(f!("op {cmd} with a pointer that is {name}"), call(nr::PHYSDEV_OP, &[cmd, at]));
        }
    }
    for cmd in [36u64, 63, 255, 0x7fff_ffff, 0xffff_ffff, 1 << 32, u64::MAX] {
        obs(f!("op {cmd:#x}"), call(nr::PHYSDEV_OP, &[cmd, 0]));
    }
    compat();
    lines();
    gsis();
    messages();
    devices();
    apic();
    eoi_page();
}

/// The older call: `{ u32 cmd; union at 8 }`.
fn compat() {
    let page = Page::alloc();
    for cmd in [0u64, 1, 4, 5, 6, 8, 9, 10, 11, 12, 13, 21, 0xffff_ffff] {
        page.clear();
        page.write(0, cmd);
        // a line that is there; for the I/O privilege level 1
        page.write(1, 1);
        let r = call(nr::PHYSDEV_OP_COMPAT, &[page.va]);
        obs(f!("compat op {cmd:#x}"), r);
    }
    for (name, at) in bad::POINTERS {
        obs(f!("compat, pointer {name}"), call(nr::PHYSDEV_OP_COMPAT, &[at]));
    }
}

fn lines() {
    for irq in LINES {
        let mut q = IrqStatusQuery { irq, flags: 0xff };
        let r = call_ref(nr::PHYSDEV_OP, OP_IRQ_STATUS_QUERY, &mut q);
        obs(f!("status of {irq}"), f!("{r} {:#x}", q.flags));
        obs(f!("EOI of {irq}"), op(OP_EOI, Eoi { irq }));
        let mut v = IrqOp { irq, vector: 0xffff };
        obs(f!("alloc_irq_vector of {irq}"), call_ref(nr::PHYSDEV_OP, OP_ALLOC_IRQ_VECTOR, &mut v));
        obs(f!("free_irq_vector of {irq}"), op(OP_FREE_IRQ_VECTOR, IrqOp { irq, vector: 0 }));
    }
}

fn map(domid: u16, kind: u32, index: i32, pirq: i32) -> (Ret, i32) {
    let mut m = MapPirq { domid, kind, index, pirq, ..MapPirq::default() };
    let r = call_ref(nr::PHYSDEV_OP, OP_MAP_PIRQ, &mut m);
    (r, m.pirq)
}

fn unmap(domid: u16, pirq: i32) -> Ret {
    op(OP_UNMAP_PIRQ, UnmapPirq { domid, pad: 0, pirq })
}

fn gsis() {
    for gsi in [0i32, 1, 4, 9, 11, 16, 17, 23, 24, 255, i32::MAX, -1] {
        obs(f!("setup_gsi {gsi}, edge"), op(OP_SETUP_GSI, SetupGsi { gsi, ..SetupGsi::default() }));
        obs(f!("setup_gsi {gsi}, level"), op(OP_SETUP_GSI, SetupGsi { gsi, triggering: 1, polarity: 1, pad: 0 }));
    }
    for kind in [0u32, 1, 2, 3, 4, 5, 255, u32::MAX] {
        obs(f!("map_pirq of kind {kind}, bad index"), map(0x7ff0, kind, 0x7777, -1).0);
    }
    for gsi in [-1i32, 0, 5, 16, 17, 24, 255, i32::MAX, i32::MIN] {
        for pirq in [gsi, -1i32] {
            let (r, p) = map(0x7ff0, MAP_PIRQ_TYPE_GSI, gsi, pirq);
            obs(f!("map_pirq of GSI {gsi} as {pirq}"), f!("{r} {p}"));
        }
    }
    obs("map_pirq of GSI 18 as 5000", map(0x7ff0, MAP_PIRQ_TYPE_GSI, 18, 5000).0);
    obs("map_pirq of GSI 18 as -5", map(0x7ff0, MAP_PIRQ_TYPE_GSI, 18, -5).0);
    for domid in [0u16, 1, 0x7ff1, 0x7ff2, 0xffff] {
        obs(f!("map_pirq for domain {domid:#x}"), map(domid, MAP_PIRQ_TYPE_GSI, 19, -1).0);
        obs(f!("unmap_pirq for domain {domid:#x}"), unmap(domid, 19));
    }
    for pirq in [16i32, 17, -1, 200, 5000, i32::MAX, i32::MIN] {
        obs(f!("unmap_pirq {pirq}"), unmap(0x7ff0, pirq));
        obs(f!("unmap_pirq {pirq} again"), unmap(0x7ff0, pirq));
    }
    // bound while it is unmapped
    obs("map_pirq again", map(0x7ff0, MAP_PIRQ_TYPE_GSI, 17, 17).0);
    let mut b = event::BindPirq { pirq: 17, flags: 1, port: 0 };
    obs("bind_pirq", events::op(event::OP_BIND_PIRQ, &mut b));
    obs("EOI while bound", op(OP_EOI, Eoi { irq: 17 }));
    obs("unmap while bound", unmap(0x7ff0, 17));
    obs("EOI after that", op(OP_EOI, Eoi { irq: 17 }));
    obs("close its port", events::close(b.port));
    obs("unmap after that", unmap(0x7ff0, 17));
    for kind in [0i32, 1, 2, 4, -1] {
        let mut g = GetFreePirq { kind, pirq: 0 };
        obs(f!("get_free_pirq of kind {kind}"), call_ref(nr::PHYSDEV_OP, OP_GET_FREE_PIRQ, &mut g));
    }
}

/// Messages of functions that are not there or have none.
fn messages() {
    for (name, bus, devfn) in [
        ("an absent one", 0i32, 0x50i32),
        ("the host bridge", 0, 0),
        ("bus 255", 255, 0xff),
        ("negative", -1, -1),
        ("devfn 256", 0, 256),
    ] {
        for kind in [MAP_PIRQ_TYPE_MSI, MAP_PIRQ_TYPE_MSI_SEG, MAP_PIRQ_TYPE_MULTI_MSI] {
            for (entry_nr, table_base) in [(0i32, 0u64), (1, 0), (2, 0), (-1, 0), (0, 0xfeb0_0000), (i32::MAX, 0x1000)]
            {
                let mut m = MapPirq {
                    domid: 0x7ff0,
                    kind,
                    index: -1,
                    pirq: -1,
                    bus,
                    devfn,
                    entry_nr,
                    table_base,
                    ..MapPirq::default()
                };
                let r = call_ref(nr::PHYSDEV_OP, OP_MAP_PIRQ, &mut m);
                obs(f!("map_pirq kind {kind} of {name}, entry {entry_nr}, table {table_base:#x}"), r);
            }
        }
    }
}

fn devices() {
    for (name, bus, devfn) in [("the host bridge", 0u8, 0u8), ("an absent one", 0, 0x50), ("bus 255", 255, 0xff)] {
        let old = ManagePci { bus, devfn };
        let ext = [u64::from(bus) | u64::from(devfn) << 8, 0, 0];
        for seg in [0u16, 1, 0xffff] {
            let d = PciDevice { seg, bus, devfn };
            let add = [u64::from(seg) | u64::from(bus) << 16 | u64::from(devfn) << 24, 0, 0];
            {
                let cmd = OP_RESTORE_MSI_EXT;
                obs(f!("op {cmd} of {name}, segment {seg:#x}"), op(cmd, d));
            }
            obs(f!("pci_device_add of {name}, segment {seg:#x}"), op(OP_PCI_DEVICE_ADD, add));
            obs(f!("pci_device_add again of {name}, segment {seg:#x}"), op(OP_PCI_DEVICE_ADD, add));
            {
                let cmd = OP_RESTORE_MSI_EXT;
                obs(f!("then op {cmd} of {name}, segment {seg:#x}"), op(cmd, d));
            }
            obs(f!("pci_device_remove of {name}, segment {seg:#x}"), op(OP_PCI_DEVICE_REMOVE, d));
            obs(f!("pci_device_remove again of {name}, segment {seg:#x}"), op(OP_PCI_DEVICE_REMOVE, d));
        }
        obs(f!("manage_pci_add of {name}"), op(OP_MANAGE_PCI_ADD, old));
        obs(f!("restore_msi of {name}"), op(OP_RESTORE_MSI, old));
        obs(f!("manage_pci_add_ext of {name}"), op(OP_MANAGE_PCI_ADD_EXT, ext));
        obs(f!("manage_pci_remove of {name}"), op(OP_MANAGE_PCI_REMOVE, old));
        obs(f!("manage_pci_remove again of {name}"), op(OP_MANAGE_PCI_REMOVE, old));
        obs(f!("restore_msi then of {name}"), op(OP_RESTORE_MSI, old));
    }
    for (address, segment, start_bus, end_bus, flags) in [
        (0xb000_0000u64, 0u16, 0u8, 255u8, 0u32),
        (0xb000_0000, 0, 0, 255, 1),
        (0xe000_0000, 0, 0, 255, 1),
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 1),
        (u64::MAX, 0xffff, 255, 0, 1),
        (0xb000_0000, 5, 3, 1, 2),
        (0xb000_0001, 0, 0, 1, 1),
    ] {
        obs(
            f!("mmcfg_reserved {address:#x} segment {segment:#x} {start_bus}..{end_bus} flags {flags}"),
            op(OP_PCI_MMCFG_RESERVED, PciMmcfgReserved { address, segment, start_bus, end_bus, flags }),
        );
    }
    for (kind, word) in [(0u32, 1u32), (0, 2), (1, 1), (1, 2), (5, 9)] {
        // { u8 op; u8 bus kind; u16 segment; u8 bus; u8 devfn }
        obs(f!("dbgp_op {word} on bus kind {kind}"), op(OP_DBGP_OP, [word | kind << 8, 0, 0]));
    }
}

fn apic() {
    let read = |apic_physbase: u64, reg: u32| {
        let mut a = Apic { apic_physbase, reg, value: 0x5555_5555 };
        (call_ref(nr::PHYSDEV_OP, OP_APIC_READ, &mut a), a.value)
    };
    obs("version of the IOAPIC", f!("{} {:#x}", read(0xfec0_0000, 1).0, read(0xfec0_0000, 1).1));
    for (base, reg) in [
        (0xfec0_0000u64, 0u32),
        (0xfec0_0000, 2),
        (0xfec0_0000, 0x3f),
        (0xfec0_0000, 0x40),
        (0xfec0_0000, 0xff),
        (0xfec0_0000, u32::MAX),
        (0, 0),
        (0xfee0_0000, 0x20),
        (0xfec0_0001, 1),
        (u64::MAX, 1),
    ] {
        obs(f!("apic_read {base:#x} {reg:#x}"), read(base, reg).0);
    }
    for (base, reg, value) in
        [(0u64, 0x10u32, 0u32), (0xfec0_0000, 0x41, 0x1_0000), (0xfee0_0000, 0x10, 0), (u64::MAX, 0x10, 0)]
    {
        obs(
            f!("apic_write {base:#x} {reg:#x} {value:#x}"),
            op(OP_APIC_WRITE, Apic { apic_physbase: base, reg, value }),
        );
    }
}

fn eoi_page() {
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    for cmd in [OP_PIRQ_EOI_GMFN_V1, OP_PIRQ_EOI_GMFN_V2] {
        for (name, gmfn) in
            [("no frame", u64::MAX), ("beyond RAM", 0x7f_ffff), ("MMIO", 0xfee00), ("a page table", table.mfn())]
        {
            obs(f!("op {cmd}: {name}"), op(cmd, PirqEoiGmfn { gmfn }));
        }
    }
    paging::unpin(table).must("unpin");
    let page = Page::alloc();
    page.write(511, 0x1234);
    obs("EOI page", op(OP_PIRQ_EOI_GMFN_V2, PirqEoiGmfn { gmfn: page.mfn() }));
    obs("again", op(OP_PIRQ_EOI_GMFN_V2, PirqEoiGmfn { gmfn: page.mfn() }));
    obs("version 1", op(OP_PIRQ_EOI_GMFN_V1, PirqEoiGmfn { gmfn: page.mfn() }));
    obs("the page as a table", paging::pin(page, 1));
    obs("the end of the page stays", page.read(511));
}
