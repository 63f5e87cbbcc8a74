//! Multiboot 1 (version 0.6.96): one structure whose flags say which of its fields are there.

use super::{BootError, BootInfo, CommandLine, Framebuffer, MAX_CMDLINE, PhysRead, fetch};
use crate::bytes::{u32_at, u64_at};

/// Bytes of the structure up to the framebuffer's kind.
const INFO_BYTES: usize = 110;
/// No firmware has more modules or map entries; a larger number is damage.
const SANE_COUNT: u32 = 4096;

pub(super) fn read(info: &mut BootInfo, addr: u64, memory: &impl PhysRead) -> Result<(), BootError> {
    const WHAT: &str = "multiboot information";
    // The structure may end, with old loaders, before what its flags do not announce; 88 bytes are always there.
    let mut raw = [0u8; INFO_BYTES];
    let first: [u8; 88] = fetch(memory, addr, WHAT)?;
    for (to, from) in raw.iter_mut().zip(first) {
        *to = from;
    }
    let word = |off: usize| u32_at(&raw, off).unwrap_or(0);
    let flags = word(0);
    let has = |bit: u32| flags & (1 << bit) != 0;
    info.info = (addr, INFO_BYTES as u64);

    // The name comes first: it decides how command lines are read.
    if has(9) {
        let name = string(info, word(64), memory, "name")?;
        info.set_loader(&name);
    }
    if has(0) {
        info.basic_memory = Some((word(4), word(8)));
    }
    if has(2) {
        info.cmdline = string(info, word(16), memory, "command line")?;
    }
    if has(3) {
        read_modules(info, word(20), word(24), memory)?;
    }
    if has(6) {
        read_map(info, word(44), word(48), memory)?;
    }
    if has(12) {
        let raw: [u8; 22] = fetch(memory, addr + 88, WHAT)?;
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
    Ok(())
}

fn read_modules(info: &mut BootInfo, count: u32, addr: u32, memory: &impl PhysRead) -> Result<(), BootError> {
    const WHAT: &str = "list of modules";
    if count > SANE_COUNT {
        return Err(BootError::Damaged(WHAT));
    }
    for n in 0..u64::from(count) {
        let raw: [u8; 16] = fetch(memory, u64::from(addr) + n * 16, WHAT)?;
        let word = |off: usize| u32_at(&raw, off).unwrap_or(0);
        let cmdline = match word(8) {
            0 => CommandLine::new_const(),
            addr => string(info, addr, memory, "module command line")?,
        };
        info.add_module(word(0).into(), word(4).into(), cmdline)?;
    }
    Ok(())
}

/// Entries follow each other, each with its size (without the size field itself) in front.
fn read_map(info: &mut BootInfo, len: u32, addr: u32, memory: &impl PhysRead) -> Result<(), BootError> {
    const WHAT: &str = "memory map";
    let (mut at, end) = (u64::from(addr), u64::from(addr) + u64::from(len));
    if len > SANE_COUNT * 24 {
        return Err(BootError::Damaged(WHAT));
    }
    while at < end {
        let raw: [u8; 24] = fetch(memory, at, WHAT)?;
        let size = u64::from(u32_at(&raw, 0).unwrap_or(0));
        if size < 20 || at + 4 + size > end {
            return Err(BootError::Damaged(WHAT));
        }
        let number = |off: usize| u64_at(&raw, off).unwrap_or(0);
        info.add_range(number(4), number(12), u32_at(&raw, 20).unwrap_or(0));
        at += 4 + size;
    }
    Ok(())
}

/// A text up to NUL, byte by byte: what follows it may be unreadable.
fn string(
    info: &mut BootInfo,
    addr: u32,
    memory: &impl PhysRead,
    what: &'static str,
) -> Result<CommandLine, BootError> {
    let mut failed = None;
    let bytes = (0..=MAX_CMDLINE as u64).map_while(|n| match fetch::<1>(memory, u64::from(addr) + n, what) {
        Ok([byte]) => Some(byte),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let text = info.text(bytes);
    match failed {
        Some(error) => Err(error),
        None => Ok(text),
    }
}
