//! Attack: dom0 maps what is not its own: the hypervisor's memory frame by frame, others' RAM, LAPIC, IOAPIC, MSI-X. Must
//! happen: no frame of RAM that is not dom0's can be mapped at all; the LAPIC neither; the IOAPIC only read.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::memory::*;

guests::kernel!(run);

static OWN: mem::Racy<[u64; 8192]> = mem::Racy::new([0; 8192]);

fn run() {
    let window = unmapped_page();
    let c = Child::build(|| {}, Spec::default());
    // which frames are this domain's, a bit each
    // SAFETY: one vCPU.
    let own = unsafe { &mut *OWN.get() };
    for pfn in 0..start_info().nr_pages {
        let mfn = mem::mfn_of(pfn);
        if let Some(w) = own.get_mut((mfn / 64) as usize) {
            *w |= 1 << (mfn % 64);
        }
    }
    let mut ranges = [E820Entry::default(); 64];
    let mut m = MemoryMap { nr_entries: 64, pad: 0, buffer: ranges.as_mut_ptr() as u64 };
    memory_op(OP_MACHINE_MEMORY_MAP, &mut m).must("machine_memory_map");
    let (mut others, mut writable, mut readable) = (0u64, 0u64, 0u64);
    let shared = start_info().shared_info / PAGE_SIZE;
    for r in ranges.iter().take(m.nr_entries as usize).filter(|r| r.kind() == E820_RAM && r.addr() >= 1 << 20) {
        for mfn in r.addr().div_ceil(PAGE_SIZE)..(r.addr() + r.size()) / PAGE_SIZE {
            if own.get((mfn / 64) as usize).is_some_and(|w| w >> (mfn % 64) & 1 != 0) || mfn == shared {
                continue;
            }
            others += 1;
            writable += u64::from(pg::update_va(window.va, (mfn * PAGE_SIZE) | KERNEL_RW) == OK);
            // each read-only attempt too, of every eighth frame
            if mfn % 8 == 0 {
                readable += u64::from(pg::update_va(window.va, (mfn * PAGE_SIZE) | KERNEL_RO) == OK);
                readable += u64::from(
                    child::foreign_update(pg::slot(window.va, 1), (mfn * PAGE_SIZE) | KERNEL_RO, 0x7ff1) == OK,
                );
            }
        }
    }
    check("there is RAM of others", others > 10_000);
    obs("frames of others mapped writable", writable);
    expect("frames of others mapped read-only", readable, 0);
    pg::update_va(window.va, 0).must("unmap");
    for (name, mfn) in [("the LAPIC", 0xfee00u64)] {
        for (how, flags) in [("writable", KERNEL_RW), ("read-only", KERNEL_RO)] {
            refused(f!("{name} {how}"), pg::update_va(window.va, (mfn * PAGE_SIZE) | flags));
            refused(
                f!("{name} {how}, as device memory"),
                child::foreign_update(pg::slot(window.va, 1), (mfn * PAGE_SIZE) | flags, 0x7ff1),
            );
        }
    }
    let ioapic = 0xfec0_0000u64;
    let r = pg::update_va(window.va, ioapic | KERNEL_RW);
    check("the IOAPIC is never writable", r.0 < 0 || pg::pte(window.va) & pg::RW == 0);
    if r == OK {
        obs(
            "a write to it",
            if probe::catch(|| mem::write64(window.va, 0x10)).is_done() { "is swallowed" } else { "faults" },
        );
        refused("the entry made writable", {
            let r = pg::mmu_update(pg::slot(window.va, 1), ioapic | KERNEL_RW);
            if pg::pte(window.va) & pg::RW == 0 { errno(EPERM) } else { r }
        });
        check("nor by a store", {
            let at = pg::slot_va(window.va, 1);
            probe::catch(|| mem::write64(at, ioapic | KERNEL_RW));
            pg::pte(window.va) & pg::RW == 0
        });
    }
    pg::update_va(window.va, 0).must("unmap");
    // device memory is nobody's page
    for mfn in [0xb8u64, 0xfee00, 0xfec00, 0xf0] {
        for cmd in 0..=5 {
            refused(f!("mmuext {cmd} of device frame {mfn:#x}"), pg::mmuext(cmd, mfn, 0));
        }
    }
    c.destroy();
    alive();
}
