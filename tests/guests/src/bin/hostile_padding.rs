//! What comes back beside the answer: padding, unused fields, the rest of strings, registers.
//!
//! Attacks: none but reading: every structure the hypervisor fills is preset with 0xa5 or looked at behind its used part,
//! for bytes of the hypervisor's stack or of other domains (the class of advisories about information leaks). Every structure
//! of the ABI has its padding as fields, so that the hypervisor cannot leave any of it out. Must happen: each byte is the guest's own, a documented field, or zero.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::vcpu::OP_GET_RUNSTATE_INFO;

guests::kernel!(run);

const MARK: u64 = 0xa5a5_a5a5_a5a5_a5a5;

fn marked() -> Page {
    let p = Page::alloc();
    (0..512).for_each(|i| p.write(i, MARK));
    p
}

/// Bytes of the page that are neither the mark, nor zero, from byte `from` on.
fn foreign(p: Page, from: u64) -> usize {
    // SAFETY: the page is mapped.
    let byte = |i: &u64| unsafe { ((p.va + i) as *const u8).read_volatile() };
    (from..PAGE_SIZE).filter(|i| !matches!(byte(i), 0xa5 | 0)).count()
}

/// Length of the string at the page's start.
fn text(p: Page) -> u64 {
    // SAFETY: as above.
    (0..PAGE_SIZE).find(|i| unsafe { ((p.va + i) as *const u8).read_volatile() } == 0).unwrap_or(PAGE_SIZE)
}

fn run() {
    for (name, op) in [("extraversion", 1u64), ("capabilities", 3), ("changeset", 4), ("command line", 9)] {
        let p = marked();
        call(nr::XEN_VERSION, &[op, p.va]).must(name);
        expect(f!("behind the {name}"), foreign(p, text(p)), 0);
    }
    let p = marked();
    call(nr::VCPU_OP, &[OP_GET_RUNSTATE_INFO, 0, p.va]).must("runstate");
    expect("runstate's padding", Hex(p.read(0) >> 32), Hex(0));
    expect("behind runstate", foreign(p, 48), 0);
    let p = marked();
    p.write(0, u64::from(SELF));
    call(nr::EVENT_CHANNEL_OP, &[5, p.va]).must("status");
    expect("behind a channel's status", foreign(p, 24), 0);
    let p = marked();
    p.write(0, u64::from(SELF));
    call(nr::GRANT_TABLE_OP, &[6, p.va, 1]).must("query_size");
    expect("behind query_size", foreign(p, 16), 0);
    let p = marked();
    call(nr::MEMORY_OP, &[12, p.va]).must("machphys_mapping");
    expect("behind machphys_mapping", foreign(p, 24), 0);
    // structures that go in and come back: a page in which all else is marked
    for (name, n, op, first, len) in [
        ("alloc_unbound", nr::EVENT_CHANNEL_OP, 6u64, u64::from(SELF) | u64::from(SELF) << 16, 8u64),
        ("bind_ipi", nr::EVENT_CHANNEL_OP, 7, 0, 8),
        ("status of a free port", nr::EVENT_CHANNEL_OP, 5, u64::from(SELF) | 900 << 32, 24),
        ("irq_status_query", nr::PHYSDEV_OP, 5, 4, 8),
        ("get_free_pirq", nr::PHYSDEV_OP, 23, 0, 8),
        ("current_reservation", nr::MEMORY_OP, 3, u64::from(SELF), 2),
    ] {
        let p = marked();
        p.write(0, if len == 2 { MARK & !0xffff | first } else { first });
        let r = call(n, &[op, p.va]);
        obs(f!("{name}"), if r.0 < 0 { "refused" } else { "done" });
        expect(f!("behind {name}"), foreign(p, len), 0);
    }
    let p = marked();
    call(nr::VCPU_OP, &[pv_abi::vcpu::OP_GET_PHYSID, 0, p.va]);
    expect("behind get_physid", foreign(p, 8), 0);
    let (p, list) = (marked(), marked());
    p.write(0, 64);
    p.write(1, list.va);
    call(nr::MEMORY_OP, &[10, p.va]).must("machine_memory_map");
    let entries = p.read(0) & 0xffff_ffff;
    expect("behind machine_memory_map", foreign(p, 16), 0);
    expect("behind its entries", foreign(list, entries * 20), 0);
    // the management structures come back whole: what an operation does not use is as it was
    for (name, n, cmd, version, used) in [
        ("getdomaininfo", nr::DOMCTL, 5u64, 0x15u64, 16u64 + 128),
        ("physinfo", nr::SYSCTL, 3, 0x15, 8 + 128),
        ("getvcpuinfo", nr::DOMCTL, 14, 0x15, 16 + 24),
        ("sched_id", nr::SYSCTL, 4, 0x15, 8 + 4),
        ("availheap", nr::SYSCTL, 9, 0x15, 8 + 24),
    ] {
        let p = marked();
        p.write(0, cmd | version << 32);
        p.write(1, if n == nr::DOMCTL { 0 } else { p.read(1) });
        p.write(2, if cmd == 14 { 0 } else { p.read(2) });
        let r = call(n, &[p.va]);
        obs(f!("{name}"), r);
        expect(f!("behind {name}"), foreign(p, used), 0);
    }
    // a child's first registers and pages are its own
    let c = Child::run(body, Spec { pages: 8, ..Spec::default() });
    expect("how the child ended", c.wait(), child::State::Finished);
    expect("destroy", c.destroy(), OK);
    // registers across calls that switch: others' values must not come back
    let keep = Gprs { rax: nr::SCHED_OP as u64, rdi: 0, rsi: 0, ..Gprs::MARKED };
    let g = probe::kernel(code!("syscall"), &keep).done("yield");
    check("registers across a yield", Gprs { rax: 0, rcx: 0, r11: 0, ..g } == Gprs { rax: 0, rcx: 0, r11: 0, ..keep });
    alive();
}

fn body() {
    use guests::child::inside::extra_pfn;
    let dirty = (0..8u64)
        .filter(|n| (0..512).any(|i| mem::read64(mem::VIRT_BASE + (extra_pfn() + n) * PAGE_SIZE + 8 * i) != 0))
        .count();
    expect("pages of a new domain that are not empty", dirty, 0);
    let page = Page::alloc();
    // SAFETY: 512 aligned bytes.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) page.va) };
    // the compiler's own code has used XMM registers by now; the upper ones it hardly does
    check("x87 of a new domain is empty", (4..20).all(|i| page.read(i) == 0));
    let dr: u64 = (0..4u64).map(|i| call(nr::GET_DEBUGREG, &[i]).0 as u64).fold(0, |a, b| a | b);
    expect("debug registers of a new domain", Hex(dr), Hex(0));
}
