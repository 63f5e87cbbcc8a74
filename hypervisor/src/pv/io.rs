//! I/O ports of guests. Every port access of ring 3 traps; who may is decided here.
//!
//! Guest-kernel code counts as ring 1, user code as ring 3, against the virtual IOPL; user code may also have a bitmap.
//! A domain without hardware reads all ones and its writes vanish; dom0's accesses reach the machine, except for what
//! is the hypervisor's own.

use super::decode::{PortAccess, Prefixes};
use super::emulate::gpr_sized;
use super::trap;
use crate::arch::layout::is_guest_range;
use crate::arch::regs::rflags as f;
use crate::domain::Cx;
use crate::mm::guest;
use crate::platform::ports;
use pv_abi::ids::PAGE_SIZE;

/// Whether the mode the vCPU is in has the I/O privilege level.
pub fn has_iopl(cx: &Cx) -> bool {
    cx.arch.iopl >= if cx.arch.in_kernel { 1 } else { 3 }
}

fn allowed(cx: &Cx, port: u16, size: usize) -> bool {
    if has_iopl(cx) {
        return true;
    }
    let Some((map, ports)) = cx.arch.iobitmap else {
        return false;
    };
    (u32::from(port)..u32::from(port) + size as u32).all(|p| {
        if p >= ports {
            return false;
        }
        // The bitmap is the guest kernel's; the tables of user mode may not show it.
        let at = map.0.wrapping_add(u64::from(p / 8));
        let byte = cx.arch.tables.read_kernel_byte(&cx.domain().mem, at);
        byte.is_some_and(|b| b >> (p % 8) & 1 == 0)
    })
}

/// Does an IN, OUT, INS or OUTS of `len` bytes; gives its length, or 0 when a repeated one is to be executed again, or
/// `None` when it is not allowed.
pub fn emulate(cx: &mut Cx, access: &PortAccess, p: &Prefixes, len: usize, long: bool) -> Option<usize> {
    let size = access.size;
    let port = access.port.map_or(cx.regs.rdx as u16, u16::from);
    if !allowed(cx, port, size) {
        return None;
    }
    if access.string {
        return string(cx, access.input, port, size, p, len, long);
    }
    if access.input {
        let v = read(cx, port, size);
        super::emulate::set_gpr_sized(cx.regs, 0, size, 0, u64::from(v));
    } else {
        write(cx, port, size, gpr_sized(cx.regs, 0, size, 0) as u32);
    }
    Some(len)
}

/// Where a string instruction's memory operand is, and how its index and count move.
struct Operand {
    /// Linear address.
    at: u64,
    /// The bits of index and count that count.
    mask: u64,
}

impl Operand {
    /// INS writes to ES:RDI; OUTS reads from DS:RSI, or another segment by a prefix. In 64-bit mode only FS and GS have
    /// bases.
    fn of(cx: &Cx, input: bool, p: &Prefixes, long: bool) -> Option<Operand> {
        let mask = match (long, p.address32) {
            (true, false) => u64::MAX,
            (true, true) | (false, false) => 0xffff_ffff,
            // 16-bit addresses: no kernel has such code.
            (false, true) => return None,
        };
        let index = if input { cx.regs.rdi } else { cx.regs.rsi } & mask;
        let base = segment_base(if input { None } else { p.segment });
        Some(Operand { at: base.wrapping_add(index), mask })
    }
}

/// Segment prefixes.
const FS: u8 = 0x64;
const GS: u8 = 0x65;

#[cfg(target_os = "none")]
use crate::arch::segments::{fs_base, gs_base};
// For tests on the host.
#[cfg(not(target_os = "none"))]
pub(super) fn fs_base() -> u64 {
    0x1234_5678_9000
}
#[cfg(not(target_os = "none"))]
pub(super) fn gs_base() -> u64 {
    0xffff_f000_0000_7000
}

/// The base that an override prefix brings in; all other segments have none in 64-bit mode.
pub(super) fn segment_base(prefix: Option<u8>) -> u64 {
    match prefix {
        Some(FS) => fs_base(),
        Some(GS) => gs_base(),
        _ => 0,
    }
}

/// Copies page by page; on an error the address of the part that is missing.
fn by_page(at: u64, buf: &mut [u8], copy: impl Fn(u64, &mut [u8]) -> bool) -> Result<(), u64> {
    let here = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(buf.len());
    let (first, second) = buf.split_at_mut(here);
    if !copy(at, first) {
        return Err(at);
    }
    let next = at.wrapping_add(here as u64);
    if !second.is_empty() && !copy(next, second) {
        return Err(next);
    }
    Ok(())
}

/// One step of INS or OUTS; a repeated one comes back until its count is 0.
fn string(cx: &mut Cx, input: bool, port: u16, size: usize, p: &Prefixes, len: usize, long: bool) -> Option<usize> {
    let o = Operand::of(cx, input, p, long)?;
    let repeated = p.rep.is_some();
    if repeated && cx.regs.rcx & o.mask == 0 {
        return Some(len);
    }
    // What no guest may touch is no page fault: the instruction itself is at fault.
    if !is_guest_range(o.at, size as u64) && !is_guest_range(o.at, 0) {
        return None;
    }
    let mut buf = [0u8; 4];
    let part = buf.get_mut(..size)?;
    if input {
        part.copy_from_slice(read(cx, port, size).to_le_bytes().get(..size)?);
        if let Err(va) = by_page(o.at, part, |at, b| guest::write_bytes(at, b).is_ok()) {
            return trap::access_fault(cx, va, true).ok().map(|()| 0);
        }
    } else {
        if let Err(va) = by_page(o.at, part, |at, b| guest::read_bytes(at, b).is_ok()) {
            return trap::access_fault(cx, va, false).ok().map(|()| 0);
        }
        write(cx, port, size, u32::from_le_bytes(buf));
    }
    let step = if cx.regs.rflags & f::DF != 0 { (size as u64).wrapping_neg() } else { size as u64 };
    let index = if input { &mut cx.regs.rdi } else { &mut cx.regs.rsi };
    *index = index.wrapping_add(step) & o.mask;
    if repeated {
        cx.regs.rcx = (cx.regs.rcx & o.mask).wrapping_sub(1);
        if cx.regs.rcx != 0 {
            cx.regs.force_iret();
            return Some(0);
        }
    }
    Some(len)
}

fn read(cx: &Cx, port: u16, size: usize) -> u32 {
    let ones = if size == 4 { u32::MAX } else { (1 << (size * 8)) - 1 };
    if !cx.domain().privileged || ports::guarded(port, size) {
        return ones;
    }
    ports::read(port, size)
}

fn write(cx: &Cx, port: u16, size: usize, v: u32) {
    if cx.domain().privileged && !ports::guarded(port, size) {
        ports::write(port, size, v);
    }
}
