//! sched_op: yielding, waiting, stopping.

use super::{Args, Outcome};
use crate::arch::layout::is_guest_range;
use crate::arch::percpu;
use crate::domain::lifecycle;
use crate::domain::{Cx, ShutdownReason, VcpuRef, slots};
use crate::events;
use crate::mm::guest;
use crate::time::{now, timers, watchdog};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, GuestHandle, VcpuId};
use pv_abi::sched as s;
use pv_abi::shared_info::EVTCHN_PENDING;

/// sched_op(cmd, arg).
pub fn sched_op(cx: &mut Cx, a: Args) -> Outcome {
    match a.int(0) {
        s::OP_YIELD => {
            cx.vcpu.sched.yielded.store(true, Ordering::Relaxed);
            Outcome::Deschedule(0)
        }
        s::OP_BLOCK => block(cx),
        s::OP_SHUTDOWN => {
            let Ok(r) = guest::copy_from_guest(GuestHandle::<s::Shutdown>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            shutdown(cx, r.reason)
        }
        s::OP_SHUTDOWN_CODE => match guest::copy_from_guest(GuestHandle::<s::Shutdown>::new(a.a2())) {
            Ok(r) => {
                cx.domain().shutdown_code.store(r.reason, Ordering::Release);
                Outcome::Return(0)
            }
            Err(e) => e.into(),
        },
        s::OP_POLL => match guest::copy_from_guest(GuestHandle::<s::Poll>::new(a.a2())) {
            Ok(p) => poll(cx, p),
            Err(e) => e.into(),
        },
        s::OP_REMOTE_SHUTDOWN => {
            let Ok(r) = guest::copy_from_guest(GuestHandle::<s::RemoteShutdown>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            if !cx.domain().privileged {
                return Errno::EPERM.into();
            }
            let Some(d) = slots::find(DomId(r.domid)) else {
                return Errno::ESRCH.into();
            };
            if d.id == cx.domain().id {
                return Errno::EINVAL.into();
            }
            let Some(reason) = ShutdownReason::from_abi(r.reason & 0xff) else {
                return Errno::EINVAL.into();
            };
            lifecycle::shutdown(&d, reason);
            Outcome::Return(0)
        }
        s::OP_WATCHDOG => match guest::copy_from_guest(GuestHandle::<s::Watchdog>::new(a.a2())) {
            Ok(w) => set_watchdog(cx, w),
            Err(e) => e.into(),
        },
        s::OP_PIN_OVERRIDE if !cx.domain().privileged => Errno::EPERM.into(),
        s::OP_PIN_OVERRIDE => match guest::copy_from_guest(GuestHandle::<s::PinOverride>::new(a.a2())) {
            Ok(p) => pin_override(cx, p.pcpu),
            Err(e) => e.into(),
        },
        _ => Errno::ENOSYS.into(),
    }
}

/// sched_op_compat(cmd, arg): the old yield, block and shutdown.
pub fn sched_op_compat(cx: &mut Cx, a: Args) -> Outcome {
    match a.int(0) {
        s::OP_YIELD => {
            cx.vcpu.sched.yielded.store(true, Ordering::Relaxed);
            Outcome::Deschedule(0)
        }
        s::OP_BLOCK => block(cx),
        s::OP_SHUTDOWN => shutdown(cx, (a.a2() & 0xffff_ffff) as u32),
        _ => Errno::ENOSYS.into(),
    }
}

/// Sets, pets or stops a watchdog. A new one that would bark at once does.
fn set_watchdog(cx: &mut Cx, w: s::Watchdog) -> Outcome {
    match watchdog::set(cx.domain(), w.id, w.timeout) {
        Ok(id) => {
            if cx.vcpu.id == VcpuId(0) {
                timers::changed(cx.vcpu);
            } else if let Some(v) = VcpuRef::new(cx.domain(), VcpuId(0)) {
                timers::changed_by_another(&v);
            }
            Outcome::Return(i64::from(id))
        }
        Err(Errno::ENOSPC) => Outcome::Return(NO_WATCHDOG),
        Err(e) => e.into(),
    }
}

/// "No watchdog is free" as 4.17 says it: -ENOSPC in the lower half only, through an `unsigned int`.
const NO_WATCHDOG: i64 = Errno::ENOSPC.as_ret() & 0xffff_ffff;

/// Keeps the calling vCPU on one CPU for a while (some firmware calls want the first), or ends that with a negative
/// number.
fn pin_override(cx: &mut Cx, pcpu: i32) -> Outcome {
    let v = cx.vcpu;
    let pinned = v.sched.pin_override.load(Ordering::Relaxed) != 0;
    match u32::try_from(pcpu) {
        Err(_) if !pinned => Errno::EINVAL.into(),
        Err(_) => {
            v.sched.pin_override.store(0, Ordering::Relaxed);
            Outcome::Return(0)
        }
        Ok(cpu) if cpu >= percpu::online() => Errno::EINVAL.into(),
        Ok(_) if pinned => Errno::EBUSY.into(),
        Ok(cpu) => {
            v.sched.pin_override.store(cpu.saturating_add(1), Ordering::Relaxed);
            // If it is on another CPU, it moves on the way out.
            Outcome::Deschedule(0)
        }
    }
}

fn shutdown(cx: &mut Cx, reason: u32) -> Outcome {
    let Some(reason) = ShutdownReason::from_abi(reason) else {
        return Errno::EINVAL.into();
    };
    if reason == ShutdownReason::Crash {
        log::error!("domain {} reports a crash", cx.domain().id);
        super::log_registers(cx);
    }
    lifecycle::shutdown(cx.domain(), reason);
    Outcome::Deschedule(0)
}

/// Unmasks events and waits for one. An event that is already there comes on the way out instead.
fn block(cx: &mut Cx) -> Outcome {
    let v = cx.vcpu;
    events::forget_poll(v);
    v.info.set_mask(false);
    v.blocked.store(true, Ordering::SeqCst);
    if v.info.pending() {
        v.blocked.store(false, Ordering::SeqCst);
        return Outcome::Return(0);
    }
    Outcome::Deschedule(0)
}

fn poll(cx: &mut Cx, p: s::Poll) -> Outcome {
    if p.nr_ports > 128 {
        return Errno::EINVAL.into();
    }
    if !is_guest_range(p.ports, 0) {
        return Errno::EFAULT.into();
    }
    let list = GuestHandle::<u32>::new(p.ports);
    let mut ports = [0u32; 128];
    let ports = ports.get_mut(..p.nr_ports as usize).unwrap_or_default();
    for (i, slot) in ports.iter_mut().enumerate() {
        let Ok(port) = guest::copy_element_from_guest(list, i as u64) else {
            return Errno::EFAULT.into();
        };
        if cx.domain().events.ports.lock().get(port).is_none() {
            return Errno::EINVAL.into();
        }
        *slot = port;
    }
    poll_ports(cx, ports, p.timeout)
}

/// Waits for one of `ports`, which are known to exist.
pub fn poll_ports(cx: &mut Cx, ports: &[u32], timeout: u64) -> Outcome {
    let v = cx.vcpu;
    // From here on events end the poll; then look whether one is there already.
    events::begin_poll(v, if let [one] = ports { *one } else { 0 });
    let pending = |port: u32| {
        let w = cx.domain().shared.load_u64(EVTCHN_PENDING + (port / 64) as usize * 8);
        w >> (port % 64) & 1 != 0
    };
    let any = ports.iter().any(|&port| pending(port));
    let late = timeout != 0 && timeout <= now();
    if any || late || (v.info.pending() && !v.info.masked()) {
        events::leave_poll(v);
        return Outcome::Return(0);
    }
    if timeout != 0 {
        v.poll_deadline.store(timeout, Ordering::SeqCst);
        timers::changed(v);
    }
    Outcome::Deschedule(0)
}
