//! L1 terminal fault: an entry that is not present ends a walk, and yet the CPU may go on by speculation with what the L1
//! data cache holds at the address in it (Intel, "L1 Terminal Fault", CVE-2018-3620). Whoever writes such an entry reads
//! any memory that is in the cache. So on such CPUs a guest's table may hold none that names RAM (`pv-l1tf=`).
//!
//! Linux makes none: swap entries and those without access have their address bits inverted, which names memory far
//! behind all RAM.

use super::page_type::Owner;
use super::pte::{Pte, bit};
use crate::atomic::{AtomicU64, Ordering};
use pv_abi::errno::Errno;

/// Address bits that the L1 compares at least, whatever CPUID says of physical addresses (client CPUs from Nehalem on).
const L1_BITS: u32 = 44;

/// Which entries are refused: those whose address is below [`Limit::end`]. 0 = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    end: u64,
    /// Address bits that count.
    mask: u64,
}

impl Limit {
    const fn new(ram_end: u64, phys_bits: u32) -> Limit {
        let bits = if phys_bits > L1_BITS { phys_bits } else { L1_BITS };
        Limit { end: ram_end, mask: bit::ADDR & ((1 << bits) - 1) }
    }

    /// Whether a CPU may read somebody's RAM through `pte`, which is not present. Frame 0 is nobody's, so an entry without
    /// an address (cleared, or with the accessed and dirty bits of the one before) never does.
    const fn leaks(self, pte: Pte) -> bool {
        let address = pte.0 & self.mask;
        address != 0 && address < self.end
    }
}

/// For dom0 and for all others: `end`, or 0 where nothing is refused.
static END: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static MASK: AtomicU64 = AtomicU64::new(0);

/// Sets what is refused. Boot CPU, before any domain exists.
pub fn init(dom0: bool, domu: bool, ram_end: u64, phys_bits: u32) {
    let limit = Limit::new(ram_end, phys_bits);
    MASK.store(limit.mask, Ordering::Relaxed);
    for (end, on) in END.iter().zip([dom0, domu]) {
        end.store(if on { limit.end } else { 0 }, Ordering::Relaxed);
    }
}

fn limit(owner: Owner) -> Limit {
    let [dom0, domu] = &END;
    let end = if owner.hardware { dom0 } else { domu };
    Limit { end: end.load(Ordering::Relaxed), mask: MASK.load(Ordering::Relaxed) }
}

/// Bits of which an entry has at least one if it has to be looked at.
#[inline(always)]
pub(super) fn telling_bits(owner: Owner) -> u64 {
    if limit(owner).end == 0 { bit::P } else { bit::P | bit::ADDR }
}

/// Refuses an entry, which is not present, through which `owner` could read.
///
/// # Errors
/// `EINVAL`.
#[inline(always)]
pub(super) fn check(pte: Pte, owner: Owner) -> Result<(), Errno> {
    if pte.0 & bit::ADDR == 0 { Ok(()) } else { check_filled(pte, owner) }
}

#[cold]
fn check_filled(pte: Pte, owner: Owner) -> Result<(), Errno> {
    if limit(owner).leaks(pte) { Err(Errno::EINVAL) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_names_ram_leaks() {
        let l = Limit::new(4 * GIB, 39);
        for (entry, leaks) in [
            (0, false),
            (0x1000, true),
            (1 << 9, false),
            (1 << 63, false),
            (4 * GIB - 0x1000, true),
            (4 * GIB, false),
            // Bits that the L1 does not compare do not help.
            (1 << 44 | 0x1000, true),
            (1 << 51 | 0x1000, true),
            (1 << 43 | 0x1000, false),
            // To the L1 that is frame 0.
            (1 << 44, false),
        ] {
            assert_eq!(l.leaks(Pte(entry)), leaks, "{entry:#x}");
        }
        assert!(!Limit::new(4 * GIB, 46).leaks(Pte(1 << 45)));
        assert!(Limit::new(4 * GIB, 46).leaks(Pte(1 << 46 | 0x1000)));
        assert!(!Limit { end: 0, ..l }.leaks(Pte(0x1000)), "switched off");
    }

    #[test]
    fn what_linux_writes_does_not() {
        // 16 TiB is as far as 44 bits reach: half of it may be RAM.
        let l = Limit::new(8 << 40, 36);
        for pfn in [0u64, 1, 0x1234, (4 << 40) >> 12] {
            // No access: the address is inverted, PROT_NONE is bit 8.
            assert!(!l.leaks(Pte(!(pfn << 12) & bit::ADDR | 1 << 8)), "page {pfn:#x}");
        }
        for offset in [0u64, 1, 1 << 20, 1 << 27] {
            // A swap entry: the type in bits 59 to 63, the inverted offset in 14 to 58.
            assert!(!l.leaks(Pte((!offset << 19 >> 5) | 3 << 59)), "slot {offset:#x}");
        }
    }
}
