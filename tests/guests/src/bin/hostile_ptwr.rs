//! Attack: page-table stores that the hypervisor emulates are used to make tables writable, to store entries that would
//! be refused, and to write what is no L1. Must happen: a page fault for the guest, and the entry stays as it was.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::mem::{read64, write64};
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, P, RW, TABLE};
use guests::prelude::*;

guests::kernel!(run);

fn attempt(name: &str, at: u64, store: impl Fn()) {
    let before = read64(at);
    let o = probe::catch(&store);
    check(f!("{name}: refused"), !o.is_done());
    check(f!("{name}: left as it was"), (read64(at) ^ before) & !(pg::A | pg::D) == 0);
}

fn run() {
    let window = Page::alloc();
    let slot = pg::slot_va(window.va, 1);
    let l1 = pg::new_table();
    pg::pin(l1, 1).must("pin");
    let gdt = pg::new_table();
    let list = [gdt.mfn()];
    call(nr::SET_GDT, &[list.as_ptr() as u64, 512]).must("set_gdt");
    let (l4, l3, l2) = (pg::l4(), pg::table(window.va, 3).unwrap_or(l1), pg::table(window.va, 2).unwrap_or(l1));
    for (name, p) in [
        ("L1", l1),
        ("live L4", l4),
        ("live L3", l3),
        ("live L2", l2),
        ("GDT", gdt),
        ("live L1", pg::table(window.va, 1).unwrap_or(l1)),
    ] {
        attempt(&Name::of("whole entry", name), slot, || write64(slot, p.ma() | KERNEL_RW));
        write64(slot, p.ma() | KERNEL_RO);
        attempt(&Name::of("RW alone, one byte", name), slot, || {
            // SAFETY: the entry's lowest byte; the store is emulated or faults.
            unsafe { (slot as *mut u8).write_volatile((KERNEL_RW & 0xff) as u8) }
        });
        attempt(&Name::of("RW alone, or", name), slot, || {
            // SAFETY: as above.
            unsafe { core::arch::asm!("lock or qword ptr [{}], 2", in(reg) slot) }
        });
        attempt(&Name::of("RW alone, xchg", name), slot, || {
            // SAFETY: as above.
            unsafe { core::arch::asm!("xchg qword ptr [{}], {}", in(reg) slot, inout(reg) p.ma() | KERNEL_RW => _) }
        });
        attempt(&Name::of("RW alone, bts", name), slot, || {
            // SAFETY: as above.
            unsafe { core::arch::asm!("lock bts qword ptr [{}], 1", in(reg) slot) }
        });
        attempt(&Name::of("RW alone, cmpxchg", name), slot, || {
            // SAFETY: as above.
            unsafe {
                core::arch::asm!("lock cmpxchg qword ptr [{}], {}", in(reg) slot, in(reg) p.ma() | KERNEL_RW, inout("rax") read64(slot) => _)
            }
        });
        write64(slot, window.ma() | KERNEL_RW);
    }
    for (name, entry) in [
        ("the hypervisor's frame", (xen_frame() * PAGE_SIZE) | KERNEL_RW),
        ("the LAPIC", 0xfee0_0000 | KERNEL_RW),
        ("beyond the CPU's width", 0x000f_ffff_ffff_f000 | KERNEL_RW),
        (
            "RAM of nobody",
            (0x1000..0x1e000).map(|m| m * PAGE_SIZE).find(|a| mem::pfn_of(a / PAGE_SIZE) == u64::MAX).unwrap_or(0)
                | KERNEL_RW,
        ),
    ] {
        attempt(name, slot, || write64(slot, entry));
    }
    for (name, t) in [("L4", l4), ("L3", l3), ("L2", l2)] {
        let at = t.va + 8 * 300;
        attempt(&Name::of("a table into", name), at, || write64(at, l1.ma() | TABLE));
        attempt(&Name::of("a large page into", name), at, || write64(at, P | RW | pg::PSE));
        attempt(&Name::of("nothing into", name), at, || write64(at, 0));
    }
    for offset in [1, 4, 7] {
        let at = slot + offset;
        attempt("misaligned", slot, || write64(at, window.ma() | KERNEL_RW));
    }
    attempt("across two entries", slot & !0xf, || {
        // SAFETY: emulated or faults.
        unsafe { core::arch::asm!("movups xmmword ptr [{}], xmm0", in(reg) slot & !0xf) }
    });
    attempt("the last bytes of a table and behind", (slot & !0xfff) + 0xff8, || {
        write64((slot & !0xfff) + 0xffc, u64::MAX)
    });
    alive();
}

/// Two words as one name.
struct Name([u8; 64], usize);

impl Name {
    fn of(a: &str, b: &str) -> Name {
        let mut n = Name([0; 64], 0);
        for c in a.bytes().chain(*b" ").chain(b.bytes()).take(64) {
            n.0[n.1] = c;
            n.1 += 1;
        }
        n
    }
}

impl core::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        core::str::from_utf8(&self.0[..self.1]).unwrap_or("?")
    }
}
