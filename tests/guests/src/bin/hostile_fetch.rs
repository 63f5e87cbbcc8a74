//! Privileged instructions at places where they cannot be read whole.
//!
//! Attacks: the emulator's instruction fetch (the class of advisories about emulation that reads guest code again, across a
//! page end, or where the CPU could not have executed it): an instruction ends with its page, its tail lies on a page that
//! is missing, not executable or replaced, and its bytes never end. Must happen: what lies wholly on the page is done;
//! anything else is the guest's fault; nothing else changes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

/// Two pages of code at an address of their own; the first ends in `bytes`, cut after `first` of them.
fn at_edge(code: Page, tail: Page, bytes: &[u8], first: usize) -> u64 {
    code.clear();
    for i in 0..512 {
        tail.write(i, 0x0b0f_0b0f_0b0f_0b0f);
    }
    let start = code.va + PAGE_SIZE - first as u64;
    for (i, b) in bytes.iter().enumerate() {
        let va = if i < first { start + i as u64 } else { tail.va + (i - first) as u64 };
        // SAFETY: inside one of the two pages.
        unsafe { (va as *mut u8).write_volatile(*b) };
    }
    start
}

fn run() {
    let (code, tail) = (Page::alloc(), Page::alloc());
    check("two pages follow each other", code.va + PAGE_SIZE == tail.va);
    let regs = Gprs { rcx: 0xc000_0100, rdx: 0x1230, ..Gprs::ZERO };
    for (name, bytes) in [
        ("mov rax, cr0", &[0x0f_u8, 0x20, 0xc0][..]),
        ("rdmsr", &[0x0f, 0x32][..]),
        ("in al, dx", &[0xec][..]),
        ("rep insb", &[0xf3, 0x6c][..]),
        ("rex mov rax, cr2", &[0x48, 0x0f, 0x20, 0xd0][..]),
        ("lock mov rax, cr0", &[0xf0, 0x0f, 0x20, 0xc0][..]),
        ("forced cpuid", &[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2][..]),
        ("xgetbv", &[0x0f, 0x01, 0xd0][..]),
        (
            "many prefixes and cli",
            &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0xfa][..],
        ),
        (
            "too many prefixes",
            &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0xfa][..],
        ),
    ] {
        for first in [1, bytes.len() / 2, bytes.len()] {
            for (state, entry) in [
                ("there", tail.ma() | paging::KERNEL_RW),
                ("missing", 0),
                ("not executable", tail.ma() | paging::KERNEL_RW | paging::NX),
            ] {
                paging::make_rw(tail).must("map the tail");
                let start = at_edge(code, tail, bytes, first);
                paging::update_va(tail.va, entry).must("change the tail");
                let o = probe::go(start, probe::stack_top(), &regs);
                match o {
                    Outcome::Trap(t) => obs(
                        f!("{name}, {first} on the page, tail {state}"),
                        f!("{t} at {}", t.rip.wrapping_sub(start) as i64),
                    ),
                    Outcome::Done(_) => obs(f!("{name}, {first} on the page, tail {state}"), "ran"),
                }
            }
        }
    }
    paging::make_rw(tail).must("map the tail");
    alive();
}
