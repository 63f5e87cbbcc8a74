//! What the tools do with vCPUs of other domains: D9, D12, D13, D14, D25.

use super::{Done, payload};
use crate::arch::cpumask::CpuMask;
use crate::domain::{DomainRef, Life, VcpuArch, VcpuRef, capture, lifecycle, setup};
use crate::hypercall::bitmap;
use crate::mm::guest;
use crate::sched;
use crate::time::runstate;
use alloc::boxed::Box;
use core::sync::atomic::Ordering;
use pv_abi::arch::{VcpuGuestContext, vgcf};
use pv_abi::domctl as dc;
use pv_abi::errno::Errno;
use pv_abi::ids::VcpuId;
use zerocopy::IntoBytes;

fn find(d: &DomainRef, id: u32) -> Result<VcpuRef, Errno> {
    VcpuRef::new(d, VcpuId(id)).ok_or(if d.vcpus().is_empty() { Errno::ESRCH } else { Errno::EINVAL })
}

/// Runs `f` with the parked state of a vCPU of a paused domain.
fn with_parked<R>(
    d: &DomainRef,
    v: &VcpuRef,
    f: impl FnOnce(&mut Box<VcpuArch>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    lifecycle::pause_and_wait(d);
    let taken = v.parked.lock().take();
    // Another CPU may be doing the same: it puts the state back in a moment.
    let r = match taken {
        // Or the domain is being taken apart.
        None if d.life() != Life::Alive => Err(Errno::ESRCH),
        None => Err(Errno::EAGAIN),
        Some(mut arch) => {
            let r = f(&mut arch);
            *v.parked.lock() = Some(arch);
            r
        }
    };
    lifecycle::unpause(d);
    r
}

/// D12: sets the state of a vCPU.
///
/// # Errors
/// `EINVAL` for the caller's own domain, a vCPU that does not exist or a state that cannot be; `EFAULT`; `ENOMEM`.
pub(super) fn set_context(d: &DomainRef, own: bool, op: &dc::Domctl) -> Result<Done, Errno> {
    let c = payload::<dc::Vcpucontext>(op)?;
    if own {
        return Err(Errno::EINVAL);
    }
    let v = find(d, c.vcpu)?;
    let mut context = crate::fallible::try_box(VcpuGuestContext::default())?;
    guest::read_bytes(c.ctxt, context.as_mut_bytes())?;
    match with_parked(d, &v, |arch| setup::apply(d, &v, arch, &context)) {
        Err(Errno::EAGAIN) => return Ok(Done::Again),
        r => r?,
    }
    // The builder filled shared_info with zeroes after we had written the clocks there.
    crate::time::publish_to(&v);
    if c.vcpu == 0 {
        d.vm_assist.store(context.vm_assist, Ordering::Relaxed);
        crate::time::publish_wallclock(d);
    }
    let online = context.flags & vgcf::ONLINE != 0;
    if v.down.swap(!online, Ordering::SeqCst) && online {
        sched::wake(&v);
    }
    Ok(Done::Plain)
}

/// D13: reads the state of a vCPU.
///
/// # Errors
/// As [`set_context`]; `ENODATA` when it was never given a state.
pub(super) fn get_context(d: &DomainRef, own: bool, op: &mut dc::Domctl) -> Result<Done, Errno> {
    let c = payload::<dc::Vcpucontext>(op)?;
    if own {
        return Err(Errno::EINVAL);
    }
    let v = find(d, c.vcpu)?;
    let mut context = crate::fallible::try_box(VcpuGuestContext::default())?;
    let read = with_parked(d, &v, |arch| {
        if !v.initialised.load(Ordering::SeqCst) {
            return Err(Errno::ENODATA);
        }
        capture::context(d, &v, arch, &mut context);
        Ok(())
    });
    match read {
        Err(Errno::EAGAIN) => return Ok(Done::Again),
        r => r?,
    }
    guest::write_bytes(c.ctxt, context.as_bytes())?;
    Ok(Done::Copy)
}

/// D14.
///
/// # Errors
/// `EINVAL`, or `ESRCH` for a domain without vCPUs.
pub(super) fn info(d: &DomainRef, op: &mut dc::Domctl) -> Result<Done, Errno> {
    let id = payload::<dc::Getvcpuinfo>(op)?.vcpu;
    let v = find(d, id)?;
    let [cpu_time, ..] = runstate::info(&v).time;
    op.set_payload(&dc::Getvcpuinfo {
        vcpu: id,
        online: u8::from(!v.down.load(Ordering::Relaxed)),
        blocked: u8::from(v.blocked.load(Ordering::Relaxed)),
        running: u8::from(v.sched.state.load(Ordering::Relaxed) == sched::state::RUNNING),
        cpu_time,
        cpu: v.sched.cpu.load(Ordering::Relaxed),
        ..Default::default()
    });
    Ok(Done::Copy)
}

/// D9: on which CPUs a vCPU may run (hard), and which of them it is to prefer (soft). What is in effect is written back:
/// of the hard affinity the CPUs that are online, of the soft one those of them that are also in the hard one.
///
/// # Errors
/// `EINVAL` when no online CPU is left, or neither kind is asked for.
pub(super) fn set_affinity(d: &DomainRef, op: &mut dc::Domctl) -> Result<Done, Errno> {
    let a = payload::<dc::Vcpuaffinity>(op)?;
    let v = find(d, a.vcpu)?;
    if a.flags & (dc::VCPUAFFINITY_HARD | dc::VCPUAFFINITY_SOFT) == 0 {
        return Err(Errno::EINVAL);
    }
    if a.flags & dc::VCPUAFFINITY_HARD != 0 {
        let wanted = CpuMask::from_bits(bitmap::read(&a.hard)?);
        if wanted.and(bitmap::online()).is_empty() {
            return Err(Errno::EINVAL);
        }
        sched::set_affinity(&v, Some(wanted), None);
        bitmap::write(&a.hard, wanted.and(bitmap::online()).bits())?;
    }
    if a.flags & dc::VCPUAFFINITY_SOFT != 0 {
        let wanted = CpuMask::from_bits(bitmap::read(&a.soft)?);
        if wanted.and(bitmap::online()).is_empty() {
            return Err(Errno::EINVAL);
        }
        sched::set_affinity(&v, None, Some(wanted));
        let effective = wanted.and(v.sched.hard.load()).and(bitmap::online());
        bitmap::write(&a.soft, effective.bits())?;
    }
    Ok(Done::Copy)
}

/// D25.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub(super) fn get_affinity(d: &DomainRef, op: &mut dc::Domctl) -> Result<Done, Errno> {
    let a = payload::<dc::Vcpuaffinity>(op)?;
    let v = find(d, a.vcpu)?;
    if a.flags & dc::VCPUAFFINITY_HARD != 0 {
        bitmap::write(&a.hard, v.sched.hard.load().bits())?;
    }
    if a.flags & dc::VCPUAFFINITY_SOFT != 0 {
        bitmap::write(&a.soft, v.sched.soft.load().bits())?;
    }
    Ok(Done::Copy)
}
