//! The iret hypercall with every selector there is, as cs and as ss.
//!
//! Attacks: frames whose code or stack segment is the hypervisor's, a TSS, an LDT, out of the table, not present, of
//! another kind; the real IRETQ faults in the hypervisor then, with a guest's values loaded. Must happen: only flat guest
//! segments are entered; every other selector comes back as the guest's #GP, #SS or #NP, in the guest's own stack.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn run() {
    user::init();
    let to = |cs: u64, ss: u64| user::Iret {
        flags: 0,
        rip: probe::code_page().va,
        cs,
        rflags: 0x2,
        rsp: probe::stack_top() - 1024,
        ss,
    };
    events::quiet();
    let mut counts = [[0u32; 4]; 2];
    let mut sums = [0u64; 2];
    probe::load(code!("ud2"), &[0x0f, 0x0b]);
    for i in 0..8192u64 {
        for ldt in [0u64, 4] {
            // kernel mode: RPL 0
            let s = i << 3 | ldt;
            // the flat 32-bit segment is entered, and has no stack up here
            if s == 0xe020 {
                continue;
            }
            for (kind, frame) in [to(s, 0xe02b), to(0xe030, s)].into_iter().enumerate() {
                let n = match user::iret(&frame, &Gprs::ZERO) {
                    Outcome::Done(_) => 0,
                    Outcome::Trap(t) if t.vector == 6 => {
                        sums[kind] += s;
                        1
                    }
                    Outcome::Trap(t) if matches!(t.vector, 10..=13) => 2,
                    Outcome::Trap(_) => 3,
                };
                counts[kind][n] += 1;
            }
        }
    }
    for (kind, name) in ["cs", "ss"].into_iter().enumerate() {
        let [done, entered, refused, other] = counts[kind];
        obs(f!("selectors as {name}: entered, refused"), f!("{entered} {refused}"));
        expect(f!("something else as {name}"), done + other, 0);
        obs(f!("sum of those that {name} took"), f!("{:#x}", sums[kind]));
    }
    alive();
}
