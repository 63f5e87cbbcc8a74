//! A decoder for the few instructions that trap: prefixes, opcode, ModRM. Pure; tested on the host against a
//! disassembler (`decode_fuzz.rs`).

use super::emulate::gpr;
use crate::arch::regs::GuestRegs;

/// An instruction's bytes as fetched, at most 15.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    buf: [u8; 15],
    len: usize,
}

impl Bytes {
    /// From what could be fetched.
    pub fn new(src: &[u8]) -> Self {
        let mut b = Bytes { len: src.len().min(15), ..Bytes::default() };
        for (to, from) in b.buf.iter_mut().zip(src) {
            *to = *from;
        }
        b
    }
    /// Byte `i`.
    pub fn at(&self, i: usize) -> Option<u8> {
        if i < self.len { self.buf.get(i).copied() } else { None }
    }
}

/// Prefixes and where the opcode starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// REX byte, 0 = none.
    pub rex: u8,
    /// 0x66.
    pub operand16: bool,
    /// 0xf2 or 0xf3.
    pub rep: Option<u8>,
    /// 0xf0.
    pub lock: bool,
    /// Last segment override that counts.
    pub segment: Option<u8>,
    /// 0x67.
    pub address32: bool,
    /// Index of the opcode.
    pub opcode: usize,
}

impl Prefixes {
    /// REX.W
    pub fn w(&self) -> bool {
        self.rex & 8 != 0
    }
}

/// Reads prefixes; `long` when in 64-bit mode (REX exists).
pub fn prefixes(b: &Bytes, long: bool) -> Option<Prefixes> {
    let mut p = Prefixes::default();
    loop {
        match b.at(p.opcode)? {
            0x66 => p.operand16 = true,
            0x67 => p.address32 = true,
            0xf0 => p.lock = true,
            x @ (0xf2 | 0xf3) => p.rep = Some(x),
            // In 64-bit mode these are ignored: an override by FS or GS before them holds.
            0x26 | 0x2e | 0x36 | 0x3e if long => {}
            x @ (0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) => p.segment = Some(x),
            x @ 0x40..=0x4f if long => {
                p.rex = x;
                p.opcode += 1;
                continue;
            }
            _ => return Some(p),
        }
        // A REX counts only right before the opcode.
        p.rex = 0;
        p.opcode += 1;
    }
}

/// A memory operand: what its address is made of. Registers are numbered 0 (rax) to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Base register.
    pub base: Option<u8>,
    /// Index register and the shift of its value, 0 to 3.
    pub index: Option<(u8, u8)>,
    /// Displacement.
    pub displacement: i32,
    /// The displacement counts from the next instruction.
    pub rip_relative: bool,
}

impl Memory {
    /// The offset within its segment; `next` is the address of the next instruction.
    pub fn offset(&self, r: &GuestRegs, next: u64, address32: bool) -> u64 {
        let part = |n: u8| gpr(r, n);
        let base = if self.rip_relative { next } else { self.base.map_or(0, part) };
        let index = self.index.map_or(0, |(n, shift)| part(n) << shift);
        let sum = base.wrapping_add(index).wrapping_add(i64::from(self.displacement) as u64);
        if address32 { sum & 0xffff_ffff } else { sum }
    }
}

/// What a ModRM byte names beside its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rm {
    /// A register, 0 to 15.
    Register(u8),
    /// Memory.
    Memory(Memory),
}

/// A ModRM byte with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModRm {
    /// Register operand, 0 to 15.
    pub reg: u8,
    /// The other one.
    pub rm: Rm,
    /// Bytes of ModRM, SIB and displacement.
    pub len: usize,
}

impl ModRm {
    /// The memory operand, if it is one.
    pub fn memory(&self) -> Option<Memory> {
        match self.rm {
            Rm::Memory(m) => Some(m),
            Rm::Register(_) => None,
        }
    }
}

/// Decodes the ModRM at `at` (64-bit mode). `None` where bytes are missing.
pub fn modrm(b: &Bytes, at: usize, rex: u8) -> Option<ModRm> {
    let m = b.at(at)?;
    let reg = m >> 3 & 7 | (rex & 4) << 1;
    let (rm, mode) = (m & 7, m >> 6);
    if mode == 3 {
        return Some(ModRm { reg, rm: Rm::Register(rm | (rex & 1) << 3), len: 1 });
    }
    let mut len = 1;
    let mut memory = Memory { base: Some(rm | (rex & 1) << 3), index: None, displacement: 0, rip_relative: false };
    let mut size = match mode {
        1 => 1,
        2 => 4,
        _ => 0,
    };
    if rm == 4 {
        let sib = b.at(at + 1)?;
        len += 1;
        let index = sib >> 3 & 7 | (rex & 2) << 2;
        // Number 4 without REX.X is no index.
        memory.index = (index != 4).then_some((index, sib >> 6));
        memory.base = Some(sib & 7 | (rex & 1) << 3);
        if mode == 0 && sib & 7 == 5 {
            memory.base = None;
            size = 4;
        }
    } else if mode == 0 && rm == 5 {
        memory = Memory { base: None, rip_relative: true, ..memory };
        size = 4;
    }
    memory.displacement = signed(b, at + len, size)? as i32;
    Some(ModRm { reg, rm: Rm::Memory(memory), len: len + size })
}

/// A sign-extended number of `size` bytes (0, 1, 2 or 4) at `at`.
pub fn signed(b: &Bytes, at: usize, size: usize) -> Option<u64> {
    let byte = |n: usize| b.at(at + n);
    let value = match size {
        0 => 0,
        1 => i64::from(byte(0)? as i8),
        2 => i64::from(i16::from_le_bytes([byte(0)?, byte(1)?])),
        _ => i64::from(i32::from_le_bytes([byte(0)?, byte(1)?, byte(2)?, byte(3)?])),
    };
    Some(value as u64)
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// Bytes: 1, 2 or 4.
    pub size: usize,
    /// From the port (IN, INS), or to it.
    pub input: bool,
    /// The port, where the instruction names it; DX otherwise.
    pub port: Option<u8>,
    /// From or to memory (INS, OUTS).
    pub string: bool,
}

/// An instruction that is emulated at a #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their own names
pub enum Privileged {
    Port(PortAccess),
    Cli,
    Sti,
    Rdtsc,
    Rdtscp,
    Cpuid,
    Xsetbv,
    Clts,
    /// WBINVD and WBNOINVD.
    Wbinvd,
    Rdmsr,
    Wrmsr,
    /// MOV to `register` from control register `number`.
    FromControl {
        number: u8,
        register: u8,
    },
    /// MOV from `register` to control register `number`.
    ToControl {
        number: u8,
        register: u8,
    },
    /// MOV to `register` from debug register `number`.
    FromDebug {
        number: u8,
        register: u8,
    },
    /// MOV from `register` to debug register `number`.
    ToDebug {
        number: u8,
        register: u8,
    },
    /// There is no such instruction: #UD.
    Undefined,
}

/// Decodes an instruction that raised #GP(0), with its prefixes and length; `long` when in 64-bit mode. `None` for all that
/// is not emulated.
pub fn privileged(b: &Bytes, long: bool) -> Option<(Privileged, Prefixes, usize)> {
    let p = prefixes(b, long)?;
    let op = b.at(p.opcode)?;
    let one = p.opcode + 1;
    let undefined = Some((Privileged::Undefined, p, one));
    match op {
        0x6c..=0x6f | 0xe4..=0xe7 | 0xec..=0xef => {
            if p.lock {
                return undefined;
            }
            // REX.W outweighs the prefix 66; there are no ports of 64 bits.
            let size = match (op & 1, p.operand16 && !p.w()) {
                (0, _) => 1,
                (_, true) => 2,
                (_, false) => 4,
            };
            let named = op & 0xf8 == 0xe0;
            let port = if named { Some(b.at(one)?) } else { None };
            let access = PortAccess { size, input: op & 2 == 0, port, string: op & 0xf0 == 0x60 };
            return Some((Privileged::Port(access), p, one + usize::from(named)));
        }
        0xfa | 0xfb if p.lock => return undefined,
        0xfa => return Some((Privileged::Cli, p, one)),
        0xfb => return Some((Privileged::Sti, p, one)),
        0x0f => {}
        _ => return None,
    }
    let op2 = b.at(one)?;
    // Nothing of what follows may be locked; on some CPUs it is another instruction then (MOV from CR8).
    if p.lock && matches!(op2, 0x01 | 0x06 | 0x09 | 0x20..=0x23 | 0x30..=0x32 | 0xa2) {
        return undefined;
    }
    let two = one + 1;
    let plain = match op2 {
        0x06 => Privileged::Clts,
        0x09 => Privileged::Wbinvd,
        0x30 => Privileged::Wrmsr,
        0x31 => Privileged::Rdtsc,
        0x32 => Privileged::Rdmsr,
        0xa2 => Privileged::Cpuid,
        0x01 => {
            return match b.at(two)? {
                0xd1 => Some((Privileged::Xsetbv, p, two + 1)),
                0xf9 => Some((Privileged::Rdtscp, p, two + 1)),
                _ => None,
            };
        }
        0x20..=0x23 => {
            // The register form is the only one; the CPU ignores the mode bits.
            let m = b.at(two)?;
            let number = m >> 3 & 7 | (p.rex & 4) << 1;
            let register = m & 7 | (p.rex & 1) << 3;
            let what = match op2 {
                0x20 => Privileged::FromControl { number, register },
                0x22 => Privileged::ToControl { number, register },
                _ if number >= 8 => Privileged::Undefined,
                0x21 => Privileged::FromDebug { number, register },
                _ => Privileged::ToDebug { number, register },
            };
            return Some((what, p, two + 1));
        }
        _ => return None,
    };
    Some((plain, p, two))
}

#[cfg(test)]
#[path = "decode_fuzz.rs"]
pub(super) mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_modrm() {
        let b = Bytes::new(&[0xf0, 0x48, 0x0f, 0xb1, 0x0c, 0x25, 1, 2, 3, 4]);
        let p = prefixes(&b, true).unwrap();
        assert!(p.lock && p.w() && p.opcode == 2);
        let m = modrm(&b, 4, p.rex).unwrap();
        let at = Memory { base: None, index: None, displacement: 0x0403_0201, rip_relative: false };
        assert_eq!((m.reg, m.rm, m.len), (1, Rm::Memory(at), 6));
        assert_eq!(modrm(&Bytes::new(&[0xe0]), 0, 0x41).unwrap().rm, Rm::Register(8));
        assert_eq!(modrm(&Bytes::new(&[0x05, 0, 0, 0, 0]), 0, 0).unwrap().len, 5);
        assert_eq!(modrm(&Bytes::new(&[0x05, 0, 0, 0]), 0, 0), None, "the displacement must be there");
        assert_eq!(prefixes(&Bytes::new(&[0x66]), true), None);
        let p = prefixes(&Bytes::new(&[0x48, 0x66, 0x0f]), true).unwrap();
        assert!(p.rex == 0 && p.operand16 && p.opcode == 2);
        assert_eq!(prefixes(&Bytes::new(&[0x66, 0x48, 0x41, 0x0f]), true).unwrap().rex, 0x41);
    }
}
