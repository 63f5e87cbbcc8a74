//! The decoder of page-table stores beside a disassembler (`iced-x86`): length, kind, operands and the address it stores to.

use std::time::Duration;

use fuzzing::{Fuzzer, Rng};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::super::decode::fuzz::{candidate, check_length, other};
use super::super::emulate::gpr;
use super::super::io::{fs_base, gs_base};
use super::*;

const OPCODES: [&[u8]; 34] = [
    &[0x88],
    &[0x89],
    &[0x86],
    &[0x87],
    &[0xc6],
    &[0xc7],
    &[0xaa],
    &[0xab],
    &[0x80],
    &[0x81],
    &[0x83],
    &[0x08],
    &[0x09],
    &[0x20],
    &[0x21],
    &[0x30],
    &[0x31],
    &[0xa2],
    &[0xa3],
    &[0x8c],
    &[0x00],
    &[0xf7],
    &[0xff],
    &[0x0f, 0xb0],
    &[0x0f, 0xb1],
    &[0x0f, 0xc0],
    &[0x0f, 0xc1],
    &[0x0f, 0xc3],
    &[0x0f, 0xab],
    &[0x0f, 0xb3],
    &[0x0f, 0xbb],
    &[0x0f, 0xba],
    &[0x0f, 0xc7],
    &[0xc5],
];

fn registers(rng: &mut Rng) -> GuestRegs {
    let mut r = GuestRegs { rip: rng.number(), ..GuestRegs::default() };
    for n in 0..16 {
        super::super::emulate::set_gpr(&mut r, n, rng.number());
    }
    r
}

/// The value of one of the other's registers.
fn value(r: &GuestRegs, register: Register) -> u64 {
    match register {
        Register::FS => fs_base(),
        Register::GS => gs_base(),
        Register::ES | Register::CS | Register::SS | Register::DS => 0,
        Register::AH | Register::CH | Register::DH | Register::BH => {
            gpr(r, register.full_register().number() as u8) >> 8 & 0xff
        }
        _ => gpr(r, register.full_register().number() as u8) & (u64::MAX >> (64 - register.size() * 8)),
    }
}

fn kinds(op: Op) -> &'static [Mnemonic] {
    match op {
        Op::Store(_) => &[Mnemonic::Mov, Mnemonic::Movnti],
        Op::Exchange(_) => &[Mnemonic::Xchg],
        Op::And(_) => &[Mnemonic::And],
        Op::Or(_) => &[Mnemonic::Or],
        Op::Xor(_) => &[Mnemonic::Xor],
        Op::BitSet(_) => &[Mnemonic::Bts],
        Op::BitReset(_) => &[Mnemonic::Btr],
        Op::BitFlip(_) => &[Mnemonic::Btc],
        Op::CompareExchange(_) => &[Mnemonic::Cmpxchg],
        Op::ExchangeAdd(_) => &[Mnemonic::Xadd],
        Op::Stos => &[Mnemonic::Stosb, Mnemonic::Stosw, Mnemonic::Stosd, Mnemonic::Stosq],
    }
}

/// What was decoded is what the other says.
fn agree(store: &Store, other: &Instruction, r: &GuestRegs) {
    assert!(!other.is_invalid(), "{store:?} is no instruction");
    assert_eq!(store.len, other.len());
    assert!(kinds(store.op).contains(&other.mnemonic()), "{store:?}: {other}");
    assert_eq!(store.size, other.memory_size().size(), "{store:?}: {other}");
    let address = other.virtual_address(0, 0, |register, _, _| Some(value(r, register)));
    assert_eq!(Some(store.address(r)), address, "{store:?}: {other}");
    let mask = u64::MAX >> (64 - store.size * 8);
    let source = match store.op {
        Op::Stos => return,
        Op::Exchange(n) | Op::CompareExchange(n) | Op::ExchangeAdd(n) => Source::Register(n),
        Op::Store(s) | Op::And(s) | Op::Or(s) | Op::Xor(s) | Op::BitSet(s) | Op::BitReset(s) | Op::BitFlip(s) => s,
    };
    let theirs = match other.op1_kind() {
        OpKind::Register => {
            assert_eq!(other.op1_register().size(), store.size);
            assert!(matches!(source, Source::Register(_)));
            value(r, other.op1_register())
        }
        _ => {
            assert!(matches!(source, Source::Immediate(_)));
            other.immediate(1)
        }
    };
    // An immediate bit number counts within the operand.
    let bits = matches!((store.op, source), (Op::BitSet(_) | Op::BitReset(_) | Op::BitFlip(_), Source::Immediate(_)));
    let mask = if bits { store.size as u64 * 8 - 1 } else { mask };
    assert_eq!(store.value(r, source) & mask, theirs & mask, "{store:?}: {other}");
}

/// Every reason to refuse a store of the kinds above. The guest gets its page fault then.
fn refusal(bytes: &[u8], other: &Instruction) -> Option<&'static str> {
    let prefixes = bytes.iter().take_while(|b| {
        matches!(b, 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x40..=0x4f)
    });
    if prefixes.clone().any(|b| matches!(b, 0xf2 | 0xf3)) {
        return Some("repeated, or a hint of lock elision");
    }
    if matches!(other.op0_kind(), OpKind::MemoryESEDI) {
        return Some("STOS with 32-bit addresses");
    }
    if other.mnemonic() == Mnemonic::Mov && other.op1_register().is_segment_register() {
        return Some("stores a selector");
    }
    if other.mnemonic() == Mnemonic::Mov && matches!(bytes.get(prefixes.count()), Some(0xa2 | 0xa3)) {
        return Some("stores AL or rAX to an address within the instruction");
    }
    None
}

#[test]
fn fuzz_page_table_stores() {
    let fuzzer = Fuzzer {
        name: "fuzz_page_table_stores",
        target: "-p hypervisor --lib",
        cases: 100_000,
        // The disassembler makes its tables at the first use.
        heap: 4 << 20,
        time: Duration::from_secs(1),
    };
    let all = [
        Op::Store(Source::Register(0)),
        Op::Exchange(0),
        Op::And(Source::Register(0)),
        Op::Or(Source::Register(0)),
        Op::Xor(Source::Register(0)),
        Op::BitSet(Source::Register(0)),
        Op::BitReset(Source::Register(0)),
        Op::BitFlip(Source::Register(0)),
        Op::CompareExchange(0),
        Op::ExchangeAdd(0),
        Op::Stos,
    ];
    fuzzer.run(|rng| {
        let mut bytes = candidate(rng, &OPCODES);
        if rng.one_in(10) {
            bytes.truncate(rng.below(15));
        }
        let r = registers(rng);
        let other = other(&bytes, true, r.rip);
        match decode(&Bytes::new(&bytes)) {
            Some(store) => {
                agree(&store, &other, &r);
                check_length(&bytes, store.len, decode);
                true
            }
            None => {
                let to_memory = matches!(other.op0_kind(), OpKind::Memory | OpKind::MemoryESRDI | OpKind::MemoryESEDI);
                if !other.is_invalid() && to_memory && all.iter().any(|op| kinds(*op).contains(&other.mnemonic())) {
                    assert!(refusal(&bytes, &other).is_some(), "{bytes:02x?}: {other} is refused");
                }
                false
            }
        }
    });
}
