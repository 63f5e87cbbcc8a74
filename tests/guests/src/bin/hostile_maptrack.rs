//! Attack: a domU maps what it was granted sixteen thousand times, for devices, keeps every handle, and dies: each handle is
//! memory of the hypervisor's. Must happen: each mapping is one that counts, the granter's entries are free when the domU is
//! gone, and so is the memory.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::grant::*;

guests::kernel!(run);

/// Entries it maps in turn: one can be mapped 255 times on Xen.
const ENTRIES: core::ops::RangeInclusive<u32> = 8..=135;
/// Mappings in one call.
const BATCH: usize = 64;
const MANY: u64 = 16_000;

/// Maps as often as word 0 says, and ends.
fn body() {
    use child::inside::{wait_word, word};
    wait_word(3, 1);
    let wanted = word(0).load(SeqCst);
    let mut refs = ENTRIES.cycle();
    while word(2).load(SeqCst) < wanted {
        let mut ops: [MapGrantRef; BATCH] = core::array::from_fn(|_| MapGrantRef {
            flags: GNTMAP_DEVICE_MAP,
            gref: refs.next().unwrap_or(0),
            status: 99,
            ..Default::default()
        });
        call(nr::GRANT_TABLE_OP, &[OP_MAP_GRANT_REF, ops.as_mut_ptr() as u64, BATCH as u64]).must("map");
        let mapped = ops.iter().filter(|o| o.status == 0).count() as u64;
        word(2).fetch_add(mapped, SeqCst);
        if mapped != BATCH as u64 {
            break;
        }
    }
}

fn one(name: &str, table: Page, page: Page, times: u64) {
    let c = Child::build(body, Spec::default());
    for i in ENTRIES {
        grant(table, i as usize, c.id, page.mfn(), GTF_PERMIT_ACCESS);
    }
    c.word(0).store(times, SeqCst);
    c.word(3).store(1, SeqCst);
    c.unpause().must("unpause");
    expect(f!("{name}: how it ended"), c.wait(), child::State::Finished);
    expect(f!("{name}: mappings"), c.word(2).load(SeqCst).min(times), times);
    let marks = || ENTRIES.map(|i| table.read(i as usize) & u64::from(GTF_READING | GTF_WRITING));
    check(f!("{name}: the entries are in use"), marks().all(|m| m != 0));
    expect(f!("{name}: destroy"), c.destroy(), OK);
    check(f!("{name}: the entries are free again"), marks().all(|m| m == 0));
}

fn run() {
    let table = grant_table();
    let page = Page::alloc();
    one("a few", table, page, BATCH as u64 * 2);
    child::nap(100_000);
    let before = child::free_pages();
    one("many", table, page, MANY);
    // The list of what took 125 pages may itself have made the hypervisor's heap grow, by four pages at a time.
    check("all memory is back, but for a few pages", child::all_back(before - 8));
    guests::console::line(f!("{before} pages before, {} now", child::free_pages()));
    alive();
}
