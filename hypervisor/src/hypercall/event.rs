//! event_channel_op.

use super::{Args, Outcome};
use crate::domain::{Cx, DomainRef, slots};
use crate::events::{self, Channel, Kind};
use crate::mm::guest;
use pv_abi::errno::Errno;
use pv_abi::event as e;
use pv_abi::ids::{DomId, GuestHandle, VcpuId};
use zerocopy::{FromBytes, Immutable, IntoBytes};

fn find(cx: &Cx, id: u16) -> Result<DomainRef, Errno> {
    match DomId(id) {
        DomId::SELF => Ok(cx.domain().clone()),
        id => slots::find(id).ok_or(Errno::ESRCH),
    }
}

/// Copies the argument in, runs `f` on it and copies it back.
fn with<T: FromBytes + IntoBytes + Immutable>(arg: u64, f: impl FnOnce(&mut T) -> Result<(), Errno>) -> Outcome {
    let h = GuestHandle::<T>::new(arg);
    let Ok(mut v) = guest::copy_from_guest(h) else {
        return Errno::EFAULT.into();
    };
    match f(&mut v) {
        Ok(()) => guest::copy_to_guest(h, &v).into(),
        Err(e) => e.into(),
    }
}

/// Copies the argument in and runs `f` on it.
fn read<T: FromBytes + IntoBytes>(arg: u64, f: impl FnOnce(T) -> Result<(), Errno>) -> Outcome {
    match guest::copy_from_guest(GuestHandle::<T>::new(arg)) {
        Ok(v) => f(v).into(),
        Err(e) => e.into(),
    }
}

/// The older entry: `{ u32 cmd; union at 4 }`, for the operations that existed then.
pub fn event_channel_op_compat(cx: &mut Cx, a: Args) -> Outcome {
    let Ok(cmd) = guest::copy_from_guest(GuestHandle::<u32>::new(a.a1())) else {
        return Errno::EFAULT.into();
    };
    let cmd = u64::from(cmd);
    if cmd > e::OP_UNMASK {
        return Errno::ENOSYS.into();
    }
    event_channel_op(cx, Args([cmd, a.a1().wrapping_add(4), 0, 0, 0]))
}

/// event_channel_op(cmd, arg).
pub fn event_channel_op(cx: &mut Cx, a: Args) -> Outcome {
    let d = cx.domain();
    let arg = a.a2();
    match a.int(0) {
        e::OP_SEND => read(arg, |s: e::Send| events::send(d, s.port)),
        // Port 0 is there, and never bound.
        e::OP_UNMASK => read(arg, |u: e::Unmask| if u.port == 0 { Ok(()) } else { events::unmask(d, u.port) }),
        e::OP_CLOSE => read(arg, |c: e::Close| events::close(d, c.port)),
        e::OP_BIND_IPI => with(arg, |b: &mut e::BindIpi| {
            d.vcpu(VcpuId(b.vcpu)).ok_or(Errno::ENOENT)?;
            b.port = d.events.ports.lock().allocate(Channel { kind: Kind::Ipi, vcpu: b.vcpu })?;
            Ok(())
        }),
        e::OP_BIND_VIRQ => with(arg, |b: &mut e::BindVirq| {
            b.port = events::bind_virq(d, b.virq, b.vcpu)?;
            Ok(())
        }),
        e::OP_BIND_PIRQ => with(arg, |b: &mut e::BindPirq| {
            if b.pirq >= crate::platform::irq::NR_PIRQS {
                return Err(Errno::EINVAL);
            }
            if !crate::platform::irq::mapped(d.id, b.pirq) {
                return Err(Errno::EPERM);
            }
            let mut ports = d.events.ports.lock();
            if ports.find_pirq(b.pirq).is_some() {
                return Err(Errno::EEXIST);
            }
            let port = ports.allocate(Channel { kind: Kind::Pirq(b.pirq), vcpu: 0 })?;
            drop(ports);
            let share = b.flags & e::BIND_PIRQ_WILL_SHARE != 0;
            if let Err(err) = crate::platform::irq::bind(d.id, b.pirq, share) {
                d.events.ports.lock().free(port);
                return Err(err);
            }
            b.port = port;
            Ok(())
        }),
        e::OP_ALLOC_UNBOUND => with(arg, |u: &mut e::AllocUnbound| {
            let own = DomId(u.dom) == DomId::SELF || DomId(u.dom) == d.id;
            if !own && !d.privileged {
                return Err(if slots::find(DomId(u.dom)).is_some() { Errno::EPERM } else { Errno::ESRCH });
            }
            let target = find(cx, u.dom)?;
            let remote = if DomId(u.remote_dom) == DomId::SELF { d.id } else { DomId(u.remote_dom) };
            u.port = target.events.ports.lock().allocate(Channel { kind: Kind::Unbound { remote }, vcpu: 0 })?;
            Ok(())
        }),
        e::OP_BIND_INTERDOMAIN => with(arg, |b: &mut e::BindInterdomain| {
            let remote = find(cx, b.remote_dom)?;
            b.local_port = events::bind_interdomain(d, &remote, b.remote_port)?;
            Ok(())
        }),
        e::OP_BIND_VCPU => read(arg, |b: e::BindVcpu| {
            d.vcpu(VcpuId(b.vcpu)).ok_or(Errno::ENOENT)?;
            let mut ports = d.events.ports.lock();
            let c = ports.get_mut(b.port).ok_or(Errno::EINVAL)?;
            match c.kind {
                Kind::Virq(v) if events::is_global_virq(v) => {}
                Kind::Unbound { .. } | Kind::Interdomain { .. } | Kind::Pirq(_) => {}
                _ => return Err(Errno::EINVAL),
            }
            c.vcpu = b.vcpu;
            Ok(())
        }),
        e::OP_STATUS => with(arg, |s: &mut e::Status| {
            let own = DomId(s.dom) == DomId::SELF || DomId(s.dom) == d.id;
            let target = find(cx, s.dom)?;
            if !own && !d.privileged {
                return Err(Errno::EPERM);
            }
            let ports = target.events.ports.lock();
            // Ports exist as far as the table has grown.
            if s.port >= ports.limit().max(events::BUCKET) {
                return Err(Errno::EINVAL);
            }
            s.u = [0; 2];
            let Some(c) = ports.get(s.port) else {
                s.status = e::STATUS_CLOSED;
                s.vcpu = 0;
                return Ok(());
            };
            s.vcpu = c.vcpu;
            s.status = match c.kind {
                Kind::Free => e::STATUS_CLOSED,
                Kind::Unbound { remote } => {
                    s.u[0] = u32::from(remote.0);
                    e::STATUS_UNBOUND
                }
                Kind::Interdomain { dom, port } => {
                    s.u = [u32::from(dom.0), port];
                    e::STATUS_INTERDOMAIN
                }
                Kind::Pirq(p) => {
                    s.u[0] = p;
                    e::STATUS_PIRQ
                }
                Kind::Virq(v) => {
                    s.u[0] = v;
                    e::STATUS_VIRQ
                }
                Kind::Ipi => e::STATUS_IPI,
            };
            Ok(())
        }),
        e::OP_RESET => match read(arg, |r: e::Reset| {
            let own = DomId(r.dom) == DomId::SELF || DomId(r.dom) == d.id;
            let target = find(cx, r.dom)?;
            if !own && !d.privileged {
                return Err(Errno::EPERM);
            }
            if events::close_all(&target) { Ok(()) } else { Err(Errno::EAGAIN) }
        }) {
            Outcome::Return(v) if v == Errno::EAGAIN.as_ret() => Outcome::Restart(a),
            done => done,
        },
        // FIFO events are not offered yet; guests fall back to the 2-level ABI.
        e::OP_EXPAND_ARRAY => read(arg, |_: u32| Err(Errno::EOPNOTSUPP)),
        e::OP_INIT_CONTROL | e::OP_SET_PRIORITY | 14 => read(arg, |_: u32| Err(Errno::ENOSYS)),
        _ => Errno::ENOSYS.into(),
    }
}
