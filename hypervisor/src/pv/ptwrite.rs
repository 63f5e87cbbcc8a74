//! Stores of a guest kernel to its own page tables, which it maps read-only: done for it, entry by entry, with the same
//! checks as mmu_update.
//!
//! Handled are the instructions kernels use on page-table entries: MOV, XCHG, AND/OR/XOR with an immediate, BTS/BTR/BTC,
//! CMPXCHG, XADD, MOVNTI, STOS; anything else comes back to the guest as its page fault.

use super::decode::{Bytes, ModRm, modrm, prefixes};
use super::emulate::{fetch, gpr, gpr_sized, set_gpr_sized};
use crate::arch::regs::rflags as f;
use crate::domain::Cx;
use crate::mm::update::emulate_store;

enum Op {
    Store(u64),
    Exchange(u8),
    And(u64),
    Or(u64),
    Xor(u64),
    BitSet(u32),
    BitReset(u32),
    BitFlip(u32),
    CompareExchange(u8),
    ExchangeAdd(u8),
    Stos,
}

/// Does the store at RIP to `va`; false when it is not one of these, or not allowed.
pub fn emulate(cx: &mut Cx, va: u64) -> bool {
    let Some(l4) = cx.arch.tables.kernel_base() else {
        return false;
    };
    let b = fetch(cx);
    let Some((op, size, len)) = decode(cx, &b) else {
        return false;
    };
    let mask = if size == 8 {
        u64::MAX
    } else {
        (1u64 << (size * 8)) - 1
    };
    let reg = |n: u8| gpr_sized(cx.regs, n, size, b_rex(&b));
    let rax = cx.regs.rax & mask;
    // Bit offsets beyond the operand address other words; Linux uses small ones.
    if let Op::BitSet(n) | Op::BitReset(n) | Op::BitFlip(n) = op
        && n >= size as u32 * 8
    {
        return false;
    }
    if va & (size as u64 - 1) != 0 {
        return false;
    }
    let operand = match op {
        Op::Exchange(n) | Op::CompareExchange(n) | Op::ExchangeAdd(n) => reg(n),
        _ => 0,
    };
    let mut matched = true;
    let old = emulate_store(&cx.domain().mem, l4, va, size, |seen| match op {
        Op::Store(v) => Some(v),
        Op::Stos => Some(rax),
        Op::Exchange(_) => Some(operand),
        Op::And(v) => Some(seen & v),
        Op::Or(v) => Some(seen | v),
        Op::Xor(v) => Some(seen ^ v),
        Op::BitSet(n) => Some(seen | 1 << n),
        Op::BitReset(n) => Some(seen & !(1 << n)),
        Op::BitFlip(n) => Some(seen ^ 1 << n),
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
    let rex = b_rex(&b);
    match op {
        Op::Store(_) => {}
        Op::Exchange(n) => set_gpr_sized(cx.regs, n, size, rex, old),
        Op::And(v) => logic(old & v),
        Op::Or(v) => logic(old | v),
        Op::Xor(v) => logic(old ^ v),
        Op::BitSet(n) | Op::BitReset(n) | Op::BitFlip(n) => flags = flags & !f::CF | old >> n & 1,
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
            let step = if cx.regs.rflags & f::DF != 0 {
                (size as u64).wrapping_neg()
            } else {
                size as u64
            };
            cx.regs.rdi = cx.regs.rdi.wrapping_add(step);
        }
    }
    cx.regs.rflags = flags & !f::RF;
    cx.regs.rip = cx.regs.rip.wrapping_add(len as u64);
    super::emulate::step(cx)
}

fn b_rex(b: &Bytes) -> u8 {
    prefixes(b, true).map_or(0, |p| p.rex)
}

/// Operation, operand size and instruction length.
fn decode(cx: &Cx, b: &Bytes) -> Option<(Op, usize, usize)> {
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
    let memory = |m: ModRm| m.rm_register.is_none().then_some(m);
    let imm = |at: usize, n: usize| -> Option<u64> {
        let mut v = [0u8; 8];
        for (i, d) in v.iter_mut().enumerate().take(n) {
            *d = b.at(at + i)?;
        }
        Some(match n {
            1 => i64::from(v[0] as i8) as u64,
            2 => i64::from(i16::from_le_bytes([v[0], v[1]])) as u64,
            _ => i64::from(i32::from_le_bytes([v[0], v[1], v[2], v[3]])) as u64,
        })
    };
    let imm_len = size.min(4);
    let one = b.at(at)?;
    Some(match one {
        0x88 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (
                Op::Store(gpr_sized(cx.regs, m.reg, 1, p.rex)),
                1,
                at + 1 + m.len,
            )
        }
        0x89 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (Op::Store(gpr(cx.regs, m.reg)), size, at + 1 + m.len)
        }
        0x86 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (Op::Exchange(m.reg), 1, at + 1 + m.len)
        }
        0x87 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (Op::Exchange(m.reg), size, at + 1 + m.len)
        }
        0xc6 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (Op::Store(imm(at + 1 + m.len, 1)?), 1, at + 2 + m.len)
        }
        0xc7 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            (
                Op::Store(imm(at + 1 + m.len, imm_len)?),
                size,
                at + 1 + m.len + imm_len,
            )
        }
        0xaa => (Op::Stos, 1, at + 1),
        0xab => (Op::Stos, size, at + 1),
        0x80 | 0x81 | 0x83 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            let n = if one == 0x81 { imm_len } else { 1 };
            let size = if one == 0x80 { 1 } else { size };
            let v = imm(at + 1 + m.len, n)?;
            let op = match m.reg & 7 {
                1 => Op::Or(v),
                4 => Op::And(v),
                6 => Op::Xor(v),
                _ => return None,
            };
            (op, size, at + 1 + m.len + n)
        }
        0x08 | 0x09 | 0x20 | 0x21 | 0x30 | 0x31 => {
            let m = memory(modrm(b, at + 1, p.rex)?)?;
            let size = if one & 1 == 0 { 1 } else { size };
            let v = gpr_sized(cx.regs, m.reg, size, p.rex);
            let op = match one & !1 {
                0x08 => Op::Or(v),
                0x20 => Op::And(v),
                _ => Op::Xor(v),
            };
            (op, size, at + 1 + m.len)
        }
        0x0f => {
            let two = b.at(at + 1)?;
            let m = memory(modrm(b, at + 2, p.rex)?)?;
            let len = at + 2 + m.len;
            let bit = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            match two {
                0xb0 => (Op::CompareExchange(m.reg), 1, len),
                0xb1 => (Op::CompareExchange(m.reg), size, len),
                0xc0 => (Op::ExchangeAdd(m.reg), 1, len),
                0xc1 => (Op::ExchangeAdd(m.reg), size, len),
                0xc3 => (Op::Store(gpr(cx.regs, m.reg)), size, len),
                0xab => (Op::BitSet(bit(gpr(cx.regs, m.reg))), size, len),
                0xb3 => (Op::BitReset(bit(gpr(cx.regs, m.reg))), size, len),
                0xbb => (Op::BitFlip(bit(gpr(cx.regs, m.reg))), size, len),
                0xba => {
                    let n = bit(imm(len, 1)? & (size as u64 * 8 - 1));
                    let op = match m.reg & 7 {
                        5 => Op::BitSet(n),
                        6 => Op::BitReset(n),
                        7 => Op::BitFlip(n),
                        _ => return None,
                    };
                    (op, size, len + 1)
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}
