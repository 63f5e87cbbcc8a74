//! From the loader's memory map to the hypervisor's page tables.
//!
//! [`Plan`] says what is RAM, what of it is free, and which range feeds early allocation; [`Plan::build_root`] makes the
//! tables that stay: the image with each section's rights (no page is both writable and executable), and the direct map
//! of all RAM, in which the image's code and constants are read-only, too. Nothing stays mapped below the hypervisor.

use arrayvec::ArrayVec;
use boot::multiboot::{BootInfo, RangeKind};
use pv_abi::ids::PAGE_SIZE;

/// Ranges kept: what the loader may give, and a few cuts.
pub const MAX_RANGES: usize = boot::multiboot::MAX_RANGES + 16;

/// Bytes from the first to the one behind the last.
pub type Span = (u64, u64);

/// The machine's memory at boot.
pub struct Plan {
    /// Usable RAM: sorted, disjoint, whole pages, without what the firmware reserves.
    pub ram: ArrayVec<Span, MAX_RANGES>,
    /// The part of it that nobody uses: without the low megabyte, the image and the modules.
    pub free: ArrayVec<Span, MAX_RANGES>,
}

/// Why a memory map cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMap {
    /// More pieces than [`MAX_RANGES`].
    TooManyPieces,
    /// Nothing free below 4 GiB.
    NothingLow,
}

impl core::fmt::Display for BadMap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            BadMap::TooManyPieces => "the firmware's memory map has too many pieces",
            BadMap::NothingLow => "no free memory below 4 GiB",
        })
    }
}

impl Plan {
    /// Reads the loader's map. `image` is the hypervisor's own physical memory.
    ///
    /// # Errors
    /// [`BadMap::TooManyPieces`].
    pub fn new(info: &BootInfo, image: Span) -> Result<Plan, BadMap> {
        let mut ram = ArrayVec::new();
        for r in info.ranges.iter().filter(|r| r.kind == RangeKind::Ram) {
            let span = (r.base.next_multiple_of(PAGE_SIZE), r.end() & !(PAGE_SIZE - 1));
            if span.0 < span.1 {
                insert(&mut ram, span)?;
            }
        }
        // Where the firmware contradicts itself, RAM loses.
        for r in info.ranges.iter().filter(|r| r.kind != RangeKind::Ram) {
            cut(&mut ram, outward((r.base, r.end())))?;
        }
        let mut free = ram.clone();
        cut(&mut free, (0, 1 << 20))?;
        cut(&mut free, outward(image))?;
        for m in &info.modules {
            cut(&mut free, outward((m.start, m.end)))?;
        }
        Ok(Plan { ram, free })
    }

    /// Takes the largest free range that ends at or below `limit` (cut there if it goes on) out of `free`.
    ///
    /// # Errors
    /// [`BadMap::NothingLow`] if there is none.
    pub fn take_largest(&mut self, limit: u64) -> Result<Span, BadMap> {
        let clipped = |s: &Span| (s.0, s.1.min(limit));
        let best = self.free.iter().map(clipped).filter(|s| s.0 < s.1).max_by_key(|s| s.1 - s.0);
        let span = best.ok_or(BadMap::NothingLow)?;
        cut(&mut self.free, span)?;
        Ok(span)
    }

    /// Gives a range back that [`take_largest`](Self::take_largest) took, or what is left of it.
    pub fn give(&mut self, span: Span) {
        // There is room: taking it made some, or at worst it is lost.
        if span.0 < span.1 && insert(&mut self.free, span).is_err() {
            log::warn!("{} KiB of memory lost: the memory map has too many pieces", (span.1 - span.0) >> 10);
        }
    }

    /// A page of RAM that real-mode code can run in: the lowest one from 32 KiB on (below are the firmware's data).
    pub fn real_mode_page(&self) -> Option<u64> {
        self.ram.iter().map(|s| (s.0.max(0x8000), s.1.min(0xa_0000))).find(|s| s.0 < s.1).map(|s| s.0)
    }

    /// Bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.ram.iter().map(|s| s.1 - s.0).sum()
    }
}

fn outward(s: Span) -> Span {
    (s.0 & !(PAGE_SIZE - 1), s.1.checked_next_multiple_of(PAGE_SIZE).unwrap_or(!(PAGE_SIZE - 1)))
}

/// Adds a span to a sorted list, joining what overlaps or touches.
fn insert(list: &mut ArrayVec<Span, MAX_RANGES>, mut span: Span) -> Result<(), BadMap> {
    list.retain(|s| {
        let joins = s.0 <= span.1 && span.0 <= s.1;
        if joins {
            span = (span.0.min(s.0), span.1.max(s.1));
        }
        !joins
    });
    let at = list.iter().take_while(|s| s.0 < span.0).count();
    list.try_insert(at, span).map_err(|_| BadMap::TooManyPieces)
}

/// Removes a span from a sorted list.
fn cut(list: &mut ArrayVec<Span, MAX_RANGES>, hole: Span) -> Result<(), BadMap> {
    let mut out = ArrayVec::new();
    for s in list.iter() {
        for piece in [(s.0, s.1.min(hole.0)), (s.0.max(hole.1), s.1)] {
            if piece.0 < piece.1 && (hole.0 < hole.1) {
                out.try_push(piece).map_err(|_| BadMap::TooManyPieces)?;
            }
        }
        if hole.0 >= hole.1 {
            out.try_push(*s).map_err(|_| BadMap::TooManyPieces)?;
        }
    }
    *list = out;
    Ok(())
}

#[cfg(target_os = "none")]
mod root {
    use super::{Plan, Span};
    use crate::arch::layout::{DIRECT_MAP, IMAGE};
    use crate::arch::paging::{self, flag};
    use crate::arch::{cpu, early};

    unsafe extern "C" {
        static image_start: u8;
        static text_end: u8;
        static rodata_end: u8;
        static image_end: u8;
    }

    /// The image's physical memory.
    pub fn image() -> Span {
        ((&raw const image_start) as u64 - IMAGE, (&raw const image_end) as u64 - IMAGE)
    }

    impl Plan {
        /// Builds the root tables from early memory and loads them.
        pub fn build_root(&self) {
            paging::init_root();
            let alloc = || Some(early::page());
            let text = (&raw const image_start) as u64..(&raw const text_end) as u64;
            let rodata = text.end..(&raw const rodata_end) as u64;
            let data = rodata.end..(&raw const image_end) as u64;
            // SAFETY: nothing is mapped in the root yet; the windows are the ones of the layout. `alloc` never fails
            // (it ends the boot instead), so neither does the mapping.
            unsafe {
                for s in &self.ram {
                    let _ = paging::map(DIRECT_MAP + s.0, s.0, s.1 - s.0, flag::DATA, alloc);
                }
                for (part, flags) in [(&text, flag::CODE), (&rodata, flag::RODATA), (&data, flag::DATA)] {
                    let _ = paging::map(part.start, part.start - IMAGE, part.end - part.start, flags, alloc);
                }
                let (phys, fixed) = (image().0, rodata.end - text.start);
                let _ = paging::map(DIRECT_MAP + phys, phys, fixed, flag::RODATA, alloc);
            }
            cpu::init_control_registers();
            paging::load_root();
        }
    }
}
#[cfg(target_os = "none")]
pub use root::image;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(spans: &[Span]) -> ArrayVec<Span, MAX_RANGES> {
        let mut l = ArrayVec::new();
        for s in spans {
            insert(&mut l, *s).unwrap();
        }
        l
    }

    #[test]
    fn insert_sorts_and_joins() {
        assert_eq!(list(&[(8, 9), (0, 2), (4, 6)])[..], [(0, 2), (4, 6), (8, 9)]);
        assert_eq!(list(&[(0, 2), (4, 6), (2, 4)])[..], [(0, 6)]);
        assert_eq!(list(&[(5, 9), (0, 6)])[..], [(0, 9)]);
    }

    #[test]
    fn cut_splits_shortens_and_removes() {
        for (hole, left) in [
            ((3, 5), &[(0, 3), (5, 10), (20, 30)][..]),
            ((0, 4), &[(4, 10), (20, 30)]),
            ((8, 22), &[(0, 8), (22, 30)]),
            ((0, 10), &[(20, 30)]),
            ((12, 15), &[(0, 10), (20, 30)]),
            ((7, 7), &[(0, 10), (20, 30)]),
        ] {
            let mut l = list(&[(0, 10), (20, 30)]);
            cut(&mut l, hole).unwrap();
            assert_eq!(&l[..], left, "hole {hole:?}");
        }
    }

    #[test]
    fn what_is_used_is_not_free() {
        use boot::multiboot::{MemoryRange, Module};
        let mut info = BootInfo::new();
        let mut range = |base, len, kind| info.ranges.push(MemoryRange { base, len, kind });
        range(0, 0x9fc00, RangeKind::Ram);
        range(0x9fc00, 0x400, RangeKind::Reserved);
        range(0x100000, 0x7fe0_0000 - 0x100000, RangeKind::Ram);
        range(0x7000_0800, 0x1000, RangeKind::AcpiNvs);
        range(0x1_0000_0000, 0x4000_0000, RangeKind::Ram);
        info.modules.push(Module { start: 0x100_0000, end: 0x123_4567, cmdline: Default::default() });
        let mut plan = Plan::new(&info, (0x20_0000, 0x40_0000)).unwrap();
        assert_eq!(
            plan.ram[..],
            [(0, 0x9f000), (0x100000, 0x7000_0000), (0x7000_2000, 0x7fe0_0000), (0x1_0000_0000, 0x1_4000_0000)]
        );
        assert_eq!(plan.real_mode_page(), Some(0x8000));
        assert_eq!(plan.free[..3], [(0x100000, 0x20_0000), (0x40_0000, 0x100_0000), (0x123_5000, 0x7000_0000)]);
        assert_eq!(plan.take_largest(1 << 32).unwrap(), (0x123_5000, 0x7000_0000));
        assert_eq!(plan.take_largest(u64::MAX).unwrap(), (0x1_0000_0000, 0x1_4000_0000));
        plan.give((0x1_0000_0000, 0x1_0000_0000));
        plan.give((0x1_1000_0000, 0x1_4000_0000));
        assert_eq!(plan.take_largest(u64::MAX).unwrap(), (0x1_1000_0000, 0x1_4000_0000));
        assert_eq!(plan.take_largest(0x10_0000), Err(BadMap::NothingLow));
    }
}
