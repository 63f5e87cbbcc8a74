//! CPUID as a PV kernel sees it behind the forced-emulation prefix.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;

guests::kernel!(run);

fn cpuid(leaf: u64, sub: u64) -> [u64; 4] {
    let regs = Gprs { rax: leaf, rcx: sub, ..Gprs::MARKED };
    let g = probe::kernel(code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid"), &regs).done("cpuid");
    check_kept(&g);
    [g.rax, g.rbx, g.rcx, g.rdx]
}

fn check_kept(g: &Gprs) {
    let m = Gprs::MARKED;
    if [g.rdi, g.rsi, g.rbp, g.r8, g.r9, g.r15] != [m.rdi, m.rsi, m.rbp, m.r8, m.r9, m.r15] {
        report::fail(f!("cpuid changed other registers"));
    }
}

/// name, leaf, subleaf, register, bit
const FEATURES: &[(&str, u64, u64, usize, u32)] = &[
    ("fpu", 1, 0, 3, 0),
    ("vme", 1, 0, 3, 1),
    ("de", 1, 0, 3, 2),
    ("pse", 1, 0, 3, 3),
    ("tsc", 1, 0, 3, 4),
    ("msr", 1, 0, 3, 5),
    ("pae", 1, 0, 3, 6),
    ("mce", 1, 0, 3, 7),
    ("cx8", 1, 0, 3, 8),
    ("apic", 1, 0, 3, 9),
    ("sep", 1, 0, 3, 11),
    ("mtrr", 1, 0, 3, 12),
    ("pge", 1, 0, 3, 13),
    ("mca", 1, 0, 3, 14),
    ("cmov", 1, 0, 3, 15),
    ("pat", 1, 0, 3, 16),
    ("pse36", 1, 0, 3, 17),
    ("clflush", 1, 0, 3, 19),
    ("ds", 1, 0, 3, 21),
    ("acpi", 1, 0, 3, 22),
    ("mmx", 1, 0, 3, 23),
    ("fxsr", 1, 0, 3, 24),
    ("sse", 1, 0, 3, 25),
    ("sse2", 1, 0, 3, 26),
    ("htt", 1, 0, 3, 28),
    ("sse3", 1, 0, 2, 0),
    ("pclmul", 1, 0, 2, 1),
    ("monitor", 1, 0, 2, 3),
    ("vmx", 1, 0, 2, 5),
    ("ssse3", 1, 0, 2, 9),
    ("fma", 1, 0, 2, 12),
    ("cx16", 1, 0, 2, 13),
    ("pdcm", 1, 0, 2, 15),
    ("pcid", 1, 0, 2, 17),
    ("sse41", 1, 0, 2, 19),
    ("sse42", 1, 0, 2, 20),
    ("x2apic", 1, 0, 2, 21),
    ("movbe", 1, 0, 2, 22),
    ("popcnt", 1, 0, 2, 23),
    ("tsc_deadline", 1, 0, 2, 24),
    ("aes", 1, 0, 2, 25),
    ("xsave", 1, 0, 2, 26),
    ("osxsave", 1, 0, 2, 27),
    ("avx", 1, 0, 2, 28),
    ("f16c", 1, 0, 2, 29),
    ("rdrand", 1, 0, 2, 30),
    ("hypervisor", 1, 0, 2, 31),
    ("fsgsbase", 7, 0, 1, 0),
    ("tsc_adjust", 7, 0, 1, 1),
    ("bmi1", 7, 0, 1, 3),
    ("avx2", 7, 0, 1, 5),
    ("smep", 7, 0, 1, 7),
    ("bmi2", 7, 0, 1, 8),
    ("erms", 7, 0, 1, 9),
    ("invpcid", 7, 0, 1, 10),
    ("mpx", 7, 0, 1, 14),
    ("rdseed", 7, 0, 1, 18),
    ("adx", 7, 0, 1, 19),
    ("smap", 7, 0, 1, 20),
    ("clflushopt", 7, 0, 1, 23),
    ("clwb", 7, 0, 1, 24),
    ("umip", 7, 0, 2, 2),
    ("pku", 7, 0, 2, 3),
    ("ospke", 7, 0, 2, 4),
    ("waitpkg", 7, 0, 2, 5),
    ("cet_ss", 7, 0, 2, 7),
    ("la57", 7, 0, 2, 16),
    ("rdpid", 7, 0, 2, 22),
    ("pks", 7, 0, 2, 31),
    ("cet_ibt", 7, 0, 3, 20),
    ("spec_ctrl", 7, 0, 3, 26),
    ("arch_caps", 7, 0, 3, 29),
    ("fred", 7, 1, 0, 17),
    ("lkgs", 7, 1, 0, 18),
    ("lam", 7, 1, 0, 26),
    ("xsaveopt", 0xd, 1, 0, 0),
    ("xsavec", 0xd, 1, 0, 1),
    ("xgetbv1", 0xd, 1, 0, 2),
    ("xsaves", 0xd, 1, 0, 3),
    ("xfd", 0xd, 1, 0, 4),
    ("syscall", 0x8000_0001, 0, 3, 11),
    ("nx", 0x8000_0001, 0, 3, 20),
    ("page1gb", 0x8000_0001, 0, 3, 26),
    ("rdtscp", 0x8000_0001, 0, 3, 27),
    ("lm", 0x8000_0001, 0, 3, 29),
    ("lahf_lm", 0x8000_0001, 0, 2, 0),
    ("svm", 0x8000_0001, 0, 2, 2),
    ("cr8_legacy", 0x8000_0001, 0, 2, 4),
    ("abm", 0x8000_0001, 0, 2, 5),
    ("sse4a", 0x8000_0001, 0, 2, 6),
    ("osvw", 0x8000_0001, 0, 2, 9),
    ("topoext", 0x8000_0001, 0, 2, 22),
    ("mwaitx", 0x8000_0001, 0, 2, 29),
    ("itsc", 0x8000_0007, 0, 3, 8),
    ("ibpb", 0x8000_0008, 0, 1, 12),
];

fn run() {
    for (name, leaf, sub, reg, bit) in FEATURES {
        obs(name, cpuid(*leaf, *sub)[*reg] >> bit & 1);
    }
    obs("max basic leaf", Hex(cpuid(0, 0)[0]));
    obs("max extended leaf", Hex(cpuid(0x8000_0000, 0)[0]));
    for leaf in [2u64, 5, 6, 0xa, 0xe, 0x1f, 0x8000_0021, 0x8000_0100] {
        obs(f!("leaf {leaf:#x} is zero"), cpuid(leaf, 0) == [0; 4]);
    }
    xen_leaves();
    prefix();
    xsave();
}

fn xen_leaves() {
    let base = 0x4000_0000;
    let l = cpuid(base, 0);
    obs("Xen max leaf", Hex(l[0]));
    check("XenVMMXenVMM", l[1] == 0x566e_6558 && l[2] == 0x6558_4d4d && l[3] == 0x4d4d_566e);
    expect("Xen version leaf", Hex(cpuid(base + 1, 0)[0]), Hex(0x4_0011));
    obs("Xen version leaf, rest is zero", cpuid(base + 1, 0)[1..] == [0; 3]);
    let l = cpuid(base + 2, 0);
    obs("hypercall pages", l[0]);
    obs("hypercall MSR", Hex(l[1]));
    obs("features 1", Hex(l[2]));
    obs("features 2", Hex(l[3]));
    let l = cpuid(base + 3, 0);
    obs("tsc leaf eax", Hex(l[0]));
    obs("tsc mode", l[1]);
    obs("tsc khz shown", l[2] != 0);
    obs("tsc incarnation", l[3]);
    let l = cpuid(base + 3, 1);
    obs("tsc scale shown", l[2] != 0);
    obs("tsc leaf 2", if cpuid(base + 3, 2)[0] != 0 { "host khz" } else { "zero" });
    check("HVM leaf is zero", cpuid(base + 4, 0) == [0; 4]);
    obs("PV leaf: address width", cpuid(base + 5, 0)[1]);
    check("PV leaf: rest is zero", {
        let l = cpuid(base + 5, 0);
        l[0] | l[2] | l[3] == 0
    });
    check("behind the last leaf", cpuid(base + 6, 0) == [0; 4]);
    obs("0x40000100", Hex(cpuid(0x4000_0100, 0)[0]));
}

/// Only CPUID is legal behind the prefix.
fn prefix() {
    obs("prefix and nop", probe::kernel(code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "nop"), &Gprs::ZERO));
    obs("prefix and rdtsc", probe::kernel(code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "rdtsc"), &Gprs::ZERO));
    obs("prefix cut short", probe::kernel(code!(".byte 0x0f, 0x0b, 0x78, 0x65", "nop", "cpuid"), &Gprs::ZERO));
    obs(
        "prefix before the page's end",
        probe::kernel(code!("nop", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "nop"), &Gprs::ZERO),
    );
    obs("native cpuid", probe::kernel(code!("cpuid"), &Gprs::ZERO));
}

fn xsave() {
    let l = cpuid(0xd, 0);
    obs("leaf 0xd: x87 and SSE", Hex(l[0] & 3));
    obs("leaf 0xd: AVX", l[0] >> 2 & 1);
    obs("leaf 0xd: PKRU", l[0] >> 9 & 1);
    obs("leaf 0xd: size now", l[1]);
    let g = probe::kernel(code!("xor ecx, ecx", "xgetbv"), &Gprs::ZERO);
    obs("xgetbv before CR4.OSXSAVE", g.rax());
    obs(
        "set CR4.OSXSAVE",
        probe::kernel(code!("mov rax, cr4", "or eax, 0x40000", "mov cr4, rax", "mov rax, cr4"), &Gprs::ZERO).rax(),
    );
    obs("osxsave after it", cpuid(1, 0)[2] >> 27 & 1);
    for value in [0u64, 1, 2, 3, 4, 5, 7, 0x207, 1 << 62, u64::MAX] {
        let regs = Gprs { rax: value & 0xffff_ffff, rdx: value >> 32, ..Gprs::ZERO };
        obs(f!("xsetbv {value:#x}"), probe::kernel(code!("xor ecx, ecx", "xsetbv"), &regs));
    }
    obs("xsetbv index 1", probe::kernel(code!("mov ecx, 1", "xsetbv"), &Gprs { rax: 3, ..Gprs::ZERO }));
    probe::kernel(code!("xor ecx, ecx", "xsetbv"), &Gprs { rax: 7, ..Gprs::ZERO });
    obs("xgetbv", probe::kernel(code!("xor ecx, ecx", "xgetbv"), &Gprs::ZERO).rax());
    obs("leaf 0xd: size with AVX", cpuid(0xd, 0)[1]);
    probe::kernel(code!("xor ecx, ecx", "xsetbv"), &Gprs { rax: 3, ..Gprs::ZERO });
    obs("leaf 0xd: size without AVX", cpuid(0xd, 0)[1]);
    obs("leaf 0xd.2: size, offset", f!("{} {}", cpuid(0xd, 2)[0], cpuid(0xd, 2)[1]));
    user::init();
    obs("user mode: native cpuid", user::run(code!("cpuid"), &Gprs::ZERO));
    obs("user mode: xsetbv", user::run(code!("xor ecx, ecx", "xsetbv"), &Gprs { rax: 3, ..Gprs::ZERO }));
}
