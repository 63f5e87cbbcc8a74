//! Event channels and the scheduler together: a guest that sleeps between events misses none.
//!
//! CPUs do what the exit path does (`upcalls.rs`), the guest what Linux does: clear the upcall byte, exchange the selector
//! word, clear each pending bit, and block when there is nothing left. When all CPUs are quiet, nothing that was sent may
//! still be pending: it would be for ever.

use super::{Moment, Work, explore_both, one_in, run};
use crate::arch::percpu::{host, pending, this_cpu};
use crate::arch::regs::GuestRegs;
use crate::domain::current::with_current;
use crate::domain::{Cx, Domain, DomainRef, Limits, VcpuRef, lifecycle};
use crate::events;
use crate::hypercall::sched::{poll_ports, sched_op};
use crate::hypercall::{Args, Outcome};
use crate::mm::testing;
use crate::sched::{self, state, switch};
use crate::softirq;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use pv_abi::ids::{DomId, VcpuId};
use pv_abi::sched::{OP_BLOCK, OP_YIELD};
use pv_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, vcpu_info};
use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

const PAGES: usize = 64;
const DOMAIN: u16 = 5;

/// A domain whose vCPUs are up and want to run, on a machine with `cpus` CPUs; nothing is queued yet.
fn domain(cpus: u32, vcpus: u32) -> DomainRef {
    testing::again(PAGES);
    host::bring_up(cpus);
    testing::forget(DOMAIN);
    let limits = Limits { max_pages: 16, ..Limits::default() };
    let d = Domain::try_new(DomId(DOMAIN), [0; 16], false, &limits).unwrap();
    d.create_vcpus(vcpus).unwrap();
    for v in d.vcpus() {
        v.down.store(false, SeqCst);
        v.periodic.store(0, SeqCst);
    }
    d
}

/// The domain goes: every vCPU must be where its state says.
fn end(d: DomainRef) {
    for cpu in 0..3 {
        let run = host::local(cpu).current.borrow_mut().take();
        assert!(run.is_none(), "CPU {cpu} halts with a vCPU");
    }
    for v in d.vcpus() {
        assert_eq!(v.sched.state.load(SeqCst), state::IDLE, "all CPUs are quiet, and a vCPU waits for one");
        assert!(v.parked.lock().is_some(), "a vCPU's state is nowhere");
        assert_eq!(v.polling.load(SeqCst), 0, "a vCPU sleeps, and counts as polling");
    }
    sched::dismiss(d.vcpus().len() as u32);
}

/// What the guest does next.
enum Next {
    Again,
    Block,
    Yield,
    /// SCHEDOP_poll without a timeout; the list of ports would be in guest memory.
    Poll(Vec<u32>),
}

/// A CPU: the exit path, and the guest in between.
fn cpu(guest: impl Fn(&mut Cx) -> Next + Send + 'static) -> Work {
    Box::new(move || {
        let mut regs = GuestRegs::default();
        let cpu = this_cpu();
        cpu.raise(pending::RESCHED);
        loop {
            if cpu.pending.load(Relaxed) != 0 {
                softirq::run();
                let bits = cpu.pending.fetch_and(!(pending::RESCHED | pending::VCPU), AcqRel);
                if bits & pending::RESCHED != 0 {
                    switch::schedule(&mut regs);
                }
                cpu.pending.fetch_and(!pending::VCPU, AcqRel);
            }
            let outcome = with_current(&mut regs, |cx| {
                // What runs does not sleep: it would be forgotten when it gives up its CPU.
                assert!(!cx.vcpu.blocked.load(SeqCst), "a vCPU runs, and counts as asleep");
                match guest(cx) {
                    Next::Again => None,
                    Next::Block => Some(sched_op(cx, Args([OP_BLOCK, 0, 0, 0, 0]))),
                    Next::Yield => Some(sched_op(cx, Args([OP_YIELD, 0, 0, 0, 0]))),
                    Next::Poll(ports) => Some(poll_ports(cx, &ports, 0)),
                }
            });
            if let Some(Some(Outcome::Deschedule(_))) = outcome {
                cpu.raise(pending::RESCHED);
            }
        }
    })
}

/// Linux's upcall handler: how many events it took, per word.
fn take_events(d: &Domain, vcpu: u32, mut taken: impl FnMut(u32)) {
    let info = vcpu as usize * vcpu_info::SIZE;
    d.shared.store_u8(info + vcpu_info::UPCALL_MASK, 1);
    loop {
        // A plain store, and a locked exchange behind it.
        d.shared.store_u8(info + vcpu_info::UPCALL_PENDING, 0);
        let selected = d.shared.fetch_and_u64(info + vcpu_info::PENDING_SEL, 0);
        for word in (0..2).filter(|w| selected >> w & 1 != 0) {
            let ready = d.shared.load_u64(EVTCHN_PENDING + word * 8) & !d.shared.load_u64(EVTCHN_MASK + word * 8);
            for bit in (0..64).filter(|b| ready >> b & 1 != 0) {
                d.shared.fetch_and_u64(EVTCHN_PENDING + word * 8, !(1 << bit));
                taken(word as u32 * 64 + bit);
            }
        }
        if d.shared.load_u8(info + vcpu_info::UPCALL_PENDING) == 0 {
            break;
        }
    }
    d.shared.store_u8(info + vcpu_info::UPCALL_MASK, 0);
}

/// One step of a guest that takes events and sleeps.
fn sleeper(cx: &mut Cx, taken: impl FnMut(u32)) -> Next {
    if cx.vcpu.info.pending() {
        take_events(cx.domain(), cx.vcpu.id.0, taken);
        return Next::Again;
    }
    Next::Block
}

/// All CPUs are quiet: nothing is pending and not masked.
fn nothing_left(d: &Domain) {
    for word in 0..2 {
        let left = d.shared.load_u64(EVTCHN_PENDING + word * 8) & !d.shared.load_u64(EVTCHN_MASK + word * 8);
        assert_eq!(left, 0, "events are pending, and everybody sleeps");
    }
}

fn allocate(d: &DomainRef, ports: u32, vcpu: u32) {
    for _ in 0..ports {
        d.events.ports.lock().allocate(events::Channel { kind: events::Kind::Ipi, vcpu }).unwrap();
    }
}

/// Interrupts and other domains send while the guest takes what came before, and goes to sleep.
#[test]
fn no_event_is_lost() {
    testing::machine(PAGES);
    explore_both("events: two senders, a guest that sleeps", 300, 100_000, || {
        let d = domain(3, 1);
        let seen = Arc::new([const { AtomicU32::new(0) }; 128]);
        let v = VcpuRef::new(&d, VcpuId(0)).unwrap();
        let send = |ports: Vec<u32>| -> Work {
            let d = d.clone();
            Box::new(move || ports.iter().for_each(|port| events::set_pending(&d, *port, VcpuId(0))))
        };
        let first = {
            let seen = seen.clone();
            cpu(move |cx| {
                sleeper(cx, |port| {
                    seen[port as usize].fetch_add(1, SeqCst);
                })
            })
        };
        d.pause_count.store(0, SeqCst);
        sched::wake(&v);
        drop(v);
        run(vec![first, send(vec![1, 70]), send(vec![2, 1])]);
        nothing_left(&d);
        for port in [1, 2, 70] {
            assert_ne!(seen[port].load(SeqCst), 0, "port {port} was not seen");
        }
        end(d);
    });
}

/// The same with one event and one sender: the moment of going to sleep, more often.
#[test]
fn no_event_is_lost_at_bedtime() {
    testing::machine(PAGES);
    explore_both("events: one event, a guest that goes to sleep", 1000, 100_000, || {
        let d = domain(2, 1);
        let v = VcpuRef::new(&d, VcpuId(0)).unwrap();
        let bedtime = Moment::default();
        let sender: Work = {
            let (d, bedtime) = (d.clone(), bedtime.clone());
            Box::new(move || {
                bedtime.perhaps_wait();
                events::set_pending(&d, 1, VcpuId(0));
            })
        };
        d.pause_count.store(0, SeqCst);
        sched::wake(&v);
        drop(v);
        let guest = cpu(move |cx| {
            let next = sleeper(cx, |_| {});
            if matches!(next, Next::Block) {
                bedtime.comes();
            }
            next
        });
        run(vec![guest, sender]);
        nothing_left(&d);
        end(d);
    });
}

/// The guest masks a port, and unmasks it by hypercall, while somebody sends.
#[test]
fn no_event_is_lost_behind_a_mask() {
    testing::machine(PAGES);
    explore_both("events: a port that is masked and unmasked", 600, 100_000, || {
        let d = domain(2, 1);
        allocate(&d, 2, 0);
        let v = VcpuRef::new(&d, VcpuId(0)).unwrap();
        let rounds = AtomicU32::new(0);
        let unmasks = Moment::default();
        let sender: Work = {
            let (d, unmasks) = (d.clone(), unmasks.clone());
            Box::new(move || {
                unmasks.perhaps_wait();
                (0..2).for_each(|_| events::set_pending(&d, 1, VcpuId(0)));
            })
        };
        let guest = cpu(move |cx| {
            if rounds.load(Relaxed) < 1 {
                rounds.fetch_add(1, Relaxed);
                let d = cx.domain();
                d.shared.fetch_or_u64(EVTCHN_MASK, 1 << 1);
                if cx.vcpu.info.pending() {
                    take_events(d, 0, |port| assert_ne!(port, 1, "a masked port"));
                }
                unmasks.comes();
                events::unmask(d, 1).unwrap();
                return Next::Again;
            }
            sleeper(cx, |_| {})
        });
        d.pause_count.store(0, SeqCst);
        sched::wake(&v);
        drop(v);
        run(vec![guest, sender]);
        nothing_left(&d);
        end(d);
    });
}

/// A vCPU polls for one port or two; one of them is sent to just then. It is masked, so that only the poll can end the wait,
/// or not, and then whoever sends wakes the vCPU for the event and for the poll.
#[test]
fn no_poll_sleeps_through_its_event() {
    testing::machine(PAGES);
    explore_both("events: poll", 800, 100_000, || {
        let d = domain(2, 1);
        let v = VcpuRef::new(&d, VcpuId(0)).unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let (ports, masked) = (if one_in(2) { vec![1] } else { vec![1, 70] }, one_in(2));
        let polls = Moment::default();
        let guest = {
            let (done, polls) = (done.clone(), polls.clone());
            cpu(move |cx| {
                if cx.domain().shared.load_u64(EVTCHN_PENDING) & 2 != 0 {
                    done.store(1, Relaxed);
                    if masked {
                        // Taken, so that the vCPU goes to sleep for good.
                        cx.domain().shared.fetch_and_u64(EVTCHN_PENDING, !2);
                    }
                }
                if cx.vcpu.info.pending() {
                    take_events(cx.domain(), 0, |_| {
                        done.store(1, Relaxed);
                    });
                    return Next::Again;
                }
                if done.load(Relaxed) != 0 {
                    return Next::Block;
                }
                polls.comes();
                Next::Poll(ports.clone())
            })
        };
        if masked {
            d.shared.fetch_or_u64(EVTCHN_MASK, 2);
        }
        let sender: Work = {
            let d = d.clone();
            Box::new(move || {
                polls.perhaps_wait();
                events::set_pending(&d, 1, VcpuId(0));
            })
        };
        d.pause_count.store(0, SeqCst);
        sched::wake(&v);
        drop(v);
        run(vec![guest, sender]);
        assert_eq!(done.load(SeqCst), 1, "the poll never ended");
        nothing_left(&d);
        end(d);
    });
}

/// A vCPU was woken from a poll by a CPU that meant an earlier wait. It counts as polling no more when it goes to sleep: an
/// event that is unmasked then wakes it.
#[test]
fn a_poll_that_ended_unnoticed_keeps_no_event_away() {
    testing::machine(PAGES);
    let _machine = host::Restore;
    let d = domain(1, 1);
    allocate(&d, 2, 0);
    let v = VcpuRef::new(&d, VcpuId(0)).unwrap();
    let mut arch = v.parked.lock().take().unwrap();
    let mut cx = Cx { regs: &mut GuestRegs::default(), arch: &mut arch, vcpu: &v };
    let slept = poll_ports(&mut cx, &[1], 0);
    assert!(matches!(slept, Outcome::Deschedule(_)));
    v.blocked.store(false, SeqCst);
    d.shared.fetch_or_u64(EVTCHN_MASK, 4);
    events::set_pending(&d, 2, VcpuId(1));
    let slept = sched_op(&mut cx, Args([OP_BLOCK, 0, 0, 0, 0]));
    assert!(matches!(slept, Outcome::Deschedule(_)) && v.blocked.load(SeqCst));
    events::unmask(&d, 2).unwrap();
    assert!(!v.blocked.load(SeqCst), "it sleeps, and an event is pending");
    *v.parked.lock() = Some(arch);
    end(d);
}

/// Two vCPUs on two CPUs that answer each other and sleep in between, while a third CPU pauses them, looks at their state,
/// and lets them go on: every round is played, and who is paused is on no CPU.
#[test]
fn no_vcpu_is_lost() {
    const ROUNDS: u32 = 3;
    testing::machine(PAGES);
    explore_both("scheduler: two vCPUs that wake each other, pauses", 150, 200_000, || {
        let d = domain(3, 2);
        let rounds = Arc::new([const { AtomicU32::new(0) }; 2]);
        let player = |rounds: Arc<[AtomicU32; 2]>| {
            cpu(move |cx| {
                let me = cx.vcpu.id.0;
                if cx.vcpu.info.pending() {
                    let mut came = 0;
                    take_events(cx.domain(), me, |_| came += 1);
                    if came != 0 && rounds[me as usize].fetch_add(1, SeqCst) + 1 < ROUNDS {
                        let to = 1 - me;
                        events::set_pending(cx.domain(), 1 + to, VcpuId(to));
                        return Next::Yield;
                    }
                    return Next::Again;
                }
                Next::Block
            })
        };
        let pauser: Work = {
            let d = d.clone();
            Box::new(move || {
                for _ in 0..2 {
                    lifecycle::pause_and_wait(&d);
                    for v in d.vcpus() {
                        // A CPU may still pick it out of its queue, but then looks again before it runs it.
                        for _ in 0..3 {
                            assert!(v.parked.lock().is_some(), "paused, and its state is on a CPU");
                        }
                    }
                    lifecycle::unpause(&d);
                }
            })
        };
        d.pause_count.store(0, SeqCst);
        for v in [0, 1] {
            sched::wake(&VcpuRef::new(&d, VcpuId(v)).unwrap());
        }
        // The first serve.
        events::set_pending(&d, 1, VcpuId(0));
        run(vec![player(rounds.clone()), player(rounds.clone()), pauser]);
        nothing_left(&d);
        let played: Vec<u32> = rounds.iter().map(|r| r.load(SeqCst)).collect();
        // The first keeps the last ball.
        assert_eq!(played, [ROUNDS, ROUNDS - 1], "a wake-up was lost");
        end(d);
    });
}
