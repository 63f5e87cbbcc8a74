//! Multiboot 2 (version 2.0): a total size, then tags of a type, a size and contents, aligned to 8 bytes.

use super::{BootError, BootInfo, EfiRange, Framebuffer, PhysRead, Rsdp, fetch};
use crate::bytes::{u32_at, u64_at};

const END: u32 = 0;
const CMDLINE: u32 = 1;
const LOADER: u32 = 2;
const MODULE: u32 = 3;
const BASIC_MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const FRAMEBUFFER: u32 = 8;
const EFI64_SYSTEM_TABLE: u32 = 12;
const OLD_RSDP: u32 = 14;
const NEW_RSDP: u32 = 15;
const EFI_MEMORY_MAP: u32 = 17;

/// More than this is damage: the largest part is a memory map of some hundred entries.
const SANE_SIZE: u32 = 1 << 20;

/// One tag: where its contents are, and how many bytes they have.
#[derive(Clone, Copy)]
struct Tag<'a, M> {
    memory: &'a M,
    addr: u64,
    len: u64,
    what: &'static str,
}

impl<M: PhysRead> Tag<'_, M> {
    /// `N` bytes at `off` of the contents.
    fn at<const N: usize>(&self, off: u64) -> Result<[u8; N], BootError> {
        if off + N as u64 > self.len {
            return Err(BootError::Damaged(self.what));
        }
        fetch(self.memory, self.addr + off, self.what)
    }

    /// The bytes from `off` to the end of the tag. A failure to read ends them early.
    fn bytes(&self, off: u64) -> impl Iterator<Item = u8> {
        (off..self.len).map_while(|n| self.at::<1>(n).ok()).map(|[byte]| byte)
    }
}

pub(super) fn read(info: &mut BootInfo, addr: u64, memory: &impl PhysRead) -> Result<(), BootError> {
    const WHAT: &str = "multiboot information";
    let header: [u8; 8] = fetch(memory, addr, WHAT)?;
    let total = u32_at(&header, 0).unwrap_or(0);
    if !(16..=SANE_SIZE).contains(&total) || !addr.is_multiple_of(8) {
        return Err(BootError::Damaged(WHAT));
    }
    let end = addr + u64::from(total);
    info.info = (addr, total.into());
    let mut at = addr + 8;
    loop {
        if at + 8 > end {
            return Err(BootError::Damaged(WHAT)); // no end tag
        }
        let header: [u8; 8] = fetch(memory, at, WHAT)?;
        let kind = u32_at(&header, 0).unwrap_or(0);
        let size = u64::from(u32_at(&header, 4).unwrap_or(0));
        if size < 8 || at + size > end {
            return Err(BootError::Damaged(WHAT));
        }
        if kind == END {
            return Ok(());
        }
        read_tag(info, kind, Tag { memory, addr: at + 8, len: size - 8, what: name(kind) })?;
        at += size.next_multiple_of(8);
    }
}

fn name(kind: u32) -> &'static str {
    match kind {
        CMDLINE => "command line",
        LOADER => "name",
        MODULE => "list of modules",
        BASIC_MEMORY | MEMORY_MAP => "memory map",
        FRAMEBUFFER => "framebuffer description",
        EFI64_SYSTEM_TABLE | EFI_MEMORY_MAP => "EFI information",
        OLD_RSDP | NEW_RSDP => "copy of the ACPI root pointer",
        _ => "multiboot information",
    }
}

fn read_tag<M: PhysRead>(info: &mut BootInfo, kind: u32, tag: Tag<'_, M>) -> Result<(), BootError> {
    match kind {
        CMDLINE => info.cmdline = info.text(tag.bytes(0)),
        LOADER => {
            let name = info.text(tag.bytes(0));
            info.set_loader(&name);
        }
        MODULE => {
            let raw: [u8; 8] = tag.at(0)?;
            let word = |off: usize| u64::from(u32_at(&raw, off).unwrap_or(0));
            let cmdline = info.text(tag.bytes(8));
            info.add_module(word(0), word(4), cmdline)?;
        }
        BASIC_MEMORY => {
            let raw: [u8; 8] = tag.at(0)?;
            info.basic_memory = u32_at(&raw, 0).zip(u32_at(&raw, 4));
        }
        MEMORY_MAP => read_map(info, tag)?,
        FRAMEBUFFER => {
            let raw: [u8; 22] = tag.at(0)?;
            let word = |off: usize| u32_at(&raw, off).unwrap_or(0);
            let [.., bpp, kind] = raw;
            info.framebuffer = Some(Framebuffer {
                addr: u64_at(&raw, 0).unwrap_or(0),
                pitch: word(8),
                width: word(12),
                height: word(16),
                bpp,
                kind,
            });
        }
        EFI64_SYSTEM_TABLE => info.efi_system_table = Some(u64::from_le_bytes(tag.at(0)?)),
        EFI_MEMORY_MAP => read_efi_map(info, tag)?,
        OLD_RSDP | NEW_RSDP => {
            let rsdp = read_rsdp(&tag)?;
            // The newer copy wins, whichever comes first.
            if kind == NEW_RSDP || info.rsdp.is_none() {
                info.rsdp = Some(rsdp);
            }
        }
        _ => {}
    }
    Ok(())
}

fn read_map<M: PhysRead>(info: &mut BootInfo, tag: Tag<'_, M>) -> Result<(), BootError> {
    let raw: [u8; 8] = tag.at(0)?;
    let stride = u64::from(u32_at(&raw, 0).unwrap_or(0));
    if stride < 24 {
        return Err(BootError::Damaged(tag.what));
    }
    let mut off = 8;
    while off + 24 <= tag.len {
        let raw: [u8; 24] = tag.at(off)?;
        let number = |off: usize| u64_at(&raw, off).unwrap_or(0);
        info.add_range(number(0), number(8), u32_at(&raw, 16).unwrap_or(0));
        off += stride;
    }
    Ok(())
}

/// Size and version of a descriptor, then descriptors: type at 0, physical start at 8, 4 KiB pages at 24, attributes at 32.
fn read_efi_map<M: PhysRead>(info: &mut BootInfo, tag: Tag<'_, M>) -> Result<(), BootError> {
    let raw: [u8; 8] = tag.at(0)?;
    let stride = u64::from(u32_at(&raw, 0).unwrap_or(0));
    if stride < 40 {
        return Err(BootError::Damaged(tag.what));
    }
    let mut off = 8;
    while off + 40 <= tag.len {
        let raw: [u8; 40] = tag.at(off)?;
        let number = |off: usize| u64_at(&raw, off).unwrap_or(0);
        let base = number(8);
        let len = number(24).saturating_mul(4096).min(u64::MAX - base);
        let range = EfiRange { base, len, kind: u32_at(&raw, 0).unwrap_or(0), attributes: number(32) };
        if len != 0 && info.efi_ranges.try_push(range).is_err() {
            info.cut.ranges = info.cut.ranges.saturating_add(1);
        }
        off += stride;
    }
    Ok(())
}

/// ACPI 5.2.5.3: signature 0, checksum of 20 bytes, revision at 15, RSDT at 16; from revision 2 on length at 20, XSDT at
/// 24, checksum of all.
fn read_rsdp<M: PhysRead>(tag: &Tag<'_, M>) -> Result<Rsdp, BootError> {
    let damaged = BootError::Damaged(tag.what);
    let old: [u8; 20] = tag.at(0)?;
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    if !old.starts_with(b"RSD PTR ") || sum(&old) != 0 {
        return Err(damaged);
    }
    let revision = old.get(15).copied().unwrap_or(0);
    let xsdt = if revision >= 2 {
        let new: [u8; 36] = tag.at(0)?;
        if sum(&new) != 0 {
            return Err(damaged);
        }
        u64_at(&new, 24)
    } else {
        None
    };
    Ok(Rsdp { addr: tag.addr, revision, rsdt: u32_at(&old, 16).unwrap_or(0), xsdt })
}
