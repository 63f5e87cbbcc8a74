//! Messages and MSI-X tables of devices that have none, through physdev_op.
//!
//! Attacks: prepare_msix and release_msix of functions without MSI-X (real Xen 4.17 follows a null pointer here, so it does
//! not run this), of absent ones and of those dom0 did not tell of; GSIs mapped, bound, unmapped and mapped again in every
//! order; every PIRQ at once. Must happen: errors; numbers come back when they are free.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::event;
use pv_abi::physdev::*;

guests::kernel!(run);

fn op<T>(cmd: u64, mut arg: T) -> Ret {
    call_ref(nr::PHYSDEV_OP, cmd, &mut arg)
}

fn map(index: i32, pirq: i32) -> (Ret, i32) {
    let mut m = MapPirq { domid: SELF, kind: MAP_PIRQ_TYPE_GSI, index, pirq, ..MapPirq::default() };
    let r = call_ref(nr::PHYSDEV_OP, OP_MAP_PIRQ, &mut m);
    (r, m.pirq)
}

fn run() {
    for (name, d) in [
        ("the host bridge", PciDevice { seg: 0, bus: 0, devfn: 0 }),
        ("an absent one", PciDevice { seg: 0, bus: 0, devfn: 0x58 }),
        ("segment 0xffff", PciDevice { seg: 0xffff, bus: 255, devfn: 255 }),
    ] {
        expect(f!("prepare_msix, not told of: {name}"), op(OP_PREPARE_MSIX, d), errno(ENODEV));
        let add = [u64::from(d.seg) | u64::from(d.bus) << 16 | u64::from(d.devfn) << 24, 0, 0];
        expect(f!("add {name}"), op(OP_PCI_DEVICE_ADD, add), OK);
        for round in 0..3 {
            obs(f!("prepare_msix {round} of {name}"), op(OP_PREPARE_MSIX, d));
            obs(f!("restore {round} of {name}"), op(OP_RESTORE_MSI_EXT, d));
            obs(f!("release_msix {round} of {name}"), op(OP_RELEASE_MSIX, d));
        }
        expect(f!("remove {name}"), op(OP_PCI_DEVICE_REMOVE, d), OK);
        expect(f!("remove {name} again"), op(OP_PCI_DEVICE_REMOVE, d), errno(ENODEV));
        expect(f!("release_msix of {name} after that"), op(OP_RELEASE_MSIX, d), errno(ENODEV));
    }
    for round in 0..50 {
        let (r, pirq) = map(18, -1);
        if r != OK {
            report::fail(f!("map in round {round}: {r}"));
            break;
        }
        let mut b = event::BindPirq { pirq: pirq as u32, flags: 1, port: 0 };
        let bound = events::op(event::OP_BIND_PIRQ, &mut b);
        let eoi = op(OP_EOI, Eoi { irq: pirq as u32 });
        let unmapped = op(OP_UNMAP_PIRQ, UnmapPirq { domid: SELF, pad: 0, pirq });
        let late = op(OP_EOI, Eoi { irq: pirq as u32 });
        let closed = events::close(b.port);
        if [bound, eoi, unmapped, closed] != [OK; 4] || late.0 >= 0 {
            report::fail(f!("round {round}: {bound} {eoi} {unmapped} {late} {closed}"));
            break;
        }
    }
    check("fifty rounds of map, bind, unmap, close", true);
    alive();
}
