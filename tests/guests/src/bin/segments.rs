//! Segments: what may stand in a GDT and an LDT, and what loading selectors does.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::arch::sel;
use pv_abi::mmu::EXT_SET_LDT;

guests::kernel!(run);

const PRESENT: u64 = 1 << 47;
const DATA: u64 = 0x00cf_f300_0000_ffff;
const CODE64: u64 = 0x00af_fb00_0000_ffff;
const CODE32: u64 = 0x00cf_fb00_0000_ffff;

fn run() {
    user::init();
    descriptors();
    gates();
    gdt_pages();
    selectors();
    bases();
    code_segments();
    ldt();
}

fn update(page: Page, i: usize, desc: u64) -> Ret {
    call(nr::UPDATE_DESCRIPTOR, &[page.ma() + 8 * i as u64, desc])
}

fn set_gdt(page: Page, entries: u64) -> Ret {
    let list = [page.mfn(); 14];
    call(nr::SET_GDT, &[list.as_ptr() as u64, entries])
}

/// Each kind of descriptor, alone, on a page that is nothing yet.
fn descriptors() {
    let page = Page::alloc();
    for kind in 0..32u64 {
        for dpl in [0u64, 3] {
            let desc = 0x0000_0000_0000_ffff | PRESENT | kind << 40 | dpl << 45;
            page.write(1, 0);
            let r = update(page, 1, desc);
            obs(f!("kind {kind:#x} DPL {dpl}"), f!("{r} {:#x}", page.read(1)));
        }
    }
    for (name, desc) in [
        ("zero", 0u64),
        ("not present, system", 2 << 40 | 0xffff),
        ("not present, code DPL 1", 0x00af_3b00_0000_ffff),
        ("code DPL 1", 0x00af_bb00_0000_ffff),
        ("code, L and D", 0x00ef_fb00_0000_ffff),
        ("conforming code", 0x00af_9f00_0000_ffff),
        ("expand-down data", 0x00cf_9700_0000_ffff),
        ("data with a base", 0x12cf_9334_5678_ffff),
        ("not accessed", 0x00cf_9200_0000_ffff),
    ] {
        page.write(1, 0x77);
        let r = update(page, 1, desc);
        obs(name, f!("{r} {:#x}", page.read(1)));
    }
    obs("unaligned", call(nr::UPDATE_DESCRIPTOR, &[page.ma() + 4, DATA]));
    obs("last of the page", update(page, 511, DATA));
    obs("no such frame", call(nr::UPDATE_DESCRIPTOR, &[0x7f_ffff_f000, DATA]));
    obs("a page table", update(paging::l4(), 300, DATA));
    obs("MMIO", call(nr::UPDATE_DESCRIPTOR, &[0xfee0_0000, DATA]));
}

/// Call gates, by what they lead to.
fn gates() {
    let page = Page::alloc();
    let gate = |selector: u64, dpl: u64, extra: u64| PRESENT | 12 << 40 | dpl << 45 | selector << 16 | 0x1234 | extra;
    for (name, desc) in [
        ("to 0", gate(0, 0, 0)),
        ("to RPL 0 of a guest code segment", gate(8, 0, 0)),
        ("to RPL 3 of a guest code segment", gate(0x33, 3, 0)),
        ("to RPL 1", gate(9, 1, 0)),
        ("to the LDT", gate(0xf, 0, 0)),
        ("to the flat code segment", gate(0xe033, 0, 0)),
        ("to the flat code segment, RPL 0", gate(0xe030, 3, 0)),
        ("to the flat 32-bit code segment", gate(0xe023, 0, 0)),
        ("to the flat data segment", gate(0xe02b, 0, 0)),
        ("to the hypervisor's code", gate(0xe008, 0, 0)),
        ("to the hypervisor's TSS", gate(0xe040, 0, 0)),
        ("to the last selector", gate(0xfff8, 0, 0)),
        ("with a high offset", gate(0x33, 3, 0xffff << 48)),
        ("with parameters", gate(0x33, 3, 1 << 32)),
        ("with a reserved bit", gate(0x33, 3, 1 << 37)),
        ("not present", gate(0xe008, 3, 0) & !PRESENT),
        ("16-bit", PRESENT | 4 << 40 | 0x33 << 16),
    ] {
        page.write(1, 0x77);
        let r = update(page, 1, desc);
        obs(f!("call gate {name}"), f!("{r} {:#x}", page.read(1)));
    }
}

/// Whole pages: validation, references, refusals.
fn gdt_pages() {
    let page = Page::alloc();
    page.write(1, 0x00cf_9300_0000_ffff);
    page.write(2, 0x00af_9b00_0000_ffff);
    obs("GDT on a writable page", set_gdt(page, 8));
    paging::make_ro(page).must("read-only");
    obs("GDT", set_gdt(page, 8));
    obs("privilege is raised", f!("{:#x} {:#x}", page.read(1), page.read(2)));
    obs("writable again", paging::make_rw(page));
    obs("update_descriptor in it", update(page, 3, DATA));
    obs("a TSS in it", update(page, 4, PRESENT | 9 << 40));
    obs("the same page as L1", paging::pin(page, 1));
    obs("twice in one GDT", set_gdt(page, 1024));
    obs("14 times", set_gdt(page, 7168));
    obs("one entry too many", set_gdt(page, 7169));
    obs("2^32 entries", set_gdt(page, 1 << 32));
    obs("bad list", call(nr::SET_GDT, &[0x1000, 8]));
    obs("list of the hypervisor's", call(nr::SET_GDT, &[0xffff_8300_0000_0000, 8]));
    let frames = [page.mfn(), 0x7f_ffff];
    obs("second frame bad", call(nr::SET_GDT, &[frames.as_ptr() as u64, 513]));
    let bad = Page::alloc();
    bad.write(511, PRESENT | 9 << 40);
    paging::make_ro(bad).must("read-only");
    obs("a TSS in the last slot", set_gdt(bad, 8));
    obs("empty GDT", call(nr::SET_GDT, &[0, 0]));
    obs("writable after all", paging::make_rw(page));
    obs("a table as GDT", set_gdt(paging::l4(), 8));
}

fn load(register: &str, sel: u64) -> Outcome {
    let regs = Gprs { rax: sel, ..Gprs::ZERO };
    match register {
        "ds" => probe::kernel(code!("mov ds, eax", "xor eax, eax", "mov eax, ds", "mov edx, 0", "mov ds, edx"), &regs),
        "es" => probe::kernel(code!("mov es, eax", "xor eax, eax", "mov eax, es", "mov edx, 0", "mov es, edx"), &regs),
        "fs" => probe::kernel(code!("mov fs, eax", "xor eax, eax", "mov eax, fs", "mov edx, 0", "mov fs, edx"), &regs),
        _ => {
            probe::kernel(code!("mov ss, eax", "xor eax, eax", "mov eax, ss", "mov edx, 0xe02b", "mov ss, edx"), &regs)
        }
    }
}

fn selectors() {
    let gdt = Page::alloc();
    gdt.write(1, DATA);
    gdt.write(2, CODE64);
    gdt.write(3, DATA & !PRESENT);
    gdt.write(4, 0x0040_f200_0000_1fff | 0x12 << 56 | 0x34_5678 << 16);
    gdt.write(5, 0x0040_f000_0000_00ff);
    gdt.write(6, PRESENT | 12 << 40 | 0x13 << 16);
    paging::make_ro(gdt).must("read-only");
    set_gdt(gdt, 8).must("set_gdt");
    for (name, s) in [
        ("null", 0u64),
        ("null, RPL 3", 3),
        ("data", 0xb),
        ("data, RPL 0", 8),
        ("code", 0x13),
        ("not present", 0x1b),
        ("with a base", 0x23),
        ("read-only", 0x2b),
        ("a gate", 0x33),
        ("an empty slot", 0x3b),
        ("behind the entries", 0x4b),
        ("in an absent page", 0x1003),
        ("LDT, without one", 0xf),
        ("flat data", 0xe02b),
        ("flat data, RPL 0", 0xe028),
        ("the hypervisor's code", 0xe008),
        ("the hypervisor's data", 0xe010),
        ("the TSS", 0xe040),
        ("behind the limit", 0xf003),
    ] {
        for register in ["ds", "es", "fs", "ss"] {
            obs(f!("{register} <- {name}"), load(register, s).rax());
        }
        let regs = Gprs { rax: s, ..Gprs::ZERO };
        let two = |o: Outcome| match o {
            Outcome::Done(g) => (g.rcx, g.rdx),
            Outcome::Trap(_) => (u64::MAX, 0),
        };
        let (v, ok) = two(probe::kernel(code!("xor ecx, ecx", "xor edx, edx", "lsl ecx, eax", "setz dl"), &regs));
        obs(f!("lsl {name}"), f!("{ok} {v:#x}"));
        let (v, ok) = two(probe::kernel(code!("xor ecx, ecx", "xor edx, edx", "lar ecx, eax", "setz dl"), &regs));
        obs(f!("lar {name}"), f!("{ok} {v:#x}"));
        let (v, ok) = two(probe::kernel(
            code!("xor ecx, ecx", "xor edx, edx", "verr ax", "setz cl", "verw ax", "setz dl"),
            &regs,
        ));
        obs(f!("verr, verw {name}"), f!("{v} {ok}"));
    }
    // the hypervisor's own part: entries behind the flat segments
    for i in [0xe058u64, 0xe060, 0xe068, 0xe070, 0xeff8] {
        let o = probe::kernel(
            code!("xor ecx, ecx", "xor edx, edx", "lsl ecx, eax", "setz dl"),
            &Gprs { rax: i | 3, ..Gprs::ZERO },
        );
        obs(f!("lsl of {i:#x} succeeds"), o.done("lsl").rdx);
    }
    // a descriptor that changes while a segment register holds it
    obs("es loaded", probe::kernel(code!("mov es, eax"), &Gprs { rax: 0xb, ..Gprs::ZERO }));
    obs("its descriptor goes", update(gdt, 1, 0));
    obs("es still reads", probe::kernel(code!("xor eax, eax", "mov eax, es"), &Gprs::ZERO).rax());
    obs("es once more", load("es", 0xb).rax());
    call(nr::SET_GDT, &[0, 0]).must("empty GDT");
    probe::kernel(code!("xor eax, eax", "mov es, eax"), &Gprs::ZERO).done("es back");
}

/// Bases of FS and GS by selector, and set_segment_base with a selector.
fn bases() {
    let gdt = Page::alloc();
    gdt.write(1, DATA);
    gdt.write(4, 0x0040_f200_0000_1fff | 0x12 << 56 | 0x34_5678 << 16);
    paging::make_ro(gdt).must("read-only");
    set_gdt(gdt, 8).must("set_gdt");
    let base =
        |msr: u64| probe::kernel(code!("rdmsr", "shl rdx, 32", "or rax, rdx"), &Gprs { rcx: msr, ..Gprs::ZERO }).rax();
    smp::set_base(smp::segbase::FS, 0x1_2345_6789).must("FS base");
    obs("FS base", base(0xc000_0100));
    obs("FS <- a selector with a base", probe::kernel(code!("mov fs, eax"), &Gprs { rax: 0x23, ..Gprs::ZERO }));
    obs("FS base after it", base(0xc000_0100));
    for s in [0u64, 0x23, 0xb, 0x20, 0x33, 0xe02b, 0xe008, 0xf003, 0x1_0023, 3] {
        obs(f!("user GS <- {s:#x}"), smp::set_base(smp::segbase::GS_USER_SEL, s));
        obs(f!("user GS base after {s:#x}"), base(0xc000_0102));
    }
    check("kernel GS is as it was", smp::cpu() == 0);
    for (name, v) in [("non-canonical", 0x8000_0000_0000u64), ("the hypervisor's", 0xffff_8300_0000_0000)] {
        for which in [smp::segbase::FS, smp::segbase::GS_USER] {
            obs(f!("base {which} <- {name}"), smp::set_base(which, v));
        }
    }
    obs("base 4", smp::set_base(4, 0));
    obs("base 2^32", smp::set_base(1 << 32, 0));
    smp::set_base(smp::segbase::FS, 0).must("FS base back");
    smp::set_base(smp::segbase::GS_USER, 0).must("GS base back");
    probe::kernel(code!("xor eax, eax", "mov fs, eax"), &Gprs::ZERO).done("fs back");
    call(nr::SET_GDT, &[0, 0]).must("empty GDT");
}

/// Far transfers to the guest's own code segments, and traps out of them.
fn code_segments() {
    let gdt = Page::alloc();
    gdt.write(2, CODE64);
    gdt.write(3, CODE32);
    gdt.write(5, 0x00af_9f00_0000_ffff);
    gdt.write(6, PRESENT | 12 << 40 | 0x13 << 16);
    paging::make_ro(gdt).must("read-only");
    set_gdt(gdt, 8).must("set_gdt");
    for (name, cs) in [
        ("code", 0x13u64),
        ("code, RPL 0", 0x10),
        ("conforming", 0x2b),
        ("a gate", 0x33),
        ("flat code", 0xe033),
        ("the hypervisor's", 0xe008),
        ("null", 0),
        ("empty", 0x3b),
    ] {
        // a far return to the same place
        let out = probe::kernel(
            code!("lea rcx, [rip + 2f]", "push rax", "push rcx", "retfq", "2:", "xor eax, eax", "mov eax, cs"),
            &Gprs { rax: cs, ..Gprs::ZERO },
        );
        obs(f!("far return to {name}"), out.rax());
        // bring the flat segment back
        probe::kernel(
            code!("lea rcx, [rip + 2f]", "push rax", "push rcx", "retfq", "2:", "nop"),
            &Gprs { rax: u64::from(sel::FLAT_RING3_CS64), ..Gprs::ZERO },
        )
        .done("flat code");
    }
    let out = probe::kernel(
        code!("lea rcx, [rip + 2f]", "push rax", "push rcx", "retfq", "2:", "ud2"),
        &Gprs { rax: 0x13, ..Gprs::ZERO },
    );
    let t = out.trap("ud2");
    obs("trap out of a code segment of its own", f!("{t} cs {:#x}", t.cs & 0xffff));
    let out = probe::kernel(
        code!("lea rcx, [rip + 2f]", "push rax", "push rcx", "retfq", "2:", "mov rax, cr0", "nop"),
        &Gprs { rax: 0x13, ..Gprs::ZERO },
    );
    obs("a privileged instruction in it", out.rax());
    let out = probe::kernel(
        code!(
            "lea rcx, [rip + 2f]",
            "push rax",
            "push rcx",
            "retfq",
            "2:",
            "mov eax, 17",
            "xor edi, edi",
            "syscall",
            "xor eax, eax",
            "mov eax, cs"
        ),
        &Gprs { rax: 0x13, ..Gprs::ZERO },
    );
    obs("cs after a hypercall from it", out.rax());
    call(nr::SET_GDT, &[0, 0]).must("empty GDT");
}

fn set_ldt(at: u64, entries: u64) -> Ret {
    paging::mmuext(EXT_SET_LDT, at, entries)
}

fn ldt() {
    let page = Page::alloc();
    page.write(0, DATA);
    page.write(1, 0x00cf_9300_0000_ffff);
    page.write(2, 0x0040_f200_0000_1fff | 0x12 << 56 | 0x34_5678 << 16);
    paging::make_ro(page).must("read-only");
    obs("set_ldt", set_ldt(page.va, 8));
    obs("es <- LDT 1", load("es", 0xf).rax());
    obs("its privilege", f!("{:#x}", page.read(1)));
    obs("ss <- LDT 0", load("ss", 7).rax());
    obs("es <- behind its entries", load("es", 0x47).rax());
    obs("lsl of LDT 2", probe::kernel(code!("xor eax, eax", "mov ecx, 0x17", "lsl eax, ecx"), &Gprs::ZERO).rax());
    obs("writable while it is mapped", paging::make_rw(page));
    obs("user GS <- LDT 2", smp::set_base(smp::segbase::GS_USER_SEL, 0x17));
    obs(
        "user GS base",
        probe::kernel(code!("mov ecx, 0xc0000102", "rdmsr", "shl rdx, 32", "or rax, rdx"), &Gprs::ZERO).rax(),
    );
    obs("clear it", set_ldt(0, 0));
    obs("es <- LDT 1 after that", load("es", 0xf).rax());
    obs("writable now", paging::make_rw(page));
    // lazily: a page that may not be one is noticed when it is used
    obs("set_ldt on a writable page", set_ldt(page.va, 8));
    let t = load("es", 0xf).trap("load");
    obs("es <- LDT 1 there", f!("{t} cr2 is the entry's {}", t.cr2 == page.va + 8));
    let t = probe::kernel(code!("xor eax, eax", "mov ecx, 0xf", "lsl eax, ecx"), &Gprs::ZERO).trap("lsl");
    obs("lsl there", f!("{t} cr2 is the entry's {}", t.cr2 == page.va + 8));
    paging::make_ro(page).must("read-only");
    obs("es <- LDT 1 when it is read-only", load("es", 0xf).rax());
    obs("user GS <- LDT 2, set_ldt again", {
        set_ldt(page.va, 8).must("set_ldt");
        smp::set_base(smp::segbase::GS_USER_SEL, 0x17)
    });
    obs(
        "user GS base after it",
        probe::kernel(code!("mov ecx, 0xc0000102", "rdmsr", "shl rdx, 32", "or rax, rdx"), &Gprs::ZERO).rax(),
    );
    let bad = Page::alloc();
    bad.write(0, DATA);
    bad.write(100, PRESENT | 9 << 40);
    paging::make_ro(bad).must("read-only");
    obs("set_ldt with a TSS in it", set_ldt(bad.va, 8));
    let t = load("es", 7).trap("load");
    obs("es <- LDT 0 there", f!("{t} cr2 is the entry's {}", t.cr2 == bad.va));
    obs("user GS <- LDT 0 there", smp::set_base(smp::segbase::GS_USER_SEL, 7));
    // addresses and counts
    for (name, at, entries) in [
        ("unaligned", page.va + 8, 8u64),
        ("8192 entries", page.va, 8192),
        ("8193 entries", page.va, 8193),
        ("unmapped", 0x10_0000, 8),
        ("non-canonical", 0x8000_0000_0000, 8),
        ("the hypervisor's", 0xffff_8300_0000_0000, 8),
        ("ending in the hypervisor's", 0xffff_7fff_ffff_f000, 8192),
        ("none, somewhere", page.va, 0),
        ("none, unaligned", page.va + 1, 0),
    ] {
        obs(f!("set_ldt {name}"), set_ldt(at, entries));
        if matches!(name, "unmapped" | "non-canonical" | "the hypervisor's") {
            obs(f!("es <- LDT 1 of {name}"), load("es", 0xf).rax());
        }
    }
    obs("clear", set_ldt(0, 0));
    obs("writable at the end", paging::make_rw(page));
    // its page goes while a register holds a selector
    paging::make_ro(page).must("read-only");
    set_ldt(page.va, 8).must("set_ldt");
    probe::kernel(code!("mov eax, 0xf", "mov es, eax"), &Gprs::ZERO).done("es");
    obs("clear under es", set_ldt(0, 0));
    obs("es", probe::kernel(code!("xor eax, eax", "mov eax, es"), &Gprs::ZERO).rax());
    probe::kernel(code!("xor eax, eax", "mov es, eax"), &Gprs::ZERO).done("es back");
}
