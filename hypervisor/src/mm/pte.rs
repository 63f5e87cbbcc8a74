//! Page-table entries: what a guest may write, and what the hypervisor makes of it.
//!
//! The rewrites are part of the ABI, for guests read their tables back (measured on Xen 4.17): an L1 entry without US
//! gets US and the mark bit 52 ("was a kernel page"); one with US gets G; one that carries the mark keeps it. L2 and L3
//! entries get US.

use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

/// Entry bits (SDM vol. 3 §4.5).
#[allow(missing_docs)]
pub mod bit {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PSE: u64 = 1 << 7;
    pub const PAT: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    /// "The guest's kernel page": the guest did not ask for US.
    pub const KERNEL: u64 = 1 << 52;
    pub const NX: u64 = 1 << 63;
    pub const ADDR: u64 = 0x000f_ffff_ffff_f000;
}

/// One entry of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pte(pub u64);

impl Pte {
    /// Whether the CPU would use it.
    #[inline(always)]
    pub const fn present(self) -> bool {
        self.0 & bit::P != 0
    }
    /// Whether it lets writes through.
    #[inline(always)]
    pub const fn writable(self) -> bool {
        self.0 & bit::RW != 0
    }
    /// The frame it names.
    #[inline(always)]
    pub const fn mfn(self) -> Mfn {
        Mfn((self.0 & bit::ADDR) >> 12)
    }
    /// The cache attributes an L1 entry selects.
    pub const fn cache_bits(self) -> u64 {
        self.0 & (bit::PWT | bit::PCD | bit::PAT)
    }

    /// An L1 entry as it is stored.
    #[inline(always)]
    pub const fn adjust_l1(self) -> Pte {
        if !self.present() {
            return self;
        }
        if self.0 & bit::US == 0 {
            return Pte(self.0 | bit::US | bit::KERNEL);
        }
        if self.0 & bit::KERNEL != 0 { self } else { Pte(self.0 | bit::G) }
    }

    /// An L2, L3 or L4 entry as it is stored.
    #[inline(always)]
    pub const fn adjust_upper(self) -> Pte {
        if self.present() { Pte(self.0 | bit::US) } else { self }
    }

    /// Refuses the bits an upper entry may not have.
    pub const fn check_upper(self) -> Result<(), Errno> {
        if self.present() && self.0 & (bit::PSE | bit::G | bit::PWT | bit::PCD) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_of_l1_are_the_measured_ones() {
        let kernel = Pte(bit::P | bit::RW).adjust_l1();
        assert_eq!(kernel.0, bit::P | bit::RW | bit::US | bit::KERNEL);
        assert_eq!(kernel.adjust_l1(), kernel, "what was read back may be written again");
        assert_eq!(Pte(bit::P | bit::US).adjust_l1().0, bit::P | bit::US | bit::G);
        assert_eq!(Pte(bit::P | bit::US | bit::KERNEL).adjust_l1().0, bit::P | bit::US | bit::KERNEL);
        assert_eq!(Pte(bit::P | bit::G).adjust_l1().0, bit::P | bit::G | bit::US | bit::KERNEL, "a guest's G stays");
        assert_eq!(Pte(0xdead_0000).adjust_l1().0, 0xdead_0000, "a non-present entry is the guest's own");
    }

    #[test]
    fn upper_entries_refuse_large_pages_and_cache_bits() {
        for bad in [bit::PSE, bit::G, bit::PWT, bit::PCD] {
            assert_eq!(Pte(bit::P | bad).check_upper(), Err(Errno::EINVAL));
            assert_eq!(Pte(bad).check_upper(), Ok(()));
        }
        assert_eq!(Pte(bit::P | bit::RW | bit::US | bit::NX | 0xe00 | 1 << 55).check_upper(), Ok(()));
    }
}
