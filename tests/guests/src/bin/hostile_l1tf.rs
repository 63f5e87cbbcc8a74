//! Entries that are not present and name RAM.
//!
//! Attacks: L1 terminal fault (CVE-2018-3620): a CPU that has it reads by speculation what its L1 data cache holds at the
//! address of such an entry, whoever's memory that is. Must happen: with `pv-l1tf=` on, no table of a guest gets one, by
//! whatever way; what Linux writes (swap entries and pages without access, whose address bits are inverted) is stored.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{self as pg, KERNEL_RO, P};
use guests::prelude::*;
use pv_abi::mmu;

guests::kernel!(run);

/// An address with an L1 of its own.
const WINDOW: u64 = 0x60_0000_0000;

fn run() {
    let data = Page::alloc();
    let entry = data.ma() | KERNEL_RO;
    pg::map(WINDOW, entry);
    let slot = pg::slot(WINDOW, 1);
    let at = pg::slot_va(WINDOW, 1);
    let kept = pg::pte(WINDOW) & pg::FRAME;
    let all = pg::FRAME;
    let leaks = [
        ("a page of one's own", data.ma()),
        ("the hypervisor's", 0x10_0000),
        ("bits that the L1 does not compare", 1 << 51 | data.ma()),
        ("with every other bit", data.ma() | !all & !P),
    ];
    for (name, e) in leaks {
        refused(f!("{name}: update_va_mapping"), pg::update_va(WINDOW, e));
        for cmd in [mmu::NORMAL_PT_UPDATE, mmu::PT_UPDATE_PRESERVE_AD, mmu::PT_UPDATE_NO_TRANSLATE] {
            refused(f!("{name}: mmu_update, command {cmd}"), pg::mmu_update(slot | cmd, e));
        }
        let o = probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: at, rax: e, ..Gprs::ZERO });
        check(f!("{name}: a store is not done"), !o.is_done());
        check(f!("{name}: the entry that was there stays"), pg::pte(WINDOW) & pg::FRAME == kept);
        for level in 1..=4u32 {
            let t = Page::alloc();
            t.write(77, e);
            pg::make_ro(t).must("make_ro");
            refused(f!("{name}: a table of level {level} that has it"), pg::pin(t, level));
            let t = pg::new_table();
            pg::pin(t, level).must("pin");
            refused(f!("{name}: into a table of level {level}"), pg::mmu_update(t.ma() | 77 << 3, e));
            check(f!("{name}: level {level} is as it was"), t.read(77) == 0);
        }
    }
    // Only a part of the entry is changed: its present bit goes.
    for (name, code) in [
        ("and", code!("lock and byte ptr [rdi], 0xfe")),
        ("btr", code!("lock btr qword ptr [rdi], 0")),
        ("mov byte", code!("mov byte ptr [rdi], 0")),
    ] {
        let o = probe::kernel(code, &Gprs { rdi: at, ..Gprs::ZERO });
        check(f!("the present bit alone, {name}: not done"), !o.is_done() && pg::pte(WINDOW) & P == 1);
    }
    let fine = [
        ("nothing", 0),
        ("a page without access", !data.ma() & all | 1 << 8),
        ("a swap entry", (!0x1234u64 << 19 >> 5) | 3 << 59),
        ("an address behind all RAM", 1 << 43),
        ("flags alone", 1 << 63 | 0x260),
    ];
    for (name, e) in fine {
        expect(f!("{name}: update_va_mapping"), pg::update_va(WINDOW, e), OK);
        check(f!("{name}: is there"), pg::pte(WINDOW) == e);
        expect(f!("{name}: mmu_update"), pg::mmu_update(slot, e), OK);
        let o = probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: at, rax: e, ..Gprs::ZERO });
        check(f!("{name}: a store is done"), o.is_done());
        let t = Page::alloc();
        t.write(77, e);
        pg::make_ro(t).must("make_ro");
        expect(f!("{name}: a table that has it"), pg::pin(t, 1), OK);
    }
    pg::update_va(WINDOW, entry).must("the page again");
    expect("cleared, with its accessed and dirty bits kept", pg::mmu_update(slot | mmu::PT_UPDATE_PRESERVE_AD, 0), OK);
    alive();
}
