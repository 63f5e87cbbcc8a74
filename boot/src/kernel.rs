//! An unpacked kernel: its segments and Xen notes, checked once, so that whoever builds a domain from it can rely on them.

use core::ops::Range;

use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{ELFCLASS64, EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD, PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;

use crate::PAGE_SIZE;
use crate::bytes::{range_in, u16_at};
use crate::notes::XenNotes;

/// The most loadable segments a kernel may have; Linux has five at most.
pub const MAX_SEGMENTS: usize = 16;

/// The largest stretch of pseudo-physical memory a kernel may span: Linux maps its own image in 1 GiB.
const MAX_SPAN: u64 = 1 << 30;

/// Why an unpacked image cannot be started as a PV guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Not an ELF file at all.
    #[error("the kernel's payload is not an ELF image; the file is damaged")]
    NotElf,
    /// ELF for something else.
    #[error("the kernel is not for 64-bit x86 (ELF class {class}, machine {machine}); use an amd64 kernel")]
    NotX86_64 {
        /// 1 for 32 bit, 2 for 64 bit.
        class: u8,
        /// ELF machine number.
        machine: u16,
    },
    /// Relocatable object, core dump …
    #[error("the ELF file is not an executable image (type {0}); name a kernel")]
    NotExecutable(u16),
    /// The ELF tables do not parse.
    #[error("the kernel's ELF headers are damaged; copy the file again")]
    BadHeaders,
    /// A segment's bytes lie outside the file.
    #[error("the kernel is truncated: segment {0} lies beyond the end of the file; copy it again")]
    TruncatedSegment(usize),
    /// Numbers of a segment contradict each other.
    #[error("the kernel's segment {0} has impossible addresses or sizes; the file is damaged")]
    BadSegment(usize),
    /// More than [`MAX_SEGMENTS`].
    #[error("the kernel has more than {MAX_SEGMENTS} loadable segments, which is not supported")]
    TooManySegments,
    /// Nothing to load.
    #[error("the kernel has no loadable segment; the file is damaged")]
    NoSegments,
    /// Two segments claim the same memory.
    #[error("the kernel's segments overlap at physical address {0:#x}; the file is damaged")]
    Overlap(u64),
    /// No notes: not a PV kernel.
    #[error(
        "the kernel has no Xen notes: it was built without CONFIG_XEN_PV; use a kernel with Xen PV support (Debian's linux-image-amd64 has it)"
    )]
    NoXenNotes,
    /// The interface of Xen 3.0's first days.
    #[error("the kernel has only an old __xen_guest section and no Xen notes; kernels that old are not supported")]
    OldStyleNotes,
    /// PVH only.
    #[error(
        "the kernel can start as PVH only: it was built with CONFIG_PVH but without CONFIG_XEN_PV; use a kernel with Xen PV support"
    )]
    PvhOnly,
    /// No ENTRY note.
    #[error("the kernel's Xen notes name no entry point; it cannot be started as a PV guest")]
    NoEntry,
    /// The entry point is outside what is loaded.
    #[error("the kernel's entry point {0:#x} lies outside its image; the file is damaged")]
    EntryOutside(u64),
    /// Not made for this ABI.
    #[error("the kernel asks for another hypervisor interface than xen-3.0")]
    WrongAbi,
    /// VIRT_BASE or INIT_P2M do not make sense.
    #[error("the kernel's Xen note {name} is {value:#x}, which is not a usable address")]
    BadAddress {
        /// The note.
        name: &'static str,
        /// Its value.
        value: u64,
    },
}

/// One loadable piece of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Pseudo-physical address of its first byte (`p_paddr − PADDR_OFFSET`).
    pub paddr: u64,
    /// The bytes the file has for it.
    pub data: &'a [u8],
    /// Bytes it takes in memory; what exceeds `data` is zero.
    pub mem_len: u64,
}

impl Segment<'_> {
    /// Pseudo-physical addresses it takes.
    pub fn range(&self) -> Range<u64> {
        // parse() has checked that this does not overflow.
        self.paddr..self.paddr.saturating_add(self.mem_len)
    }
}

/// A kernel that can be started as a PV guest.
#[derive(Debug, Clone)]
pub struct KernelImage<'a> {
    segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
    notes: XenNotes<'a>,
    entry: u64,
    virt_base: u64,
    span: Range<u64>,
}

impl<'a> KernelImage<'a> {
    /// Reads headers, segments and notes of an unpacked ELF image, and checks all that [`crate::layout`] and
    /// [`crate::builder`] rely on.
    pub fn parse(image: &'a [u8]) -> Result<Self, KernelError> {
        if !image.starts_with(b"\x7fELF") {
            return Err(KernelError::NotElf);
        }
        // Class and machine have the same place in all ELF files, and the message about them helps most.
        let class = *image.get(4).ok_or(KernelError::BadHeaders)?;
        let machine = u16_at(image, 18).ok_or(KernelError::BadHeaders)?;
        if class != ELFCLASS64 || machine != EM_X86_64 {
            return Err(KernelError::NotX86_64 { class, machine });
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(|_| KernelError::BadHeaders)?;
        if !matches!(elf.ehdr.e_type, ET_EXEC | ET_DYN) {
            return Err(KernelError::NotExecutable(elf.ehdr.e_type));
        }
        let notes = read_notes(&elf, image);
        if notes.count == 0 {
            return Err(match elf.section_header_by_name("__xen_guest") {
                Ok(Some(_)) => KernelError::OldStyleNotes,
                _ => KernelError::NoXenNotes,
            });
        }
        let entry = match (notes.entry, notes.pvh) {
            (Some(entry), _) => entry,
            (None, true) if notes.virt_base.is_none() => return Err(KernelError::PvhOnly),
            (None, _) => return Err(KernelError::NoEntry),
        };
        if notes.xen_version.is_some_and(|v| v != "xen-3.0") {
            return Err(KernelError::WrongAbi);
        }
        let segments = read_segments(&elf, image, notes.paddr_offset.unwrap_or(0))?;
        let start = segments.iter().map(|s| s.range().start).min().ok_or(KernelError::NoSegments)?;
        let end = segments.iter().map(|s| s.range().end).max().ok_or(KernelError::NoSegments)?;
        if end > MAX_SPAN {
            return Err(KernelError::BadSegment(0));
        }
        let virt_base = notes.virt_base.unwrap_or(0);
        check_address("VIRT_BASE", virt_base)?;
        if let Some(init_p2m) = notes.init_p2m {
            check_address("INIT_P2M", init_p2m)?;
        }
        let image = KernelImage { segments, notes, entry, virt_base, span: start..end };
        if !image.contains(entry) {
            return Err(KernelError::EntryOutside(entry));
        }
        if let Some(page) = image.notes.hypercall_page
            && (!page.is_multiple_of(PAGE_SIZE)
                || !image.contains(page)
                || !image.contains(page.wrapping_add(PAGE_SIZE - 1)))
        {
            return Err(KernelError::BadAddress { name: "HYPERCALL_PAGE", value: page });
        }
        Ok(image)
    }

    /// The Xen notes.
    pub fn notes(&self) -> &XenNotes<'a> {
        &self.notes
    }

    /// Virtual address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Virtual address of guest PFN 0.
    pub fn virt_base(&self) -> u64 {
        self.virt_base
    }

    /// The loadable segments, in ascending order of address, free of overlaps.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Segment<'a>> {
        self.segments.iter()
    }

    /// Pseudo-physical addresses from the first segment's start to the last one's end.
    pub fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    /// Bytes of memory from the guest's address 0 to the end of the kernel: the least it needs to be loaded at all.
    pub fn required_size(&self) -> u64 {
        self.span.end
    }

    /// Is `va` within the mapped image?
    fn contains(&self, va: u64) -> bool {
        va.checked_sub(self.virt_base).is_some_and(|paddr| self.span.contains(&paddr))
    }
}

/// Page-aligned, canonical, and 1 GiB away from the ends of its half, so that later sums cannot leave it.
fn check_address(name: &'static str, value: u64) -> Result<(), KernelError> {
    let low_half = value < (1 << 47) - (1 << 39);
    let high_half = (0xffff_8800_0000_0000..=0xffff_ffff_8000_0000).contains(&value);
    if value.is_multiple_of(PAGE_SIZE) && (low_half || high_half) {
        Ok(())
    } else {
        Err(KernelError::BadAddress { name, value })
    }
}

fn read_notes<'a>(elf: &ElfBytes<'a, LittleEndian>, image: &'a [u8]) -> XenNotes<'a> {
    let mut notes = XenNotes::default();
    let bytes = |offset, len| range_in(image.len(), offset, len).and_then(|r| image.get(r));
    for header in elf.segments().iter().flat_map(|table| table.iter()) {
        if header.p_type == PT_NOTE
            && let Some(data) = bytes(header.p_offset, header.p_filesz)
        {
            notes.read(data);
        }
    }
    if notes.count == 0 {
        for header in elf.section_headers().iter().flat_map(|table| table.iter()) {
            if header.sh_type == SHT_NOTE
                && let Some(data) = bytes(header.sh_offset, header.sh_size)
            {
                notes.read(data);
            }
        }
    }
    notes
}

fn read_segments<'a>(
    elf: &ElfBytes<'a, LittleEndian>,
    image: &'a [u8],
    paddr_offset: u64,
) -> Result<ArrayVec<Segment<'a>, MAX_SEGMENTS>, KernelError> {
    let mut segments = ArrayVec::<Segment<'a>, MAX_SEGMENTS>::new();
    let table = elf.segments().ok_or(KernelError::NoSegments)?;
    for (index, header) in table.iter().enumerate() {
        if header.p_type != PT_LOAD || header.p_memsz == 0 {
            continue;
        }
        let file =
            range_in(image.len(), header.p_offset, header.p_filesz).ok_or(KernelError::TruncatedSegment(index))?;
        let paddr = header.p_paddr.checked_sub(paddr_offset).ok_or(KernelError::BadSegment(index))?;
        let end = paddr.checked_add(header.p_memsz).ok_or(KernelError::BadSegment(index))?;
        if header.p_filesz > header.p_memsz || end > MAX_SPAN {
            return Err(KernelError::BadSegment(index));
        }
        let data = image.get(file).ok_or(KernelError::TruncatedSegment(index))?;
        segments
            .try_push(Segment { paddr, data, mem_len: header.p_memsz })
            .map_err(|_| KernelError::TooManySegments)?;
    }
    segments.sort_unstable_by_key(|s| s.paddr);
    for (one, next) in segments.iter().zip(segments.iter().skip(1)) {
        if one.range().end > next.paddr {
            return Err(KernelError::Overlap(next.paddr));
        }
    }
    Ok(segments)
}
