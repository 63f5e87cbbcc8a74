//! Floor 5: hypercalls. One file a family: decode arguments, check rights, call down, encode the answer.
//!
//! [`dispatch`] looks the number up in a table made from `pv-abi`'s declarative list and applies the handler's
//! [`Outcome`] to the guest's registers.

use crate::arch::instruments;
use crate::arch::nospec;
use crate::arch::percpu::this_cpu;
use crate::arch::trace::Event;
use crate::domain::current::Cx;
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::hypercall::{NR_ENTRIES, nr};

/// The five arguments of a hypercall: rdi, rsi, rdx, r10, r8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args(pub [u64; 5]);

#[allow(missing_docs)]
impl Args {
    #[inline(always)]
    pub fn a1(&self) -> u64 {
        self.0[0]
    }
    #[inline(always)]
    pub fn a2(&self) -> u64 {
        self.0[1]
    }
    #[inline(always)]
    pub fn a3(&self) -> u64 {
        self.0[2]
    }
    #[inline(always)]
    pub fn a4(&self) -> u64 {
        self.0[3]
    }
    #[inline(always)]
    pub fn a5(&self) -> u64 {
        self.0[4]
    }
    /// Argument `n` (0 to 4) as the ABI's C prototypes declare commands and counts: an `unsigned int`, whose upper half
    /// is whatever the register held.
    #[inline(always)]
    pub fn int(&self, n: usize) -> u64 {
        self.0.get(n).map_or(0, |v| v & 0xffff_ffff)
    }
    /// The same with argument `n` (0 to 4) replaced: how a preempted operation records its progress.
    pub fn with(mut self, n: usize, value: u64) -> Self {
        if let Some(a) = self.0.get_mut(n) {
            *a = value;
        }
        self
    }
}

/// Why a domain cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One line for the log.
    Because(&'static str),
}

/// What a hypercall leads to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value for rax.
    Return(i64),
    /// The register frame was replaced (iret): rax is not touched.
    Resume,
    /// Stopped half-way: the guest re-executes its SYSCALL with these arguments.
    Restart(Args),
    /// The value for rax, and the vCPU gives up its CPU.
    Deschedule(i64),
    /// The domain cannot go on.
    CrashDomain(Reason),
}

impl From<Result<i64, Errno>> for Outcome {
    fn from(r: Result<i64, Errno>) -> Self {
        Outcome::Return(r.unwrap_or_else(Errno::as_ret))
    }
}

impl From<Result<(), Errno>> for Outcome {
    fn from(r: Result<(), Errno>) -> Self {
        Outcome::Return(r.map_or_else(Errno::as_ret, |()| 0))
    }
}

impl From<Errno> for Outcome {
    fn from(e: Errno) -> Self {
        Outcome::Return(e.as_ret())
    }
}

/// A hypercall's implementation.
pub type Handler = fn(&mut Cx, Args) -> Outcome;

pub mod bitmap;
pub mod console;
pub mod cpu;
pub mod domctl;
pub mod event;
pub mod grant;
pub mod mca;
pub mod memory;
pub mod mmu;
pub mod multicall;
pub mod page;
pub mod physdev;
pub mod platform_op;
pub mod sched;
pub mod sysctl;
pub mod vcpu;
pub mod version;

fn not_implemented(_: &mut Cx, _: Args) -> Outcome {
    Errno::ENOSYS.into()
}

fn not_supported(_: &mut Cx, _: Args) -> Outcome {
    Errno::EOPNOTSUPP.into()
}

/// The dispatch table; what is not in it is -ENOSYS.
static TABLE: [Handler; NR_ENTRIES] = {
    let mut t: [Handler; NR_ENTRIES] = [not_implemented; NR_ENTRIES];
    t[nr::SET_TRAP_TABLE] = cpu::set_trap_table;
    t[nr::MMU_UPDATE] = mmu::mmu_update;
    t[nr::SET_GDT] = cpu::set_gdt;
    t[nr::STACK_SWITCH] = cpu::stack_switch;
    t[nr::SET_CALLBACKS] = cpu::set_callbacks;
    t[nr::FPU_TASKSWITCH] = cpu::fpu_taskswitch;
    t[nr::SCHED_OP_COMPAT] = sched::sched_op_compat;
    t[nr::SET_DEBUGREG] = cpu::set_debugreg;
    t[nr::GET_DEBUGREG] = cpu::get_debugreg;
    t[nr::UPDATE_DESCRIPTOR] = cpu::update_descriptor;
    t[nr::MULTICALL] = multicall::multicall;
    t[nr::UPDATE_VA_MAPPING] = mmu::update_va_mapping;
    t[nr::SET_TIMER_OP] = vcpu::set_timer_op;
    t[nr::EVENT_CHANNEL_OP_COMPAT] = event::event_channel_op_compat;
    t[nr::XEN_VERSION] = version::xen_version;
    t[nr::CONSOLE_IO] = console::console_io;
    t[nr::VM_ASSIST] = cpu::vm_assist;
    t[nr::UPDATE_VA_MAPPING_OTHERDOMAIN] = mmu::update_va_mapping_otherdomain;
    t[nr::IRET] = cpu::iret;
    t[nr::VCPU_OP] = vcpu::vcpu_op;
    t[nr::SET_SEGMENT_BASE] = cpu::set_segment_base;
    t[nr::MMUEXT_OP] = mmu::mmuext_op;
    t[nr::NMI_OP] = cpu::nmi_op;
    t[nr::SCHED_OP] = sched::sched_op;
    t[nr::CALLBACK_OP] = cpu::callback_op;
    t[nr::EVENT_CHANNEL_OP] = event::event_channel_op;
    t[nr::MEMORY_OP] = memory::memory_op;
    t[nr::GRANT_TABLE_OP] = grant::grant_table_op;
    t[nr::PHYSDEV_OP_COMPAT] = physdev::physdev_op_compat;
    t[nr::PLATFORM_OP] = platform_op::platform_op;
    t[nr::PHYSDEV_OP] = physdev::physdev_op;
    t[nr::SYSCTL] = sysctl::sysctl;
    t[nr::DOMCTL] = domctl::domctl;
    t[nr::XENPMU_OP] = not_supported;
    t[nr::MCA] = mca::mca;
    t
};

/// Calls hypercall `number`.
#[inline(always)]
pub fn call(cx: &mut Cx, number: u64, args: Args) -> Outcome {
    match usize::try_from(number).ok().and_then(|n| nospec::get(&TABLE, n)) {
        Some(handler) => handler(cx, args),
        // In the ABI's table, but behind its last entry here.
        None => Errno::ENOSYS.into(),
    }
}

/// The hypercall in the guest's registers, from its SYSCALL to its result in rax.
#[inline(always)]
pub fn dispatch(cx: &mut Cx) {
    let r = &*cx.regs;
    let number = r.rax;
    let args = Args([r.rdi, r.rsi, r.rdx, r.r10, r.r8]);
    let cpu = this_cpu();
    if let Some(n) = cpu.hypercalls.get(number as usize) {
        // Only this CPU counts here, so no locked instruction is needed.
        n.store(n.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        cpu.trace.note(Event::Hypercall(number as u16), r.rdi);
    }
    instruments::begin(number, args.a1());
    let outcome = call(cx, number, args);
    instruments::point();
    instruments::forget();
    apply(cx, outcome);
}

/// Applies an outcome to the registers of a SYSCALL frame.
#[inline(always)]
pub fn apply(cx: &mut Cx, outcome: Outcome) {
    match outcome {
        Outcome::Return(v) => cx.regs.rax = v as u64,
        Outcome::Resume => {}
        Outcome::Restart(args) => {
            // Back over the two bytes of SYSCALL; rax still holds the number.
            let r = &mut *cx.regs;
            r.rip = r.rip.wrapping_sub(2);
            [r.rdi, r.rsi, r.rdx, r.r10, r.r8] = args.0;
            r.force_iret();
        }
        Outcome::Deschedule(v) => {
            cx.regs.rax = v as u64;
            this_cpu().raise(crate::arch::percpu::pending::RESCHED);
        }
        Outcome::CrashDomain(Reason::Because(why)) => crash(cx, why),
    }
}

/// The running vCPU's domain cannot go on: says why, with registers, and stops it.
#[cold]
pub fn crash(cx: &mut Cx, why: &str) {
    log::error!("domain {} vCPU {} crashed: {why}", cx.domain().id, cx.vcpu.id);
    log_registers(cx);
    crate::domain::lifecycle::shutdown(cx.domain(), crate::domain::ShutdownReason::Crash);
    this_cpu().raise(crate::arch::percpu::pending::RESCHED);
}

/// Events shown of a vCPU that crashes.
const EVENTS: usize = 24;

/// Logs the vCPU's registers, the code around its RIP, the top of its stack and what it did last on this CPU.
#[cold]
pub fn log_registers(cx: &Cx) {
    use crate::arch::dump::{Code, Regs, Segments};
    let name = (cx.domain().id, cx.vcpu.id);
    let info = &cx.vcpu.info;
    log::error!(
        "{}\n{}\ncr3 {:#x} (kernel) {:#x} (user), {} mode\nevents {}, {}; vcpu_info {}",
        Regs(cx.regs),
        Segments,
        cx.arch.tables.kernel_base().map_or(0, |m| m.0 << 12),
        cx.arch.tables.user_base().map_or(0, |m| m.0 << 12),
        if cx.arch.in_kernel { "kernel" } else { "user" },
        if info.pending() { "pending" } else { "not pending" },
        if info.masked() { "masked" } else { "not masked" },
        if info.registered().is_some() { "registered" } else { "in shared_info" },
    );
    // As much as is mapped: byte by byte, since either end may lie on a page that is not there.
    let from = cx.regs.rip.wrapping_sub(Code::BEFORE as u64);
    let mut code = Code::default();
    for (i, b) in code.0.iter_mut().enumerate() {
        let mut byte = [0u8];
        let there = crate::mm::guest::read_bytes(from.wrapping_add(i as u64), &mut byte).is_ok();
        *b = there.then_some(byte[0]);
    }
    log::error!("d{}v{} code: {code}", name.0, name.1);
    for row in 0..4u64 {
        let mut words = [0u64; 4];
        let at = cx.regs.rsp.wrapping_add(row * 32);
        if crate::mm::guest::read_bytes(at, zerocopy::IntoBytes::as_mut_bytes(&mut words)).is_err() {
            break;
        }
        log::error!("d{}v{} stack +{:#04x}: {words:016x?}", name.0, name.1, row * 32);
    }
    log::error!("d{}v{}'s last events, newest first:", name.0, name.1);
    // Before it got the CPU others had it.
    for (event, what) in this_cpu().trace.newest(EVENTS).take_while(|(e, _)| !matches!(e, Event::Runs(..))) {
        log::error!("  {event} ({what:#x})");
    }
}
