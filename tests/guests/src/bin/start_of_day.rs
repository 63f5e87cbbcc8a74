//! What a kernel finds when it starts: registers, start_info, its mappings, the shared page.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::mem::{VIRT_BASE, mfn_of, pfn_of, read64};
use guests::prelude::*;
use guests::start::{ENTRY, start_info};
use pv_abi::shared_info;

guests::kernel!(run);

fn run() {
    registers();
    info();
    layout();
    shared();
}

fn registers() {
    // SAFETY: written once, before this runs.
    let e = unsafe { &*ENTRY.get() };
    let g = e.gprs;
    expect("rflags", Hex(e.rflags), Hex(0x202));
    for (name, got, want) in [
        ("cs", e.selectors[0], 0xe033),
        ("ss", e.selectors[1], 0xe02b),
        ("ds", e.selectors[2], 0),
        ("es", e.selectors[3], 0),
        ("fs", e.selectors[4], 0),
        ("gs", e.selectors[5], 0),
    ] {
        expect(name, Hex(got.into()), Hex(want));
    }
    let others = [g.rax, g.rbx, g.rcx, g.rdx, g.rdi, g.rbp, g.r8, g.r9, g.r10, g.r11, g.r12, g.r13, g.r14, g.r15];
    check("other registers are 0", others.iter().all(|r| *r == 0));
    expect("fcw", Hex(e.fcw.into()), Hex(0x37f));
    expect("mxcsr", Hex(e.mxcsr.into()), Hex(0x1f80));
    check("rsp is page aligned", e.rsp.is_multiple_of(4096));
    let si = start_info();
    check("rsp is the page after the page tables", e.rsp == si.pt_base + (si.nr_pt_frames + 1) * 4096);
}

fn info() {
    let si = start_info();
    let text = core::str::from_utf8(&si.magic).unwrap_or("?").trim_end_matches('\0');
    expect("magic", text, "xen-3.0-x86_64p");
    expect("flags", Hex(si.flags.into()), Hex(0x303));
    expect("console offset and size", Hex(si.console0), Hex(0x28_0000_0490));
    expect("store_mfn", Hex(si.store_mfn), Hex(0));
    expect("store_evtchn", si.store_evtchn, 0);
    expect("mod_len", si.mod_len, 0);
    obs("mod_start", Hex(si.mod_start));
    expect("mfn_list", Hex(si.mfn_list), Hex(0x80_0000_0000));
    check("nr_pages is sensible", (0x1000..0x20000).contains(&si.nr_pages));
    check("start_info is page aligned", (core::ptr::from_ref(si) as u64).is_multiple_of(4096));
    check("shared_info is a page", si.shared_info.is_multiple_of(4096) && si.shared_info != 0);
    let cmd = si.cmd_line.iter().take_while(|b| **b != 0).count();
    obs("command line", core::str::from_utf8(&si.cmd_line[..cmd]).unwrap_or("?"));
}

fn layout() {
    let si = start_info();
    check("page tables follow start_info", si.pt_base == core::ptr::from_ref(si) as u64 + 4096);
    let l4 = Page::at(si.pt_base);
    check("every PFN's M2P entry leads back", (0..si.nr_pages).all(|p| pfn_of(mfn_of(p)) == p));
    expect("text page", flags_of(paging::pte(run as *const () as u64)), Hex(0x10_0000_0000_0067));
    expect("page table page", flags_of(paging::pte(si.pt_base)), Hex(0x10_0000_0000_0025));
    let va = run as *const () as u64;
    for level in 2..=4 {
        expect(f!("L{level} entry"), flags_of(paging::entry(va, level)), Hex(0x67));
    }
    check(
        "page tables are read-only",
        (0..si.nr_pt_frames).all(|i| paging::pte(si.pt_base + i * 4096) & paging::RW == 0),
    );
    let mut end = si.pt_base + si.nr_pt_frames * 4096 + 4096;
    while paging::pte(end) & paging::P != 0 {
        end += 4096;
    }
    check("the mapping ends at a multiple of 4 MiB", end.is_multiple_of(4 << 20));
    check(
        "at least 512 KiB are mapped behind the boot stack",
        end - si.pt_base - (si.nr_pt_frames + 1) * 4096 >= 512 << 10,
    );
    check(
        "PFN n is at VIRT_BASE + n pages",
        (VIRT_BASE..end).step_by(4096).all(|va| {
            (paging::pte(va) & paging::FRAME) / 4096 == mfn_of((va - VIRT_BASE) / 4096) || va == events::shared(0)
        }),
    );
    check("the p2m lies behind the initial allocation", si.first_p2m_pfn >= (end - VIRT_BASE) / 4096);
    obs("p2m frames", if si.nr_p2m_frames >= si.nr_pages / 512 { "enough" } else { "too few" });
    let last = si.mfn_list + ((si.nr_pages * 8 + 4095) & !4095) - 8;
    obs(
        "the p2m's last word",
        if probe::catch(|| guests::mem::write64(last, u64::MAX)).is_done() { "writable" } else { "not writable" },
    );
    for slot in [0usize, 255, 256, 257, 263, 271, 272, 511] {
        let e = l4.read(slot);
        obs(
            f!("L4 slot {slot}"),
            if e == 0 {
                "zero"
            } else if e & 1 != 0 {
                "present"
            } else {
                "junk"
            },
        );
    }
    expect("unpin the start-of-day L4", paging::unpin(l4), OK);
    expect("pin it again", paging::pin(l4, 4), OK);
}

fn shared() {
    let byte = |cpu: usize, at: usize| read64(events::shared(cpu * 64)).to_le_bytes()[at];
    expect("vcpu 0 upcall_pending", byte(0, 0), 0);
    check("all vcpu_info masks are 1", (0..32).all(|c| byte(c, 1) == 1));
    check("evtchn_pending is 0", (0..64).all(|i| read64(events::shared(shared_info::EVTCHN_PENDING + 8 * i)) == 0));
    check("evtchn_mask is 0", (0..64).all(|i| read64(events::shared(shared_info::EVTCHN_MASK + 8 * i)) == 0));
    let time = events::shared(32);
    check("time version is even", read64(time) & 1 == 0);
    check("tsc_to_system_mul is set", read64(time + 24) as u32 != 0);
    expect("time of vcpu 1", read64(events::shared(64 + 32 + 8)), 0);
    check("wallclock is set", read64(events::shared(shared_info::WALLCLOCK)) >> 32 > 1_500_000_000);
}
