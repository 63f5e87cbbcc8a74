//! D1 createdomain.

use super::{Done, payload};
use crate::domain::{Domain, Limits, MAX_VCPUS, slots};
use crate::sync::{Lock, Rank};
use pv_abi::domctl::{Createdomain, Domctl, GRANT_VERSION_MASK, cdf};
use pv_abi::errno::Errno;
use pv_abi::event::NR_PORTS_2L;
use pv_abi::ids::DomId;

/// Grant-table frames a domain may ask for.
const MAX_GRANT_FRAMES: u32 = 256;
/// Maptrack frames a domain may ask for.
const MAX_MAPTRACK_FRAMES: u32 = 4096;
/// `misc_flags`: unknown MSRs read as 0 instead of faulting. Accepted; ours fault whatever it says.
const MSR_RELAXED: u32 = 1;

/// Held while a domain is made: its frames find their accounts by id, so an id may be tried by one at a time.
static CREATING: Lock<()> = Lock::new(Rank::Creation, ());

fn limits(c: &Createdomain) -> Result<Limits, Errno> {
    let default = Limits::default();
    let frames = |asked: i32, default: u32, max: u32| match u32::try_from(asked) {
        Err(_) => Ok(default),
        Ok(n) if n == 0 || n > max => Err(Errno::EINVAL),
        Ok(n) => Ok(n),
    };
    Ok(Limits {
        max_pages: 0,
        max_ports: c.max_evtchn_port.saturating_add(1).min(NR_PORTS_2L),
        grant_frames: frames(c.max_grant_frames, default.grant_frames, MAX_GRANT_FRAMES)?,
        maptrack_frames: match c.max_maptrack_frames {
            0 => 0,
            n => frames(n, default.maptrack_frames, MAX_MAPTRACK_FRAMES)?,
        },
    })
}

fn check(c: &Createdomain) -> Result<(), Errno> {
    // PV domains only, without devices behind an IOMMU.
    if c.flags & !cdf::XS_DOMAIN != 0 || c.iommu_opts != 0 || c.emulation_flags != 0 || c.misc_flags & !MSR_RELAXED != 0
    {
        return Err(Errno::EINVAL);
    }
    if c.max_vcpus == 0 || c.max_vcpus as usize > MAX_VCPUS || c.vmtrace_size != 0 {
        return Err(Errno::EINVAL);
    }
    if c.grant_opts & GRANT_VERSION_MASK != 1 || c.grant_opts & !GRANT_VERSION_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    // There is one pool.
    if c.cpupool_id != 0 { Err(Errno::ENOENT) } else { Ok(()) }
}

/// Makes a domain: paused, without vCPUs and memory. `op.domain` names it, or 0 or a reserved id lets us choose.
///
/// # Errors
/// `EINVAL` for what we do not have, `EEXIST`, `ENOENT` for another CPU pool, `ENOMEM`.
pub(super) fn create(op: &mut Domctl) -> Result<Done, Errno> {
    let c = payload::<Createdomain>(op)?;
    check(&c)?;
    let limits = limits(&c)?;
    let _creating = CREATING.lock();
    let asked = DomId(op.domain);
    let id = if asked.0 == 0 || asked >= DomId::FIRST_RESERVED {
        slots::free_id().ok_or(Errno::ENOMEM)?
    } else if slots::find(asked).is_some() {
        return Err(Errno::EEXIST);
    } else if usize::from(asked.0) >= slots::MAX_DOMAINS {
        return Err(Errno::EINVAL);
    } else {
        asked
    };
    let d = Domain::try_new(id, c.handle, false, &limits)?;
    crate::time::publish_wallclock(&d);
    slots::insert(d)?;
    op.domain = id.0;
    log::info!("domain {id} created");
    Ok(Done::Copy)
}
