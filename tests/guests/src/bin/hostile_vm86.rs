//! Virtual-8086 mode, which no CPU has in long mode, but QEMU's does.
//!
//! Attacks: there an IRET of user code that sets RFLAGS.VM enters it, with any CS: also one that looks like the
//! hypervisor's own. What interrupts it then must not be taken for something that interrupted the hypervisor, and must not
//! go back to "ring 0" at an address of the guest's. Must happen: a trap of the guest's user mode, whatever it is; where
//! the CPU does not enter that mode, the IRET faults or goes on in user mode.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{KERNEL_RW, US};
use guests::prelude::*;

guests::kernel!(run);

/// Where 16-bit code with these selectors lies, from its first byte on.
const PAGE: u64 = 0xe_0000;
const VM: u32 = 1 << 17;

fn run() {
    let u = user::init();
    let page = Page::alloc();
    paging::map(PAGE, page.ma() | KERNEL_RW | US);
    // The hypervisor's code, a guest kernel's without and with RPL, one of ring 1, a data segment.
    for cs in [0xe008u64, 0xe030, 0xe033, 0xe009, 0xe010] {
        let cases: [(&str, &[u8]); 9] = [
            ("ud2", &[0x0f, 0x0b]),
            ("int3", &[0xcc]),
            ("int 0x80", &[0xcd, 0x80]),
            ("icebp", &[0xf1]),
            ("hlt", &[0xf4]),
            ("a read of nothing", &[0xa1, 0x00, 0x00]),
            ("syscall", &[0x0f, 0x05]),
            ("sysenter", &[0x0f, 0x34]),
            ("a loop that a timer ends", &[0xeb, 0xfe]),
        ];
        for (name, code) in cases {
            let at = cs * 16 - PAGE;
            page.clear();
            code.iter().zip(at..).for_each(|(b, i)| {
                // SAFETY: a byte of that page.
                unsafe { ((page.va + i) as *mut u8).write_volatile(*b) }
            });
            // eip, cs, eflags, esp, ss, es, ds, fs, gs
            let frame = [0, cs as u32, 0x202 | VM, 0xf00, 0xe000, 0, 0, 0, 0];
            let below = 64u64;
            for (w, i) in frame.iter().zip(0u64..) {
                // SAFETY: a word of the user stack's page.
                unsafe { ((u.stack.va + PAGE_SIZE - below + i * 4) as *mut u32).write_volatile(*w) }
            }
            call(nr::SET_TIMER_OP, &[events::now() + 2_000_000]).must("timer");
            let to = user::Iret { rsp: user::STACK_TOP - below, ..user::frame() };
            let o = user::run_from(&[0xcf], &Gprs::ZERO, &to);
            // The vector depends on the CPU; that user mode trapped does not.
            let fine = match o {
                Outcome::Trap(t) => t.cs & 3 == 3,
                // User mode's SYSCALL, which is how these tests end there.
                Outcome::Done(_) => name == "syscall",
            };
            check(f!("cs {cs:#x}, {name}"), fine);
        }
    }
    alive();
}
