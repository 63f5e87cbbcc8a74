//! What a multiboot loader leaves behind, read once into one [`BootInfo`].
//!
//! GRUB speaks multiboot2, QEMU's `-kernel` multiboot1. Both leave their information at physical addresses that the
//! hypervisor will soon use for something else, so all that matters is copied out, into memory of fixed size: at this time
//! there is no allocator yet. Damaged information is an error; information that merely exceeds the space for it is cut, and
//! [`BootInfo::cut`] tells.

mod v1;
mod v2;

use core::fmt;

use arrayvec::{ArrayString, ArrayVec};

/// Value of EAX after a multiboot1 loader.
pub const MAGIC_1: u32 = 0x2bad_b002;
/// Value of EAX after a multiboot2 loader.
pub const MAGIC_2: u32 = 0x36d7_6289;

/// Ranges of the memory map that are kept.
pub const MAX_RANGES: usize = 128;
/// Ranges of the EFI memory map that are kept: a firmware describes each of its own allocations.
pub const MAX_EFI_RANGES: usize = 512;
/// Modules that are kept.
pub const MAX_MODULES: usize = 8;
/// Bytes of each command line that are kept: what a kernel accepts, too.
pub const MAX_CMDLINE: usize = 1023;

/// A command line. Characters outside of ASCII are replaced by `?`.
pub type CommandLine = ArrayString<MAX_CMDLINE>;

/// Reads physical memory. The only way from here to the loader's information.
pub trait PhysRead {
    /// Copies `buf.len()` bytes from physical address `addr`; fails where there is no readable memory.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), NotReadable>;
}

/// The answer of [`PhysRead::read`] where there is no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotReadable;

/// Why the loader's information cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Not started by multiboot.
    #[error("not started by a multiboot loader (magic {0:#x}); start it with GRUB's multiboot2 or QEMU's -kernel")]
    BadMagic(u32),
    /// An address the loader gave leads nowhere.
    #[error("the boot loader's {what} at {addr:#x} cannot be read")]
    Unreadable {
        /// What should be there.
        what: &'static str,
        /// The physical address.
        addr: u64,
    },
    /// A part is shorter than it must be, or longer than the whole.
    #[error("the boot loader's {0} is damaged")]
    Damaged(&'static str),
    /// No memory map: nothing can be allocated.
    #[error("the boot loader passed no memory map; use a loader that does (GRUB 2, QEMU)")]
    NoMemoryMap,
    /// No module at all.
    #[error(
        "no dom0 kernel: the boot loader passed no module; add a module2 line (GRUB) or -initrd (QEMU) with the kernel"
    )]
    NoDom0Kernel,
}

/// A kind of memory, by its number in the firmware's map (E820).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum RangeKind {
    /// Usable.
    Ram = 1,
    /// Not usable; also what any unknown number means.
    Reserved = 2,
    /// ACPI tables, usable after they have been read.
    AcpiReclaimable = 3,
    /// ACPI firmware's own.
    AcpiNvs = 4,
    /// Broken.
    Unusable = 5,
}

impl RangeKind {
    fn from_number(number: u32) -> Self {
        match number {
            1 => RangeKind::Ram,
            3 => RangeKind::AcpiReclaimable,
            4 => RangeKind::AcpiNvs,
            5 => RangeKind::Unusable,
            _ => RangeKind::Reserved,
        }
    }
}

/// One entry of the memory map, as the firmware gave it: unsorted, and possibly overlapping others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub base: u64,
    /// Bytes, at least 1; `base + len` does not overflow.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
}

impl MemoryRange {
    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.len)
    }
}

/// One entry of the EFI memory map (UEFI 2.10 §7.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiRange {
    /// First byte.
    pub base: u64,
    /// Bytes; `base + len` does not overflow.
    pub len: u64,
    /// EFI's number of its kind.
    pub kind: u32,
    /// EFI's attributes.
    pub attributes: u64,
}

/// A file the loader has put into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Physical address of its first byte.
    pub start: u64,
    /// Physical address behind its last byte.
    pub end: u64,
    /// Its command line as the loader passed it; see [`BootInfo::module_args`].
    pub cmdline: CommandLine,
}

impl Module {
    /// Bytes it has.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A linear framebuffer or text screen the loader set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address.
    pub addr: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels (or characters) of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits per pixel.
    pub bpp: u8,
    /// 0 indexed colours, 1 direct RGB, 2 EGA text.
    pub kind: u8,
}

/// ACPI's root pointer, as found by the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rsdp {
    /// Physical address of the loader's copy (within its information: copy it before that memory is reused).
    pub addr: u64,
    /// 0 for ACPI 1.0, 2 or more for newer.
    pub revision: u8,
    /// Physical address of the RSDT.
    pub rsdt: u32,
    /// Physical address of the XSDT, from revision 2 on.
    pub xsdt: Option<u64>,
}

/// What did not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Memory map entries beyond [`MAX_RANGES`].
    pub ranges: u32,
    /// Modules beyond [`MAX_MODULES`].
    pub modules: u32,
    /// Command lines longer than [`MAX_CMDLINE`].
    pub cmdlines: u32,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} memory ranges and {} modules were ignored, {} command lines cut",
            self.ranges, self.modules, self.cmdlines
        )
    }
}

/// All that the loader told, copied out of its memory.
///
/// Some 14 KiB: make it a static or put it on a boot stack that is large enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// Physical address and length of the loader's own information: do not overwrite it while reading.
    pub info: (u64, u64),
    /// The loader's name; empty if it did not tell.
    pub loader: ArrayString<64>,
    /// The hypervisor's command line as the loader passed it; see [`args`](Self::args).
    pub cmdline: CommandLine,
    /// KiB of memory below 1 MiB and above, from the simple report.
    pub basic_memory: Option<(u32, u32)>,
    /// The memory map.
    pub ranges: ArrayVec<MemoryRange, MAX_RANGES>,
    /// The modules: first dom0's kernel, then its initrd.
    pub modules: ArrayVec<Module, MAX_MODULES>,
    /// The screen.
    pub framebuffer: Option<Framebuffer>,
    /// ACPI's root pointer (multiboot2 only).
    pub rsdp: Option<Rsdp>,
    /// Physical address of the EFI system table.
    pub efi_system_table: Option<u64>,
    /// The EFI memory map as it was when the loader left the boot services.
    pub efi_ranges: ArrayVec<EfiRange, MAX_EFI_RANGES>,
    /// What did not fit.
    pub cut: Cut,
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}

impl BootInfo {
    /// Nothing known yet.
    pub const fn new() -> Self {
        BootInfo {
            info: (0, 0),
            loader: ArrayString::new_const(),
            cmdline: ArrayString::new_const(),
            basic_memory: None,
            ranges: ArrayVec::new_const(),
            modules: ArrayVec::new_const(),
            framebuffer: None,
            rsdp: None,
            efi_system_table: None,
            efi_ranges: ArrayVec::new_const(),
            cut: Cut { ranges: 0, modules: 0, cmdlines: 0 },
        }
    }

    /// Reads what a loader left: `magic` is EAX and `addr` EBX at the entry point.
    pub fn read(&mut self, magic: u32, addr: u32, memory: &impl PhysRead) -> Result<(), BootError> {
        match magic {
            MAGIC_1 => v1::read(self, addr.into(), memory)?,
            MAGIC_2 => v2::read(self, addr.into(), memory)?,
            other => return Err(BootError::BadMagic(other)),
        }
        if self.ranges.iter().any(|range| range.kind == RangeKind::Ram) { Ok(()) } else { Err(BootError::NoMemoryMap) }
    }

    /// The hypervisor's arguments, without file name and placeholder.
    pub fn args(&self) -> &str {
        strip_name(&self.loader, &self.cmdline)
    }

    /// A module's arguments, without file name and placeholder.
    pub fn module_args<'a>(&self, module: &'a Module) -> &'a str {
        strip_name(&self.loader, &module.cmdline)
    }

    /// Dom0's kernel: the first module.
    pub fn dom0_kernel(&self) -> Result<&Module, BootError> {
        self.modules.first().ok_or(BootError::NoDom0Kernel)
    }

    /// Dom0's initrd: the second module.
    pub fn dom0_initrd(&self) -> Option<&Module> {
        self.modules.get(1)
    }

    fn add_range(&mut self, base: u64, len: u64, kind: u32) {
        // A range up to the last byte of the address space would end at 2^64: nobody misses that byte.
        let len = len.min(u64::MAX - base);
        if len == 0 {
            return;
        }
        let range = MemoryRange { base, len, kind: RangeKind::from_number(kind) };
        if self.ranges.try_push(range).is_err() {
            self.cut.ranges = self.cut.ranges.saturating_add(1);
        }
    }

    fn add_module(&mut self, start: u64, end: u64, cmdline: CommandLine) -> Result<(), BootError> {
        if end < start {
            return Err(BootError::Damaged("list of modules"));
        }
        if self.modules.try_push(Module { start, end, cmdline }).is_err() {
            self.cut.modules = self.cut.modules.saturating_add(1);
        }
        Ok(())
    }

    /// A text of the loader's from bytes; stops at NUL.
    fn text(&mut self, bytes: impl Iterator<Item = u8>) -> CommandLine {
        let mut text = CommandLine::new_const();
        for byte in bytes.take_while(|b| *b != 0) {
            let c = if byte.is_ascii() { char::from(byte) } else { '?' };
            if text.try_push(c).is_err() {
                self.cut.cmdlines = self.cut.cmdlines.saturating_add(1);
                break;
            }
        }
        text
    }

    fn set_loader(&mut self, name: &str) {
        self.loader.clear();
        for c in name.chars() {
            if self.loader.try_push(c).is_err() {
                break;
            }
        }
    }
}

/// Takes away what is no argument at the start of a command line.
///
/// QEMU's multiboot1 puts the file's name first, GRUB 2 does not; other loaders may, and then it looks like a path, which no
/// option does. Debian's GRUB menu writes the word `placeholder` first, since very old GRUBs ate the first word.
pub fn strip_name<'a>(loader: &str, cmdline: &'a str) -> &'a str {
    let mut rest = cmdline.trim_start();
    let after_first = |text: &'a str| text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest).trim_start();
    let first = rest.split_whitespace().next().unwrap_or("");
    if loader == "qemu" || first.starts_with('/') || first.starts_with('(') {
        rest = after_first(rest);
    }
    if rest.split_whitespace().next() == Some("placeholder") {
        rest = after_first(rest);
    }
    rest.trim_end()
}

/// Reads a number of bytes known at compile time.
fn fetch<const N: usize>(memory: &impl PhysRead, addr: u64, what: &'static str) -> Result<[u8; N], BootError> {
    let mut buf = [0; N];
    memory.read(addr, &mut buf).map_err(|_| BootError::Unreadable { what, addr })?;
    Ok(buf)
}
