//! Every hypercall that takes a pointer, and every operation of those that have any, with pointers that lead nowhere.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::subops;

guests::kernel!(run);

/// Calls without operations: number, the argument that is the pointer, the others.
const PLAIN: [(usize, usize, [u64; 5]); 13] = [
    (nr::MMU_UPDATE, 0, [0, 1, 0, 0x7ff0, 0]),
    (nr::SET_GDT, 0, [0, 8, 0, 0, 0]),
    (nr::MULTICALL, 0, [0, 1, 0, 0, 0]),
    (nr::MMUEXT_OP, 0, [0, 1, 0, 0x7ff0, 0]),
    (nr::XSM_OP, 0, [0; 5]),
    (nr::NMI_OP, 1, [0; 5]),
    (nr::NMI_OP, 1, [1, 0, 0, 0, 0]),
    (nr::KEXEC_OP, 1, [0; 5]),
    (nr::KEXEC_OP, 1, [2, 0, 0, 0, 0]),
    (nr::XENPMU_OP, 1, [0; 5]),
    (nr::DM_OP, 2, [0x7ff0, 1, 0, 0, 0]),
    (nr::HYPFS_OP, 1, [1, 0, 16, 0, 4096]),
    (nr::MCA, 0, [0; 5]),
];

/// The operation's number stands in the structure.
fn in_structure(hypercall: usize) -> bool {
    matches!(hypercall, nr::PLATFORM_OP | nr::SYSCTL | nr::DOMCTL | nr::MCA)
}

/// Operations that take no pointer, or stop the machine or this test when there is none.
fn without_pointer(hypercall: usize, op: u32) -> bool {
    match hypercall {
        nr::SCHED_OP => op < 2,
        nr::VCPU_OP => matches!(op, 1 | 2 | 3 | 7 | 9 | 11),
        nr::XEN_VERSION => op == 0,
        _ => false,
    }
}

/// Arguments of operation `op` with its pointer at `at`.
fn arguments(hypercall: usize, op: u32, at: u64) -> [u64; 5] {
    match hypercall {
        // a list of one
        nr::MMUEXT_OP | nr::GRANT_TABLE_OP => [u64::from(op), at, 1, 0, 0],
        nr::CONSOLE_IO => [u64::from(op), 16, at, 0, 0],
        nr::VCPU_OP => [u64::from(op), 0, at, 0, 0],
        _ => [u64::from(op), at, 0, 0, 0],
    }
}

fn run() {
    for (n, at, args) in PLAIN {
        for (name, pointer) in bad::POINTERS {
            let mut a = args;
            a[at] = pointer;
            obs(f!("{n} {:?} pointer {name}", &args[..2]), call(n, &a));
        }
    }
    let edge = bad::edge();
    for family in subops::FAMILIES.iter().filter(|f| !in_structure(f.hypercall) && f.hypercall != nr::MMUEXT_OP) {
        let n = family.hypercall;
        for op in family.ops.iter().filter(|o| !without_pointer(n, o.number)) {
            for (name, pointer) in bad::POINTERS {
                obs(f!("{n}.{} {} {name}", op.number, op.name), call(n, &arguments(n, op.number, pointer)));
            }
            // the first bytes are there, the others are not
            mem::write64(edge - 8, 0);
            let short = if n == nr::XEN_VERSION || n == nr::CONSOLE_IO { edge - 3 } else { edge - 1 };
            obs(f!("{n}.{} {} cut off", op.number, op.name), call(n, &arguments(n, op.number, short)));
        }
    }
    structures(edge);
    lists(edge);
}

/// platform_op, sysctl, domctl: `{ u32 cmd; u32 version; ... }`.
fn structures(edge: u64) {
    for n in [nr::PLATFORM_OP, nr::SYSCTL, nr::DOMCTL, nr::MCA] {
        for (name, pointer) in bad::POINTERS {
            obs(f!("{n} {name}"), call(n, &[pointer]));
        }
        mem::write64(edge - 8, 1);
        obs(f!("{n} cut off"), call(n, &[edge - 8]));
    }
    let page = Page::alloc();
    for (n, version) in
        [(nr::PLATFORM_OP, 0x0300_0001u64), (nr::SYSCTL, 0x15), (nr::DOMCTL, 0x15), (nr::MCA, 0x01ec_c003)]
    {
        for wrong in [0u64, version - 1, version + 1, 0xffff_ffff] {
            page.clear();
            page.write(0, 1 | wrong << 32);
            obs(f!("{n} with version {wrong:#x}"), call(n, &[page.va]));
        }
        for cmd in [0u64, 99, 200, 999, 0x7fff_ffff, 0xffff_ffff] {
            page.clear();
            page.write(0, cmd | version << 32);
            obs(f!("{n} with operation {cmd:#x}"), call(n, &[page.va]));
        }
    }
}

/// Lists: their length, their end, and what is done before a bad element.
fn lists(edge: u64) {
    for n in [nr::MMU_UPDATE, nr::MMUEXT_OP] {
        for count in [0u64, 1 << 31, 0x7fff_ffff, 0xffff_ffff, 1 << 32] {
            let a = [0x10_0000, count, 0, 0x7ff0];
            obs(f!("{n}: {count:#x} of an unmapped list"), call(n, &a));
        }
    }
    for count in [0u64, 1 << 31, 0x7fff_ffff, 0xffff_ffff, 1 << 32] {
        obs(f!("multicall: {count:#x} of an unmapped list"), call(nr::MULTICALL, &[0x10_0000, count]));
        for op in [0u64, 2, 5, 6] {
            obs(
                f!("grant_table_op {op}: {count:#x} of an unmapped list"),
                call(nr::GRANT_TABLE_OP, &[op, 0x10_0000, count]),
            );
        }
    }
    // two of three elements are there
    for i in 1..=16 {
        mem::write64(edge - 8 * i, 0);
    }
    let mut done = u32::MAX;
    let to_done = core::ptr::from_mut(&mut done) as u64;
    // machine_to_phys of a frame that is not ours: fails at the first
    obs("mmu_update, list over an edge", call(nr::MMU_UPDATE, &[edge - 32, 3, to_done, 0x7ff0]));
    obs("mmu_update: done", done);
    let page = Page::alloc();
    for i in 0..2 {
        mem::write64(edge - 32 + 16 * i, page.ma() + 1);
        mem::write64(edge - 32 + 16 * i + 8, page.pfn());
    }
    done = u32::MAX;
    obs("mmu_update, good list over an edge", call(nr::MMU_UPDATE, &[edge - 32, 3, to_done, 0x7ff0]));
    obs("mmu_update: then done", done);
    for i in 0..2u64 {
        mem::write64(edge - 48 + 24 * i, 6);
        mem::write64(edge - 48 + 24 * i + 8, 0);
        mem::write64(edge - 48 + 24 * i + 16, 0);
    }
    done = u32::MAX;
    obs("mmuext_op, good list over an edge", call(nr::MMUEXT_OP, &[edge - 48, 3, to_done, 0x7ff0]));
    obs("mmuext_op: then done", done);
    for i in 0..8u64 {
        mem::write64(edge - 64 + 8 * i, 0);
    }
    mem::write64(edge - 64, nr::XEN_VERSION as u64);
    obs("multicall over an edge", call(nr::MULTICALL, &[edge - 64, 2]));
    obs("its first result", mem::read64(edge - 56) >> 16);
    obs("multicall with half an entry", call(nr::MULTICALL, &[edge - 32, 1]));
    // results that cannot be written
    paging::make_ro(page).must("read-only");
    obs("multicall on a read-only page", call(nr::MULTICALL, &[page.va, 1]));
    obs("event alloc on a read-only page", call(nr::EVENT_CHANNEL_OP, &[pv_abi::event::OP_BIND_IPI, page.va]));
    obs("grant query on a read-only page", call(nr::GRANT_TABLE_OP, &[6, page.va, 1]));
    obs("features on a read-only page", call(nr::XEN_VERSION, &[6, page.va]));
    obs("runstate on a read-only page", call(nr::VCPU_OP, &[4, 0, page.va]));
    obs("mmu_update, done on a read-only page", call(nr::MMU_UPDATE, &[edge - 32, 0, page.va, 0x7ff0]));
    paging::make_rw(page).must("writable");
}
