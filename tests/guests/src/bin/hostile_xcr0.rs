//! XCR0 and the state images of XRSTOR.
//!
//! Attacks: every combination of XCR0's low bits and single high ones, XSETBV of other registers, XSAVE with masks beyond
//! XCR0, XRSTOR of images with reserved header bits, XSTATE_BV beyond XCR0, compaction, MXCSR garbage, misaligned and at
//! hostile addresses. Must happen: refused by #GP in the guest; the hypervisor's own save and restore at the next switch
//! never faults.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

fn xsetbv(index: u64, v: u64) -> Outcome {
    probe::kernel(code!("xsetbv"), &Gprs { rcx: index, rax: v & 0xffff_ffff, rdx: v >> 32, ..Gprs::ZERO })
}

fn sleep() {
    child::nap(2000);
}

fn run() {
    let on = probe::kernel(code!("mov rax, cr4", "or eax, 0x40000", "mov cr4, rax", "xgetbv"), &Gprs::ZERO);
    obs("OSXSAVE", on);
    if !on.is_done() {
        report::skip("no XSAVE");
    }
    let mut ok = 0u64;
    for v in 0..64u64 {
        if xsetbv(0, v).is_done() {
            ok |= 1 << v;
            sleep();
        }
    }
    obs("low six bits that may be", f!("{ok:#x}"));
    let mut high = 0u64;
    for bit in 6..64u64 {
        high |= u64::from(xsetbv(0, 7 | 1 << bit).is_done()) << bit;
    }
    obs("single high bits that may be", f!("{high:#x}"));
    for index in [1u64, 2, 0xffff_ffff] {
        obs(f!("XSETBV({index:#x})"), xsetbv(index, 1));
    }
    obs("upper half of rcx", xsetbv(1 << 32, 3));
    obs("user XSETBV", {
        user::init();
        user::run(code!("mov eax, 1", "xor ecx, ecx", "xor edx, edx", "xsetbv"), &Gprs::ZERO)
    });
    xsetbv(0, 7).done("XCR0 = 7");
    let area = Page::alloc();
    let save = |mask: u64| {
        probe::kernel(
            code!("xsave64 [rsi]"),
            &Gprs { rsi: area.va, rax: mask & 0xffff_ffff, rdx: mask >> 32, ..Gprs::ZERO },
        )
    };
    let restore = || {
        probe::kernel(code!("xrstor64 [rsi]"), &Gprs { rsi: area.va, rax: 0xffff_ffff, rdx: 0xffff_ffff, ..Gprs::ZERO })
    };
    obs("save with all bits", save(u64::MAX));
    obs("its XSTATE_BV stays within XCR0", area.read(64) & !7);
    obs("restore it", restore());
    for (name, word, v) in [
        ("XSTATE_BV bit 3", 64usize, 8u64),
        ("XSTATE_BV bit 9", 64, 1 << 9),
        ("XSTATE_BV bit 62", 64, 1 << 62),
        ("XSTATE_BV all", 64, u64::MAX),
        ("compaction", 65, 1 << 63),
        ("XCOMP_BV bit 0", 65, 1),
        ("reserved header word 2", 66, 1),
        ("MXCSR all ones", 3, 0xffff_ffff),
    ] {
        save(7).done("save");
        area.write(word, v);
        obs(f!("restore with {name}"), restore());
        sleep();
    }
    save(7).done("save");
    obs("restore at +8", probe::kernel(code!("xrstor64 [rsi]"), &Gprs { rsi: area.va + 8, rax: 7, ..Gprs::ZERO }));
    obs("save to the hypervisor", probe::kernel(code!("xsave64 [rsi]"), &Gprs { rsi: XEN_VA, rax: 7, ..Gprs::ZERO }));
    // what the guest switched off is off, and comes back as it was before a switch
    xsetbv(0, 1).done("XCR0 = 1");
    obs("AVX with XCR0 1", probe::kernel(code!("vxorps ymm0, ymm0, ymm0"), &Gprs::ZERO));
    sleep();
    obs("XCR0 after a sleep", probe::kernel(code!("xor ecx, ecx", "xgetbv"), &Gprs::ZERO).rax());
    // SAFETY: back to a state that Rust code expects.
    unsafe { core::arch::asm!("fninit") };
    probe::kernel(code!("ldmxcsr [rsi]"), &{
        area.write(0, 0x1f80);
        Gprs { rsi: area.va, ..Gprs::ZERO }
    })
    .done("MXCSR");
    alive();
}
