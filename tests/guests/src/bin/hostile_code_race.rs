//! A second vCPU rewrites a privileged instruction while the first executes it.
//!
//! Attacks: emulators that read an instruction twice, once to check it and once to do it: the CPU trapped on one, the
//! emulator sees another. Must happen: each time one of the two instructions, whole, or the guest's fault; a port or
//! register that neither names is never touched.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static FLIPS: AtomicU32 = AtomicU32::new(0);

/// Flips the second byte of the instruction: `mov rax, cr0` and `mov cr2, rax` (20, 22), and others.
fn flip() {
    let at = probe::code_page().va as *mut u8;
    let mut i = 0u32;
    while !STOP.load(Ordering::SeqCst) {
        i = i.wrapping_add(1);
        // SAFETY: a byte of the page of code, which the other vCPU executes: that is the test.
        unsafe { at.add(1).write_volatile([0x20, 0x22, 0x21, 0x32, 0x06, 0xa2, 0x0b, 0x05][i as usize % 8]) };
        FLIPS.fetch_add(1, Ordering::Relaxed);
        // now and then the hypervisor is entered, so that nobody starves on a busy machine
        if i.is_multiple_of(512) {
            call(nr::SCHED_OP, &[0, 0]);
        }
    }
}

fn run() {
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    let regs = Gprs { rax: nr::XEN_VERSION as u64, rcx: 0xc000_0100, rdi: 0, rsi: 0, ..Gprs::MARKED };
    probe::kernel(code!("mov rax, cr0", "nop"), &regs).done("alone");
    smp::start(1, flip);
    check("it flips", events::wait_ms(5000, || FLIPS.load(Ordering::SeqCst) > 1000));
    let (mut ran, mut trapped, mut wrong) = (0u32, 0u32, 0u32);
    for _ in 0..20_000 {
        match probe::go(probe::code_page().va, probe::stack_top(), &regs) {
            Outcome::Done(g) => {
                ran += 1;
                let kept = Gprs { rax: 0, rbx: 0, rcx: 0, rdx: 0, r11: 0, ..g }
                    == Gprs { rax: 0, rbx: 0, rcx: 0, rdx: 0, r11: 0, ..regs };
                wrong += u32::from(!kept);
            }
            Outcome::Trap(t) => {
                trapped += 1;
                wrong += u32::from(!matches!(t.vector, 6 | 13 | 14));
            }
        }
    }
    STOP.store(true, Ordering::SeqCst);
    check("all rounds are over", ran + trapped == 20_000);
    expect("rounds in which something else happened", wrong, 0);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    alive();
}
