//! Per-CPU data, found by masking RSP.
//!
//! The guest controls GS (even without a hypercall where FSGSBASE is on), so GS is not ours to use. [`CpuLocal`] stands
//! in the topmost page of each CPU's stack block, the guest's [`GuestRegs`] frame directly below it; IST stacks lie in
//! the same block, so masking works on every stack the CPU ever uses.

use super::layout::{MAX_CPUS, STACK_SIZE};
use super::regs::GuestRegs;
use crate::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::cell::{Cell, RefCell};

/// A physical CPU, numbered densely from 0 (the boot CPU) in bring-up order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

/// Bits of [`CpuLocal::pending`], the one word the exit path checks.
#[allow(missing_docs)]
pub mod pending {
    pub const TIMER: u32 = 1 << 0;
    pub const RESCHED: u32 = 1 << 1;
    /// Another CPU wants a TLB flush (the mailbox in `platform::tlb` says which).
    pub const FLUSH: u32 = 1 << 2;
    /// The running vCPU has something to look at: a pending NMI, a crash of its domain, a pause request.
    pub const VCPU: u32 = 1 << 3;
    /// Work for this CPU outside interrupt context (console input, ...).
    pub const SOFTIRQ: u32 = 1 << 4;
    /// The CPU's page tables for guests are out of date (`arch::xpti`).
    pub const ROOT: u32 = 1 << 5;
    /// What is done only on the way to a vCPU. (It may come when the vCPU it was meant for has just left.)
    pub const OF_VCPU: u32 = VCPU | ROOT;
}

/// One CPU's own data. Fields that other CPUs may touch are atomic; the rest belongs to the CPU alone.
#[repr(C, align(64))]
pub struct CpuLocal {
    /// Scratch word of the SYSCALL stub (the guest's RSP, before there is a stack to push it on).
    pub scratch: Cell<u64>,
    /// Points at the running vCPU's `vcpu_info` (byte 0: upcall pending, byte 1: upcall mask), or at [`NO_UPCALL`].
    pub upcall: Cell<*const u8>,
    /// See [`pending`]. Set by anyone, cleared by this CPU.
    pub pending: AtomicU32,
    /// This CPU.
    pub id: CpuId,
    /// 1 while the running vCPU is in guest-kernel mode, 0 in guest-user mode: decides what SYSCALL means.
    pub guest_kernel: Cell<u32>,
    /// This CPU's local APIC id.
    pub apic_id: Cell<u32>,
    /// TSC at which this CPU's timer fires; `u64::MAX` = never.
    pub deadline: Cell<u64>,
    /// System time the timer was last set for; `u64::MAX`: it stands still.
    pub armed: Cell<u64>,
    /// The L4 loaded in the hypervisor, and the one the exit path loads; the same where XPTI is not in use.
    pub full_cr3: Cell<u64>,
    /// See `full_cr3`.
    pub exposed_cr3: Cell<u64>,
    /// The CPU's own L4 for guests; 0 without XPTI.
    pub exposed_l4: Cell<u64>,
    /// XPTI is in use for the domain that runs here.
    pub xpti: Cell<bool>,
    /// What entries write to MSR SPEC_CTRL, where they do.
    pub spec_ctrl: Cell<u32>,
    /// Operand of VERW: a writable data segment.
    pub verw: u16,
    /// Domain that ran here last.
    pub last_domain: Cell<u16>,
    /// What happened here last.
    pub trace: super::trace::Ring,
    /// What runs here; owned by `domain::current`.
    pub current: RefCell<Option<crate::domain::current::Running>>,
    /// Calls of each hypercall on this CPU, for `dom debug`.
    pub hypercalls: [AtomicU64; pv_abi::hypercall::NR_ENTRIES],
}

/// What [`CpuLocal::upcall`] points to while no vCPU runs.
pub static NO_UPCALL: [u8; 2] = [0, 1];

/// Every online CPU's data, for other CPUs (atomic fields only).
static CPUS: [AtomicPtr<CpuLocal>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static NR_CPUS: AtomicU32 = AtomicU32::new(0);

/// Bytes from the start of a stack block to its `CpuLocal`: in the block's last page, behind the guest's registers and the
/// frame of a fault of the exit path's IRET, so that all an entry touches lies in one page (`arch::xpti`).
pub const LOCAL_OFFSET: u64 = STACK_SIZE - 4096 + 576;
/// Bytes from the start of a stack block to the guest's register frame.
pub const REGS_OFFSET: u64 = LOCAL_OFFSET - size_of::<GuestRegs>() as u64;
const _: () = assert!(
    LOCAL_OFFSET.is_multiple_of(align_of::<CpuLocal>() as u64)
        && REGS_OFFSET % 4096 >= 2 * size_of::<GuestRegs>() as u64
);
const _: () = assert!(LOCAL_OFFSET + size_of::<CpuLocal>() as u64 <= STACK_SIZE);

impl CpuLocal {
    /// Data of CPU `id`, nothing running.
    pub fn new(id: CpuId) -> Self {
        CpuLocal {
            scratch: Cell::new(0),
            upcall: Cell::new(NO_UPCALL.as_ptr()),
            pending: AtomicU32::new(0),
            id,
            guest_kernel: Cell::new(0),
            apic_id: Cell::new(0),
            deadline: Cell::new(u64::MAX),
            armed: Cell::new(u64::MAX),
            full_cr3: Cell::new(0),
            exposed_cr3: Cell::new(0),
            exposed_l4: Cell::new(0),
            xpti: Cell::new(false),
            spec_ctrl: Cell::new(0),
            verw: super::layout::sel::HYP_DS,
            last_domain: Cell::new(u16::MAX),
            trace: super::trace::Ring::new(),
            current: RefCell::new(None),
            hypercalls: [const { AtomicU64::new(0) }; pv_abi::hypercall::NR_ENTRIES],
        }
    }

    /// Sets bits of [`pending`] for this CPU itself.
    pub fn raise(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::AcqRel);
    }
}

/// This CPU's data.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn this_cpu() -> &'static CpuLocal {
    let rsp: u64;
    // SAFETY: reads a register. `pure`, so that the compiler keeps the result: RSP changes inside a function, but not the
    // block it points into.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(pure, nomem, nostack, preserves_flags)) };
    let local = (rsp & !(STACK_SIZE - 1)) + LOCAL_OFFSET;
    // SAFETY: every stack of the hypervisor lies in a block whose top holds an initialised CpuLocal (arch::stack
    // builds it before the CPU switches to the block), and blocks are never freed.
    unsafe { &*(local as *const CpuLocal) }
}

/// What stands in for a CPU's data in host tests.
#[cfg(not(target_os = "none"))]
pub fn this_cpu() -> &'static CpuLocal {
    host::local(host::me())
}

/// CPUs in host tests: each thread has a machine of its own, with one CPU that is not online, or with those that a model
/// brings up (`model/`).
#[cfg(not(target_os = "none"))]
pub mod host {
    use super::{CpuId, CpuLocal};
    use std::boxed::Box;
    use std::cell::{Cell, RefCell};
    use std::vec::Vec;

    std::thread_local! {
        static CPUS: RefCell<Vec<&'static CpuLocal>> = const { RefCell::new(Vec::new()) };
        static ME: Cell<u32> = const { Cell::new(0) };
        static ONLINE: Cell<u32> = const { Cell::new(0) };
    }

    /// The CPU that runs now.
    pub fn me() -> u32 {
        ME.get()
    }

    /// Another CPU runs now.
    pub fn set_me(cpu: u32) {
        ME.set(cpu);
    }

    /// Data of a CPU; leaks, as tests may.
    pub fn local(cpu: u32) -> &'static CpuLocal {
        CPUS.with_borrow_mut(|cpus| {
            while cpus.len() <= cpu as usize {
                cpus.push(Box::leak(Box::new(CpuLocal::new(CpuId(cpus.len() as u32)))));
            }
            cpus[cpu as usize]
        })
    }

    /// CPUs `0..n` are online, with nothing pending and nothing running.
    pub fn bring_up(n: u32) {
        for cpu in (0..n).map(local) {
            *cpu.current.borrow_mut() = None;
            cpu.pending.store(0, super::Ordering::SeqCst);
        }
        ONLINE.set(n);
    }

    pub(super) fn online() -> u32 {
        ONLINE.get()
    }

    /// Its drop leaves the thread with the one CPU it had.
    pub struct Restore;

    impl Drop for Restore {
        fn drop(&mut self) {
            ONLINE.set(0);
            ME.set(0);
        }
    }
}

/// Makes `local` visible to other CPUs. Called once per CPU, by the CPU itself.
pub fn publish(local: &'static CpuLocal) {
    if let Some(slot) = CPUS.get(local.id.0 as usize) {
        slot.store(core::ptr::from_ref(local).cast_mut(), Ordering::Release);
        NR_CPUS.fetch_max(local.id.0 + 1, Ordering::AcqRel);
    }
}

/// Number of CPUs online. CPU ids are `0..online()`.
pub fn online() -> u32 {
    #[cfg(not(target_os = "none"))]
    return host::online();
    #[cfg(target_os = "none")]
    NR_CPUS.load(Ordering::Acquire)
}

/// How often CPU `id` executed each hypercall, if it is online.
pub fn hypercalls_of(id: CpuId) -> Option<&'static [AtomicU64; pv_abi::hypercall::NR_ENTRIES]> {
    let p = CPUS.get(id.0 as usize)?.load(Ordering::Acquire);
    // SAFETY: as in pending_of.
    (!p.is_null()).then(|| unsafe { &(*p).hypercalls })
}

/// The trace of CPU `id`, if it is online.
pub fn trace_of(id: CpuId) -> Option<&'static super::trace::Ring> {
    let p = CPUS.get(id.0 as usize)?.load(Ordering::Acquire);
    // SAFETY: as in pending_of.
    (!p.is_null()).then(|| unsafe { &(*p).trace })
}

/// Domain and number of the vCPU that CPU `id` runs, for the report of a panic.
///
/// # Safety
/// That CPU has stopped.
pub unsafe fn runs(id: CpuId) -> Option<(u16, u32)> {
    let p = CPUS.get(id.0 as usize)?.load(Ordering::Acquire);
    if p.is_null() {
        return None;
    }
    // SAFETY: published pointers stay valid; the CPU does not change the cell any more, and whoever has borrowed it does
    // not go on.
    let running = unsafe { (*(*p).current.as_ptr()).as_ref()? };
    Some((running.vcpu.domain().id.0, running.vcpu.id.0))
}

/// Where the guest's frame of CPU `id` stands.
pub const fn guest_frame(id: CpuId) -> *const GuestRegs {
    (super::layout::STACKS + id.0 as u64 * STACK_SIZE + REGS_OFFSET) as *const GuestRegs
}

/// The pending word of CPU `id`, if it is online.
pub fn pending_of(id: CpuId) -> Option<&'static AtomicU32> {
    #[cfg(not(target_os = "none"))]
    return (id.0 < online()).then(|| &host::local(id.0).pending);
    #[cfg(target_os = "none")]
    pending_published(id)
}

#[cfg(target_os = "none")]
fn pending_published(id: CpuId) -> Option<&'static AtomicU32> {
    let p = CPUS.get(id.0 as usize)?.load(Ordering::Acquire);
    // SAFETY: published pointers stay valid for ever, and only the atomic field is handed out.
    (!p.is_null()).then(|| unsafe { &(*p).pending })
}
