//! Event channels, the shared page, and the default event callback.
use crate::hypercall::call_ref;
use crate::mem::{self, Page, Racy};
use crate::paging;
use crate::ret::Ret;
use crate::smp;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use pv_abi::event::{self, *};
use pv_abi::hypercall::nr;
use pv_abi::shared_info::{self, vcpu_info};

/// The shared page takes this page's place.
static SHARED: Racy<SharedPage> = Racy::new(SharedPage([0; 4096]));

#[repr(C, align(4096))]
struct SharedPage([u8; 4096]);

/// Callbacks taken, of each vCPU.
pub static UPCALLS: [AtomicU32; crate::start::MAX_CPUS] = [const { AtomicU32::new(0) }; crate::start::MAX_CPUS];
/// Events taken by the default callback, of each port below 256.
pub static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// Maps the shared page.
pub fn init() {
    paging::update_va(SHARED.addr(), crate::start::start_info().shared_info | paging::KERNEL_RW)
        .must("map shared_info");
    // start of day: a periodic tick runs; no test wants it unasked
    crate::hypercall::call(nr::VCPU_OP, &[pv_abi::vcpu::OP_STOP_PERIODIC_TIMER, 0, 0]);
}

/// Address of byte `offset` of the shared page.
pub fn shared(offset: usize) -> u64 {
    SHARED.addr() + offset as u64
}

/// Where the vcpu_info of a vCPU stands now (register_vcpu_info moves it).
static VCPU_INFO: [AtomicU64; crate::start::MAX_CPUS] = [const { AtomicU64::new(0) }; crate::start::MAX_CPUS];

/// Address of a vCPU's vcpu_info.
pub fn info(cpu: usize) -> u64 {
    match VCPU_INFO[cpu].load(Ordering::Relaxed) {
        0 => shared(cpu * vcpu_info::SIZE),
        at => at,
    }
}

/// Says that it moved.
pub fn info_moved(cpu: usize, va: u64) {
    VCPU_INFO[cpu].store(va, Ordering::Relaxed);
}

fn byte(va: u64) -> &'static AtomicU8 {
    // SAFETY: mapped shared memory; atomic because the hypervisor writes it too.
    unsafe { &*(va as *const AtomicU8) }
}

/// A word of shared memory.
pub fn word(va: u64) -> &'static AtomicU64 {
    // SAFETY: as in [`byte`]; callers pass aligned addresses.
    unsafe { &*(va as *const AtomicU64) }
}

/// evtchn_upcall_pending of this vCPU.
pub fn pending() -> &'static AtomicU8 {
    byte(info(smp::cpu()) + vcpu_info::UPCALL_PENDING as u64)
}

/// evtchn_upcall_mask of this vCPU.
pub fn mask() -> &'static AtomicU8 {
    byte(info(smp::cpu()) + vcpu_info::UPCALL_MASK as u64)
}

/// evtchn_pending_sel of this vCPU.
pub fn pending_sel() -> &'static AtomicU64 {
    word(info(smp::cpu()) + vcpu_info::PENDING_SEL as u64)
}

/// The pending (or mask) bitmap's word that holds `port`, and the bit in it.
fn port_bit(map: usize, port: u32) -> (&'static AtomicU64, u64) {
    (word(shared(map) + 8 * u64::from(port / 64)), 1 << (port % 64))
}

/// Is the port's pending bit set?
pub fn port_pending(port: u32) -> bool {
    let (w, b) = port_bit(shared_info::EVTCHN_PENDING, port);
    w.load(Ordering::SeqCst) & b != 0
}

/// Clears it.
pub fn port_clear(port: u32) {
    let (w, b) = port_bit(shared_info::EVTCHN_PENDING, port);
    w.fetch_and(!b, Ordering::SeqCst);
}

/// Sets it, as no guest should.
pub fn port_set(port: u32) {
    let (w, b) = port_bit(shared_info::EVTCHN_PENDING, port);
    w.fetch_or(b, Ordering::SeqCst);
}

/// Masks or unmasks a port by memory alone.
pub fn port_mask(port: u32, masked: bool) {
    let (w, b) = port_bit(shared_info::EVTCHN_MASK, port);
    if masked {
        w.fetch_or(b, Ordering::SeqCst)
    } else {
        w.fetch_and(!b, Ordering::SeqCst)
    };
}

/// Is it masked?
pub fn port_masked(port: u32) -> bool {
    let (w, b) = port_bit(shared_info::EVTCHN_MASK, port);
    w.load(Ordering::SeqCst) & b != 0
}

/// Nothing pending, upcalls masked.
pub fn quiet() {
    mask().store(1, Ordering::SeqCst);
    pending().store(0, Ordering::SeqCst);
    pending_sel().store(0, Ordering::SeqCst);
}

/// Lets waiting events in: clears the mask and enters the hypervisor if one is pending.
pub fn unmask_upcalls() {
    mask().store(0, Ordering::SeqCst);
    if pending().load(Ordering::SeqCst) != 0 {
        force_callback();
    }
}

/// A hypercall that does nothing, after which pending events are delivered.
pub fn force_callback() {
    crate::hypercall::call(nr::XEN_VERSION, &[0, 0]);
}

/// The default event callback: takes every pending event and counts it.
pub fn take_all() {
    UPCALLS[smp::cpu()].fetch_add(1, Ordering::SeqCst);
    while pending().swap(0, Ordering::SeqCst) != 0 {
        let sel = pending_sel().swap(0, Ordering::SeqCst);
        for w in (0..64u32).filter(|w| sel >> w & 1 != 0) {
            let bits = word(shared(shared_info::EVTCHN_PENDING) + 8 * u64::from(w));
            let masked = word(shared(shared_info::EVTCHN_MASK) + 8 * u64::from(w)).load(Ordering::SeqCst);
            let ready = bits.load(Ordering::SeqCst) & !masked;
            bits.fetch_and(!ready, Ordering::SeqCst);
            for b in (0..64u32).filter(|b| ready >> b & 1 != 0) {
                if let Some(c) = COUNTS.get((w * 64 + b) as usize) {
                    c.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

/// Events taken from `port` so far.
pub fn count(port: u32) -> u32 {
    COUNTS.get(port as usize).map_or(0, |c| c.load(Ordering::SeqCst))
}

/// event_channel_op.
pub fn op<T>(cmd: u64, arg: &mut T) -> Ret {
    call_ref(nr::EVENT_CHANNEL_OP, cmd, arg)
}

/// A new IPI channel to `vcpu`.
pub fn bind_ipi(vcpu: u32) -> u32 {
    let mut b = BindIpi { vcpu, port: 0 };
    op(event::OP_BIND_IPI, &mut b).must("bind_ipi");
    b.port
}

/// Binds `virq` of `vcpu`.
pub fn bind_virq(virq: u32, vcpu: u32) -> u32 {
    let mut b = BindVirq { virq, vcpu, port: 0 };
    op(event::OP_BIND_VIRQ, &mut b).must("bind_virq");
    b.port
}

/// send.
pub fn send(port: u32) -> Ret {
    op(event::OP_SEND, &mut Send { port })
}

/// close.
pub fn close(port: u32) -> Ret {
    op(event::OP_CLOSE, &mut Close { port })
}

/// The guest's clock in ns since the hypervisor's start, and its version word.
pub fn now() -> u64 {
    let t = info(smp::cpu()) + vcpu_info::TIME as u64;
    loop {
        let version = mem::read64(t) as u32;
        core::sync::atomic::fence(Ordering::Acquire);
        let (stamp, system, scale) = (mem::read64(t + 8), mem::read64(t + 16), mem::read64(t + 24));
        // SAFETY: rdtsc has no precondition.
        let delta = unsafe { core::arch::x86_64::_rdtsc() }.wrapping_sub(stamp);
        core::sync::atomic::fence(Ordering::Acquire);
        if version & 1 == 0 && version == mem::read64(t) as u32 {
            let shift = (scale >> 32) as i8;
            let delta = if shift < 0 { delta >> -shift } else { delta << shift };
            let ns = (u128::from(delta) * u128::from(scale as u32)) >> 32;
            return system.wrapping_add(ns as u64);
        }
    }
}

/// Spins until `done` or `ms` milliseconds of guest time have passed; gives what `done` last said.
pub fn wait_ms(ms: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = now() + ms * 1_000_000;
    loop {
        if done() {
            return true;
        }
        if now() > end {
            return done();
        }
        crate::hypercall::call(nr::SCHED_OP, &[pv_abi::sched::OP_YIELD, 0]);
    }
}

/// One `Page` of the pool for tests that move vcpu_info or other shared areas.
pub fn spare() -> Page {
    Page::alloc()
}
