//! Every CPUID leaf and the widest subleaves, by both ways.
//!
//! Attacks: leaves beyond the last one, subleaves up to 2^32 - 1, the hypervisor's own ranges: numbers that index tables.
//! Must happen: an answer each time, the same by both ways where the CPU traps CPUID, and nothing hidden shows.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn forced(leaf: u64, sub: u64) -> Gprs {
    probe::kernel(code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2"), &Gprs { rax: leaf, rcx: sub, ..Gprs::ZERO })
        .done("cpuid")
}

fn run() {
    let mut answers = 0u32;
    for base in [0u64, 0x4000_0000, 0x4000_0100, 0x8000_0000, 0x8fff_0000, 0xc000_0000, 0xffff_ff00] {
        for i in 0..0x40 {
            for sub in [0u64, 1, 2, 3, 62, 63, 64, 0xff, 0x7fff_ffff, 0xffff_ffff] {
                let g = forced(base + i, sub);
                answers += 1;
                if [g.rax, g.rbx, g.rcx, g.rdx].iter().any(|v| v >> 32 != 0) {
                    report::fail(f!("an upper half at {:#x}.{sub:#x}", base + i));
                }
            }
        }
    }
    expect("answers", answers, 7 * 0x40 * 10);
    let l1 = forced(1, 0);
    // MONITOR, VMX, SMX, PDCM, PCID, x2APIC, TSC deadline
    expect("hidden of 1c", Hex(l1.rcx & 0x0126_8068), Hex(0));
    // VME, PSE, PGE, PSE36
    expect("hidden of 1d", Hex(l1.rdx & 0x0002_200a), Hex(0));
    let l7 = forced(7, 0);
    // SMEP, INVPCID, SMAP
    expect("hidden of 7b", Hex(l7.rbx & 0x0010_0480), Hex(0));
    // UMIP, PKU, CET
    expect("hidden of 7c", Hex(l7.rcx & 0x8c), Hex(0));
    let e1 = forced(0x8000_0001, 0);
    expect("hidden of e1c: SVM", Hex(e1.rcx & 4), Hex(0));
    expect("hidden of e1d: 1 GiB pages", Hex(e1.rdx & 1 << 26), Hex(0));
    // upper halves of the arguments do not count
    expect("upper halves", forced(1 << 32 | 1, 1 << 32).rax, l1.rax);
    alive();
}
