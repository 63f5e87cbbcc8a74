//! platform_op: what dom0's kernel asks of the machine itself (public/platform.h).

use super::{Args, Outcome};
use crate::arch::percpu::{CpuId, online};
use crate::domain::{Cx, lifecycle};
use crate::mm::guest::{copy_from_guest, copy_to_guest};
use crate::platform::{acpi, efi, machine};
use crate::time;
use pv_abi::errno::Errno;
use pv_abi::ids::GuestHandle;
use pv_abi::platform as x;
use zerocopy::IntoBytes as _;

/// platform_op(op). Only dom0.
pub fn platform_op(cx: &mut Cx, a: Args) -> Outcome {
    if !cx.domain().privileged {
        return Errno::EPERM.into();
    }
    let at = GuestHandle::<x::PlatformOp>::new(a.a1());
    let mut op = match copy_from_guest(at) {
        Ok(op) => op,
        Err(e) => return e.into(),
    };
    if op.interface_version != x::INTERFACE_VERSION {
        return Errno::EACCES.into();
    }
    let done = run(cx, &mut op);
    if let Ok(Answer::Data) = done
        && let Err(e) = copy_to_guest(at, &op)
    {
        return e.into();
    }
    done.map(|_| ()).into()
}

/// What goes back to the guest.
enum Answer {
    /// Only the result.
    Nothing,
    /// The structure, changed.
    Data,
}

fn run(cx: &Cx, op: &mut x::PlatformOp) -> Result<Answer, Errno> {
    match op.cmd {
        x::OP_SETTIME32 => {
            let t: x::SetTime32 = get(op)?;
            set_time(t.secs.into(), t.nsecs, t.system_time)
        }
        x::OP_SETTIME64 => {
            let t: x::SetTime64 = get(op)?;
            if t.mbz != 0 {
                return Err(Errno::EINVAL);
            }
            set_time(t.secs, t.nsecs, t.system_time)
        }
        x::OP_ENTER_ACPI_SLEEP => sleep(cx, &get(op)?),
        x::OP_FIRMWARE_INFO => firmware(op),
        x::OP_READ_MEMTYPE => {
            let mut m: x::ReadMemtype = get(op)?;
            (m.mfn, m.nr_mfns, m.kind) = machine::variable_mtrr(m.reg).ok_or(Errno::EINVAL)?;
            put(op, &m)
        }
        x::OP_GET_CPUINFO => {
            let mut c: x::PcpuInfo = get(op)?;
            c.max_present = online().saturating_sub(1);
            (c.flags, c.apic_id, c.acpi_id) = match machine::apic_id(CpuId(c.xen_cpuid)) {
                Some(apic) => (x::PCPU_FLAGS_ONLINE, apic, acpi_id(apic)),
                None => (x::PCPU_FLAGS_INVALID, 0, 0),
            };
            put(op, &c)
        }
        x::OP_GET_CPU_VERSION => {
            let mut c: x::PcpuVersion = get(op)?;
            c.max_present = online().saturating_sub(1);
            machine::apic_id(CpuId(c.xen_cpuid)).ok_or(Errno::EINVAL)?;
            // All CPUs of a machine are of one kind.
            (c.vendor_id, c.family, c.model, c.stepping) = machine::cpu_version();
            put(op, &c)
        }
        x::OP_CPU_ONLINE | x::OP_CPU_OFFLINE => {
            let c: x::CpuOl = get(op)?;
            machine::apic_id(CpuId(c.cpuid)).ok_or(Errno::EINVAL)?;
            // Those that are up stay up.
            if op.cmd == x::OP_CPU_ONLINE { Ok(Answer::Nothing) } else { Err(Errno::EOPNOTSUPP) }
        }
        x::OP_CORE_PARKING => {
            let mut c: x::CoreParking = get(op)?;
            if c.kind != x::CORE_PARKING_GET {
                return Err(Errno::EOPNOTSUPP);
            }
            c.idle_nums = 0;
            put(op, &c)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn get<T: zerocopy::FromBytes>(op: &x::PlatformOp) -> Result<T, Errno> {
    op.payload().ok_or(Errno::EINVAL)
}

fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(op: &mut x::PlatformOp, v: &T) -> Result<Answer, Errno> {
    op.set_payload(v);
    Ok(Answer::Data)
}

fn set_time(secs: u64, nsecs: u32, system_time: u64) -> Result<Answer, Errno> {
    if nsecs >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    time::set_wallclock(secs, nsecs, system_time);
    Ok(Answer::Nothing)
}

/// Processor UID of the CPU with this APIC id.
pub(super) fn acpi_id(apic: u32) -> u32 {
    acpi::tables().cpus.iter().find(|c| c.apic_id == apic).map_or(apic, |c| c.acpi_id)
}

/// dom0 has prepared the devices and gives the values for the power registers. Only S5 ends well: nobody would bring
/// the hypervisor back from S3.
fn sleep(cx: &Cx, s: &x::EnterAcpiSleep) -> Result<Answer, Errno> {
    if s.flags & !x::ACPI_SLEEP_EXTENDED != 0 || !(1..=5).contains(&s.sleep_state) {
        return Err(Errno::EINVAL);
    }
    if s.sleep_state != 5 || s.flags != 0 {
        return Err(Errno::EPERM);
    }
    if acpi::tables().fadt.is_none() {
        return Err(Errno::EPERM);
    }
    // dom0 does not come back from this call: the machine goes once its vCPU is off the CPU.
    lifecycle::power_off_with(cx.domain(), [s.val_a, s.val_b]);
    Ok(Answer::Nothing)
}

fn firmware(op: &mut x::PlatformOp) -> Result<Answer, Errno> {
    let mut f: x::FirmwareInfo = get(op)?;
    match f.kind {
        // BIOS calls are over by the time the loader starts us: there is no list of disks or displays.
        x::FW_DISK_INFO | x::FW_DISK_MBR_SIGNATURE | x::FW_VBEDDC_INFO => Err(Errno::ESRCH),
        x::FW_EFI_INFO => efi_info(op, &mut f),
        x::FW_KBD_SHIFT_FLAGS => {
            if f.index != 0 {
                return Err(Errno::ESRCH);
            }
            if let Some(word) = f.u.first_mut() {
                *word = *word & !0xff | u64::from(machine::keyboard_flags());
            }
            put(op, &f)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What UEFI firmware tells about itself. A kernel looks for ACPI's root pointer in the list of configuration tables, and
/// from Linux 6.12 on asks for each table's kind of memory before it believes in it.
fn efi_info(op: &mut x::PlatformOp, f: &mut x::FirmwareInfo) -> Result<Answer, Errno> {
    let table = efi::system_table().ok_or(Errno::ENOSYS)?;
    match f.index {
        x::FW_EFI_VERSION => set_union(f, &table.revision),
        x::FW_EFI_RT_VERSION => set_union(f, &table.runtime_revision),
        x::FW_EFI_CONFIG_TABLE => {
            set_union(f, &x::FwEfiConfigTable { addr: table.tables, nent: table.table_count, pad: 0 })
        }
        x::FW_EFI_VENDOR => {
            let mut v: x::FwEfiVendor = get_union(f)?;
            // As much as fits with a NUL behind it.
            let room = (v.bufsz / 2).checked_sub(1).ok_or(Errno::EINVAL)? as usize;
            let name = table.vendor.get(..room.min(table.vendor.len())).unwrap_or_default();
            for (n, unit) in name.iter().chain([&0]).enumerate() {
                copy_to_guest(GuestHandle::<u16>::new(v.name.wrapping_add(2 * n as u64)), unit)?;
            }
            v.revision = table.vendor_revision;
            set_union(f, &v);
        }
        x::FW_EFI_MEM_INFO => {
            let mut m: x::FwEfiMem = get_union(f)?;
            let range = efi::range_of(m.addr).ok_or(Errno::ESRCH)?;
            m.size = m.size.min(range.base.saturating_add(range.len).saturating_sub(m.addr));
            (m.attr, m.kind) = (range.attributes, range.kind);
            set_union(f, &m);
        }
        _ => return Err(Errno::EINVAL),
    }
    put(op, f)
}

/// The start of a firmware union as the structure its kind and index call for.
fn get_union<T: zerocopy::FromBytes>(f: &x::FirmwareInfo) -> Result<T, Errno> {
    T::read_from_prefix(f.u.as_bytes()).map(|(t, _)| t).map_err(|_| Errno::EINVAL)
}

fn set_union<T: zerocopy::IntoBytes + zerocopy::Immutable>(f: &mut x::FirmwareInfo, v: &T) {
    let _ = v.write_to_prefix(f.u.as_mut_bytes());
}
