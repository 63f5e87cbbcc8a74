//! domctl: how dom0 makes, watches and destroys other domains. Interface version 0x15 (Xen 4.17's tools).
//!
//! One structure comes in, is copied once, checked, and goes back with the answer. dom0 may do anything here but stop
//! itself: whatever waits for a domain's vCPUs refuses the caller's own domain.

mod create;
mod info;
mod policy;
mod vcpu;

pub use info::info_of;

use super::{Args, Outcome, bitmap};
use crate::domain::{Cx, DomainRef, Life, VcpuRef, lifecycle, slots};
use crate::mm::frame;
use crate::mm::guest;
use crate::mm::page_type::Kind;
use crate::platform::timer;
use crate::sched;
use core::sync::atomic::Ordering;
use pv_abi::domctl::{self as dc, Domctl};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, GuestHandle, Mfn};
use zerocopy::IntoBytes;

/// What an operation leads to.
pub(super) enum Done {
    /// The result.
    Plain,
    /// The result, and the structure goes back.
    Copy,
    /// Stopped half-way: the same call again.
    Again,
}

/// The payload, or `EINVAL` (it always fits).
fn payload<T: zerocopy::FromBytes>(op: &Domctl) -> Result<T, Errno> {
    op.payload().ok_or(Errno::EINVAL)
}

/// domctl(op).
pub fn domctl(cx: &mut Cx, a: Args) -> Outcome {
    if !cx.domain().privileged {
        return Errno::EPERM.into();
    }
    let at = GuestHandle::<Domctl>::new(a.a1());
    let Ok(mut op) = guest::copy_from_guest(at) else {
        return Errno::EFAULT.into();
    };
    if op.interface_version != dc::INTERFACE_VERSION {
        return Errno::EACCES.into();
    }
    match run(cx, &mut op) {
        Ok(Done::Plain) => Outcome::Return(0),
        Ok(Done::Copy) => guest::copy_to_guest(at, &op).into(),
        Ok(Done::Again) => Outcome::Restart(a),
        Err(e) => e.into(),
    }
}

fn run(cx: &mut Cx, op: &mut Domctl) -> Result<Done, Errno> {
    match op.cmd {
        dc::OP_CREATEDOMAIN => return create::create(op),
        dc::OP_GETDOMAININFO => return info::get(op),
        // Known to the tools, which take exactly this for "not here".
        dc::OP_SET_LLC_COLORS => return Err(Errno::EOPNOTSUPP),
        _ => {}
    }
    let d = slots::find(DomId(op.domain)).ok_or(Errno::ESRCH)?;
    let own = DomainRef::ptr_eq(&d, cx.domain());
    match op.cmd {
        dc::OP_DESTROYDOMAIN => {
            if own {
                return Err(Errno::EINVAL);
            }
            match lifecycle::destroy(&d) {
                Err(Errno::EAGAIN) => Ok(Done::Again),
                r => r.map(|()| Done::Plain),
            }
        }
        dc::OP_PAUSEDOMAIN => pause(&d, own),
        dc::OP_UNPAUSEDOMAIN => unpause(&d),
        dc::OP_RESUMEDOMAIN => {
            if own {
                return Err(Errno::EINVAL);
            }
            lifecycle::resume(&d);
            Ok(Done::Plain)
        }
        dc::OP_MAX_MEM => {
            let kb = payload::<dc::MaxMem>(op)?.max_memkb;
            d.mem.set_max_pages((kb / 4).min(frame::count()));
            Ok(Done::Plain)
        }
        dc::OP_SETDOMAINHANDLE => {
            *d.handle.lock() = payload::<dc::SetDomainHandle>(op)?.handle;
            Ok(Done::Plain)
        }
        dc::OP_SETTIMEOFFSET => {
            let s = payload::<dc::SetTimeOffset>(op)?.time_offset_seconds;
            d.time_offset.store(s as u64, Ordering::Relaxed);
            crate::time::publish_wallclock(&d);
            Ok(Done::Plain)
        }
        dc::OP_HYPERCALL_INIT => {
            let mfn = Mfn(payload::<dc::HypercallInit>(op)?.gmfn);
            if super::page::fill(&d, mfn) { Ok(Done::Plain) } else { Err(Errno::EACCES) }
        }
        dc::OP_SET_ADDRESS_SIZE => match payload::<dc::AddressSize>(op)?.size {
            64 => Ok(Done::Plain),
            _ => Err(Errno::EINVAL),
        },
        dc::OP_GET_ADDRESS_SIZE => {
            op.set_payload(&dc::AddressSize { size: 64 });
            Ok(Done::Copy)
        }
        dc::OP_SETTSCINFO => match payload::<dc::TscInfo>(op)?.mode {
            // Guests read the machine's TSC; the other modes ask for one that is slower or made up.
            dc::TSC_MODE_DEFAULT => Ok(Done::Plain),
            _ => Err(Errno::EOPNOTSUPP),
        },
        dc::OP_GETTSCINFO => {
            op.set_payload(&dc::TscInfo {
                mode: dc::TSC_MODE_DEFAULT,
                gtsc_khz: timer::tsc_khz() as u32,
                elapsed_nsec: crate::time::now(),
                ..Default::default()
            });
            Ok(Done::Copy)
        }
        dc::OP_SCHEDULER_OP => scheduler_op(&d, op),
        dc::OP_GETPAGEFRAMEINFO3 => page_types(&d, op),
        dc::OP_SETNODEAFFINITY => {
            let map = bitmap::read(&payload::<dc::NodeAffinity>(op)?.nodemap)?;
            if map & 1 != 0 { Ok(Done::Plain) } else { Err(Errno::EINVAL) }
        }
        dc::OP_GETNODEAFFINITY => {
            bitmap::write(&payload::<dc::NodeAffinity>(op)?.nodemap, 1)?;
            Ok(Done::Plain)
        }
        dc::OP_MAX_VCPUS => match d.create_vcpus(payload::<dc::MaxVcpus>(op)?.max) {
            Err(Errno::EAGAIN) => Ok(Done::Again),
            r => r.map(|()| Done::Plain),
        },
        dc::OP_SETVCPUCONTEXT => vcpu::set_context(&d, own, op),
        dc::OP_GETVCPUCONTEXT => vcpu::get_context(&d, own, op),
        dc::OP_GETVCPUINFO => vcpu::info(&d, op),
        dc::OP_SETVCPUAFFINITY => vcpu::set_affinity(&d, op),
        dc::OP_GETVCPUAFFINITY => vcpu::get_affinity(&d, op),
        dc::OP_SET_CPU_POLICY => policy::set(&d, op),
        dc::OP_GET_CPU_POLICY => policy::get(&d, op),
        _ => Err(Errno::ENOSYS),
    }
}

/// D3: one more pause, and no vCPU runs when it returns.
fn pause(d: &DomainRef, own: bool) -> Result<Done, Errno> {
    if own || d.life() != Life::Alive {
        return Err(Errno::EINVAL);
    }
    d.tool_pauses.fetch_add(1, Ordering::SeqCst);
    lifecycle::pause_and_wait(d);
    Ok(Done::Plain)
}

/// D4: takes one of the tools' pauses back.
fn unpause(d: &DomainRef) -> Result<Done, Errno> {
    let less = |n: u32| n.checked_sub(1);
    d.tool_pauses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).map_err(|_| Errno::EINVAL)?;
    d.started.store(true, Ordering::Release);
    lifecycle::unpause(d);
    Ok(Done::Plain)
}

/// D16: weight and cap of a domain, in the clothes of credit2. Weight 0 leaves it as it is; the cap is in percent of one
/// CPU, 0 for none, and always set.
fn scheduler_op(d: &DomainRef, op: &mut Domctl) -> Result<Done, Errno> {
    let mut s = payload::<dc::SchedulerOp>(op)?;
    if s.sched_id != super::sysctl::SCHEDULER {
        return Err(Errno::EINVAL);
    }
    match s.cmd {
        dc::SCHEDOP_GETINFO => {
            s.u = [u64::from(d.share.weight() as u16) | u64::from(d.share.cap() as u16) << 16, 0];
            op.set_payload(&s);
            Ok(Done::Copy)
        }
        dc::SCHEDOP_PUTINFO => {
            let [first, _] = s.u;
            let (weight, cap) = (first as u16, (first >> 16) as u16);
            if weight != 0 {
                d.share.set_weight(u32::from(weight));
            }
            if u32::from(cap) != d.share.cap() {
                d.share.set_cap(u32::from(cap));
                // What waits for a budget looks again, and what runs gets a slice that fits.
                for v in d.vcpus() {
                    if let Some(v) = VcpuRef::new(d, v.id) {
                        sched::uncap(&v);
                        sched::look_again(&v);
                    }
                }
            }
            Ok(Done::Plain)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// D61: what the domain uses each frame of a list as.
fn page_types(d: &DomainRef, op: &mut Domctl) -> Result<Done, Errno> {
    use pv_abi::domctl::pfinfo as p;
    let list = payload::<dc::Getpageframeinfo3>(op)?;
    if list.num > p::MAX {
        return Err(Errno::E2BIG);
    }
    // In pieces: there is no preemption point in here, for what is done stands where the question stood.
    for first in (0..list.num).step_by(PIECE) {
        let n = (list.num - first).min(PIECE as u64) as usize;
        let at = GuestHandle::<u64>::new(list.array).offset(first).addr();
        let mut piece = [0u64; PIECE];
        let piece = piece.get_mut(..n).unwrap_or(&mut []);
        guest::read_bytes(at, piece.as_mut_bytes())?;
        piece.iter_mut().for_each(|word| *word = u64::from(page_type(d, Mfn(*word))));
        guest::write_bytes(at, piece.as_bytes())?;
    }
    Ok(Done::Copy)
}

/// Frames looked at between two copies of D61.
const PIECE: usize = 64;

fn page_type(d: &DomainRef, mfn: Mfn) -> u32 {
    use pv_abi::domctl::pfinfo as p;
    match frame::get(mfn).filter(|f| f.owner() == Some(d.id)) {
        None => p::XTAB,
        Some(f) => {
            let table = match f.kind() {
                Kind::L1 => p::L1TAB,
                Kind::L2 => p::L2TAB,
                Kind::L3 => p::L3TAB,
                Kind::L4 => p::L4TAB,
                _ => p::NOTAB,
            };
            if f.pinned() { table | p::LPINTAB } else { table }
        }
    }
}
