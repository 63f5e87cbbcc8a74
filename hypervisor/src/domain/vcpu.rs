//! A virtual CPU: what others may touch, and what belongs to whoever runs it.
//!
//! [`Vcpu`] is shared: atomics and short locks. [`VcpuArch`] is the CPU state proper. It is *owned*: by the physical CPU
//! while the vCPU runs there, by [`Vcpu::parked`] otherwise. So the hot paths need no lock for it, and nobody can read
//! a vCPU's registers while it runs: who wants them pauses the vCPU first and takes the parked state.

use crate::arch::fpu::FpuState;
use crate::arch::regs::GuestRegs;
use crate::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::domain::traps::TrapTable;
use crate::domain::{Domain, DomainRef};
use crate::fallible::{self, OutOfMemory};
use crate::mm::shared_frame::InfoPage;
use crate::mm::tables::VcpuTables;
use crate::sync::{Lock, Rank};
use alloc::boxed::Box;
use core::ops::Deref;
use pv_abi::ids::{GuestVirt, VcpuId};

/// A place in the guest that the hypervisor calls: an event, failsafe or system-call entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callback {
    /// Entry point; 0 means none is registered.
    pub address: u64,
    /// Whether entering masks events (`CALLBACKF_mask_events`).
    pub mask_events: bool,
}

/// The guest's selectors and segment bases while it is not running.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Segments {
    pub ds: u16,
    pub es: u16,
    pub fs: u16,
    pub gs: u16,
    pub fs_base: u64,
    /// GS base of the mode the vCPU is in.
    pub gs_base_active: u64,
    /// GS base of the other mode (what SWAPGS would bring).
    pub gs_base_inactive: u64,
}

/// The paravirtual CPU of one vCPU. See the module text for who owns it when.
pub struct VcpuArch {
    /// General registers; current only while parked (they stand on the CPU's stack while it runs).
    pub regs: GuestRegs,
    /// Selectors and bases; current only while parked.
    pub seg: Segments,
    /// x87, SSE, AVX state; current only while parked.
    pub fpu: FpuState,
    /// Page-table bases, GDT and LDT.
    pub tables: VcpuTables,
    /// Guest-kernel (true) or guest-user mode.
    pub in_kernel: bool,
    /// `set_trap_table`: handler of each vector, address 0 = none.
    pub traps: TrapTable,
    /// `stack_switch`: where traps from guest user mode land.
    pub kernel_sp: u64,
    /// Selector given with it (recorded only).
    pub kernel_ss: u64,
    /// Event upcall entry.
    pub event_callback: Callback,
    /// Entry for a failed segment reload.
    pub failsafe_callback: Callback,
    /// 64-bit SYSCALL from guest user mode.
    pub syscall_callback: Callback,
    /// 32-bit SYSCALL from guest user mode.
    pub syscall32_callback: Callback,
    /// SYSENTER from guest user mode.
    pub sysenter_callback: Callback,
    /// NMI entry is trap 2; true from its delivery to the guest's iret hypercall.
    pub nmi_blocked: bool,
    /// Virtual IOPL, 0 to 3.
    pub iopl: u8,
    /// User-mode I/O permission bitmap in guest memory and its size in ports.
    pub iobitmap: Option<(GuestVirt, u32)>,
    /// DR0–DR3, 6, 7 as the guest set them.
    pub debugreg: [u64; 8],
    /// Virtual CR0.TS.
    pub ts: bool,
    /// CR4 bits the guest owns (TSD, DE, FSGSBASE, OSXSAVE).
    pub cr4: u64,
    /// XCR0 as the guest set it.
    pub xcr0: u64,
    /// TSC_AUX as the guest sees it.
    pub tsc_aux: u64,
    /// CPU whose reserved GDT page the window of this vCPU maps.
    pub last_cpu: u32,
    /// A selector could not be reloaded at the last switch: the failsafe callback is due.
    pub failed_segments: bool,
}

impl VcpuArch {
    /// A vCPU at reset: guest-kernel mode, nothing registered, virtual IOPL 0.
    pub fn try_new() -> Result<Self, OutOfMemory> {
        Ok(VcpuArch {
            regs: GuestRegs::default(),
            seg: Segments::default(),
            fpu: FpuState::try_new()?,
            tables: VcpuTables::new(),
            in_kernel: true,
            traps: TrapTable::new(),
            kernel_sp: 0,
            kernel_ss: 0,
            event_callback: Callback::default(),
            failsafe_callback: Callback::default(),
            syscall_callback: Callback::default(),
            syscall32_callback: Callback::default(),
            sysenter_callback: Callback::default(),
            nmi_blocked: false,
            iopl: 0,
            iobitmap: None,
            debugreg: crate::domain::debugreg::RESET,
            ts: false,
            cr4: 0,
            xcr0: 1,
            tsc_aux: 0,
            last_cpu: u32::MAX,
            failed_segments: false,
        })
    }
}

/// Runstates of the ABI (public/vcpu.h `RUNSTATE_*`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a CPU.
    Running = 0,
    /// Wants a CPU.
    Runnable = 1,
    /// Waits for an event.
    Blocked = 2,
    /// Not up, or paused.
    Offline = 3,
}

/// Accounting of runstates, and where the guest wants a copy.
#[derive(Clone, Copy, Debug)]
pub struct Accounting {
    /// State since `since`.
    pub state: RunState,
    /// System time, ns, of the last change.
    pub since: u64,
    /// Nanoseconds spent in each state before `since`.
    pub time: [u64; 4],
    /// Guest-kernel address of the `vcpu_runstate_info` copy, if registered.
    pub area: Option<GuestVirt>,
    /// Guest-kernel address of the secondary time copy (VCPUOP_register_vcpu_time_memory_area), if registered.
    pub time_area: Option<GuestVirt>,
}

/// Why a vCPU is blocked in `SCHEDOP_poll`: the ports are in guest memory and were copied in.
pub const MAX_POLL: usize = 128;

/// The shared part of a vCPU.
pub struct Vcpu {
    /// Its number in the domain.
    pub id: VcpuId,
    /// Scheduler's part.
    pub sched: crate::sched::Entity,
    /// The CPU state while the vCPU does not run.
    pub parked: Lock<Option<Box<VcpuArch>>>,
    /// Where its `vcpu_info` stands (in shared_info until VCPUOP_register_vcpu_info moves it).
    pub info: InfoPage,
    /// Set by vcpu_op initialise or setvcpucontext: its state can run.
    pub initialised: AtomicBool,
    /// VCPUOP_down, or never brought up.
    pub down: AtomicBool,
    /// Waits in SCHEDOP_block or _poll.
    pub blocked: AtomicBool,
    /// Waits in SCHEDOP_poll: 0 no, 1 for several ports, otherwise port + 1.. see `events`.
    pub polling: AtomicU32,
    /// Pauses by the hypervisor or the toolstack.
    pub pause_count: AtomicU32,
    /// An NMI waits for delivery.
    pub nmi_pending: AtomicU8,
    /// Single-shot timer deadline in system ns; 0 = off.
    pub singleshot: AtomicU64,
    /// Period in ns of the periodic timer; 0 = off.
    pub periodic: AtomicU64,
    /// When the periodic timer fires next.
    pub periodic_next: AtomicU64,
    /// Deadline of SCHEDOP_poll; 0 = none.
    pub poll_deadline: AtomicU64,
    /// vCPU 0: when the domain's first watchdog barks, system ns; 0 = none does.
    pub watchdog: AtomicU64,
    /// Runstate accounting.
    pub accounting: Lock<Accounting>,
    /// Ports of per-vCPU VIRQs, indexed by VIRQ; 0 = unbound.
    pub virq_port: [AtomicU32; 24],
}

impl Vcpu {
    /// An offline vCPU with parked reset state. `info` points into the domain's shared_info page.
    pub fn try_new(id: VcpuId, info: InfoPage) -> Result<Self, OutOfMemory> {
        let arch = fallible::try_box(VcpuArch::try_new()?)?;
        Ok(Vcpu {
            id,
            sched: crate::sched::Entity::new(),
            parked: Lock::new(Rank::Vcpu, Some(arch)),
            info,
            initialised: AtomicBool::new(false),
            down: AtomicBool::new(true),
            blocked: AtomicBool::new(false),
            polling: AtomicU32::new(0),
            pause_count: AtomicU32::new(0),
            nmi_pending: AtomicU8::new(0),
            singleshot: AtomicU64::new(0),
            // vCPUs start with a 100 Hz periodic timer until the guest stops it (linux-pv ABI notes, §7).
            periodic: AtomicU64::new(10_000_000),
            periodic_next: AtomicU64::new(0),
            poll_deadline: AtomicU64::new(0),
            watchdog: AtomicU64::new(0),
            accounting: Lock::new(
                Rank::Vcpu,
                Accounting { state: RunState::Offline, since: 0, time: [0; 4], area: None, time_area: None },
            ),
            virq_port: [const { AtomicU32::new(0) }; 24],
        })
    }

    /// Whether the scheduler may give it a CPU, the domain's own pauses aside.
    pub fn runnable(&self) -> bool {
        !self.down.load(Ordering::Acquire)
            && !self.blocked.load(Ordering::Acquire)
            && self.pause_count.load(Ordering::Acquire) == 0
    }
}

/// A counted way to one vCPU: its domain's reference and its number.
#[derive(Clone)]
pub struct VcpuRef {
    domain: DomainRef,
    index: usize,
}

impl VcpuRef {
    /// vCPU `id` of `domain`, if it exists.
    pub fn new(domain: &DomainRef, id: VcpuId) -> Option<VcpuRef> {
        let index = id.0 as usize;
        crate::arch::nospec::get(domain.vcpus(), index)?;
        Some(VcpuRef { domain: domain.clone(), index })
    }

    /// Its domain.
    pub fn domain(&self) -> &DomainRef {
        &self.domain
    }

    /// Whether both name the same vCPU.
    pub fn same(&self, other: &VcpuRef) -> bool {
        self.index == other.index && DomainRef::ptr_eq(&self.domain, &other.domain)
    }
}

impl Deref for VcpuRef {
    type Target = Vcpu;
    #[allow(clippy::indexing_slicing)] // a domain's vCPU table never shrinks, and `new` saw the index in it
    fn deref(&self) -> &Vcpu {
        let d: &Domain = &self.domain;
        &d.vcpus()[self.index]
    }
}
