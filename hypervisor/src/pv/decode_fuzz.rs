//! The decoder of privileged instructions beside a disassembler (`iced-x86`): whatever ours takes, the other must decode to
//! the same, and what the other knows of these kinds ours must take.

use std::time::Duration;

use fuzzing::{Fuzzer, Rng};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::*;

/// An instruction's bytes: prefixes, an opcode (most often one of `opcodes`), and anything behind it.
pub(in crate::pv) fn candidate(rng: &mut Rng, opcodes: &[&[u8]]) -> Vec<u8> {
    const LEGACY: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    let mut bytes = vec![];
    let prefixes = *rng.pick(&[0, 0, 0, 1, 1, 2, 3, 9, 13]);
    for _ in 0..rng.below(prefixes + 1) {
        bytes.push(if rng.one_in(6) { 0x40 | rng.bits() as u8 & 15 } else { *rng.pick(&LEGACY) });
    }
    if rng.one_in(2) {
        bytes.push(0x40 | rng.bits() as u8 & 15);
    }
    match rng.below(8) {
        0 => bytes.push(rng.bits() as u8),
        1 => bytes.extend([0x0f, rng.bits() as u8]),
        _ => bytes.extend(*rng.pick(opcodes)),
    }
    bytes.extend(std::iter::repeat_with(|| rng.bits() as u8).take(12));
    bytes.truncate(15);
    bytes
}

/// The other's view, and its raw legacy prefixes.
pub(in crate::pv) fn other(bytes: &[u8], long: bool, rip: u64) -> Instruction {
    Decoder::with_ip(if long { 64 } else { 32 }, bytes, rip, DecoderOptions::NONE).decode()
}

/// Takes a decoder with the bytes cut: what it says must follow from the instruction's own bytes, and from all of them.
pub(in crate::pv) fn check_length<T: PartialEq + core::fmt::Debug>(
    bytes: &[u8],
    len: usize,
    decode: impl Fn(&Bytes) -> Option<T>,
) {
    let whole = decode(&Bytes::new(bytes));
    assert_eq!(decode(&Bytes::new(&bytes[..len])), whole, "it depends on what follows it");
    assert_eq!(decode(&Bytes::new(&bytes[..len - 1])), None, "its last byte is not looked at");
}

const OPCODES: [&[u8]; 28] = [
    &[0x6c],
    &[0x6d],
    &[0x6e],
    &[0x6f],
    &[0xe4],
    &[0xe5],
    &[0xe6],
    &[0xe7],
    &[0xec],
    &[0xed],
    &[0xee],
    &[0xef],
    &[0xfa],
    &[0xfb],
    &[0x0f, 0x01, 0xd1],
    &[0x0f, 0x01, 0xf9],
    &[0x0f, 0x01],
    &[0x0f, 0x06],
    &[0x0f, 0x09],
    &[0x0f, 0x20],
    &[0x0f, 0x21],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x31],
    &[0x0f, 0x32],
    &[0x0f, 0xa2],
    &[0x0f],
];

/// What the other's instruction is in our words; `None` if it is of no kind that is emulated.
fn in_our_words(i: &Instruction) -> Option<Privileged> {
    use Privileged as P;
    let port = |size: Register, input, port: OpKind| {
        let port = (port == OpKind::Immediate8).then(|| i.immediate8());
        P::Port(PortAccess { size: size.size(), input, port, string: false })
    };
    let string = |size, input| P::Port(PortAccess { size, input, port: None, string: true });
    let (a, b) = (i.op0_register(), i.op1_register());
    let number = |r: Register| r.number() as u8;
    Some(match i.mnemonic() {
        Mnemonic::In => port(a, true, i.op1_kind()),
        Mnemonic::Out => port(b, false, i.op0_kind()),
        Mnemonic::Insb => string(1, true),
        Mnemonic::Insw => string(2, true),
        Mnemonic::Insd => string(4, true),
        Mnemonic::Outsb => string(1, false),
        Mnemonic::Outsw => string(2, false),
        Mnemonic::Outsd => string(4, false),
        Mnemonic::Cli => P::Cli,
        Mnemonic::Sti => P::Sti,
        Mnemonic::Rdtsc => P::Rdtsc,
        Mnemonic::Rdtscp => P::Rdtscp,
        Mnemonic::Cpuid => P::Cpuid,
        Mnemonic::Xsetbv => P::Xsetbv,
        Mnemonic::Clts => P::Clts,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => P::Wbinvd,
        Mnemonic::Rdmsr => P::Rdmsr,
        Mnemonic::Wrmsr => P::Wrmsr,
        Mnemonic::Mov if b.is_cr() => P::FromControl { number: number(b), register: number(a) },
        Mnemonic::Mov if a.is_cr() => P::ToControl { number: number(a), register: number(b) },
        Mnemonic::Mov if b.is_dr() => P::FromDebug { number: number(b), register: number(a) },
        Mnemonic::Mov if a.is_dr() => P::ToDebug { number: number(a), register: number(b) },
        _ => return None,
    })
}

/// Why ours may take what the other calls invalid: the CPU raises #UD for it, so that it never comes here with a #GP. (It
/// may still, if another vCPU changes the bytes meanwhile: the guest's own affair.)
fn undefined_anyway(what: Privileged, p: &Prefixes) -> Option<&'static str> {
    match what {
        Privileged::FromControl { number, .. } | Privileged::ToControl { number, .. } => {
            (!matches!(number, 0 | 2 | 3 | 4 | 8)).then_some("there is no such control register")
        }
        Privileged::Xsetbv | Privileged::Rdtscp => {
            (p.operand16 || p.rep.is_some()).then_some("66, F2 and F3 make it another instruction or none")
        }
        _ => None,
    }
}

#[test]
fn fuzz_privileged_instructions() {
    let fuzzer = Fuzzer {
        name: "fuzz_privileged_instructions",
        target: "-p hypervisor --lib",
        cases: 100_000,
        // The disassembler makes its tables at the first use.
        heap: 4 << 20,
        time: Duration::from_secs(1),
    };
    fuzzer.run(|rng| {
        let mut bytes = candidate(rng, &OPCODES);
        if rng.one_in(10) {
            bytes.truncate(rng.below(15));
        }
        let long = !rng.one_in(4);
        let ours = privileged(&Bytes::new(&bytes), long);
        let other = other(&bytes, long, 0x1000);
        match ours {
            None => {
                if !other.is_invalid()
                    && let Some(what) = in_our_words(&other)
                {
                    panic!("{bytes:02x?}, long {long}: {what:?} is not taken");
                }
                false
            }
            Some((Privileged::Undefined, ..)) => {
                assert!(other.is_invalid(), "{bytes:02x?}, long {long}: {other} is called undefined");
                false
            }
            Some((what, p, _)) if undefined_anyway(what, &p).is_some() => false,
            Some((what, p, len)) => {
                assert!(!other.is_invalid(), "{bytes:02x?}, long {long}: {what:?} is no instruction");
                assert_eq!((Some(what), len), (in_our_words(&other), other.len()), "{bytes:02x?}, long {long}");
                check_length(&bytes, len, |b| privileged(b, long));
                if let Privileged::Port(PortAccess { string: true, .. }) = what {
                    assert_eq!(p.rep.is_some(), other.has_rep_prefix() || other.has_repne_prefix(), "{bytes:02x?}");
                    let segment = match p.segment {
                        Some(0x64) => Register::FS,
                        Some(0x65) => Register::GS,
                        _ => Register::DS,
                    };
                    let theirs = other.segment_prefix();
                    let theirs = if matches!(theirs, Register::FS | Register::GS) { theirs } else { Register::DS };
                    assert!(!long || segment == theirs, "{bytes:02x?}: {segment:?} {theirs:?}");
                }
                true
            }
        }
    });
}
