//! mca: what dom0 may know of machine checks. The hypervisor stops at one, so there never is a record to fetch; dom0
//! learns which CPUs there are, and that they have no banks for it.

use super::{Args, Outcome};
use crate::arch::percpu::{CpuId, online};
use crate::domain::Cx;
use crate::mm::guest::{copy_element_to_guest, copy_from_guest, copy_to_guest};
use crate::platform::machine;
use pv_abi::errno::Errno;
use pv_abi::ids::GuestHandle;
use pv_abi::mca as m;

/// mca(op): `{ u32 cmd; u32 version; union at 8 }`. Only dom0.
pub fn mca(cx: &mut Cx, a: Args) -> Outcome {
    if !cx.domain().privileged {
        return Errno::EPERM.into();
    }
    let head = match copy_from_guest(GuestHandle::<m::Head>::new(a.a1())) {
        Ok(h) => h,
        Err(e) => return e.into(),
    };
    if head.interface_version != m::INTERFACE_VERSION {
        return Errno::EACCES.into();
    }
    let payload = a.a1().wrapping_add(m::PAYLOAD);
    match head.cmd {
        m::OP_FETCH => fetch(payload),
        m::OP_PHYSCPUINFO => cpus(payload),
        // Errors are not made for tests.
        m::OP_MSRINJECT | m::OP_MCEINJECT | m::OP_INJECT_V2 => Err(Errno::EOPNOTSUPP),
        // Nor handed on to domains; and this call says so of what it does not know.
        _ => Err(Errno::EINVAL),
    }
    .into()
}

fn fetch(at: u64) -> Result<(), Errno> {
    let h = GuestHandle::<m::Fetch>::new(at);
    let mut f = copy_from_guest(h)?;
    match f.flags {
        m::FETCH_NONURGENT | m::FETCH_URGENT => {
            f.flags = m::FETCH_NODATA;
            f.fetch_id = 0;
            copy_to_guest(h, &f)
        }
        // Nothing was fetched, so nothing is left to acknowledge.
        flags if flags & m::FETCH_ACK != 0 && flags & !7 == 0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

fn cpus(at: u64) -> Result<(), Errno> {
    let h = GuestHandle::<m::PhysCpuInfo>::new(at);
    let mut p = copy_from_guest(h)?;
    let n = online();
    // Without a list the caller asks how long it must be.
    if p.info != 0 {
        if p.ncpus < n {
            return Err(Errno::EINVAL);
        }
        let list = GuestHandle::<m::LogicalCpu>::new(p.info);
        for i in 0..n {
            copy_element_to_guest(list, u64::from(i), &logical(i))?;
        }
    }
    p.ncpus = n;
    copy_to_guest(h, &p)
}

fn logical(i: u32) -> m::LogicalCpu {
    let (vendor, family, model, step) = machine::cpu_version();
    let mut c = m::LogicalCpu {
        cpunr: i,
        coreid: i as u16,
        apicid: machine::apic_id(CpuId(i)).unwrap_or(i),
        ncores: online(),
        ncores_active: online(),
        nthreads: 1,
        family,
        model,
        step,
        nmsrvals: 1,
        ..Default::default()
    };
    for (to, from) in c.vendorid.iter_mut().zip(vendor) {
        *to = from;
    }
    // No banks.
    c.msrvalues[0] = m::MSR_MCG_CAP;
    c
}
