//! Register state of one domain looked for in another, on one CPU.
//!
//! Attacks: everything XSAVE covers (x87, XMM, YMM, and AVX-512 where the CPU has it) with its control words is filled by
//! dom0 and by a child in turns; the child also looks at it first thing, by XSAVE and behind an XCR0 it has only just
//! raised. Must happen: a new domain sees the initial state, and each domain what it put there itself. PKRU is not the
//! guest's to have: its instructions fault.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

const MINE: u8 = 0xa6;
const THEIRS: u8 = 0x59;
/// Bytes that are compared: all AVX-512 takes, and less is there without it.
const AREA: usize = 2816;

#[repr(C, align(64))]
struct Area([u64; AREA / 8]);

static PATTERN: mem::Racy<Area> = mem::Racy::new(Area([0; AREA / 8]));
static SEEN: mem::Racy<Area> = mem::Racy::new(Area([0; AREA / 8]));

/// Turns everything on the CPU offers; which features those are, 0 without XSAVE.
fn all_on() -> u64 {
    let on = probe::kernel(code!("mov rax, cr4", "or eax, 0x40000", "mov cr4, rax"), &Gprs::ZERO);
    let g = probe::kernel(code!("mov eax, 0xd", "xor ecx, ecx", "cpuid"), &Gprs::ZERO).done("cpuid");
    // what guests may have: x87, SSE, AVX, and AVX-512 whole
    let mask = g.rax & if g.rax & 0xe0 == 0xe0 { 0xe7 } else { 7 };
    let set = probe::kernel(code!("xsetbv"), &Gprs { rcx: 0, rax: mask & 0xffff_ffff, rdx: mask >> 32, ..Gprs::ZERO });
    if on.is_done() && set.is_done() { mask } else { 0 }
}

/// The state as it is, nothing left of what stood in the buffer.
fn look(mask: u64) {
    (0..AREA as u64 / 8).for_each(|i| mem::write64(SEEN.addr() + 8 * i, 0));
    // SAFETY: an aligned area of this size; XCR0 is `mask`.
    unsafe {
        core::arch::asm!("xsave64 [{}]", in(reg) SEEN.addr(), in("eax") mask as u32, in("edx") (mask >> 32) as u32)
    };
}

/// Loads registers that are all `byte`, as far as they may be, and control words that are not the initial ones.
fn fill(mask: u64, byte: u8) {
    let at = PATTERN.addr();
    let word = u64::from_ne_bytes([byte; 8]);
    (0..AREA as u64 / 8).for_each(|i| mem::write64(at + 8 * i, word));
    // x87: control word (all masked), no exceptions, all registers full; no addresses
    mem::write64(at, 0x0f7f | u64::from(byte & 1) << 10 << 16 | 0xff << 32);
    mem::write64(at + 8, 0);
    mem::write64(at + 16, 0);
    // MXCSR: all masked, a rounding mode each
    mem::write64(at + 24, if byte == MINE { 0x3f80 } else { 0x5f80 });
    for r in 0..8 {
        mem::write64(at + 32 + 16 * r + 8, u64::from(byte) | u64::from(byte) << 8);
    }
    (52..64).for_each(|i| mem::write64(at + 8 * i, 0));
    // the header: all is in the image
    (64..72).for_each(|i| mem::write64(at + 8 * i, if i == 64 { mask } else { 0 }));
    // SAFETY: a legal image; nobody keeps values in these registers.
    unsafe { core::arch::asm!("xrstor64 [{}]", in(reg) at, in("eax") mask as u32, in("edx") (mask >> 32) as u32) };
}

/// Back to what Rust code expects.
fn reset() {
    let (mxcsr, at) = (0x1f80u32, PATTERN.addr());
    (0..AREA as u64 / 8).for_each(|i| mem::write64(at + 8 * i, 0));
    // SAFETY: an image that initialises everything; MXCSR is loaded from a word.
    unsafe {
        core::arch::asm!("xrstor64 [{}]", "fninit", "ldmxcsr [{}]", in(reg) at, in(reg) &mxcsr, in("eax") u32::MAX, in("edx") u32::MAX)
    };
}

/// Bytes that hold another one than the pattern's, of the registers that `mask` has.
fn wrong(mask: u64) -> usize {
    let byte = |base: u64, i: usize| mem::read64(base + (i as u64 & !7)).to_le_bytes()[i % 8];
    let differs = |i: &usize| byte(SEEN.addr(), *i) != byte(PATTERN.addr(), *i);
    // control and status words and tags; MXCSR; ten bytes of sixteen for each x87 register; XMM
    let x87 = (32..160).filter(|i| i % 16 < 10);
    let mut n = (0..5).chain(24..28).chain(x87).chain(160..416).filter(differs).count();
    // the rest stands where CPUID says
    for feature in (2..8).filter(|f| mask >> f & 1 != 0) {
        let g = probe::kernel(code!("cpuid"), &Gprs { rax: 0xd, rcx: feature, ..Gprs::ZERO }).done("cpuid");
        let (size, at) = (g.rax as usize & 0xffff, g.rbx as usize & 0xffff);
        n += (at..(at + size).min(AREA)).filter(differs).count();
    }
    n
}

/// State of a domain that has done nothing yet: FCW, MXCSR, and how many words are not 0 in x87 registers and others.
fn untouched(mask: u64) -> (u64, u64, usize, usize) {
    look(mask);
    let at = |i: u64| mem::read64(SEEN.addr() + 8 * i);
    let x87 = (4..20).filter(|i| at(*i) != 0).count();
    // (Test kernels are built without SSE: no register is the compiler's.)
    let others = (20..52).chain(72..AREA as u64 / 8).filter(|i| at(*i) != 0).count();
    (at(0) & 0xffff, at(3) & 0xffff_ffff, x87, others)
}

fn turns(mine: u8, mask: u64, rounds: u32) -> usize {
    let mut bad = 0;
    for round in 0..rounds {
        fill(mask, mine);
        match round % 3 {
            0 => {
                call(nr::SCHED_OP, &[0, 0]);
            }
            1 => child::nap(50),
            // the other domain may come on between two instructions
            _ => (0..20_000).for_each(|_| core::hint::spin_loop()),
        }
        look(mask);
        bad += usize::from(wrong(mask) != 0);
    }
    reset();
    bad
}

fn body() {
    use child::inside::{wait_word, word};
    wait_word(0, 1);
    let mask = all_on();
    let (fcw, mxcsr, x87, others) = untouched(mask);
    expect("in the child: FCW at first", Hex(fcw), Hex(0x37f));
    expect("in the child: MXCSR at first", Hex(mxcsr), Hex(0x1f80));
    // Xen leaves a number of its own in one: it loads one to clear the pointers of the x87.
    obs("in the child: x87 registers at first", if x87 == 0 { "empty" } else { "not empty" });
    expect("in the child: words of other registers at first", others, 0);
    word(1).store(1, SeqCst);
    expect("in the child: rounds that saw another's", turns(THEIRS, mask, 60), 0);
    word(1).store(2, SeqCst);
    wait_word(0, 2);
}

fn run() {
    let mask = all_on();
    if mask == 0 {
        report::skip("no XSAVE");
    }
    check("AVX is there", mask & 7 == 7);
    obs("RDPKRU", probe::kernel(code!("xor ecx, ecx", "rdpkru"), &Gprs::ZERO));
    obs("WRPKRU", probe::kernel(code!("xor eax, eax", "xor ecx, ecx", "xor edx, edx", "wrpkru"), &Gprs::ZERO));
    fill(mask, MINE);
    look(mask);
    expect("the pattern comes back", wrong(mask), 0);
    let c = Child::run(body, Spec::default());
    // it comes on for the first time while the registers are full
    fill(mask, MINE);
    c.word(0).store(1, SeqCst);
    let mut bad = 0;
    for _ in 0..3000 {
        bad += turns(MINE, mask, 3);
        if c.word(1).load(SeqCst) == 2 {
            break;
        }
    }
    expect("rounds that saw the child's", bad, 0);
    c.word(0).store(2, SeqCst);
    expect("how the child ended", c.wait(), child::State::Finished);
    expect("destroy", c.destroy(), OK);
    alive();
}
