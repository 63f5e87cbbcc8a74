//! The Xen ELF notes: what a PV kernel tells its loader about itself.
//!
//! Notes are looked for in PT_NOTE segments first and, where those hold none, in SHT_NOTE sections (a kernel built
//! with a linker script of its own may have only these). Numbers may have 1, 2, 4 or 8 bytes. Unknown notes are ignored,
//! as the format asks.

use pv_abi::elfnote;

use crate::bytes::{slice, u32_at, u64_at, until_nul};

/// A kernel's Xen notes. `'a` is the unpacked ELF image: texts are slices of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XenNotes<'a> {
    /// ENTRY: virtual address of the first instruction.
    pub entry: Option<u64>,
    /// VIRT_BASE: virtual address at which guest PFN 0 is mapped.
    pub virt_base: Option<u64>,
    /// PADDR_OFFSET: what to subtract from a segment's `p_paddr` to get its pseudo-physical address.
    pub paddr_offset: Option<u64>,
    /// HYPERCALL_PAGE: virtual address of the page to fill with hypercall stubs.
    pub hypercall_page: Option<u64>,
    /// HV_START_LOW: the lowest address the hypervisor may use.
    pub hv_start_low: Option<u64>,
    /// INIT_P2M: virtual address at which to map the PFN to MFN list.
    pub init_p2m: Option<u64>,
    /// MOD_START_PFN: the kernel takes the initrd's place as a PFN, so it need not be mapped.
    pub mod_start_pfn: bool,
    /// L1_MFN_VALID: the pairs (mask, value) of a not-present PTE that still holds a frame number; the first one.
    pub l1_mfn_valid: Option<(u64, u64)>,
    /// SUSPEND_CANCEL: the kernel understands a suspend hypercall that returns 1.
    pub suspend_cancel: bool,
    /// PAE_MODE is `yes` or contains a bimodal mark.
    pub pae: bool,
    /// FEATURES as text: names joined with `|`, a leading `!` meaning required.
    pub features: Option<&'a str>,
    /// SUPPORTED_FEATURES: a bit for each feature the kernel can live with.
    pub supported_features: Option<u64>,
    /// GUEST_OS, `linux` for Linux.
    pub guest_os: Option<&'a str>,
    /// GUEST_VERSION.
    pub guest_version: Option<&'a str>,
    /// XEN_VERSION: the ABI the kernel asks for, `xen-3.0`.
    pub xen_version: Option<&'a str>,
    /// LOADER.
    pub loader: Option<&'a str>,
    /// PHYS32_ENTRY is there: the kernel can also start as PVH.
    pub pvh: bool,
    /// How many Xen notes were seen.
    pub count: usize,
}

impl<'a> XenNotes<'a> {
    /// Adds the notes of one note segment or section. A note that does not fit ends the walk: what follows cannot be
    /// trusted, and what is missing then is reported by name.
    pub(crate) fn read(&mut self, data: &'a [u8]) {
        let mut pos = 0usize;
        while let Some((name_len, desc_len, kind)) = header(data, pos) {
            let name_at = pos + 12;
            let Some(desc_at) = padded(name_at, name_len) else {
                return;
            };
            let Some(name) = slice(data, name_at, name_len) else {
                return;
            };
            let Some(desc) = slice(data, desc_at, desc_len) else {
                return;
            };
            if until_nul(name) == b"Xen" {
                self.note(kind, desc);
            }
            let Some(next) = padded(desc_at, desc_len) else {
                return;
            };
            pos = next;
        }
    }

    fn note(&mut self, kind: u32, desc: &'a [u8]) {
        self.count += 1;
        match kind {
            elfnote::ENTRY => self.entry = number(desc),
            elfnote::VIRT_BASE => self.virt_base = number(desc),
            elfnote::PADDR_OFFSET => self.paddr_offset = number(desc),
            elfnote::HYPERCALL_PAGE => self.hypercall_page = number(desc),
            elfnote::HV_START_LOW => self.hv_start_low = number(desc),
            elfnote::INIT_P2M => self.init_p2m = number(desc),
            elfnote::MOD_START_PFN => self.mod_start_pfn = number(desc).unwrap_or(0) != 0,
            elfnote::SUSPEND_CANCEL => self.suspend_cancel = number(desc).unwrap_or(0) != 0,
            elfnote::SUPPORTED_FEATURES => self.supported_features = number(desc),
            elfnote::PHYS32_ENTRY => self.pvh = true,
            elfnote::L1_MFN_VALID => self.l1_mfn_valid = u64_at(desc, 0).zip(u64_at(desc, 8)),
            elfnote::PAE_MODE => self.pae = text(desc).is_some_and(|t| t.contains("yes") || t.contains("bimodal")),
            elfnote::FEATURES => self.features = text(desc),
            elfnote::GUEST_OS => self.guest_os = text(desc),
            elfnote::GUEST_VERSION => self.guest_version = text(desc),
            elfnote::XEN_VERSION => self.xen_version = text(desc),
            elfnote::LOADER => self.loader = text(desc),
            _ => {}
        }
    }

    /// The names in FEATURES with a leading `!`: what the kernel cannot do without.
    pub fn required_features(&self) -> impl Iterator<Item = &'a str> {
        self.features.unwrap_or("").split('|').filter_map(|name| name.trim().strip_prefix('!'))
    }
}

/// Name length, descriptor length and type of the note at `pos`.
fn header(data: &[u8], pos: usize) -> Option<(usize, usize, u32)> {
    Some((u32_at(data, pos)? as usize, u32_at(data, pos + 4)? as usize, u32_at(data, pos + 8)?))
}

/// End of `len` bytes at `start`, rounded up to the notes' alignment of 4.
fn padded(start: usize, len: usize) -> Option<usize> {
    start.checked_add(len)?.checked_next_multiple_of(4)
}

fn number(desc: &[u8]) -> Option<u64> {
    let bytes = desc.get(..desc.len().min(8))?;
    matches!(desc.len(), 1 | 2 | 4 | 8).then(|| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn text(desc: &[u8]) -> Option<&str> {
    core::str::from_utf8(until_nul(desc)).ok()
}
