//! vcpu_op and set_timer_op: vCPUs, their timers and their shared areas.

use super::{Args, Outcome};
use crate::arch::percpu::{CpuId, pending, this_cpu};
use crate::domain::{Cx, ShutdownReason, VcpuRef, lifecycle, setup};
use crate::mm::guest;
use crate::mm::shared_frame::InfoPage;
use crate::platform::machine;
use crate::sched;
use crate::time::{now, runstate, timers};
use core::sync::atomic::Ordering;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::errno::Errno;
use pv_abi::ids::{GuestHandle, GuestVirt, Mfn, VcpuId};
use pv_abi::vcpu as v;

/// Shortest period of a periodic timer, ns.
const MIN_PERIOD: u64 = 1_000_000;
/// Longest: what is beyond could overflow a deadline.
const MAX_PERIOD: u64 = u64::MAX >> 2;

/// vcpu_op(cmd, vcpu, arg).
pub fn vcpu_op(cx: &mut Cx, a: Args) -> Outcome {
    let id = (a.a2() & 0xffff_ffff) as u32;
    let Some(target) = VcpuRef::new(cx.domain(), VcpuId(id)) else {
        return Errno::ENOENT.into();
    };
    let own = target.same(cx.vcpu);
    let arg = a.a3();
    match a.int(0) {
        v::OP_INITIALISE => initialise(cx, &target, arg),
        v::OP_UP => up(&target),
        v::OP_DOWN => down(cx, &target, own),
        v::OP_IS_UP => Outcome::Return(i64::from(!target.down.load(Ordering::SeqCst))),
        v::OP_GET_RUNSTATE_INFO => guest::copy_to_guest(GuestHandle::new(arg), &runstate::info(&target)).into(),
        v::OP_REGISTER_RUNSTATE_MEMORY_AREA => {
            let Ok(area) = guest::copy_from_guest(GuestHandle::<v::MemoryArea>::new(arg)) else {
                return Errno::EFAULT.into();
            };
            if !crate::arch::layout::is_guest_range(area.addr, 48) {
                return Errno::EFAULT.into();
            }
            target.accounting.lock().area = Some(GuestVirt(area.addr));
            // The first copy is made at once, whoever's it is: the caller's tables are loaded.
            runstate::write_copies(&target);
            Outcome::Return(0)
        }
        v::OP_REGISTER_VCPU_TIME_MEMORY_AREA => {
            let Ok(area) = guest::copy_from_guest(GuestHandle::<v::MemoryArea>::new(arg)) else {
                return Errno::EFAULT.into();
            };
            if !crate::arch::layout::is_guest_range(area.addr, 32) {
                return Errno::EFAULT.into();
            }
            target.accounting.lock().time_area = Some(GuestVirt(area.addr));
            runstate::write_copies(&target);
            Outcome::Return(0)
        }
        v::OP_SET_PERIODIC_TIMER => {
            let Ok(p) = guest::copy_from_guest(GuestHandle::<v::SetPeriodicTimer>::new(arg)) else {
                return Errno::EFAULT.into();
            };
            if !(MIN_PERIOD..=MAX_PERIOD).contains(&p.period_ns) {
                return Errno::EINVAL.into();
            }
            target.periodic.store(p.period_ns, Ordering::Relaxed);
            target.periodic_next.store(now().saturating_add(p.period_ns), Ordering::Relaxed);
            if own {
                timers::changed(cx.vcpu);
            } else {
                timers::changed_by_another(&target);
            }
            Outcome::Return(0)
        }
        v::OP_STOP_PERIODIC_TIMER => {
            target.periodic.store(0, Ordering::Relaxed);
            if own {
                timers::changed(cx.vcpu);
            }
            Outcome::Return(0)
        }
        v::OP_SET_SINGLESHOT_TIMER => {
            if !own {
                return Errno::EINVAL.into();
            }
            let Ok(t) = guest::copy_from_guest(GuestHandle::<v::SetSingleshotTimer>::new(arg)) else {
                return Errno::EFAULT.into();
            };
            // A past time fires at once, and the guest's "future" flag changes nothing.
            target.singleshot.store(t.timeout_abs_ns.max(1), Ordering::Relaxed);
            timers::changed(cx.vcpu);
            Outcome::Return(0)
        }
        v::OP_STOP_SINGLESHOT_TIMER => {
            if !own {
                return Errno::EINVAL.into();
            }
            target.singleshot.store(0, Ordering::Relaxed);
            Outcome::Return(0)
        }
        v::OP_REGISTER_VCPU_INFO => {
            let Ok(r) = guest::copy_from_guest(GuestHandle::<v::RegisterVcpuInfo>::new(arg)) else {
                return Errno::EFAULT.into();
            };
            if let Err(e) = InfoPage::check_place(r.offset) {
                return e.into();
            }
            // One's own, or that of a vCPU that is down.
            if !own && !target.down.load(Ordering::SeqCst) {
                return Errno::EINVAL.into();
            }
            let r = target.info.relocate(&cx.domain().mem, Mfn(r.mfn), r.offset);
            if r.is_ok() {
                crate::time::publish_to(&target);
                if own {
                    this_cpu().upcall.set(target.info.upcall_ptr());
                } else {
                    // It may have come up meanwhile: then its CPU looks again where the vcpu_info is.
                    crate::events::interrupt(&target);
                }
            }
            r.into()
        }
        v::OP_SEND_NMI => {
            target.nmi_pending.store(1, Ordering::SeqCst);
            if own {
                // Delivered in the exit path.
                this_cpu().raise(pending::VCPU);
            } else {
                crate::events::end_poll(&target);
                target.blocked.store(false, Ordering::SeqCst);
                sched::wake(&target);
                crate::events::interrupt(&target);
            }
            Outcome::Return(0)
        }
        v::OP_GET_PHYSID => physid(&target).and_then(|id| guest::copy_to_guest(GuestHandle::new(arg), &id)).into(),
        _ => Errno::ENOSYS.into(),
    }
}

fn initialise(cx: &mut Cx, target: &VcpuRef, arg: u64) -> Outcome {
    let context = match crate::fallible::try_box(VcpuGuestContext::default()) {
        Ok(b) => b,
        Err(_) => return Errno::ENOMEM.into(),
    };
    let mut context = context;
    if guest::read_bytes(arg, zerocopy::IntoBytes::as_mut_bytes(&mut *context)).is_err() {
        return Errno::EFAULT.into();
    }
    if target.initialised.load(Ordering::SeqCst) {
        return Errno::EEXIST.into();
    }
    // Nobody else has the state of a vCPU that never ran but another caller of this.
    let taken = target.parked.lock().take();
    let Some(mut arch) = taken else {
        return Errno::EBUSY.into();
    };
    // Asked again now that nobody else can give it one.
    let again = target.initialised.load(Ordering::SeqCst);
    let r = if again { Err(Errno::EEXIST) } else { setup::apply(cx.domain(), target, &mut arch, &context) };
    *target.parked.lock() = Some(arch);
    match r {
        Err(Errno::EAGAIN) => Outcome::Restart(Args([v::OP_INITIALISE, u64::from(target.id.0), arg, 0, 0])),
        r => r.into(),
    }
}

/// The physical CPU of a vCPU that may run on one only: its APIC id, and what ACPI calls it in the upper half.
///
/// # Errors
/// `EINVAL` for a vCPU that is not tied to one.
fn physid(target: &VcpuRef) -> Result<u64, Errno> {
    let allowed = target.sched.hard_now().and(super::bitmap::online()).bits();
    if allowed.count_ones() != 1 {
        return Err(Errno::EINVAL);
    }
    let apic = machine::apic_id(CpuId(allowed.trailing_zeros())).ok_or(Errno::EINVAL)?;
    Ok(u64::from(apic) | u64::from(super::platform_op::acpi_id(apic)) << 32)
}

/// Takes a vCPU down. Another one that runs leaves its CPU soon; waiting for that here would let two that take each
/// other down wait for ever. The last one to go stops the domain.
fn down(cx: &mut Cx, target: &VcpuRef, own: bool) -> Outcome {
    let others = cx.domain().vcpus().iter().any(|v| v.id != target.id && !v.down.load(Ordering::SeqCst));
    if !others {
        lifecycle::shutdown(cx.domain(), ShutdownReason::PowerOff);
        return Outcome::Deschedule(0);
    }
    target.down.store(true, Ordering::SeqCst);
    if own {
        return Outcome::Deschedule(0);
    }
    sched::kick(target);
    Outcome::Return(0)
}

fn up(target: &VcpuRef) -> Outcome {
    if !target.initialised.load(Ordering::SeqCst) {
        return Errno::EINVAL.into();
    }
    if target.down.swap(false, Ordering::SeqCst) {
        // Should it have gone down without budget, no timer of its own will let it go on.
        sched::uncap(target);
    }
    Outcome::Return(0)
}

/// set_timer_op(absolute ns): the older single-shot timer; 0 stops it.
pub fn set_timer_op(cx: &mut Cx, a: Args) -> Outcome {
    cx.vcpu.singleshot.store(a.a1(), Ordering::Relaxed);
    if a.a1() != 0 {
        timers::changed(cx.vcpu);
    }
    Outcome::Return(0)
}
