//! Every MSR of the ranges CPUs have, read and written.
//!
//! Attacks: registers that are the hypervisor's (system-call entries, MTRRs, APIC, debug, performance, microcode), and
//! numbers no CPU has; writes of zero, ones and the value read. Must happen: a write changes nothing that matters, a read
//! gives nothing of the hypervisor's; afterwards system calls, the clock and interrupts still work.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

/// Registers a guest may change: its segment bases.
const OURS: [u64; 3] = [0xc000_0100, 0xc000_0101, 0xc000_0102];

fn read(n: u64) -> Option<u64> {
    match probe::kernel(code!("rdmsr"), &Gprs { rcx: n, ..Gprs::ZERO }) {
        Outcome::Done(g) => Some(g.rdx << 32 | g.rax & 0xffff_ffff),
        Outcome::Trap(_) => None,
    }
}

fn write(n: u64, v: u64) -> bool {
    probe::kernel(code!("wrmsr"), &Gprs { rcx: n, rax: v & 0xffff_ffff, rdx: v >> 32, ..Gprs::ZERO }).is_done()
}

fn run() {
    let before = call(nr::XEN_VERSION, &[0]);
    for (name, from, to) in [
        ("low", 0u64, 0x800u64),
        ("x2APIC", 0x800, 0x840),
        ("SYSCALL", 0xc000_0080, 0xc000_0110),
        ("AMD", 0xc001_0000, 0xc001_0100),
        ("hypervisor", 0x4000_0000, 0x4000_0110),
        ("last", 0xffff_fff0, 0x1_0000_0000),
    ] {
        let (mut readable, mut sum) = (0u32, 0u64);
        let (mut taken, mut changed) = (0u32, 0u32);
        for n in (from..to).filter(|n| !OURS.contains(n)) {
            let old = read(n);
            if old.is_some() {
                readable += 1;
                sum = sum.wrapping_mul(31).wrapping_add(n);
            }
            for v in [0u64, u64::MAX, old.unwrap_or(1)] {
                // the page of hypercalls is written where the value says
                if n != 0x4000_0000 {
                    taken += u32::from(write(n, v));
                }
            }
            // clocks run
            if !matches!(n, 0x10 | 0xe7 | 0xe8) {
                changed += u32::from(read(n) != old);
            }
        }
        obs(f!("{name}: readable"), f!("{readable} {sum:#x}"));
        obs(f!("{name}: writes taken"), taken);
        expect(f!("{name}: changed"), changed, 0);
    }
    for n in OURS {
        for v in [0x8000_0000_0000u64, 0xffff_7fff_ffff_ffff] {
            obs(f!("base {n:#x} <- {v:#x}"), write(n, v));
        }
    }
    check("GS is as it was", smp::cpu() == 0);
    expect("hypercalls work", call(nr::XEN_VERSION, &[0]), before);
    user::init();
    obs("a system call", user::run(code!("nop"), &Gprs::ZERO));
    let t = events::now();
    child::nap(1000);
    check("the clock runs, and interrupts come", events::now() - t >= 1_000_000);
    alive();
}
