//! Setting up the frame table, the M2P and the allocator from the machine's memory map.

use super::frame::{self, Class};
use super::{alloc, device, l1tf};
use arrayvec::ArrayVec;
use pv_abi::ids::{DomId, Mfn};

/// Frames one chunk of the frame table describes: 2 MiB of table.
const CHUNK: u64 = (2 << 20) / 32;

/// A range of machine memory, bytes, and whether it is RAM.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
    /// E820 type (1 = RAM).
    pub kind: u32,
}

static MAP: spin::Once<ArrayVec<Range, 128>> = spin::Once::new();

/// The machine's memory map.
pub fn memory_map() -> &'static [Range] {
    MAP.get().map_or(&[], |m| m)
}

/// Whether `mfn` is neither RAM nor firmware tables: device registers, mapped uncached.
pub(super) fn is_device(mfn: Mfn) -> bool {
    let a = mfn.0 << 12;
    !memory_map().iter().any(|r| a >= r.start && a < r.end && r.kind != 2)
}

/// Sets everything up. `map` is the E820 map; `free` the ranges nobody uses; everything else in RAM is the
/// hypervisor's. Boot CPU, once.
#[cfg(target_os = "none")]
pub fn init(map: &[Range], free: &[(u64, u64)]) {
    use crate::arch::early;
    use crate::arch::layout::{FRAME_TABLE, M2P_RO, M2P_RW};
    use crate::arch::paging::{self, flag};
    let mut stored = ArrayVec::new();
    for r in map {
        let _ = stored.try_push(*r);
    }
    MAP.call_once(|| stored);
    let ram_end = map.iter().filter(|r| r.kind == 1).map(|r| r.end).max().unwrap_or(0);
    let frames = ram_end >> 12;
    // What stands for chunks without RAM.
    let mut nothing = None;
    for chunk in 0..frames.div_ceil(CHUNK) {
        let (start, end) = ((chunk * CHUNK) << 12, ((chunk + 1) * CHUNK) << 12);
        if !map.iter().any(|r| r.kind == 1 && r.start < end && r.end > start) {
            let zeroes = nothing.get_or_insert_with(|| early::aligned_2m(2 << 20)).0;
            // SAFETY: zero-filled memory nobody writes, into the window that is only for this table: frames of class
            // None, without references, which is what no RAM is.
            unsafe {
                paging::map(FRAME_TABLE + chunk * (2 << 20), zeroes, 2 << 20, flag::RODATA, || Some(early::page()))
                    .ok();
            }
            continue;
        }
        let table = early::aligned_2m(2 << 20);
        let m2p = early::pages(CHUNK * 8 / 4096);
        // SAFETY: fresh memory into windows that are only for these tables. An M2P of all ones means "nobody's".
        unsafe {
            paging::map(FRAME_TABLE + chunk * (2 << 20), table.0, 2 << 20, flag::DATA, || Some(early::page())).ok();
            core::ptr::write_bytes(paging::direct(m2p) as *mut u8, 0xff, (CHUNK * 8) as usize);
            paging::map(M2P_RW + chunk * CHUNK * 8, m2p.0, CHUNK * 8, flag::DATA, || Some(early::page())).ok();
            let ro = flag::P | flag::US | flag::A | flag::NX;
            paging::map(M2P_RO + chunk * CHUNK * 8, m2p.0, CHUNK * 8, ro, || Some(early::page())).ok();
        }
    }
    // SAFETY: all of it was mapped above, zero-filled by the early allocator.
    unsafe { frame::install(FRAME_TABLE as *mut frame::Frame, frames) };
    device::set_ram_end(Mfn(ram_end >> 12));
    let policy = crate::arch::spec::policy();
    l1tf::init(policy.l1tf_dom0, policy.l1tf_domu, ram_end, crate::arch::cpu::phys_bits());
    for r in map.iter().filter(|r| r.kind == 1) {
        // RAM is the hypervisor's until the allocator gets it; the low megabyte stays open to dom0 as device memory.
        for mfn in (r.start.max(1 << 20).div_ceil(4096))..r.end / 4096 {
            if let Some(f) = frame::get(Mfn(mfn)) {
                f.set_identity(Class::Hypervisor, DomId(0), 0);
            }
        }
    }
    for &(start, end) in free {
        alloc::add_range(Mfn(start.div_ceil(4096)), Mfn(end / 4096));
    }
    let (start, end) = early::finish();
    alloc::add_range(Mfn(start.div_ceil(4096)), Mfn(end / 4096));
}
