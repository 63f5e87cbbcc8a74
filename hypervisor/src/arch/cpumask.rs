//! Sets of CPUs.

use super::layout::MAX_CPUS;
use super::percpu::CpuId;
use crate::atomic::{AtomicU64, Ordering};

const _: () = assert!(MAX_CPUS == 64, "a CpuMask is one word");

/// A set of CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuMask(u64);

impl CpuMask {
    /// No CPU.
    pub const EMPTY: CpuMask = CpuMask(0);
    /// Every CPU there could be.
    pub const ALL: CpuMask = CpuMask(u64::MAX);

    /// From a bitmap, CPU 0 in bit 0.
    pub const fn from_bits(bits: u64) -> Self {
        CpuMask(bits)
    }
    /// As a bitmap.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Just `cpu`.
    pub const fn only(cpu: CpuId) -> Self {
        CpuMask(1 << (cpu.0 & 63))
    }
    /// Whether `cpu` is in it.
    pub const fn contains(self, cpu: CpuId) -> bool {
        cpu.0 < 64 && self.0 >> cpu.0 & 1 != 0
    }
    /// With `cpu`.
    pub const fn with(self, cpu: CpuId) -> Self {
        CpuMask(self.0 | Self::only(cpu).0)
    }
    /// Without `cpu`.
    pub const fn without(self, cpu: CpuId) -> Self {
        CpuMask(self.0 & !Self::only(cpu).0)
    }
    /// What both have.
    pub const fn and(self, o: Self) -> Self {
        CpuMask(self.0 & o.0)
    }
    /// What either has.
    pub const fn or(self, o: Self) -> Self {
        CpuMask(self.0 | o.0)
    }
    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many it has.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
    /// Its members, rising.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            (left != 0).then(|| {
                let c = left.trailing_zeros();
                left &= left - 1;
                CpuId(c)
            })
        })
    }
}

/// A set of CPUs that several CPUs change.
pub struct AtomicCpuMask(AtomicU64);

impl AtomicCpuMask {
    /// No CPU.
    pub const fn empty() -> Self {
        AtomicCpuMask(AtomicU64::new(0))
    }
    /// Every CPU there could be.
    pub const fn all() -> Self {
        AtomicCpuMask(AtomicU64::new(u64::MAX))
    }
    /// As it is now.
    pub fn load(&self) -> CpuMask {
        CpuMask(self.0.load(Ordering::SeqCst))
    }
    /// Replaces it.
    pub fn store(&self, m: CpuMask) {
        self.0.store(m.0, Ordering::SeqCst);
    }
    /// Adds `cpu`.
    pub fn insert(&self, cpu: CpuId) {
        self.0.fetch_or(CpuMask::only(cpu).0, Ordering::SeqCst);
    }
    /// Takes `cpu` out; whether it was in.
    pub fn take(&self, cpu: CpuId) -> bool {
        let bit = CpuMask::only(cpu).0;
        self.0.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
    /// Removes `cpu`.
    pub fn remove(&self, cpu: CpuId) {
        self.0.fetch_and(!CpuMask::only(cpu).0, Ordering::SeqCst);
    }
}
