//! Event channels, 2-level ABI: the port table of each domain, and delivery.
//!
//! Setting an event: pending bit; if that was clear and the port is not masked, the selector bit, then the vCPU's
//! upcall-pending byte; then the vCPU is woken or interrupted. That order is the ABI's (a guest clears in the opposite
//! one), and each step is one atomic operation on the shared page.

mod ports;

pub use ports::{BUCKET, Channel, Kind, Ports};

use crate::arch::percpu::{self, CpuId, pending, this_cpu};
use crate::atomic::{AtomicU32, Ordering};
use crate::domain::{DomainRef, VcpuRef, slots};
use crate::fallible::OutOfMemory;
use crate::platform;
use crate::sched;
use crate::sync::{Lock, Rank};
use pv_abi::errno::Errno;
use pv_abi::event::{NR_PORTS_2L, NR_VIRQS};
use pv_abi::ids::{DomId, VcpuId};
use pv_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING};

/// `Vcpu::polling` of a vCPU that waits for more than one port, or for none in particular.
pub const POLL_MANY: u32 = u32::MAX;

/// A domain's event channels.
pub struct Events {
    /// The table.
    pub ports: Lock<Ports>,
    /// vCPUs of the domain that wait in SCHEDOP_poll.
    pollers: AtomicU32,
}

impl Events {
    /// No channels; at most `max` ports.
    pub fn try_new(max: u32) -> Result<Self, OutOfMemory> {
        Ok(Events { ports: Lock::new(Rank::Events, Ports::new(max.min(NR_PORTS_2L))), pollers: AtomicU32::new(0) })
    }
}

/// Whether virtual interrupt `virq` is one of a domain, not of each vCPU.
pub const fn is_global_virq(virq: u32) -> bool {
    use pv_abi::event as e;
    !matches!(virq, e::VIRQ_TIMER | e::VIRQ_DEBUG | e::VIRQ_XENOPROF | e::VIRQ_XENPMU)
}

/// Makes `port` of `d` pending for `vcpu`.
pub fn set_pending(d: &DomainRef, port: u32, vcpu: VcpuId) {
    let word = (port / 64) as usize;
    let bit = 1u64 << (port % 64);
    if d.shared.fetch_or_u64(EVTCHN_PENDING + word * 8, bit) & bit != 0 {
        return;
    }
    let masked = d.shared.load_u64(EVTCHN_MASK + word * 8) & bit != 0;
    let Some(v) = VcpuRef::new(d, vcpu) else {
        return;
    };
    if !masked && v.info.select(1 << word) & 1 << word == 0 {
        mark_pending(&v);
    }
    if d.events.pollers.load(Ordering::SeqCst) != 0 {
        wake_pollers(d, port, vcpu);
    }
}

/// Sets the vCPU's upcall-pending byte and makes sure that it sees it.
pub fn mark_pending(v: &VcpuRef) {
    if !v.info.set_pending() {
        notify(v);
    }
}

/// Something is pending for `v`: it wakes, or leaves guest code if it runs elsewhere.
fn notify(v: &VcpuRef) {
    if v.blocked.load(Ordering::SeqCst) && !v.info.masked() && v.polling.load(Ordering::SeqCst) == 0 {
        v.blocked.store(false, Ordering::SeqCst);
        sched::wake(v);
        return;
    }
    interrupt(v);
}

/// Makes `v` leave guest code if it runs on another CPU, so that its exit path looks at what is pending.
pub fn interrupt(v: &VcpuRef) {
    if v.sched.state.load(Ordering::SeqCst) == sched::state::RUNNING {
        let cpu = CpuId(v.sched.cpu.load(Ordering::Relaxed));
        if cpu != this_cpu().id
            && let Some(word) = percpu::pending_of(cpu)
        {
            word.fetch_or(pending::VCPU, Ordering::SeqCst);
            platform::smp::kick(cpu);
        }
    }
}

#[cold]
fn wake_pollers(d: &DomainRef, port: u32, notified: VcpuId) {
    for v in d.vcpus() {
        let p = v.polling.load(Ordering::SeqCst);
        if p != 0
            && (p == POLL_MANY || p == port + 1 || v.id == notified)
            && let Some(v) = VcpuRef::new(d, v.id)
        {
            end_poll(&v);
        }
    }
}

/// Begins a poll: from now on events end it. The caller has checked nothing yet.
pub fn begin_poll(v: &VcpuRef, port: u32) {
    forget_poll(v);
    v.domain().events.pollers.fetch_add(1, Ordering::SeqCst);
    v.blocked.store(true, Ordering::SeqCst);
    v.polling.store(if port == 0 { POLL_MANY } else { port + 1 }, Ordering::SeqCst);
}

/// Ends the poll of `v`, if it polls, and lets it run.
pub fn end_poll(v: &VcpuRef) {
    if v.polling.swap(0, Ordering::SeqCst) == 0 {
        return;
    }
    v.domain().events.pollers.fetch_sub(1, Ordering::SeqCst);
    v.poll_deadline.store(0, Ordering::SeqCst);
    v.blocked.store(false, Ordering::SeqCst);
    sched::wake(v);
}

/// The vCPU that runs here does not wait in a poll after all. Where another CPU is just ending it, that one may not have
/// said so yet: who is taken for asleep while it runs is not interrupted.
pub fn leave_poll(v: &VcpuRef) {
    end_poll(v);
    v.blocked.store(false, Ordering::SeqCst);
}

/// The vCPU that runs here is about to wait for something else. A poll it was woken from by a CPU that meant an earlier wait
/// counts no more: it would keep events of other ports from waking the vCPU.
pub fn forget_poll(v: &VcpuRef) {
    if v.polling.load(Ordering::Relaxed) != 0 {
        end_poll(v);
    }
}

/// Raises a virtual interrupt of one vCPU. Nothing happens while it is unbound.
pub fn send_vcpu_virq(v: &VcpuRef, virq: u32) {
    let port = v.virq_port.get(virq as usize).map_or(0, |p| p.load(Ordering::Acquire));
    if port != 0 {
        set_pending(v.domain(), port, v.id);
    }
}

/// Raises a domain-wide virtual interrupt (bound at vCPU 0, delivered where its port points).
pub fn send_global_virq(d: &DomainRef, virq: u32) {
    let Some(v0) = d.vcpu(VcpuId(0)) else { return };
    let port = v0.virq_port.get(virq as usize).map_or(0, |p| p.load(Ordering::Acquire));
    if port != 0 {
        let vcpu = d.events.ports.lock().get(port).map_or(0, |c| c.vcpu);
        set_pending(d, port, VcpuId(vcpu));
    }
}

/// Raises a domain-wide virtual interrupt of dom0.
pub fn send_dom0_virq(virq: u32) {
    if let Some(d) = slots::find(DomId::DOM0) {
        send_global_virq(&d, virq);
    }
}

/// SEND on a local port.
///
/// # Errors
/// `EINVAL` for a port that is free, or of a kind that is not sent to.
#[inline(always)]
pub fn send(d: &DomainRef, port: u32) -> Result<(), Errno> {
    let c = *d.events.ports.lock().get(port).ok_or(Errno::EINVAL)?;
    match c.kind {
        Kind::Interdomain { dom, port: remote } => {
            let target = if dom == d.id { Some(d.clone()) } else { slots::find(dom) };
            if let Some(target) = target {
                // The other end may have been closed, and its number may be somebody else's by now.
                let back = Kind::Interdomain { dom: d.id, port };
                let vcpu = target.events.ports.lock().get(remote).filter(|c| c.kind == back).map(|c| c.vcpu);
                if let Some(vcpu) = vcpu {
                    set_pending(&target, remote, VcpuId(vcpu));
                }
            }
            Ok(())
        }
        Kind::Ipi => {
            set_pending(d, port, VcpuId(c.vcpu));
            Ok(())
        }
        Kind::Unbound { .. } => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// A physical interrupt for `d`.
pub fn send_pirq(d: &DomainRef, pirq: u32) -> bool {
    let found = d.events.ports.lock().find_pirq(pirq);
    match found {
        Some((port, vcpu)) => {
            set_pending(d, port, VcpuId(vcpu));
            true
        }
        None => false,
    }
}

/// What `platform::irq` calls for an interrupt of a guest's.
pub fn pirq_arrived(dom: DomId, pirq: u32) {
    if let Some(d) = slots::find(dom) {
        send_pirq(&d, pirq);
    }
}

/// BIND_VIRQ.
///
/// # Errors
/// `EINVAL`, `ENOENT`, `EEXIST`, `ENOSPC`, `ENOMEM` as the ABI notes say.
pub fn bind_virq(d: &DomainRef, virq: u32, vcpu: u32) -> Result<u32, Errno> {
    if virq >= NR_VIRQS || (is_global_virq(virq) && vcpu != 0) {
        return Err(Errno::EINVAL);
    }
    let v = d.vcpu(VcpuId(vcpu)).ok_or(Errno::ENOENT)?;
    let slot = v.virq_port.get(virq as usize).ok_or(Errno::EINVAL)?;
    let mut ports = d.events.ports.lock();
    if slot.load(Ordering::Acquire) != 0 {
        return Err(Errno::EEXIST);
    }
    let port = ports.allocate(Channel { kind: Kind::Virq(virq), vcpu })?;
    slot.store(port, Ordering::Release);
    Ok(port)
}

/// BIND_INTERDOMAIN: a local port that leads to `remote_port` of `remote`, which waits for this domain.
///
/// # Errors
/// `EINVAL` when the remote port does not wait for `d`; `ENOSPC`, `ENOMEM`.
pub fn bind_interdomain(d: &DomainRef, remote: &DomainRef, remote_port: u32) -> Result<u32, Errno> {
    let waits = |c: &Channel| matches!(c.kind, Kind::Unbound { remote } if remote == d.id);
    let local = |vcpu| Channel { kind: Kind::Interdomain { dom: remote.id, port: remote_port }, vcpu };
    let port;
    if DomainRef::ptr_eq(d, remote) {
        let mut p = d.events.ports.lock();
        p.get(remote_port).filter(|c| waits(c)).ok_or(Errno::EINVAL)?;
        port = p.allocate(local(0))?;
        if let Some(c) = p.get_mut(remote_port) {
            c.kind = Kind::Interdomain { dom: d.id, port };
        }
    } else {
        // Lower domain id first.
        let (first, second) = if d.id < remote.id { (d, remote) } else { (remote, d) };
        let mut a = first.events.ports.lock();
        let mut b = second.events.ports.lock_pair(&a);
        let (mine, theirs) = if d.id < remote.id { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        theirs.get(remote_port).filter(|c| waits(c)).ok_or(Errno::EINVAL)?;
        port = mine.allocate(local(0))?;
        if let Some(c) = theirs.get_mut(remote_port) {
            c.kind = Kind::Interdomain { dom: d.id, port };
        }
    }
    // Events sent before there was somebody to receive them are not lost.
    set_pending(d, port, VcpuId(0));
    Ok(port)
}

/// CLOSE. The other end of an inter-domain channel becomes unbound again.
///
/// # Errors
/// `EINVAL` for a port that is not in use.
pub fn close(d: &DomainRef, port: u32) -> Result<(), Errno> {
    let c = {
        let mut p = d.events.ports.lock();
        let c = *p.get(port).ok_or(Errno::EINVAL)?;
        // A stale pending bit must not greet the port's next user, who may come as soon as the lock is free.
        let word = (port / 64) as usize;
        d.shared.fetch_and_u64(EVTCHN_PENDING + word * 8, !(1 << (port % 64)));
        p.free(port);
        c
    };
    match c.kind {
        Kind::Virq(virq) => {
            if let Some(slot) = d.vcpu(VcpuId(c.vcpu)).and_then(|v| v.virq_port.get(virq as usize)) {
                let _ = slot.compare_exchange(port, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
            // A global VIRQ's port may notify another vCPU than the one it was bound at.
            if let Some(slot) = d.vcpu(VcpuId(0)).and_then(|v| v.virq_port.get(virq as usize)) {
                let _ = slot.compare_exchange(port, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        Kind::Interdomain { dom, port: remote } => {
            let target = if dom == d.id { Some(d.clone()) } else { slots::find(dom) };
            if let Some(target) = target {
                let mut p = target.events.ports.lock();
                if let Some(r) = p.get_mut(remote)
                    && r.kind == (Kind::Interdomain { dom: d.id, port })
                {
                    r.kind = Kind::Unbound { remote: d.id };
                }
            }
        }
        Kind::Pirq(pirq) => platform::irq::unbind(d.id, pirq),
        _ => {}
    }
    Ok(())
}

/// UNMASK: clears the mask bit and delivers what waited.
///
/// # Errors
/// `EINVAL` for a port that is not in use.
pub fn unmask(d: &DomainRef, port: u32) -> Result<(), Errno> {
    let vcpu = d.events.ports.lock().get(port).ok_or(Errno::EINVAL)?.vcpu;
    let word = (port / 64) as usize;
    let bit = 1u64 << (port % 64);
    let was = d.shared.fetch_and_u64(EVTCHN_MASK + word * 8, !bit);
    if was & bit != 0
        && d.shared.load_u64(EVTCHN_PENDING + word * 8) & bit != 0
        && let Some(v) = VcpuRef::new(d, VcpuId(vcpu))
        && v.info.select(1 << word) & 1 << word == 0
    {
        mark_pending(&v);
    }
    Ok(())
}

/// Closes everything; for a domain that dies.
///
/// False when something more urgent is due: call again (closed ports are passed quickly).
pub fn close_all(d: &DomainRef) -> bool {
    let max = d.events.ports.lock().limit();
    for port in 1..max {
        if close(d, port).is_ok() && crate::domain::current::should_preempt() {
            return false;
        }
    }
    true
}
