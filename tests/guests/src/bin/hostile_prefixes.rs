//! Every prefix, and pairs of them, before every privileged instruction.
//!
//! Attacks: decoders that skip prefixes the CPU would refuse, count past the fifteen bytes, or apply a REX that is not
//! the last prefix (advisories about the emulator's decoding). Must happen: the same as on the record, and never another
//! register than the instruction names changes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

const PREFIXES: [u8; 12] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x48];
const CODES: [(&str, &[u8], u16); 10] = [
    // name, bytes, which registers may change: bits in the order of `words`
    ("mov rax, cr0", &[0x0f, 0x20, 0xc0], 1),
    ("mov cr2, rax", &[0x0f, 0x22, 0xd0], 0),
    ("mov rax, dr7", &[0x0f, 0x21, 0xf8], 1),
    ("rdmsr", &[0x0f, 0x32], 0b1001),
    ("in al, dx", &[0xec], 1),
    ("out dx, al", &[0xee], 0),
    ("cli", &[0xfa], 0),
    ("clts", &[0x0f, 0x06], 0),
    ("wbinvd", &[0x0f, 0x09], 0),
    ("invlpg", &[0x0f, 0x01, 0x38], 0),
];

fn words(g: &Gprs) -> [u64; 13] {
    [g.rax, g.rbx, 0, g.rdx, g.rsi, g.rdi, g.rbp, g.r8, g.r9, g.r10, g.r12, g.r13, g.r14]
}

fn run() {
    call_ref(nr::PHYSDEV_OP, pv_abi::physdev::OP_SET_IOPL, &mut pv_abi::physdev::SetIopl { iopl: 1 }).must("set_iopl");
    let page = Page::alloc();
    let regs = Gprs { rcx: 0xc000_0100, rdx: 0x1230, rax: page.va, ..Gprs::MARKED };
    for (name, code, may) in CODES {
        let (mut ran, mut others, mut list) = (0u32, 0u32, 0u64);
        for (i, a) in PREFIXES.iter().enumerate() {
            for b in PREFIXES.iter().map(Some).chain([None]) {
                let mut bytes = [0u8; 16];
                let mut n = 0;
                for x in b.into_iter().chain([a]).chain(code) {
                    bytes[n] = *x;
                    n += 1;
                }
                match probe::kernel(&bytes[..n], &regs) {
                    Outcome::Done(g) => {
                        ran += 1;
                        list |= 1 << i;
                        let (was, is) = (words(&regs), words(&g));
                        // REX.W and REX make another register of it: only the plain forms are held to theirs
                        others += u32::from((0..13).any(|r| was[r] != is[r] && may >> r & 1 == 0));
                    }
                    Outcome::Trap(t) => {
                        others += u32::from(!matches!(t.vector, 6 | 13));
                        others += u32::from(t.rip != probe::code_page().va);
                    }
                }
            }
        }
        obs(f!("{name}: prefixes it ran behind"), f!("{ran} {list:#x}"));
        expect(f!("{name}: what else happened"), others, 0);
    }
    // as many as fit, and one more
    for n in [1usize, 7, 12, 13, 14, 15] {
        let mut bytes = [0x3e_u8; 18];
        bytes[n] = 0xfa;
        obs(f!("cli behind {n} prefixes"), probe::kernel(&bytes[..=n], &regs));
        let mut bytes = [0x66_u8; 18];
        bytes[n..n + 3].copy_from_slice(&[0x0f, 0x20, 0xc0]);
        obs(f!("mov rax, cr0 behind {n} prefixes"), probe::kernel(&bytes[..n + 3], &regs));
    }
    alive();
}
