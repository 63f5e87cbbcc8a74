//! vCPUs: which one this is, and starting others.
use crate::hypercall::call;
use crate::mem::{Page, Racy};
use crate::ret::Ret;
use crate::start::{MAX_CPUS, STACK_SIZE, STACKS};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::arch::{VcpuGuestContext, sel, vgcf};
use pv_abi::hypercall::nr;
use pv_abi::vcpu;

/// What GS points at in kernel mode: the vCPU's number.
#[repr(C)]
pub struct PerCpu {
    id: u64,
}

static PERCPU: Racy<[PerCpu; MAX_CPUS]> = Racy::new([const { PerCpu { id: 0 } }; MAX_CPUS]);
static CONTEXT: Racy<VcpuGuestContext> = Racy::new(ZERO_CONTEXT);
static BODY: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

// SAFETY: all fields are integers and arrays of them.
const ZERO_CONTEXT: VcpuGuestContext = unsafe { core::mem::zeroed() };

/// SEGBASE numbers of set_segment_base.
pub mod segbase {
    /// FS.
    pub const FS: u64 = 0;
    /// GS of user mode.
    pub const GS_USER: u64 = 1;
    /// GS of kernel mode, the one in use in a kernel.
    pub const GS_KERNEL: u64 = 2;
    /// The selector of user mode's GS.
    pub const GS_USER_SEL: u64 = 3;
}

/// Address of a vCPU's own data.
pub fn percpu(cpu: usize) -> u64 {
    PERCPU.addr() + (cpu * size_of::<PerCpu>()) as u64
}

/// Sets up vCPU 0.
pub fn init_first() {
    // SAFETY: before anybody else runs.
    unsafe {
        for (i, p) in (*PERCPU.get()).iter_mut().enumerate() {
            p.id = i as u64;
        }
    }
    set_base(segbase::GS_KERNEL, percpu(0)).must("set the GS base");
}

/// set_segment_base.
pub fn set_base(which: u64, base: u64) -> Ret {
    call(nr::SET_SEGMENT_BASE, &[which, base])
}

/// The calling vCPU.
pub fn cpu() -> usize {
    let id: u64;
    // SAFETY: GS holds this vCPU's data whenever Rust code runs.
    unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) id, options(nostack, readonly, pure)) };
    id as usize % MAX_CPUS
}

/// Top of a vCPU's stack.
pub fn stack_top(cpu: usize) -> u64 {
    STACKS.addr() + ((cpu + 1) * STACK_SIZE) as u64
}

/// The start-of-day context of another vCPU that runs `body` on the kernel's page tables. It is one static: start
/// one vCPU after the other.
pub fn context(cpu: usize, body: fn()) -> &'static mut VcpuGuestContext {
    BODY[cpu % MAX_CPUS].store(body as *const () as u64, Ordering::SeqCst);
    // SAFETY: only the vCPU that starts the others uses it.
    let c = unsafe { &mut *CONTEXT.get() };
    *c = ZERO_CONTEXT;
    c.flags = vgcf::IN_KERNEL;
    c.user_regs.rip = entry as *const () as u64;
    c.user_regs.cs = sel::FLAT_RING3_CS64;
    c.user_regs.ss = sel::FLAT_RING3_DS;
    c.user_regs.rsp = stack_top(cpu) - 8;
    c.user_regs.rflags = 0x1000;
    c.user_regs.rdi = cpu as u64;
    c.kernel_ss = u64::from(sel::FLAT_RING3_DS);
    c.kernel_sp = stack_top(cpu);
    crate::trap::fill_context(&mut c.trap_ctxt);
    c.event_callback_eip = crate::trap::event_entry();
    c.failsafe_callback_eip = crate::trap::failsafe_entry();
    c.syscall_callback_eip = crate::trap::syscall_entry();
    c.ctrlreg[3] = cr3_word(crate::paging::l4());
    c.gs_base_kernel = percpu(cpu);
    c
}

/// A frame as ctrlreg[3] carries it.
pub fn cr3_word(l4: Page) -> u64 {
    l4.mfn() << 12
}

/// VCPUOP_initialise.
pub fn initialise(cpu: usize, c: &mut VcpuGuestContext) -> Ret {
    call(nr::VCPU_OP, &[vcpu::OP_INITIALISE, cpu as u64, core::ptr::from_mut(c) as u64])
}

/// VCPUOP_up.
pub fn up(cpu: usize) -> Ret {
    call(nr::VCPU_OP, &[vcpu::OP_UP, cpu as u64, 0])
}

/// Starts `cpu` on `body`.
pub fn start(cpu: usize, body: fn()) {
    initialise(cpu, context(cpu, body)).must("VCPUOP_initialise");
    up(cpu).must("VCPUOP_up");
}

/// vCPUs the domain may start.
pub fn count() -> usize {
    (0..MAX_CPUS as u64).take_while(|c| call(nr::VCPU_OP, &[vcpu::OP_IS_UP, *c, 0]).0 >= 0).count()
}

extern "C" fn entry(cpu: usize) -> ! {
    crate::trap::register_callbacks();
    let body = BODY[cpu % MAX_CPUS].load(Ordering::SeqCst);
    // SAFETY: stored by `context` from a `fn()`.
    let body: fn() = unsafe { core::mem::transmute(body as *const ()) };
    body();
    loop {
        call(nr::VCPU_OP, &[vcpu::OP_DOWN, cpu as u64, 0]);
    }
}
