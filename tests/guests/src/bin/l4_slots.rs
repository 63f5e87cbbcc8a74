//! Slots 256 to 271 of an L4 are the hypervisor's, whatever a guest puts there.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering;
use guests::mem::read64;
use guests::paging::{CURRENT_L4, TABLE, make_ro, mmu_update, mmuext, pin, unpin};
use guests::prelude::*;
use pv_abi::arch::MACH2PHYS_VIRT_START;
use pv_abi::mmu::{EXT_NEW_BASEPTR, EXT_NEW_USER_BASEPTR};

guests::kernel!(run);

fn kind(e: u64) -> &'static str {
    match e {
        0 => "zero",
        e if e & 1 != 0 => "present",
        _ => "junk",
    }
}

fn show(when: &str, l4: Page) {
    for slot in [255usize, 256, 257, 263, 264, 271, 272, 511] {
        obs(f!("{when}: slot {slot}"), kind(l4.read(slot)));
    }
}

fn run() {
    let boot = paging::l4();
    // a copy, as Linux makes it: everything, the hypervisor's slots included
    let copy = Page::alloc();
    for i in 0..512 {
        copy.write(i, boot.read(i));
    }
    for i in 257..272 {
        copy.write(i, 0xdead_beef_0000_0067);
    }
    copy.write(256, 0x1234_5067);
    make_ro(copy).must("make_ro");
    expect("pin a copy with junk in the hypervisor's slots", pin(copy, 4), OK);
    check("slot 256 is not the guest's", copy.read(256) != 0x1234_5067);
    check("no junk is left", (256..272).all(|i| copy.read(i) & !0xfff != 0xdead_beef_0000_0000));
    obs("pinned copy, slot 256", kind(copy.read(256)));
    show("pinned copy", copy);
    expect("load it", mmuext(EXT_NEW_BASEPTR, copy.mfn(), 0), OK);
    CURRENT_L4.store(copy.va, Ordering::Relaxed);
    show("loaded copy", copy);
    obs("flags of slot 256", flags_of(copy.read(256)));
    check("the M2P is readable", read64(MACH2PHYS_VIRT_START + 8 * copy.mfn()) == copy.pfn());
    obs(
        "write the M2P",
        probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: MACH2PHYS_VIRT_START + 8 * copy.mfn(), ..Gprs::ZERO }),
    );
    obs(
        "read behind the M2P",
        probe::kernel(code!("mov rax, [rdi]"), &Gprs { rdi: 0xffff_8700_0000_0000, ..Gprs::ZERO }),
    );
    obs(
        "read the hypervisor's image",
        probe::kernel(code!("mov rax, [rdi]"), &Gprs { rdi: 0xffff_82d0_4000_0000, ..Gprs::ZERO }),
    );
    for slot in [255u64, 256, 257, 260, 271, 272] {
        let own = !(256..=271).contains(&slot);
        let r = mmu_update(copy.ma() + 8 * slot, 0);
        expect(f!("clear slot {slot}"), r, if own { OK } else { errno(EINVAL) });
        let same = mmu_update(copy.ma() + 8 * slot, copy.read(slot as usize));
        expect(f!("write slot {slot}'s own value"), same, if own { OK } else { errno(EINVAL) });
    }
    let l3 = paging::new_table();
    pin(l3, 3).must("pin L3");
    for slot in [0u64, 255, 256, 271, 272, 300] {
        obs(f!("hook an L3 into slot {slot}"), mmu_update(copy.ma() + 8 * slot, l3.ma() | TABLE));
    }
    show("after hooking", copy);
    expect("back to the start-of-day L4", mmuext(EXT_NEW_BASEPTR, boot.mfn(), 0), OK);
    CURRENT_L4.store(0, Ordering::Relaxed);
    obs("unloaded copy, slot 256", kind(copy.read(256)));
    expect("unpin the copy", unpin(copy), OK);
    expect("the copy is free", paging::make_rw(copy), OK);

    // a user L4: the M2P must not be readable from user mode
    let u = user::init();
    show("user L4", u.l4);
    let out = user::run(code!("mov rax, [rdi]"), &Gprs { rdi: MACH2PHYS_VIRT_START + 8 * u.l4.mfn(), ..Gprs::ZERO });
    obs("user mode reads the M2P", out);
    let out = user::run(code!("mov rax, [rdi]"), &Gprs { rdi: 0xffff_ffff_8010_0000, ..Gprs::ZERO });
    obs("user mode reads the kernel", out);
    expect("load the user L4 as the kernel's", mmuext(EXT_NEW_USER_BASEPTR, 0, 0), OK);
    expect("load no user L4", mmuext(EXT_NEW_USER_BASEPTR, u.l4.mfn(), 0), OK);
    expect("an L3 as base pointer", mmuext(EXT_NEW_BASEPTR, l3.mfn(), 0), errno(EINVAL));
    expect("an L3 as user base pointer", mmuext(EXT_NEW_USER_BASEPTR, l3.mfn(), 0), errno(EINVAL));
    let unpinned = paging::new_table();
    obs("an unpinned empty page as user base pointer", mmuext(EXT_NEW_USER_BASEPTR, unpinned.mfn(), 0));
    obs("it is held", paging::make_rw(unpinned));
    expect("the old user base pointer again", mmuext(EXT_NEW_USER_BASEPTR, u.l4.mfn(), 0), OK);
    expect("it is free", paging::make_rw(unpinned), OK);
    expect("unpin the loaded user L4", unpin(u.l4), OK);
    expect("the loaded user L4 is held", paging::make_rw(u.l4), errno(EBUSY));
    expect("user mode still runs", user::run(code!("nop"), &Gprs::ZERO).trap("user").vector, trap::SYSCALL);
}
