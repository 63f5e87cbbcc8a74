//! physdev_op: interrupts of the machine's devices, their messages, I/O rights (public/physdev.h).
//!
//! dom0 names interrupts to us and tells how their lines are wired; the hypervisor alone programs IOAPICs and messages.
//! I/O rights and EOIs are any domain's own affair; everything else is dom0's.

use super::{Args, Outcome};
use crate::domain::{Cx, DomainRef, slots};
use crate::events;
use crate::mm::guest::{copy_from_guest, copy_to_guest};
use crate::mm::shared_frame::SharedFrame;
use crate::platform::ioapic::{Polarity, Trigger};
use crate::platform::msi::Request;
use crate::platform::pci::Function;
use crate::platform::{acpi, devices, irq};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, GuestHandle, GuestVirt, Mfn};
use pv_abi::physdev as p;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads the argument for `f`.
fn read<T: FromBytes + IntoBytes>(arg: u64, f: impl FnOnce(T) -> Result<(), Errno>) -> Result<(), Errno> {
    f(copy_from_guest(GuestHandle::<T>::new(arg))?)
}

/// Reads the argument for `f`, and writes back what `f` made of it when it succeeded.
fn with<T: FromBytes + IntoBytes + Immutable>(
    arg: u64,
    f: impl FnOnce(&mut T) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let at = GuestHandle::<T>::new(arg);
    let mut v = copy_from_guest(at)?;
    f(&mut v)?;
    copy_to_guest(at, &v)
}

/// physdev_op(cmd, arg).
pub fn physdev_op(cx: &mut Cx, a: Args) -> Outcome {
    let arg = a.a2();
    let d = cx.domain();
    match a.int(0) {
        // An EOI of the days before this interface; nothing to do.
        p::OP_IRQ_UNMASK_NOTIFY => Ok(()),
        p::OP_SET_IOPL => read(arg, |s: p::SetIopl| set_iopl(cx, s.iopl)),
        p::OP_SET_IOBITMAP => read(arg, |s: p::SetIobitmap| set_iobitmap(cx, &s)),
        p::OP_EOI => read(arg, |e: p::Eoi| eoi(d, e.irq)),
        p::OP_IRQ_STATUS_QUERY => with(arg, |q: &mut p::IrqStatusQuery| {
            if q.irq >= irq::NR_PIRQS {
                return Err(Errno::EINVAL);
            }
            // A guest that asks has no EOI page; it is told to be careful always.
            q.flags = p::IRQSTAT_NEEDS_EOI;
            Ok(())
        }),
        p::OP_PIRQ_EOI_GMFN_V1 => read(arg, |g: p::PirqEoiGmfn| register_page(d, g.gmfn, true)),
        p::OP_PIRQ_EOI_GMFN_V2 => read(arg, |g: p::PirqEoiGmfn| register_page(d, g.gmfn, false)),
        cmd if known(cmd) && !d.privileged => Err(Errno::EPERM),
        cmd => hardware(d, cmd, arg),
    }
    .into()
}

/// The older entry: `{ u32 cmd; union at 8 }`.
pub fn physdev_op_compat(cx: &mut Cx, a: Args) -> Outcome {
    let cmd = match copy_from_guest(GuestHandle::<u32>::new(a.a1())) {
        Ok(c) => u64::from(c),
        Err(e) => return e.into(),
    };
    physdev_op(cx, Args([cmd, a.a1().wrapping_add(8), 0, 0, 0]))
}

fn known(cmd: u64) -> bool {
    matches!(cmd, p::OP_APIC_READ..=p::OP_ALLOC_IRQ_VECTOR | p::OP_MAP_PIRQ..=p::OP_MANAGE_PCI_REMOVE)
        || matches!(cmd, p::OP_RESTORE_MSI..=p::OP_SETUP_GSI | p::OP_GET_FREE_PIRQ..=p::OP_RELEASE_MSIX)
}

/// What only dom0 may do.
fn hardware(d: &DomainRef, cmd: u64, arg: u64) -> Result<(), Errno> {
    match cmd {
        p::OP_APIC_READ => with(arg, |r: &mut p::Apic| {
            r.value = irq::ioapic_register(r.apic_physbase, r.reg).ok_or(Errno::EINVAL)?;
            Ok(())
        }),
        // IOAPIC entries are the hypervisor's.
        p::OP_APIC_WRITE => read(arg, |r: p::Apic| {
            irq::ioapic_register(r.apic_physbase, 0).ok_or(Errno::EINVAL)?;
            Err(Errno::EPERM)
        }),
        // Vectors are the hypervisor's affair: dom0 gets a number that means nothing but its own line.
        p::OP_ALLOC_IRQ_VECTOR => with(arg, |v: &mut p::IrqOp| {
            v.vector = v.irq;
            Ok(())
        }),
        p::OP_MAP_PIRQ => with(arg, |m: &mut p::MapPirq| map_pirq(d, m)),
        p::OP_UNMAP_PIRQ => read(arg, |u: p::UnmapPirq| {
            let target = target(d, u.domid)?;
            let pirq = u32::try_from(u.pirq).map_err(|_| Errno::EINVAL)?;
            irq::unmap(target.id, pirq)?;
            target.pirqs.refresh(target.id, pirq);
            Ok(())
        }),
        p::OP_SETUP_GSI => read(arg, |s: p::SetupGsi| {
            let gsi = u32::try_from(s.gsi).map_err(|_| Errno::EINVAL)?;
            let trigger = if s.triggering != 0 { Trigger::Level } else { Trigger::Edge };
            let polarity = if s.polarity != 0 { Polarity::Low } else { Polarity::High };
            irq::setup_gsi(gsi, trigger, polarity)?;
            d.pirqs.refresh(d.id, gsi);
            Ok(())
        }),
        p::OP_GET_FREE_PIRQ => with(arg, |g: &mut p::GetFreePirq| {
            g.pirq = irq::free_pirq(d.id)?;
            Ok(())
        }),
        p::OP_MANAGE_PCI_ADD | p::OP_MANAGE_PCI_ADD_EXT => {
            read(arg, |m: p::ManagePci| devices::added(Function { segment: 0, bus: m.bus, devfn: m.devfn }))
        }
        p::OP_PCI_DEVICE_ADD => read(arg, |m: p::PciDevice| devices::added(function(&m))),
        // Interrupts of a device that goes are unmapped by dom0.
        p::OP_MANAGE_PCI_REMOVE => {
            read(arg, |m: p::ManagePci| devices::removed(Function { segment: 0, bus: m.bus, devfn: m.devfn }))
        }
        p::OP_PCI_DEVICE_REMOVE => read(arg, |m: p::PciDevice| devices::removed(function(&m))),
        p::OP_PREPARE_MSIX | p::OP_RELEASE_MSIX => read(arg, |m: p::PciDevice| devices::known(function(&m))),
        p::OP_RESTORE_MSI => {
            read(arg, |m: p::ManagePci| irq::restore_msi(Function { segment: 0, bus: m.bus, devfn: m.devfn }))
        }
        p::OP_RESTORE_MSI_EXT => read(arg, |m: p::PciDevice| irq::restore_msi(function(&m))),
        p::OP_PCI_MMCFG_RESERVED => read(arg, |m: p::PciMmcfgReserved| {
            if m.start_bus > m.end_bus {
                return Err(Errno::EINVAL);
            }
            let known = acpi::tables().ecam.iter().any(|e| e.base == m.address && e.segment == m.segment);
            if known { Ok(()) } else { Err(Errno::ENODEV) }
        }),
        // No debug port is in use here.
        p::OP_DBGP_OP => read(arg, |_: p::PciDevice| Ok(())),
        _ => Err(Errno::ENOSYS),
    }
}

fn set_iopl(cx: &mut Cx, iopl: u32) -> Result<(), Errno> {
    if iopl > 3 {
        return Err(Errno::EINVAL);
    }
    cx.arch.iopl = iopl as u8;
    Ok(())
}

fn set_iobitmap(cx: &mut Cx, s: &p::SetIobitmap) -> Result<(), Errno> {
    if s.nr_ports > 65536 || !crate::arch::layout::is_guest_range(s.bitmap, u64::from(s.nr_ports.div_ceil(8))) {
        return Err(Errno::EINVAL);
    }
    cx.arch.iobitmap = (s.nr_ports != 0).then_some((GuestVirt(s.bitmap), s.nr_ports));
    Ok(())
}

fn eoi(d: &DomainRef, pirq: u32) -> Result<(), Errno> {
    irq::eoi(d.id, pirq)?;
    if d.pirqs.eoi_unmasks() {
        let port = d.events.ports.lock().find_pirq(pirq).map(|(port, _)| port);
        if let Some(port) = port {
            events::unmask(d, port)?;
        }
    }
    Ok(())
}

fn register_page(d: &DomainRef, gmfn: u64, unmasks: bool) -> Result<(), Errno> {
    let frame = SharedFrame::of_guest(&d.mem, Mfn(gmfn))?;
    d.pirqs.register(d.id, frame, unmasks)
}

fn function(m: &p::PciDevice) -> Function {
    Function { segment: m.seg, bus: m.bus, devfn: m.devfn }
}

fn target(d: &DomainRef, id: u16) -> Result<DomainRef, Errno> {
    let id = DomId(id);
    if id == DomId::SELF || id == d.id { Ok(d.clone()) } else { slots::find(id).ok_or(Errno::ESRCH) }
}

fn map_pirq(d: &DomainRef, m: &mut p::MapPirq) -> Result<(), Errno> {
    let target = target(d, m.domid)?;
    let asked = u32::try_from(m.pirq).ok();
    let pirq = match m.kind {
        p::MAP_PIRQ_TYPE_GSI => irq::map_gsi(target.id, u32::try_from(m.index).map_err(|_| Errno::EINVAL)?, asked)?,
        p::MAP_PIRQ_TYPE_MSI | p::MAP_PIRQ_TYPE_MSI_SEG | p::MAP_PIRQ_TYPE_MULTI_MSI => {
            // A message's vector is ours to choose (-1); a number is looked at, and means nothing.
            let plain = m.kind != p::MAP_PIRQ_TYPE_MULTI_MSI;
            if plain && !(-1..irq::NR_PIRQS as i32).contains(&m.index) {
                return Err(Errno::EINVAL);
            }
            if !plain {
                match m.entry_nr {
                    // MSI-X has no blocks.
                    _ if m.table_base != 0 => return Err(Errno::EINVAL),
                    ..=0 | 33.. => return Err(Errno::EDOM),
                    1 => m.entry_nr = 0,
                    // Several messages of plain MSI need aligned vectors with one destination; drivers manage with one.
                    _ => return Err(Errno::EOPNOTSUPP),
                }
            }
            let segment = if m.kind == p::MAP_PIRQ_TYPE_MSI { 0 } else { (m.bus >> 16) as u16 };
            let request = Request {
                function: Function { segment, bus: m.bus as u8, devfn: m.devfn as u8 },
                entry: u16::try_from(m.entry_nr).map_err(|_| Errno::ENODEV)?,
                table_base: m.table_base,
            };
            irq::map_msi(target.id, request, asked)?
        }
        _ => return Err(Errno::EINVAL),
    };
    m.pirq = pirq as i32;
    target.pirqs.refresh(target.id, pirq);
    Ok(())
}
