//! Unusual encodings of what the hypervisor emulates.
//!
//! Attacks: registers by number that are none (CR1, CR15, DR8), memory forms of MOV CR, all 256 second opcode bytes behind
//! 0F at privilege level 3, the forced-emulation prefix before anything but CPUID. Must happen: each ends as on the record;
//! nothing but the named register changes, and nothing is done twice.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    control();
    forced();
    second_bytes();
    one_byte();
    alive();
}

/// MOV to and from each control and debug register, register and memory forms.
fn control() {
    for (name, op) in [("mov r, cr", 0x20u8), ("mov r, dr", 0x21)] {
        for n in 0..16u8 {
            let rex = 0x48 | (n >> 3) << 2;
            for modrm in [0xc3 | (n & 7) << 3, 0x03 | (n & 7) << 3] {
                let o = probe::kernel(&[rex, 0x0f, op, modrm], &Gprs::MARKED);
                match o {
                    Outcome::Done(g) => check(
                        f!("{name}{n}, ModRM {modrm:#x}"),
                        Gprs { rbx: 0, rcx: 0, ..g } == Gprs { rbx: 0, rcx: 0, ..Gprs::MARKED },
                    ),
                    Outcome::Trap(_) => obs(f!("{name}{n}, ModRM {modrm:#x}"), o),
                }
            }
        }
    }
    for (name, op) in [("mov cr, r", 0x22u8), ("mov dr, r", 0x23)] {
        for n in (0..16u8).filter(|n| op != 0x22 || !matches!(n, 0 | 3 | 4)) {
            let rex = 0x48 | (n >> 3) << 2;
            for v in [0u64, u64::MAX, 0xffff_8300_0000_0000] {
                obs(
                    f!("{name}{n} <- {v:#x}"),
                    probe::kernel(&[rex, 0x0f, op, 0xc3 | (n & 7) << 3], &Gprs { rbx: v, ..Gprs::ZERO }),
                );
            }
        }
    }
    for (bit, v) in (0..64u32).map(|b| (b, 1u64 << b)) {
        let cr0 = probe::kernel(code!("mov rbx, cr0", "xor rbx, rax", "mov cr0, rbx"), &Gprs { rax: v, ..Gprs::ZERO });
        if bit != 3 {
            obs(f!("CR0 bit {bit}"), cr0);
        }
        let cr4 = probe::kernel(
            code!(
                "mov rcx, cr4",
                "mov rbx, rcx",
                "or rbx, rax",
                "mov cr4, rbx",
                "mov rdx, cr4",
                "mov cr4, rcx",
                "mov rax, rdx"
            ),
            &Gprs { rax: v, ..Gprs::ZERO },
        );
        obs(f!("CR4 bit {bit}"), cr4.rax());
    }
    probe::kernel(code!("clts"), &Gprs::ZERO).done("clts");
    for i in 0..4u64 {
        call(nr::SET_DEBUGREG, &[i, 0]).must("no breakpoint");
    }
    call(nr::SET_DEBUGREG, &[7, 0]).must("DR7");
    for v in [0u64, 1, 0x1000, 0x7f_ffff_f000, u64::MAX, 1 << 63, 0xfee0_0000] {
        obs(f!("CR3 <- {v:#x}"), probe::kernel(code!("mov cr3, rax"), &Gprs { rax: v, ..Gprs::ZERO }));
    }
}

/// The forced-emulation prefix before other instructions.
fn forced() {
    for (name, code) in [
        ("itself", &[0x0f_u8, 0x0b, 0x78, 0x65, 0x6e][..]),
        ("rdmsr", &[0x0f, 0x32][..]),
        ("mov rax, cr0", &[0x0f, 0x20, 0xc0][..]),
        ("syscall", &[0x0f, 0x05][..]),
        ("in al, dx", &[0xec][..]),
        ("rex cpuid", &[0x48, 0x0f, 0xa2][..]),
        ("lock cpuid", &[0xf0, 0x0f, 0xa2][..]),
        ("nop", &[0x90][..]),
        ("half of cpuid", &[0x0f][..]),
    ] {
        let mut bytes = [0x0f, 0x0b, 0x78, 0x65, 0x6e, 0, 0, 0, 0, 0, 0, 0];
        bytes[5..5 + code.len()].copy_from_slice(code);
        obs(f!("forced {name}"), probe::kernel(&bytes[..5 + code.len()], &Gprs { rdx: 0x1230, ..Gprs::ZERO }));
    }
    obs(
        "a prefix before the forced one",
        probe::kernel(&[0x66, 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2], &Gprs::ZERO),
    );
}

/// 0F and every byte, with a ModRM byte of no memory: privileged ones end in #GP, absent ones in #UD.
fn second_bytes() {
    // what may run: harmless at level 3; not SYSCALL and SYSENTER, jumps, nor what waits
    let skip = |b: u8| matches!(b, 0x05 | 0x07 | 0x34 | 0x35 | 0x80..=0x8f | 0xa1 | 0xa9 | 0xb2 | 0xb4 | 0xb5 | 0x01 | 0x77 | 0xae | 0xc7 | 0x0b | 0xb9 | 0xc8..=0xcf | 0xff);
    let mut gp = [0u64; 4];
    for b in (0..=255u8).filter(|b| !skip(*b)) {
        if let Outcome::Trap(t) =
            probe::kernel(&[0x0f, b, 0xc0, 0x90, 0x90, 0x90], &Gprs { rcx: 0x7fff_ffff, ..Gprs::ZERO })
            && t.vector == 13
        {
            gp[usize::from(b) / 64] |= 1 << (b % 64);
        }
    }
    obs("#GP behind 0F", f!("{:#x} {:#x} {:#x} {:#x}", gp[0], gp[1], gp[2], gp[3]));
}

/// One-byte instructions that level 3 may not execute.
fn one_byte() {
    for (name, code) in [
        ("hlt", &[0xf4_u8][..]),
        ("lock hlt", &[0xf0, 0xf4][..]),
        ("int1", &[0xf1][..]),
        ("iretd to nothing", &[0x6a, 0, 0x6a, 0, 0x6a, 0, 0x6a, 0, 0x6a, 0, 0x48, 0xcf][..]),
        ("retfq to nothing", &[0x6a, 0, 0x6a, 0, 0x48, 0xcb][..]),
        ("lgdt", &[0x0f, 0x01, 0x14, 0x24][..]),
        ("lidt", &[0x0f, 0x01, 0x1c, 0x24][..]),
        ("lmsw ax", &[0x0f, 0x01, 0xf0][..]),
        ("swapgs", &[0x0f, 0x01, 0xf8][..]),
        ("vmcall", &[0x0f, 0x01, 0xc1][..]),
        ("vmmcall", &[0x0f, 0x01, 0xd9][..]),
        ("monitor", &[0x0f, 0x01, 0xc8][..]),
        ("mwait", &[0x0f, 0x01, 0xc9][..]),
        ("clac", &[0x0f, 0x01, 0xca][..]),
        ("stac", &[0x0f, 0x01, 0xcb][..]),
        ("clgi", &[0x0f, 0x01, 0xdd][..]),
        ("invlpga", &[0x0f, 0x01, 0xdf][..]),
        ("rsm", &[0x0f, 0xaa][..]),
        ("ltr ax", &[0x0f, 0x00, 0xd8][..]),
        ("lldt ax", &[0x0f, 0x00, 0xd0][..]),
    ] {
        obs(name, probe::kernel(code, &Gprs { rax: 0xe040, ..Gprs::ZERO }));
    }
}
