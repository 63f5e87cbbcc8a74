//! What a guest may write to debug registers: its own addresses, no general detect, no I/O breakpoints.

use crate::arch::layout::is_guest_range;
use pv_abi::errno::Errno;

/// At reset, by number (4 and 5 are other names of 6 and 7, which stand at their own places).
pub const RESET: [u64; 8] = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];

/// Writes `v` to register `n` of `regs`; bits the CPU fixes are set as it would.
///
/// # Errors
/// `ENODEV` for one that does not exist, `EPERM` for an address of the hypervisor or a kind of breakpoint guests may
/// not set, `EINVAL` for reserved bits. Nothing has changed then.
pub fn write(regs: &mut [u64; 8], n: u64, v: u64) -> Result<(), Errno> {
    let [d0, d1, d2, d3, _, _, d6, d7] = regs;
    match n {
        0..=3 => {
            if !is_guest_range(v, 0) {
                return Err(Errno::EPERM);
            }
            let slot = match n {
                0 => d0,
                1 => d1,
                2 => d2,
                _ => d3,
            };
            *slot = v;
        }
        4 | 6 => {
            if v >> 32 != 0 {
                return Err(Errno::EINVAL);
            }
            *d6 = v & 0xffff_efff | 0xffff_0ff0;
        }
        5 | 7 => {
            if v >> 32 != 0 {
                return Err(Errno::EINVAL);
            }
            if v & 1 << 13 != 0 {
                return Err(Errno::EPERM);
            }
            // I/O breakpoints (kind 2) need CR4.DE and would see the hypervisor's accesses.
            for i in 0..4 {
                if v >> (i * 2) & 3 != 0 && v >> (16 + i * 4) & 3 == 2 {
                    return Err(Errno::EPERM);
                }
            }
            *d7 = v & !0xd800 | 0x400;
        }
        _ => return Err(Errno::ENODEV),
    }
    Ok(())
}

/// The registers that a context asks for, one after the other; what may not be is left at reset (measured on Xen 4.17).
pub fn from_context(wanted: &[u64; 8]) -> [u64; 8] {
    let mut regs = RESET;
    for (n, v) in (0..).zip(wanted) {
        let _ = write(&mut regs, n, *v);
    }
    regs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_is_left_out() {
        let hypervisor = crate::arch::layout::DIRECT_MAP;
        let got = from_context(&[0x1000, hypervisor, 1 << 63, 0x2000, 0, 0, 0xf, 0x3]);
        assert_eq!(got, [0x1000, 0, 0, 0x2000, 0, 0, 0xffff_0fff, 0x403]);
        for bad in [1 << 13, 1 | 2 << 16, 1 << 32] {
            assert_eq!(from_context(&[0, 0, 0, 0, 0, 0, 0, bad])[7], 0x400, "{bad:#x}");
        }
        assert_eq!(write(&mut { RESET }, 8, 0), Err(Errno::ENODEV));
    }

    /// Every single bit, all but one, none and all: what a mask lets through shows.
    fn patterns() -> impl Iterator<Item = u64> {
        (0..64).flat_map(|n| [1 << n, !(1 << n)]).chain([0, u64::MAX])
    }

    #[test]
    fn status_of_every_bit() {
        for v in patterns() {
            let mut regs = RESET;
            let wrote = write(&mut regs, 6, v);
            // Bits that read as 1 do, bit 12 reads as 0, and the upper half is refused by the CPU.
            assert_eq!(wrote.is_ok(), v >> 32 == 0, "{v:#x}");
            assert_eq!(regs[6] >> 32, 0);
            assert_eq!(regs[6] & 0xffff_1ff0, 0xffff_0ff0, "{v:#x}");
            assert!(wrote.is_err() || regs[6] & 0xe00f == v & 0xe00f, "{v:#x}");
        }
    }

    #[test]
    fn control_of_every_bit_and_breakpoint() {
        let kinds = (0..4).flat_map(|slot| {
            (0..4).flat_map(move |on| (0..16).map(move |kind| on << (2 * slot) | kind << (16 + 4 * slot)))
        });
        for v in patterns().chain(kinds) {
            let io = (0..4).any(|i| v >> (2 * i) & 3 != 0 && v >> (16 + 4 * i) & 3 == 2);
            let mut regs = RESET;
            match write(&mut regs, 7, v) {
                // GD and the reserved bits are off (11, 12, 14, 15), bit 10 is on; what was asked for otherwise is there.
                Ok(()) => {
                    assert!(regs[7] >> 32 == 0 && regs[7] & 0xfc00 == 0x400 && !io, "{v:#x}");
                    assert_eq!(regs[7] & 0xffff_03ff, v & 0xffff_03ff, "{v:#x}");
                }
                Err(Errno::EINVAL) => assert!(v >> 32 != 0, "{v:#x}"),
                Err(e) => assert!(e == Errno::EPERM && (io || v >> 13 & 1 != 0), "{v:#x}"),
            }
        }
    }
}
