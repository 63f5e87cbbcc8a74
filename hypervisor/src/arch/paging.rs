//! The hypervisor's own page tables.
//!
//! There is one *root* L4. Its slots 256 to 271 (except the domain window, 258) all have an L3 from the start, so the
//! sixteen entries can be copied into every L4 of every guest and never go stale: later mappings change lower tables.

use super::early;
use super::layout::{self, DIRECT_MAP};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{MachineAddr, Mfn};

/// Bits of a page-table entry (SDM vol. 3 §4.5).
#[allow(missing_docs)]
pub mod flag {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PSE: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const NX: u64 = 1 << 63;
    pub const ADDR: u64 = 0x000f_ffff_ffff_f000;
    /// Read-write data of the hypervisor.
    pub const DATA: u64 = P | RW | A | D | G | NX;
    /// Read-only data of the hypervisor.
    pub const RODATA: u64 = P | A | G | NX;
    /// Code of the hypervisor.
    pub const CODE: u64 = P | A | G;
    /// Device registers.
    pub const DEVICE: u64 = P | RW | A | D | G | NX | PCD | PWT;
}

static ROOT: AtomicU64 = AtomicU64::new(0);

/// The direct map's address of a machine address.
#[inline(always)]
pub fn direct(addr: MachineAddr) -> u64 {
    DIRECT_MAP.wrapping_add(addr.0)
}

/// The root L4.
pub fn root() -> Mfn {
    Mfn::containing(MachineAddr(ROOT.load(Ordering::Relaxed)))
}

/// Loads the root L4: what a CPU uses while no guest's tables are loaded.
pub fn load_root() {
    let root = ROOT.load(Ordering::Relaxed);
    // SAFETY: the root table maps the whole hypervisor.
    unsafe { super::cr::write_cr3(root) };
    super::xpti::loaded(super::percpu::this_cpu(), root, false);
}

/// A page table of 512 entries at a machine address, through the direct map.
fn table(pa: u64) -> *mut [u64; 512] {
    direct(MachineAddr(pa)) as *mut [u64; 512]
}

/// Hypervisor entry `slot` (256 to 271) of the root L4.
pub fn root_entry(slot: usize) -> u64 {
    debug_assert!(slot < 512);
    // SAFETY: the root table is never freed; slots 256 to 271 do not change after boot.
    unsafe { (*table(ROOT.load(Ordering::Relaxed)))[slot & 511] }
}

/// Builds the root L4 with an empty L3 for every hypervisor slot but the domain window. Boot CPU only, once.
pub fn init_root() {
    let root = early::page();
    ROOT.store(root.0, Ordering::Relaxed);
    for slot in layout::FIRST_SLOT..=layout::LAST_SLOT {
        if slot == slot_of(layout::DOMAIN_WINDOW) {
            continue;
        }
        let l3 = early::page();
        let us = if slot == slot_of(layout::M2P_RO) { flag::US } else { 0 };
        // SAFETY: a fresh table nobody else sees yet.
        unsafe { (*table(root.0))[slot] = l3.0 | flag::P | flag::RW | flag::A | us };
    }
}

/// L4 slot of an address.
pub const fn slot_of(va: u64) -> usize {
    (va >> 39) as usize & 511
}

/// The table has no room for a lower table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable;

/// Maps `[va, va + len)` to `[pa, pa + len)` in the hypervisor's slots, in the largest pages that fit. `alloc` gives
/// zeroed pages for lower tables. Existing mappings are replaced; the caller flushes if there were any.
///
/// # Safety
/// The new mapping breaks no rule of the hypervisor: `va` is its to use, nothing mapped writable is meant to be
/// read-only elsewhere, and two CPUs do not map in the same 2 MiB at once.
///
/// # Errors
/// [`NoTable`] when `alloc` gives none; what was mapped stays mapped.
pub unsafe fn map(
    va: u64,
    pa: u64,
    len: u64,
    flags: u64,
    alloc: impl FnMut() -> Option<MachineAddr>,
) -> Result<(), NoTable> {
    // SAFETY: the caller's.
    unsafe { map_in(ROOT.load(Ordering::Relaxed), va, pa, len, flags, alloc) }
}

/// As [`map`], in the tree of the L4 at `root`.
///
/// # Safety
/// As [`map`]; `root` is an L4 of the hypervisor's own.
///
/// # Errors
/// As [`map`].
pub unsafe fn map_in(
    root: u64,
    mut va: u64,
    mut pa: u64,
    len: u64,
    flags: u64,
    mut alloc: impl FnMut() -> Option<MachineAddr>,
) -> Result<(), NoTable> {
    let end = va + len;
    // Lower entries decide; upper ones only need to let user accesses through where the leaf does.
    let upper = flag::P | flag::RW | flag::A | (flags & flag::US);
    while va < end {
        let mut t = root;
        let mut level = 4;
        loop {
            let shift = 12 + 9 * (level - 1);
            let index = (va >> shift) as usize & 511;
            let size = 1u64 << shift;
            let fits = level == 1
                || (level <= max_leaf() && va.is_multiple_of(size) && pa.is_multiple_of(size) && end - va >= size);
            // SAFETY: `t` is a live table of the root's tree, reached through present entries.
            let entry = unsafe { &mut (*table(t))[index] };
            if fits {
                *entry = pa | flags | if level > 1 { flag::PSE } else { 0 };
                va += size;
                pa += size;
                break;
            }
            if *entry & flag::P == 0 {
                let new = alloc().ok_or(NoTable)?;
                *entry = new.0 | upper;
            } else if *entry & flag::PSE != 0 && level > 1 {
                // Split a large page.
                let new = alloc().ok_or(NoTable)?;
                let sub = size >> 9;
                let keep = if level == 2 { *entry & !flag::PSE } else { *entry };
                // SAFETY: a fresh table nobody else sees yet.
                let entries = unsafe { &mut *table(new.0) };
                for (i, e) in entries.iter_mut().enumerate() {
                    *e = keep + i as u64 * sub;
                }
                *entry = new.0 | upper;
            }
            t = *entry & flag::ADDR;
            level -= 1;
        }
    }
    Ok(())
}

/// The entry that maps `va` in the root's tree and the size of its page.
pub fn lookup(va: u64) -> Option<(u64, u64)> {
    let mut t = ROOT.load(Ordering::Relaxed);
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        // SAFETY: as in `map`.
        let e = unsafe { (*table(t))[(va >> shift) as usize & 511] };
        if e & flag::P == 0 {
            return None;
        }
        if level == 1 || e & flag::PSE != 0 {
            return Some((e, 1 << shift));
        }
        t = e & flag::ADDR;
    }
    None
}

/// Takes everything below slot `slot` of the root's lower half away again.
///
/// # Safety
/// Nobody uses those addresses, and no other CPU runs on the root table.
pub unsafe fn clear_root_slot(slot: usize) {
    assert!(slot < layout::FIRST_SLOT);
    // SAFETY: the caller's; the root table is never freed.
    unsafe { (*table(ROOT.load(Ordering::Relaxed)))[slot] = 0 };
    load_root();
}

/// What [`audit`] found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights {
    /// Pages (of any size) mapped.
    pub mapped: u64,
    /// 4 KiB pages that can be executed.
    pub executable: u64,
}

/// Walks the root's whole tree: no page may be both writable and executable, no executable frame may be writable through
/// the direct map, and ring 3 may reach the M2P only.
///
/// # Panics
/// Where one of that does not hold: the hypervisor has mapped something wrongly.
pub fn audit() -> Rights {
    let mut sums = Rights::default();
    audit_table(ROOT.load(Ordering::Relaxed), 4, 0, &mut sums);
    sums
}

fn audit_table(t: u64, level: u32, base: u64, sums: &mut Rights) {
    for i in 0..512u64 {
        // SAFETY: a live table of the root's tree; entries are read whole.
        let e = unsafe { (*table(t))[i as usize] };
        if e & flag::P == 0 {
            continue;
        }
        let shift = 12 + 9 * (level - 1);
        // Sign-extended from bit 47.
        let va = (((base | i << shift) << 16) as i64 >> 16) as u64;
        if level > 1 && e & flag::PSE == 0 {
            audit_table(e & flag::ADDR, level - 1, base | i << shift, sums);
            continue;
        }
        sums.mapped += 1;
        assert!(e & flag::US == 0 || slot_of(va) == slot_of(layout::M2P_RO), "{va:#x} is open to ring 3");
        if e & flag::NX != 0 {
            continue;
        }
        assert!(e & flag::RW == 0, "{va:#x} is writable and executable");
        for page in 0..(1u64 << shift) / 4096 {
            sums.executable += 1;
            let alias = direct(MachineAddr((e & flag::ADDR) + page * 4096));
            let writable = lookup(alias).is_some_and(|(d, _)| d & flag::RW != 0);
            assert!(!writable, "the code at {:#x} is writable at {alias:#x}", va + page * 4096);
        }
    }
}

/// Highest level at which leaves may be mapped: 3 where the CPU has 1 GiB pages.
fn max_leaf() -> u32 {
    if super::cpu::has_1g_pages() { 3 } else { 2 }
}

/// Takes the mapping of one 4 KiB page away. The caller flushes.
///
/// # Safety
/// Nobody uses the page through `va` any more.
pub unsafe fn unmap_page(va: u64) {
    let mut t = ROOT.load(Ordering::Relaxed);
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        // SAFETY: as in `map`.
        let e = unsafe { &mut (*table(t))[(va >> shift) as usize & 511] };
        if *e & flag::P == 0 || (level > 1 && *e & flag::PSE != 0) {
            return;
        }
        if level == 1 {
            *e = 0;
            return;
        }
        t = *e & flag::ADDR;
    }
}
