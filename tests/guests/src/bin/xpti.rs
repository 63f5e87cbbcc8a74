//! What ring 3 finds mapped of the hypervisor when that is told to keep out of guests' page tables (`xpti`): the error code
//! of a page fault says whether there is a page. And that changes of the top-level table reach what is loaded.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::paging::{KERNEL_RW, TABLE};
use guests::prelude::*;
use pv_abi::mmu::EXT_TLB_FLUSH_LOCAL;

guests::kernel!(run);

const SLOT: u64 = 1 << 39;
const FIRST: u64 = 0xffff_8000_0000_0000;

/// Whether a page is mapped at `va`, readable from ring 3 or not.
fn present(va: u64) -> bool {
    match probe::kernel(code!("mov rax, [rdi]"), &Gprs { rdi: va, ..Gprs::ZERO }) {
        Outcome::Done(_) => true,
        Outcome::Trap(t) => t.err.unwrap_or(0) & 1 != 0,
    }
}

fn run() {
    // Each slot of the hypervisor but the M2P's (0), the descriptors' (2) and the image's (4): the first pages, and some further up.
    for slot in [1u64, 3].into_iter().chain(5..16) {
        let base = FIRST + slot * SLOT;
        let near = (0..64).map(|i| base + i * 4096);
        let far = (1..64).map(|i| base + i * (SLOT / 64) + 0x10_0000);
        let seen = near.chain(far).filter(|va| present(*va)).count();
        expect(f!("pages seen in slot {}", 256 + slot), seen, 0);
    }
    // The image and whatever stands beside it: the entry code, the IDT, a stack's top.
    let image = FIRST + 4 * SLOT;
    let seen = (0..2048u64).map(|i| image + i * 4096).filter(|va| present(*va)).count();
    obs("at most eight pages seen of the first 8 MiB of slot 260", seen <= 8);
    for mib in [512u64, 768, 896] {
        let seen = (0..64u64).map(|i| image + (mib << 20) + i * 4096).filter(|va| present(*va)).count();
        obs(f!("at most seven of the first 64 behind {mib} MiB"), seen <= 7);
    }
    tables();
}

/// An entry of the L4 that is loaded comes and goes.
fn tables() {
    let va = 0x4000_0000_0000u64;
    let [data, l1, l2, l3] = [(); 4].map(|()| Page::alloc());
    data.write(0, 0x600d);
    for (table, below, level) in [(l1, data.ma() | KERNEL_RW, 1), (l2, l1.ma() | TABLE, 2), (l3, l2.ma() | TABLE, 3)] {
        table.write(0, below);
        paging::make_ro(table).must("make_ro");
        paging::pin(table, level).must("pin");
    }
    let slot = paging::slot(va, 4);
    expect("before", present(va), false);
    for round in 0..3 {
        expect(f!("hook in, {round}"), paging::mmu_update(slot, l3.ma() | TABLE), OK);
        expect(
            f!("there, {round}"),
            probe::kernel(code!("mov rax, [rdi]"), &Gprs { rdi: va, ..Gprs::ZERO }).done("read").rax == 0x600d,
            true,
        );
        expect(f!("take out, {round}"), paging::mmu_update(slot, 0), OK);
        expect(f!("flush, {round}"), paging::mmuext(EXT_TLB_FLUSH_LOCAL, 0, 0), OK);
        expect(f!("gone, {round}"), present(va), false);
    }
}
