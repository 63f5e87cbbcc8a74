//! Domains: what one virtual machine owns.
//!
//! Domains live behind counted references ([`DomainRef`]) and are found by id through [`slots`], one short lock a slot
//! and no global one. A domain goes through three lives: *alive*; *dying* (destroy was asked for: nothing new may be
//! given to it, its resources are being returned); *dead* (all returned: its slot is empty, its memory goes with the
//! last reference).

pub mod audit;
pub mod capture;
pub mod current;
pub mod debugreg;
pub mod lifecycle;
pub mod setup;
pub mod slots;
pub mod traps;
pub mod vcpu;

pub use current::Cx;
pub use vcpu::{Callback, Vcpu, VcpuArch, VcpuRef};

use crate::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::events::Events;
use crate::fallible::Shared;
use crate::grants::Grants;
use crate::mm::domain_memory::DomainMemory;
use crate::mm::shared_frame::{InfoPage, SharedFrame};
use crate::platform::pirqs::Pirqs;
use crate::sched::share::Share;
use crate::sync::{Lock, Rank};
use crate::time::watchdog::Watchdogs;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, VcpuId};
use pv_abi::memory::E820Entry;
use spin::Once;

/// A counted reference to a domain.
pub type DomainRef = Shared<Domain>;

/// Most vCPUs of a domain. 32 have their `vcpu_info` in shared_info; the others must register one before they come up.
pub const MAX_VCPUS: usize = 128;
/// vCPUs whose `vcpu_info` starts out in the shared_info page (`XEN_LEGACY_MAX_VCPUS`).
pub const LEGACY_VCPUS: usize = 32;

/// How far a domain is in its life.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Usable.
    Alive = 0,
    /// Being taken apart.
    Dying = 1,
    /// Everything is returned.
    Dead = 2,
}

/// Why a domain stopped (public/sched.h `SHUTDOWN_*`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ShutdownReason {
    PowerOff = 0,
    Reboot = 1,
    Suspend = 2,
    Crash = 3,
    Watchdog = 4,
    SoftReset = 5,
}

impl ShutdownReason {
    /// From the ABI's number; `None` for one that has no name.
    pub fn from_abi(n: u32) -> Option<Self> {
        Some(match n {
            0 => Self::PowerOff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            _ => return None,
        })
    }
}

/// What the toolstack says of CPUID for the domain (D83 set_cpu_policy): leaf, subleaf, registers.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct CpuidLeaf {
    pub leaf: u32,
    pub subleaf: u32,
    pub regs: [u32; 4],
}

/// A virtual machine.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// May use the management ABI and the hardware (dom0).
    pub privileged: bool,
    /// UUID as the toolstack gave it.
    pub handle: Lock<[u8; 16]>,
    vcpus: Once<Box<[Vcpu]>>,
    /// vCPUs that a stopped [`Domain::create_vcpus`] has made so far.
    making: Lock<Vec<Vcpu>>,
    /// Frames, page-table windows, dirty CPUs.
    pub mem: DomainMemory,
    /// The shared_info page.
    pub shared: SharedFrame,
    /// Event channels.
    pub events: Events,
    /// Grant table.
    pub grants: Grants,
    /// Physical interrupts given to it.
    pub pirqs: Pirqs,
    /// Pauses by the toolstack and the hypervisor; creation counts as one.
    pub pause_count: AtomicU32,
    /// Pauses by D3 (only these does D4 undo); creation counts as one.
    pub tool_pauses: AtomicU32,
    life: AtomicU8,
    /// 0 while running, reason + 1 once shut down.
    shutdown: AtomicU32,
    /// SCHEDOP_shutdown_code: the reason to give when the domain stops, whatever it is then; `u32::MAX` = none.
    pub shutdown_code: AtomicU32,
    /// vm_assist bits (VMASST_TYPE_*).
    pub vm_assist: AtomicU64,
    /// Weight and cap.
    pub share: Share,
    /// Seconds the domain's wallclock is ahead of ours (D24).
    pub time_offset: AtomicU64,
    /// CPUID leaves set by the toolstack; empty means the default policy.
    pub cpuid: Lock<Vec<CpuidLeaf>>,
    /// Memory map the toolstack gave it; empty means none.
    pub e820: Lock<Vec<E820Entry>>,
    /// SCHEDOP_watchdog.
    pub watchdogs: Watchdogs,
    /// VCPUOP/vm ops have begun: the CPU policy is fixed.
    pub started: AtomicBool,
    /// Progress of the destruction, for domctl continuations.
    pub teardown: Lock<lifecycle::Teardown>,
}

impl Domain {
    /// A domain without vCPUs, paused once. `max_pages` in 4 KiB pages.
    ///
    /// # Errors
    /// `ENOMEM` when a page or a table cannot be had.
    pub fn try_new(id: DomId, handle: [u8; 16], privileged: bool, limits: &Limits) -> Result<DomainRef, Errno> {
        let mem = DomainMemory::new(id, limits.max_pages, privileged);
        let shared = SharedFrame::try_new(id)?;
        let d = Shared::try_new(Domain {
            id,
            privileged,
            handle: Lock::new(Rank::Domain, handle),
            vcpus: Once::new(),
            making: Lock::new(Rank::Domain, Vec::new()),
            mem,
            shared,
            events: Events::try_new(limits.max_ports)?,
            grants: Grants::new(limits.grant_frames, limits.maptrack_frames),
            pirqs: Pirqs::new(),
            pause_count: AtomicU32::new(1),
            tool_pauses: AtomicU32::new(1),
            life: AtomicU8::new(Life::Alive as u8),
            shutdown: AtomicU32::new(0),
            shutdown_code: AtomicU32::new(u32::MAX),
            vm_assist: AtomicU64::new(0),
            share: Share::new(),
            time_offset: AtomicU64::new(0),
            cpuid: Lock::new(Rank::Domain, Vec::new()),
            e820: Lock::new(Rank::Domain, Vec::new()),
            watchdogs: Watchdogs::new(),
            started: AtomicBool::new(false),
            teardown: Lock::new(Rank::Domain, lifecycle::Teardown::default()),
        })?;
        d.mem.register()?;
        Ok(d)
    }

    /// Its vCPUs; empty until [`Domain::create_vcpus`].
    #[inline]
    pub fn vcpus(&self) -> &[Vcpu] {
        self.vcpus.get().map_or(&[], |v| v)
    }

    /// vCPU `id`.
    #[inline]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        crate::arch::nospec::get(self.vcpus(), id.0 as usize)
    }

    /// Gives the domain its vCPUs, all offline. Once.
    ///
    /// # Errors
    /// `EINVAL` for 0 or more than [`MAX_VCPUS`] or a second call with another count; `ENOMEM`; `EAGAIN`: call again.
    pub fn create_vcpus(&self, count: u32) -> Result<(), Errno> {
        let n = count as usize;
        if n == 0 || n > MAX_VCPUS {
            return Err(Errno::EINVAL);
        }
        if let Some(v) = self.vcpus.get() {
            return if v.len() == n { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let mut made = core::mem::take(&mut *self.making.lock());
        made.truncate(n);
        made.try_reserve_exact(n.saturating_sub(made.len())).map_err(|_| Errno::ENOMEM)?;
        self.mem.window.try_reserve_vcpus(n)?;
        let first = made.len();
        for i in first..n {
            if i > first && current::should_preempt() {
                *self.making.lock() = made;
                return Err(Errno::EAGAIN);
            }
            let info = if i < LEGACY_VCPUS { InfoPage::in_shared_info(&self.shared, i) } else { InfoPage::absent() };
            let vcpu = Vcpu::try_new(VcpuId(i as u32), info)?;
            self.mem.window.clear_gdt(i as u32);
            made.push(vcpu);
        }
        crate::sched::admit(count)?;
        self.vcpus.call_once(|| made.into_boxed_slice());
        Ok(())
    }

    /// How far it is in its life.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Alive,
            1 => Life::Dying,
            _ => Life::Dead,
        }
    }

    /// Moves on in life; false when it was already that far.
    pub(crate) fn advance_life(&self, to: Life) -> bool {
        self.life.fetch_max(to as u8, Ordering::AcqRel) < to as u8
    }

    /// The reason it shut down, if it did.
    pub fn shutdown_reason(&self) -> Option<u8> {
        match self.shutdown.load(Ordering::Acquire) {
            0 => None,
            n => Some((n - 1) as u8),
        }
    }

    /// Whether any of its vCPUs may run.
    pub fn may_run(&self) -> bool {
        self.pause_count.load(Ordering::Acquire) == 0
    }
}

/// What a new domain may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// 4 KiB pages it may own.
    pub max_pages: u64,
    /// Event-channel ports.
    pub max_ports: u32,
    /// Grant-table frames.
    pub grant_frames: u32,
    /// Maptrack frames (each holds a page of mapping handles).
    pub maptrack_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_pages: 0, max_ports: 4096, grant_frames: 64, maptrack_frames: 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a small domain costs beside the pages it sees: at most 20 KiB.
    #[test]
    fn a_domain_with_one_vcpu_costs_less_than_20_kib() {
        // Three tables of its window (GDT and LDT pages of its vCPUs), in pages.
        let tables = 3 * 4096;
        let vcpu = size_of::<Vcpu>() + size_of::<VcpuArch>() + crate::arch::fpu::area_size().max(832);
        // 33 handlers, in steps of 8.
        let traps = 40 * size_of::<pv_abi::arch::TrapInfo>();
        let ports = crate::events::BUCKET as usize * size_of::<crate::events::Channel>();
        let grants = 64 * 16;
        let all = tables + size_of::<Domain>() + vcpu + traps + ports + grants;
        assert!(all <= 20 << 10, "{all} bytes: domain {}, vCPU {vcpu}, ports {ports}", size_of::<Domain>());
    }
}
