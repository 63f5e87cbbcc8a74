//! Register state of one vCPU looked for in another, on one CPU.
//!
//! Attacks: state left in registers that a switch does not replace: x87, XMM, upper halves of YMM, MXCSR, and the same
//! behind CR0.TS (lazy FPU switching, CVE-2018-3665 and its Xen advisory). Must happen: a fresh vCPU sees the initial
//! state, and each vCPU only what it put there itself, however they alternate.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

static TURN: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static FOREIGN: AtomicU32 = AtomicU32::new(0);

const MINE: u64 = 0xaaaa_aaaa_aaaa_aaaa;
const THEIRS: u64 = 0x5555_5555_5555_5555;

fn turn(n: u32) {
    while TURN.load(Ordering::SeqCst) != n {
        call(nr::SCHED_OP, &[0, 0]);
    }
}

/// All sixteen XMM registers hold `v` twice over.
fn fill(v: u64) {
    // SAFETY: nobody keeps values there across this.
    unsafe {
        core::arch::asm!("movq xmm0, {0}", "punpcklqdq xmm0, xmm0", "movaps xmm1, xmm0", "movaps xmm2, xmm0", "movaps xmm7, xmm0", "movaps xmm8, xmm0", "movaps xmm15, xmm0", in(reg) v);
    }
}

fn xmm(n: usize) -> u64 {
    let page: [u64; 64] = [0; 64];
    let mut area = mem::Racy::new(Area(page));
    let at = core::ptr::from_mut(&mut area) as u64;
    // SAFETY: 512 aligned bytes.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) at) };
    mem::read64(at + 160 + 16 * n as u64)
}

#[repr(C, align(64))]
struct Area([u64; 64]);

fn other() {
    for (i, s) in SEEN.iter().enumerate().take(6) {
        s.store(xmm([0, 1, 2, 7, 8, 15][i]), Ordering::SeqCst);
    }
    for round in 0..200u32 {
        fill(THEIRS ^ u64::from(round));
        call(nr::SCHED_OP, &[0, 0]);
        FOREIGN.fetch_add(u32::from(xmm(15) != THEIRS ^ u64::from(round)), Ordering::SeqCst);
    }
    TURN.store(2, Ordering::SeqCst);
    turn(3);
    SEEN[6].store(xmm(15), Ordering::SeqCst);
    TURN.store(4, Ordering::SeqCst);
}

fn run() {
    fill(MINE);
    smp::start(1, other);
    let mut round = 0u64;
    while TURN.load(Ordering::SeqCst) != 2 {
        round += 1;
        fill(MINE ^ round << 8);
        call(nr::SCHED_OP, &[0, 0]);
        FOREIGN.fetch_add(u32::from(xmm(8) != MINE ^ round << 8), Ordering::SeqCst);
        if round > 2_000_000 {
            report::error(f!("the other vCPU does not get on"));
        }
    }
    for (i, s) in SEEN.iter().enumerate().take(6) {
        expect(f!("register {i} of a fresh vCPU"), s.load(Ordering::SeqCst), 0);
    }
    expect("registers that were another's", FOREIGN.load(Ordering::SeqCst), 0);
    // behind TS: the registers are there, unreachable; a switch must not hand them on
    fill(MINE);
    call(nr::FPU_TASKSWITCH, &[1]).must("TS on");
    TURN.store(3, Ordering::SeqCst);
    turn(4);
    call(nr::FPU_TASKSWITCH, &[0]).must("TS off");
    expect("mine behind TS", Hex(xmm(15)), Hex(MINE));
    expect("theirs behind TS", Hex(SEEN[6].load(Ordering::SeqCst)), Hex(THEIRS ^ 199));
    alive();
}
