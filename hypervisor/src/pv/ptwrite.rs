//! Stores of a guest kernel to its own page tables, which it maps read-only: done for it, entry by entry, with the same
//! checks as mmu_update.
//!
//! Handled are the instructions kernels use on page-table entries: MOV, XCHG, AND/OR/XOR with an immediate, BTS/BTR/BTC,
//! CMPXCHG, XADD, MOVNTI, STOS; anything else comes back to the guest as its page fault.

use super::decode::{Bytes, Memory, modrm, prefixes, signed};
use super::emulate::{fetch, gpr_sized, set_gpr_sized};
use crate::arch::regs::{GuestRegs, rflags as f};
use crate::domain::Cx;
use crate::mm::update::emulate_store;

/// Where an operand's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A register, as large as the operand.
    Register(u8),
    /// The instruction, sign-extended.
    Immediate(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Store(Source),
    Exchange(u8),
    And(Source),
    Or(Source),
    Xor(Source),
    BitSet(Source),
    BitReset(Source),
    BitFlip(Source),
    CompareExchange(u8),
    ExchangeAdd(u8),
    /// STOS, without a repeat.
    Stos,
}

/// A store that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store {
    op: Op,
    /// Bytes: 1, 2, 4 or 8.
    size: usize,
    /// Bytes of the instruction.
    len: usize,
    /// Where it stores to.
    at: Memory,
    rex: u8,
    segment: Option<u8>,
    address32: bool,
}

impl Store {
    /// Linear address of the operand.
    fn address(&self, r: &GuestRegs) -> u64 {
        let offset = self.at.offset(r, r.rip.wrapping_add(self.len as u64), self.address32);
        // STOS' destination has no other segment.
        let segment = if self.op == Op::Stos { None } else { self.segment };
        super::io::segment_base(segment).wrapping_add(offset)
    }

    fn value(&self, r: &GuestRegs, source: Source) -> u64 {
        match source {
            Source::Register(n) => gpr_sized(r, n, self.size, self.rex),
            Source::Immediate(v) => v,
        }
    }
}

/// Does the store at RIP to `va`; false when it is not one of these, or not allowed.
pub fn emulate(cx: &mut Cx, va: u64) -> bool {
    let Some(l4) = cx.arch.tables.kernel_base() else {
        return false;
    };
    let b = fetch(cx);
    let Some(store) = decode(&b) else {
        return false;
    };
    let (size, rex) = (store.size, store.rex);
    // A store that begins on the page before faults here, too, at an address that is not its own.
    if va & (size as u64 - 1) != 0 || store.address(cx.regs) != va {
        return false;
    }
    let mask = u64::MAX >> (64 - size * 8);
    let rax = cx.regs.rax & mask;
    let operand = match store.op {
        Op::Exchange(n) | Op::CompareExchange(n) | Op::ExchangeAdd(n) => gpr_sized(cx.regs, n, size, rex),
        Op::Store(v) | Op::And(v) | Op::Or(v) | Op::Xor(v) | Op::BitSet(v) | Op::BitReset(v) | Op::BitFlip(v) => {
            store.value(cx.regs, v)
        }
        Op::Stos => rax,
    };
    let bit = match store.op {
        // Bit offsets beyond the operand address other words; Linux uses small ones. An immediate one wraps.
        Op::BitSet(Source::Register(_)) | Op::BitReset(Source::Register(_)) | Op::BitFlip(Source::Register(_))
            if operand >= size as u64 * 8 =>
        {
            return false;
        }
        _ => operand & (size as u64 * 8 - 1),
    };
    let mut matched = true;
    let old = emulate_store(&cx.domain().mem, l4, va, size, |seen| match store.op {
        Op::Store(_) | Op::Stos | Op::Exchange(_) => Some(operand),
        Op::And(_) => Some(seen & operand),
        Op::Or(_) => Some(seen | operand),
        Op::Xor(_) => Some(seen ^ operand),
        Op::BitSet(_) => Some(seen | 1 << bit),
        Op::BitReset(_) => Some(seen & !(1 << bit)),
        Op::BitFlip(_) => Some(seen ^ 1 << bit),
        Op::ExchangeAdd(_) => Some(seen.wrapping_add(operand)),
        Op::CompareExchange(_) => {
            matched = seen == rax;
            matched.then_some(operand)
        }
    });
    let Ok(old) = old else { return false };
    let mut flags = cx.regs.rflags;
    let mut logic = |v: u64| {
        flags &= !(f::CF | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11);
        flags |= u64::from(v & mask == 0) << 6 | (v >> (size * 8 - 1) & 1) << 7;
        flags |= u64::from((v as u8).count_ones().is_multiple_of(2)) << 2;
    };
    match store.op {
        Op::Store(_) => {}
        Op::Exchange(n) => set_gpr_sized(cx.regs, n, size, rex, old),
        Op::And(_) => logic(old & operand),
        Op::Or(_) => logic(old | operand),
        Op::Xor(_) => logic(old ^ operand),
        Op::BitSet(_) | Op::BitReset(_) | Op::BitFlip(_) => flags = flags & !f::CF | old >> bit & 1,
        Op::ExchangeAdd(n) => {
            logic(old.wrapping_add(operand));
            let carry = u128::from(old) + u128::from(operand) > u128::from(mask);
            flags |= u64::from(carry);
            set_gpr_sized(cx.regs, n, size, rex, old);
        }
        Op::CompareExchange(_) => {
            logic(rax.wrapping_sub(old) & mask);
            flags |= u64::from(rax < old);
            if !matched {
                set_gpr_sized(cx.regs, 0, size, 0x40, old);
            }
        }
        Op::Stos => {
            let step = if cx.regs.rflags & f::DF != 0 { (size as u64).wrapping_neg() } else { size as u64 };
            cx.regs.rdi = cx.regs.rdi.wrapping_add(step);
        }
    }
    cx.regs.rflags = flags & !f::RF;
    cx.regs.rip = cx.regs.rip.wrapping_add(store.len as u64);
    super::emulate::step(cx)
}

/// Decodes a store; `None` for all that is not done here.
fn decode(b: &Bytes) -> Option<Store> {
    let p = prefixes(b, true)?;
    if p.rep.is_some() {
        return None;
    }
    let size = if p.w() {
        8
    } else if p.operand16 {
        2
    } else {
        4
    };
    let at = p.opcode;
    let one = b.at(at)?;
    let store = |op, size, len, at| Store { op, size, len, at, rex: p.rex, segment: p.segment, address32: p.address32 };
    if let 0xaa | 0xab = one {
        // With 32-bit addresses RDI would lose its upper half: nobody does that.
        let rdi = Memory { base: Some(7), index: None, displacement: 0, rip_relative: false };
        let size = if one == 0xaa { 1 } else { size };
        return (!p.address32 && !p.lock).then(|| store(Op::Stos, size, at + 1, rdi));
    }
    let two = if one == 0x0f { Some(b.at(at + 1)?) } else { None };
    let known = match two {
        None => matches!(one, 0x08 | 0x09 | 0x20 | 0x21 | 0x30 | 0x31 | 0x80 | 0x81 | 0x83 | 0x86..=0x89 | 0xc6 | 0xc7),
        Some(two) => matches!(two, 0xab | 0xb0 | 0xb1 | 0xb3 | 0xba | 0xbb | 0xc0 | 0xc1 | 0xc3),
    };
    if !known {
        return None;
    }
    let at = at + 1 + usize::from(two.is_some());
    let m = modrm(b, at, p.rex)?;
    let memory = m.memory()?;
    let end = at + m.len;
    let register = Source::Register(m.reg);
    // Byte forms have an even opcode.
    let sized = |opcode: u8| if opcode & 1 == 0 { 1 } else { size };
    let immediate = |size: usize| signed(b, end, size).map(Source::Immediate);
    let (op, size, immediate_len) = match (one, two) {
        (_, None) => match one {
            0x88 | 0x89 => (Op::Store(register), sized(one), 0),
            0x86 | 0x87 => (Op::Exchange(m.reg), sized(one), 0),
            0xc6 | 0xc7 if m.reg & 7 == 0 => {
                let len = sized(one).min(4);
                (Op::Store(immediate(len)?), sized(one), len)
            }
            0x80 | 0x81 | 0x83 => {
                let len = if one == 0x81 { size.min(4) } else { 1 };
                let v = immediate(len)?;
                let op = match m.reg & 7 {
                    1 => Op::Or(v),
                    4 => Op::And(v),
                    6 => Op::Xor(v),
                    _ => return None,
                };
                (op, sized(one), len)
            }
            0x08 | 0x09 => (Op::Or(register), sized(one), 0),
            0x20 | 0x21 => (Op::And(register), sized(one), 0),
            0x30 | 0x31 => (Op::Xor(register), sized(one), 0),
            _ => return None,
        },
        (_, Some(two)) => match two {
            0xb0 | 0xb1 => (Op::CompareExchange(m.reg), sized(two), 0),
            0xc0 | 0xc1 => (Op::ExchangeAdd(m.reg), sized(two), 0),
            // With the prefix 66 it is no instruction, whatever REX.W says.
            0xc3 if !p.operand16 => (Op::Store(register), size, 0),
            0xab => (Op::BitSet(register), size, 0),
            0xb3 => (Op::BitReset(register), size, 0),
            0xbb => (Op::BitFlip(register), size, 0),
            0xba => {
                let v = immediate(1)?;
                let op = match m.reg & 7 {
                    5 => Op::BitSet(v),
                    6 => Op::BitReset(v),
                    7 => Op::BitFlip(v),
                    _ => return None,
                };
                (op, size, 1)
            }
            _ => return None,
        },
    };
    // A plain store cannot be locked.
    if p.lock && matches!(op, Op::Store(_)) {
        return None;
    }
    Some(store(op, size, end + immediate_len, memory))
}

#[cfg(test)]
#[path = "ptwrite_fuzz.rs"]
mod fuzz;
