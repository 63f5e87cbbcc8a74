//! Hypercalls that take addresses, frames, numbers of vCPUs and of operations, each out of its range.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::mmu::{MmuUpdate, MmuextOp};
use pv_abi::subops;

guests::kernel!(run);

/// Frames that are not the caller's to use.
const FRAMES: [(&str, u64); 7] = [
    ("0", 0),
    ("the hypervisor's", 0x110),
    ("the APIC", 0xfee00),
    ("behind RAM", 0x10_0000),
    ("behind the machine", 0xf_ffff_ffff),
    ("-1", u64::MAX),
    ("2^52", 1 << 52),
];

fn run() {
    operations();
    domains();
    frames();
    addresses();
    numbers();
}

/// Operation numbers between and behind those there are.
fn operations() {
    let page = Page::alloc();
    for family in subops::FAMILIES {
        let n = family.hypercall;
        if matches!(n, nr::PLATFORM_OP | nr::SYSCTL | nr::DOMCTL | nr::MCA | nr::MMUEXT_OP) {
            continue;
        }
        let last = family.ops.iter().map(|o| o.number).max().unwrap_or(0);
        for op in (0..last + 3).filter(|o| !family.ops.iter().any(|k| k.number == *o)).map(u64::from).chain([
            63,
            64,
            100,
            255,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            1 << 63,
            u64::MAX,
        ]) {
            let a = if n == nr::VCPU_OP { [op, 0, page.va, 0, 0] } else { [op, page.va, 1, 0, 0] };
            obs(f!("{n}.{op:#x}"), call(n, &a));
        }
    }
    for cmd in (14..24u32).chain([63, 255, 0x7fff_ffff, 0xffff_ffff]).filter(|c| ![15, 16, 17].contains(c)) {
        obs(f!("mmuext {cmd:#x}"), paging::mmuext(cmd, page.mfn(), 0));
    }
    for low in 4..8u64 {
        obs(f!("mmu_update command {low}"), paging::mmu_update(page.ma() | low, 0));
    }
}

/// Other domains, by calls that name one.
fn domains() {
    let page = Page::alloc();
    for dom in [
        0u64,
        1,
        0x7ff0,
        0x7ff1,
        0x7ff2,
        0x7ff3,
        0x7ff4,
        0x7ff5,
        0x7fff,
        0x8000,
        0xffff,
        0x1_7ff0,
        0x7ff0_7ff0,
        1 << 32,
    ] {
        let u = MmuUpdate { ptr: page.ma() | 1, val: page.pfn() };
        obs(f!("mmu_update for {dom:#x}"), call(nr::MMU_UPDATE, &[core::ptr::from_ref(&u) as u64, 1, 0, dom]));
        let e = MmuextOp { cmd: 6, pad: 0, arg1: 0, arg2: 0 };
        obs(f!("mmuext_op for {dom:#x}"), call(nr::MMUEXT_OP, &[core::ptr::from_ref(&e) as u64, 1, 0, dom]));
        let e = MmuextOp { cmd: 0, pad: 0, arg1: 0x7f_ffff, arg2: 0 };
        obs(f!("pin for {dom:#x}"), call(nr::MMUEXT_OP, &[core::ptr::from_ref(&e) as u64, 1, 0, dom]));
        obs(
            f!("update_va_mapping_otherdomain {dom:#x}"),
            call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[page.va, page.ma() | paging::KERNEL_RW, 0, dom]),
        );
    }
}

fn frames() {
    for (name, mfn) in FRAMES {
        for cmd in [0u32, 1, 2, 3, 4, 5, 16] {
            obs(f!("mmuext {cmd} of frame {name}"), paging::mmuext(cmd, mfn, 0));
        }
        obs(f!("copy_page from frame {name}"), paging::mmuext(17, Page::alloc().mfn(), mfn));
        obs(f!("user base of frame {name}"), if mfn == 0 { OK } else { paging::mmuext(15, mfn, 0) });
        for low in 0..4u64 {
            obs(f!("mmu_update {low} of frame {name}"), paging::mmu_update(mfn << 12 | low, 0));
        }
        obs(f!("update_descriptor in frame {name}"), call(nr::UPDATE_DESCRIPTOR, &[mfn << 12, 0]));
        let list = [mfn];
        obs(f!("GDT of frame {name}"), call(nr::SET_GDT, &[list.as_ptr() as u64, 8]));
    }
}

fn addresses() {
    let page = Page::alloc();
    for (name, at) in bad::POINTERS {
        obs(f!("update_va_mapping {name}"), call(nr::UPDATE_VA_MAPPING, &[at, page.ma() | paging::KERNEL_RW, 0]));
        obs(
            f!("update_va_mapping, bitmap {name}"),
            call(nr::UPDATE_VA_MAPPING, &[page.va, page.ma() | paging::KERNEL_RW, at & !3 | 2]),
        );
        obs(f!("invlpg {name}"), paging::mmuext(7, at, 0));
        obs(f!("invlpg_multi, bitmap {name}"), paging::mmuext(9, page.va, at));
        obs(f!("tlb_flush_multi, bitmap {name}"), paging::mmuext(8, 0, at));
        obs(f!("set_ldt {name}"), paging::mmuext(13, at & !0xfff, 1));
        obs(f!("set_debugreg 0 {name}"), call(nr::SET_DEBUGREG, &[0, at]));
        obs(f!("set_segment_base 0 {name}"), smp::set_base(0, at));
        obs(f!("set_segment_base 1 {name}"), smp::set_base(1, at));
        obs(f!("set_trap_table at {name}"), if at == 0 { OK } else { call(nr::SET_TRAP_TABLE, &[at]) });
        obs(f!("handler at {name}"), trap::set(9, 0, 0xe033, at));
        for kind in 0..9u16 {
            obs(f!("callback {kind} at {name}"), trap::register(kind, 0, at));
        }
        trap::init();
    }
    paging::mmuext(13, 0, 0).must("no LDT");
    call(nr::SET_DEBUGREG, &[0, 0]).must("no breakpoint");
    smp::set_base(0, 0).must("no FS base");
    smp::set_base(1, 0).must("no user GS base");
}

fn numbers() {
    for n in [4u64, 5, 6, 7, 8, 9, 63, 0xffff_ffff, 1 << 32, u64::MAX] {
        obs(f!("set_debugreg {n:#x}"), call(nr::SET_DEBUGREG, &[n, 0]));
        obs(f!("get_debugreg {n:#x}"), call(nr::GET_DEBUGREG, &[n]));
        obs(f!("vm_assist enable {n:#x}"), if n < 6 { OK } else { call(nr::VM_ASSIST, &[0, n]) });
        obs(f!("vm_assist command {n:#x}"), call(nr::VM_ASSIST, &[n, 2]));
        obs(f!("set_segment_base {n:#x}"), smp::set_base(n, 0));
        obs(f!("callback_op {n:#x}"), call(nr::CALLBACK_OP, &[n, Page::at(mem::VIRT_BASE).va]));
    }
    for v in [0u64, 1, 2, 1 << 32, u64::MAX] {
        obs(f!("fpu_taskswitch {v:#x}"), call(nr::FPU_TASKSWITCH, &[v]));
        obs(f!("TS after {v:#x}"), probe::kernel(code!("mov rax, cr0", "shr eax, 3", "and eax, 1"), &Gprs::ZERO).rax());
    }
    call(nr::FPU_TASKSWITCH, &[0]).must("TS off");
    for v in [0u64, 1, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX] {
        obs(f!("set_timer_op {v:#x}"), call(nr::SET_TIMER_OP, &[v]));
    }
    call(nr::SET_TIMER_OP, &[0]).must("timer off");
    for (dr, v) in [
        (6u64, 1u64 << 32),
        (6, u64::MAX),
        (7, 1 << 32),
        (7, 0x2000),
        (7, 0x2_0001),
        (7, 0x2_0000),
        (7, 0xffff_0400),
        (7, 0xffff_dfff),
    ] {
        obs(f!("DR{dr} <- {v:#x}"), call(nr::SET_DEBUGREG, &[dr, v]));
        obs(f!("DR{dr} after {v:#x}"), f!("{:#x}", call(nr::GET_DEBUGREG, &[dr]).0));
    }
    call(nr::SET_DEBUGREG, &[7, 0]).must("DR7 off");
    for (cmd, count) in [(0u64, 0u64), (1, 0), (2, 0), (99, 16), (0xffff_ffff, 0), (1 << 32, 0)] {
        obs(f!("console_io {cmd:#x}, {count} bytes"), call(nr::CONSOLE_IO, &[cmd, count, 0]));
    }
}
