//! Page tables: reading one's own, and asking for changes.
use crate::hypercall::call;
use crate::mem::{self, Page};
use crate::ret::Ret;
use crate::start::start_info;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::hypercall::nr;
use pv_abi::ids::PAGE_SIZE;
use pv_abi::mmu::{self, MmuUpdate, MmuextOp};

/// Present.
pub const P: u64 = 1;
/// Writable.
pub const RW: u64 = 2;
/// For user mode too.
pub const US: u64 = 4;
/// Accessed.
pub const A: u64 = 0x20;
/// Dirty.
pub const D: u64 = 0x40;
/// Large page (PAT in an L1 entry).
pub const PSE: u64 = 0x80;
/// Global.
pub const G: u64 = 0x100;
/// No instruction fetch.
pub const NX: u64 = 1 << 63;
/// The frame's bits.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// What an ordinary kernel mapping carries.
pub const KERNEL_RW: u64 = P | RW | A | D;
/// The same, read-only.
pub const KERNEL_RO: u64 = P | A | D;
/// A page-table entry above L1.
pub const TABLE: u64 = P | RW | US | A | D;
/// "This domain".
pub const DOMID_SELF: u64 = 0x7ff0;

/// The L4 in use if it is not the start of day's, as a virtual address; 0 = start of day's.
pub static CURRENT_L4: AtomicU64 = AtomicU64::new(0);

/// An entry without its frame: what a transcript may show.
pub fn flags_of(entry: u64) -> crate::report::Hex {
    crate::report::Hex(entry & !FRAME)
}

/// The kernel's L4.
pub fn l4() -> Page {
    match CURRENT_L4.load(Ordering::Relaxed) {
        0 => Page::at(start_info().pt_base),
        va => Page::at(va),
    }
}

/// Index of `va` in its table of `level` (4 to 1).
pub fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1))) as usize & 511
}

/// The table of `level` that translates `va`, if there is one.
pub fn table(va: u64, level: u32) -> Option<Page> {
    let mut t = l4();
    for l in (level + 1..=4).rev() {
        let e = t.read(index(va, l));
        if e & P == 0 || e & PSE != 0 {
            return None;
        }
        t = mem::page_of_mfn((e & FRAME) / PAGE_SIZE);
    }
    Some(t)
}

/// The entry of `level` for `va`; 0 where no table is.
pub fn entry(va: u64, level: u32) -> u64 {
    table(va, level).map_or(0, |t| t.read(index(va, level)))
}

/// The L1 entry of `va`.
pub fn pte(va: u64) -> u64 {
    entry(va, 1)
}

/// Machine address of the entry of `level` for `va`, as mmu_update wants it.
pub fn slot(va: u64, level: u32) -> u64 {
    match table(va, level) {
        Some(t) => t.ma() + 8 * index(va, level) as u64,
        None => crate::report::error(format_args!("no L{level} for a test address")),
    }
}

/// Virtual address of the same entry.
pub fn slot_va(va: u64, level: u32) -> u64 {
    match table(va, level) {
        Some(t) => t.va + 8 * index(va, level) as u64,
        None => crate::report::error(format_args!("no L{level} for a test address")),
    }
}

/// update_va_mapping with a flush of that address.
pub fn update_va(va: u64, entry: u64) -> Ret {
    call(nr::UPDATE_VA_MAPPING, &[va, entry, mmu::UVMF_INVLPG])
}

/// One mmu_update: `ptr` carries the command in its low bits.
pub fn mmu_update(ptr: u64, val: u64) -> Ret {
    mmu_updates(&[MmuUpdate { ptr, val }]).0
}

/// A batch; also gives the done count (`u32::MAX` if it was not written).
pub fn mmu_updates(list: &[MmuUpdate]) -> (Ret, u32) {
    let mut done = u32::MAX;
    let r = call(
        nr::MMU_UPDATE,
        &[list.as_ptr() as u64, list.len() as u64, core::ptr::from_mut(&mut done) as u64, DOMID_SELF],
    );
    (r, done)
}

/// One mmuext_op.
pub fn mmuext(cmd: u32, arg1: u64, arg2: u64) -> Ret {
    let op = MmuextOp { cmd, pad: 0, arg1, arg2 };
    call(nr::MMUEXT_OP, &[core::ptr::from_ref(&op) as u64, 1, 0, DOMID_SELF])
}

/// Pins `page` as a table of `level`.
pub fn pin(page: Page, level: u32) -> Ret {
    mmuext(mmu::EXT_PIN_L1_TABLE + level - 1, page.mfn(), 0)
}

/// Unpins it.
pub fn unpin(page: Page) -> Ret {
    mmuext(mmu::EXT_UNPIN_TABLE, page.mfn(), 0)
}

/// Takes away the page's writable mapping.
pub fn make_ro(page: Page) -> Ret {
    update_va(page.va, page.ma() | KERNEL_RO)
}

/// Gives it back.
pub fn make_rw(page: Page) -> Ret {
    update_va(page.va, page.ma() | KERNEL_RW)
}

/// A read-only empty page, ready to become a table.
pub fn new_table() -> Page {
    let t = Page::alloc();
    make_ro(t).must("make a table read-only");
    t
}

/// Sets the L1 entry of any address below the start of the hypervisor's part, building tables as needed.
pub fn map(va: u64, l1e: u64) {
    for level in (2..=4).rev() {
        if entry(va, level) & P == 0 {
            let t = new_table();
            mmu_update(slot(va, level), t.ma() | TABLE).must("hook in a table");
        }
    }
    update_va(va, l1e).must("map a page");
}
