//! A domain's memory on the host: frames in a scrambled order, so that a PFN taken for an MFN shows.

use boot::builder::{BuildParams, GuestMemory, StartOfDay, build as build_domain};
use boot::kernel::KernelImage;
use boot::layout::{DomainPlan, Layout};
use pv_abi::ids::{MachineAddr, Mfn, Pfn};

pub const SHARED_INFO: u64 = 0x12_3456_7000;
pub const VGA: [u8; 0x28] = [0x5a; 0x28];
const FIRST_MFN: u64 = 0x10_0000;

/// Memory of `nr_pages` pages, filled with a pattern that is not zero.
pub struct Ram {
    bytes: Vec<u8>,
    nr_pages: u64,
    /// PFNs at and above this have no frame.
    pub populated: u64,
    /// The write that fails, for tests of errors.
    pub fail_at: Option<Pfn>,
}

impl Ram {
    pub fn new(nr_pages: u64) -> Self {
        Ram { bytes: vec![0xa5; (nr_pages * 4096) as usize], nr_pages, populated: nr_pages, fail_at: None }
    }

    /// Neighbouring PFNs are not neighbouring frames, and no frame is its PFN.
    pub fn frame(&self, pfn: Pfn) -> Option<Mfn> {
        (pfn.0 < self.populated).then(|| Mfn(FIRST_MFN + (self.nr_pages - 1 - pfn.0)))
    }

    fn place(&self, mfn: Mfn) -> usize {
        ((self.nr_pages - 1 - (mfn.0 - FIRST_MFN)) * 4096) as usize
    }

    pub fn page(&self, mfn: Mfn) -> &[u8] {
        &self.bytes[self.place(mfn)..][..4096]
    }

    pub fn entry(&self, table: Mfn, slot: usize) -> u64 {
        u64::from_le_bytes(self.page(table)[slot * 8..][..8].try_into().unwrap())
    }

    pub fn read_physical(&self, paddr: u64, len: usize) -> &[u8] {
        &self.bytes[paddr as usize..][..len]
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct WriteFailed(pub Pfn);

impl std::fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "page {} cannot be mapped", self.0)
    }
}

impl std::error::Error for WriteFailed {}

impl GuestMemory for Ram {
    type Error = WriteFailed;

    fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        self.frame(pfn)
    }

    fn write(&mut self, pfn: Pfn, offset: usize, data: &[u8]) -> Result<(), WriteFailed> {
        assert!(offset < 4096);
        let start = pfn.0 as usize * 4096 + offset;
        if let Some(bad) = self.fail_at
            && (start..start + data.len()).contains(&(bad.0 as usize * 4096))
        {
            return Err(WriteFailed(bad));
        }
        self.bytes[start..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&mut self, pfn: Pfn, count: u64) -> Result<(), WriteFailed> {
        self.bytes[pfn.0 as usize * 4096..][..count as usize * 4096].fill(0);
        Ok(())
    }
}

pub fn ramdisk(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251 + 1) as u8).collect()
}

pub fn params<'a>(plan: &DomainPlan<'a>, ramdisk: &'a [u8]) -> BuildParams<'a> {
    BuildParams {
        cmdline: plan.cmdline,
        ramdisk,
        shared_info: MachineAddr(SHARED_INFO),
        extra_flags: 0,
        store_evtchn: 7,
        console_evtchn: 8,
        dom0_console: &VGA,
    }
}

/// Plans and builds a domain in fresh memory.
pub fn build(kernel: &KernelImage, plan: &DomainPlan) -> (Layout, Ram, StartOfDay) {
    let layout = Layout::plan(kernel, plan).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Ram::new(plan.nr_pages);
    let ramdisk = ramdisk(plan.ramdisk_len);
    let start = build_domain(kernel, &layout, &mut memory, &params(plan, &ramdisk)).unwrap_or_else(|e| panic!("{e}"));
    (layout, memory, start)
}
