//! Attack: a page table becomes writable by update_va_mapping and its variant for other domains' frames, at every
//! kind of address. Must happen: each is refused; no entry changes.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW, P, RW, US};
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::mmu;

guests::kernel!(run);

fn run() {
    let window = Page::alloc();
    let user_va = 0x5000_0000;
    pg::map(user_va, 0);
    let si = start_info();
    let mut tables = 0;
    for i in 0..si.nr_pt_frames {
        let t = Page::at(si.pt_base + i * PAGE_SIZE);
        for va in [window.va, user_va, t.va, si.pt_base] {
            for flags in [KERNEL_RW, P | RW | US] {
                for flush in [0, mmu::UVMF_INVLPG, mmu::UVMF_TLB_FLUSH | mmu::UVMF_ALL] {
                    let before = pg::pte(va);
                    let r = call(nr::UPDATE_VA_MAPPING, &[va, t.ma() | flags, flush]);
                    let s = call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[va, t.ma() | flags, flush, u64::from(SELF)]);
                    let changed = (pg::pte(va) ^ before) & !(pg::A | pg::D) != 0;
                    tables += u32::from(r.0 >= 0 || s.0 >= 0 || changed);
                }
            }
        }
    }
    expect("start-of-day tables that became writable", tables, 0);
    for (name, va) in [
        ("the hypervisor's part", XEN_VA),
        ("the M2P", 0xffff_8000_0000_0000),
        ("no address", NON_CANONICAL),
        ("the end of all", !0xfff),
        ("an address without L1", 0x7000_0000_0000),
    ] {
        for val in [0, window.ma() | KERNEL_RO] {
            refused(
                f!("{name}, value of {}", if val == 0 { "nothing" } else { "a page" }),
                call(nr::UPDATE_VA_MAPPING, &[va, val, mmu::UVMF_INVLPG]),
            );
        }
    }
    refused(
        "a vCPU bitmap in the hypervisor",
        call(nr::UPDATE_VA_MAPPING, &[window.va, window.ma() | KERNEL_RW, mmu::UVMF_INVLPG | XEN_VA]),
    );
    refused(
        "frames of an absent domain",
        call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[window.va, window.ma() | KERNEL_RW, 0, 77]),
    );
    alive();
}
