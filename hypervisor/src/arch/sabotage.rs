//! Ways to break the hypervisor on purpose, so that tests see what happens then. Debug builds only; dom0 asks for them
//! (`pv_abi::hospes::SYSCTL_BREAK`).

use super::layout::IMAGE;
use super::percpu::this_cpu;
use super::{paging, tables};
use pv_abi::hospes::breaks;
use pv_abi::ids::{MachineAddr, PAGE_SIZE};

/// Something the compiler must not see through.
fn opaque<T>(v: T) -> T {
    core::hint::black_box(v)
}

/// Breaks in the way `what`; returns when there is no such way, or when the hypervisor does not stop it: that is a
/// failed test. `at` is an address of the calling guest, for the ways that need one.
pub fn run(what: u32, at: u64) {
    match what {
        breaks::PANIC => panic!("asked for by dom0"),
        breaks::HANG => {
            #[allow(clippy::empty_loop)] // that is the point
            loop {}
        }
        breaks::STACK => {
            overflow(opaque(1));
        }
        breaks::WRITE_TEXT => poke(hospes_text()),
        breaks::WRITE_TEXT_DIRECT => poke(paging::direct(MachineAddr(hospes_text() - IMAGE))),
        breaks::WRITE_RODATA => poke(super::extable::start()),
        breaks::RUN_DATA => {
            // A RET in the hypervisor's data.
            static CODE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0xc3);
            jump(CODE.as_ptr() as u64);
        }
        breaks::RUN_DIRECT_MAP => jump(paging::direct(MachineAddr(hospes_text() - IMAGE))),
        breaks::RUN_GUEST => jump(at),
        breaks::READ_GUEST => {
            // SAFETY: not sound, on purpose.
            opaque(unsafe { opaque(at as *const u64).read_volatile() });
        }
        breaks::WILD => poke(opaque(0xffff_8190_ffff_f000)),
        breaks::GUARD => poke(tables::stack_block(this_cpu().id) + (at & 63) * PAGE_SIZE),
        // SAFETY: an interrupt gate of ours with its own stack, whose handler does not come back.
        breaks::MACHINE_CHECK => unsafe { core::arch::asm!("int 18", options(nostack)) },
        _ => {}
    }
}

fn hospes_text() -> u64 {
    super::entry::vector_stub(0)
}

fn poke(at: u64) {
    // SAFETY: not sound, on purpose: the page is read-only, or should be. What is written is what stands there.
    unsafe { opaque(at as *mut u8).write_volatile(opaque(at as *const u8).read_volatile()) };
}

fn jump(to: u64) {
    // SAFETY: as above; where it is not stopped, the code there returns at once.
    unsafe { core::mem::transmute::<u64, extern "C" fn()>(opaque(to))() };
}

#[allow(unconditional_recursion)]
fn overflow(n: u64) -> u64 {
    let room = opaque([n; 64]);
    overflow(opaque(n) + 1) + opaque(room)[1]
}
