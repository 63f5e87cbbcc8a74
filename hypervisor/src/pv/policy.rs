//! CPU policies as the tools see them: lists of CPUID leaves, and feature words.

use super::cpuid::{self, Regs};
use pv_abi::cpuid::{FEATURESET_WORDS, Leaf, NO_SUBLEAF, POLICY_BASIC_LAST, POLICY_EXTENDED_LAST};
use pv_abi::errno::Errno;

/// Whose CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The machine's own.
    Machine,
    /// What a PV domain may have of it.
    Guest,
}

/// Leaves no policy is longer than: each basic and extended leaf, the subleaves of 4, 7, 0xb and 0xd, two of ours.
pub const MAX_LEAVES: u32 = 14 + 5 + 2 + 1 + 62 + 34 + 2;

/// MSRs a policy may speak of, at most.
pub const MAX_MSRS: u32 = 2;

fn read(source: Source, leaf: u32, sub: u32) -> Regs {
    let r = cpuid::native(leaf, sub);
    match source {
        Source::Machine => r,
        Source::Guest => cpuid::policy(leaf, sub, r),
    }
}

fn highest(base: u32, limit: u32) -> u32 {
    let max = cpuid::native(base, 0).eax;
    // A CPU without this range answers with something outside it.
    if max < base || max > base | 0xffff { base } else { max.min(limit) }
}

/// Calls `f` with each leaf, as a serialised policy has them. Stops at the first error.
///
/// # Errors
/// Those of `f`.
pub fn for_each_leaf(source: Source, f: &mut dyn FnMut(Leaf) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut put = |leaf: u32, subleaf: u32, r: Regs| f(Leaf { leaf, subleaf, a: r.eax, b: r.ebx, c: r.ecx, d: r.edx });
    let max = highest(0, POLICY_BASIC_LAST);
    for leaf in 0..=max {
        let last = match leaf {
            4 => 5,
            7 => read(source, 7, 0).eax.min(2),
            0xb => 1,
            0xd => 62,
            _ => {
                let mut r = read(source, leaf, 0);
                if leaf == 0 {
                    r.eax = max;
                }
                put(leaf, NO_SUBLEAF, r)?;
                continue;
            }
        };
        for sub in 0..=last {
            let r = read(source, leaf, sub);
            // Leaf 4 ends with the first empty subleaf; empty components of 0xd say nothing.
            if leaf == 4 && r.eax & 0x1f == 0 && sub != 0 {
                break;
            }
            if leaf == 0xd && sub > 1 && r == Regs::default() {
                continue;
            }
            put(leaf, sub, r)?;
        }
    }
    let ext = highest(0x8000_0000, POLICY_EXTENDED_LAST);
    for leaf in 0x8000_0000..=ext {
        let mut r = read(source, leaf, 0);
        if leaf == 0x8000_0000 {
            r.eax = ext;
        }
        put(leaf, NO_SUBLEAF, r)?;
    }
    Ok(())
}

/// How many leaves [`for_each_leaf`] gives.
pub fn count(source: Source) -> u32 {
    let mut n = 0;
    let counted = for_each_leaf(source, &mut |_| {
        n += 1;
        Ok(())
    });
    debug_assert!(counted.is_ok());
    n
}

/// The feature words in the ABI's order: 1d, 1c, e1d, e1c, Da1, 7b0, 7c0, e7d, e8b, 7d0, 7a1, e21a, 7b1, 7d2, 7c1, 7d1;
/// the rest (MSR words) are 0.
pub fn featureset(source: Source) -> [u32; FEATURESET_WORDS] {
    let mut words = [0; FEATURESET_WORDS];
    let basic = highest(0, POLICY_BASIC_LAST);
    let ext = highest(0x8000_0000, POLICY_EXTENDED_LAST);
    let leaf = |l: u32, sub: u32| {
        let there = l <= if l < 0x8000_0000 { basic } else { ext };
        if there { read(source, l, sub) } else { Regs::default() }
    };
    let (one, e1, d1, seven, seven1, seven2) =
        (leaf(1, 0), leaf(0x8000_0001, 0), leaf(0xd, 1), leaf(7, 0), leaf(7, 1), leaf(7, 2));
    let known = [
        one.edx,
        one.ecx,
        e1.edx,
        e1.ecx,
        d1.eax,
        seven.ebx,
        seven.ecx,
        leaf(0x8000_0007, 0).edx,
        leaf(0x8000_0008, 0).ebx,
        seven.edx,
        seven1.eax,
        leaf(0x8000_0021, 0).eax,
        seven1.ebx,
        seven2.edx,
        seven1.ecx,
        seven1.edx,
    ];
    for (w, k) in words.iter_mut().zip(known) {
        *w = k;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn leaves(source: Source) -> Vec<Leaf> {
        let mut v = Vec::new();
        for_each_leaf(source, &mut |l| {
            v.push(l);
            Ok(())
        })
        .unwrap();
        v
    }

    #[test]
    fn a_policy_is_what_the_tools_accept() {
        for source in [Source::Machine, Source::Guest] {
            let v = leaves(source);
            assert!(v.len() as u32 <= MAX_LEAVES);
            assert_eq!(v.len() as u32, count(source));
            // Rising, and no leaf twice.
            assert!(v.windows(2).all(|w| (w[0].leaf, w[0].subleaf) < (w[1].leaf, w[1].subleaf)));
            assert!(v.iter().all(|l| l.leaf <= 0xd || (0x8000_0000..=0x8000_0021).contains(&l.leaf)));
            assert!(v.iter().all(|l| l.subleaf == NO_SUBLEAF || matches!(l.leaf, 4 | 7 | 0xb | 0xd)));
        }
    }

    #[test]
    fn a_guest_sees_less_than_the_machine_has() {
        let (m, g) = (featureset(Source::Machine), featureset(Source::Guest));
        for (i, (m, g)) in m.iter().zip(&g).enumerate() {
            // 1c shows the bits HYPERVISOR and OSXSAVE of its own.
            let added = if i == 1 { 1 << 31 | 1 << 27 } else { 0 };
            assert_eq!(g & !m & !added, 0, "word {i}");
        }
        assert_ne!(g[2] & 1 << 29, 0, "long mode");
        assert_eq!(g[1] & 1 << 5, 0, "VMX");
        assert_eq!(g[5] & 1 << 20, 0, "SMAP");
    }
}
