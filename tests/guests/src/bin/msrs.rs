//! MSR reads and writes from kernel mode, as the hypervisor emulates them.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;

guests::kernel!(run);

fn read(msr: u64) -> Outcome {
    probe::kernel(code!("rdmsr", "shl rdx, 32", "mov eax, eax", "or rax, rdx"), &Gprs { rcx: msr, ..Gprs::ZERO })
}

fn write(msr: u64, value: u64) -> Outcome {
    probe::kernel(code!("wrmsr"), &Gprs { rcx: msr, rax: value & 0xffff_ffff, rdx: value >> 32, ..Gprs::ZERO })
}

/// MSRs whose value is the same on every run.
const STABLE: &[(&str, u64)] = &[
    ("APIC_BASE", 0x1b),
    ("PAT", 0x277),
    ("PLATFORM_INFO", 0xce),
    ("MISC_ENABLE", 0x1a0),
    ("EFER", 0xc000_0080),
    ("TSC_AUX", 0xc000_0103),
    ("HWCR", 0xc001_0015),
    ("DE_CFG", 0xc001_1029),
    ("FS_BASE", 0xc000_0100),
    ("KERNEL_GS_BASE", 0xc000_0102),
    ("hypercall page", 0x4000_0000),
];

/// MSRs of which only "readable or not" counts.
const READABLE: &[(&str, u64)] = &[
    ("TSC", 0x10),
    ("UCODE_REV", 0x8b),
    ("SYSCFG", 0xc001_0010),
    ("STAR", 0xc000_0081),
    ("LSTAR", 0xc000_0082),
    ("CSTAR", 0xc000_0083),
    ("SFMASK", 0xc000_0084),
    ("SYSENTER_CS", 0x174),
    ("SYSENTER_ESP", 0x175),
    ("SYSENTER_EIP", 0x176),
    ("FEATURE_CONTROL", 0x3a),
    ("SPEC_CTRL", 0x48),
    ("PRED_CMD", 0x49),
    ("ARCH_CAPS", 0x10a),
    ("MTRRcap", 0xfe),
    ("MTRRdefType", 0x2ff),
    ("MTRRphysBase0", 0x200),
    ("x2APIC ID", 0x802),
    ("PERFCTR0", 0xc1),
    ("APERF", 0xe8),
    ("MPERF", 0xe7),
    ("MCG_CAP", 0x179),
    ("MCG_STATUS", 0x17a),
    ("MC0_CTL", 0x400),
    ("MC0_STATUS", 0x401),
    ("unknown 0x12345", 0x1_2345),
    ("unknown 0xffffffff", 0xffff_ffff),
    ("unknown 0x40000001", 0x4000_0001),
    ("K7_PERFCTR0", 0xc001_0004),
    ("PSTATE_STATUS", 0xc001_0063),
    ("PATCH_LEVEL", 0x8b),
    ("VM_CR", 0xc001_0114),
    ("TSC_DEADLINE", 0x6e0),
    ("BNDCFGS", 0xd90),
    ("XSS", 0xda0),
];

fn run() {
    for (name, msr) in STABLE {
        obs(f!("read {name}"), read(*msr).rax());
    }
    for (name, msr) in READABLE {
        obs(f!("read {name}"), read(*msr));
    }
    for (name, msr) in STABLE.iter().chain(READABLE) {
        if matches!(*name, "FS_BASE" | "KERNEL_GS_BASE" | "hypercall page") {
            continue;
        }
        if let Outcome::Done(g) = read(*msr) {
            obs(f!("write {name}, same value"), write(*msr, g.rax));
            obs(f!("write {name}, changed"), write(*msr, g.rax ^ 0x100));
        } else {
            obs(f!("write {name}, 0"), write(*msr, 0));
        }
    }
    bases();
    hypercall_page();
    user::init();
    obs("user mode: rdmsr", user::run(code!("rdmsr"), &Gprs { rcx: 0xc000_0080, ..Gprs::ZERO }));
    obs("user mode: wrmsr", user::run(code!("wrmsr"), &Gprs { rcx: 0xc000_0100, ..Gprs::ZERO }));
    counters();
}

fn bases() {
    for (name, msr) in [("FS_BASE", 0xc000_0100u64), ("KERNEL_GS_BASE", 0xc000_0102)] {
        for value in
            [0x1234_5678u64, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_8000_0000_0000, 0xffff_ffff_ffff_ffff, 0]
        {
            obs(f!("write {name} {value:#x}"), write(msr, value));
            obs(f!("read {name} after {value:#x}"), read(msr).rax());
        }
    }
    let gs = smp::percpu(0);
    check("GS_BASE reads what set_segment_base set", read(0xc000_0101).rax_is(gs));
    obs("write GS_BASE non-canonical", write(0xc000_0101, 0x8000_0000_0000));
    obs("write GS_BASE, same value", write(0xc000_0101, gs));
    check("GS still works", smp::cpu() == 0);
    for (name, which) in [("FS", 0u64), ("GS_USER", 1), ("GS_KERNEL", 2), ("GS_USER_SEL", 3), ("4", 4)] {
        obs(f!("set_segment_base {name} non-canonical"), smp::set_base(which, 0x8000_0000_0000));
    }
    obs("set_segment_base FS", smp::set_base(0, 0x1357_9000));
    obs("FS_BASE", read(0xc000_0100).rax());
    obs("set_segment_base GS_USER", smp::set_base(1, 0x2468_a000));
    obs("KERNEL_GS_BASE", read(0xc000_0102).rax());
    obs("set_segment_base GS_USER_SEL 0", smp::set_base(3, 0));
    check("GS of the kernel is untouched", read(0xc000_0101).rax_is(gs));
}

trait RaxIs {
    fn rax_is(self, want: u64) -> bool;
}

impl RaxIs for Outcome {
    fn rax_is(self, want: u64) -> bool {
        matches!(self, Outcome::Done(g) if g.rax == want)
    }
}

fn hypercall_page() {
    let page = Page::alloc();
    obs("hypercall page at a bad frame", write(0x4000_0000, 0xfff_ffff << 12));
    obs("hypercall page with low bits", write(0x4000_0000, page.ma() | 1));
    obs("hypercall page", write(0x4000_0000, page.ma()));
    obs("reads", read(0x4000_0000).rax());
    obs("slot 17, first words", Hex(page.read(17 * 4)));
    obs("slot 17, second word", Hex(page.read(17 * 4 + 1)));
    obs("slot 23, first words", Hex(page.read(23 * 4)));
    obs("slot 23, second word", Hex(page.read(23 * 4 + 1)));
    obs("slot 127, first words", Hex(page.read(127 * 4)));
    let regs = Gprs { r8: page.va + 17 * 32, ..Gprs::ZERO };
    obs("call slot 17", probe::kernel(code!("call r8"), &regs).rax());
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    obs("hypercall page over a table", write(0x4000_0000, table.ma()));
}

fn counters() {
    obs("rdtsc", probe::kernel(code!("rdtsc"), &Gprs::ZERO));
    obs("rdtscp", probe::kernel(code!("rdtscp"), &Gprs::ZERO));
    obs("rdpmc", probe::kernel(code!("rdpmc"), &Gprs::ZERO));
    obs("user mode: rdtsc", user::run(code!("rdtsc"), &Gprs::ZERO));
    obs("user mode: rdpmc", user::run(code!("rdpmc"), &Gprs::ZERO));
    // CR4.TSD
    probe::kernel(code!("mov rax, cr4", "or eax, 4", "mov cr4, rax"), &Gprs::ZERO);
    obs("rdtsc with TSD", probe::kernel(code!("rdtsc"), &Gprs::ZERO));
    obs("rdtscp with TSD", probe::kernel(code!("rdtscp"), &Gprs::ZERO));
    obs("user mode: rdtsc with TSD", user::run(code!("rdtsc"), &Gprs::ZERO));
    obs("user mode: rdtscp with TSD", user::run(code!("rdtscp"), &Gprs::ZERO));
    probe::kernel(code!("mov rax, cr4", "and eax, -5", "mov cr4, rax"), &Gprs::ZERO);
}
