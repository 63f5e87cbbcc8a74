//! What guests may put into registers that have rules, as pure functions: what the emulator cannot refuse is tested here.

use crate::arch::regs::rflags as f;

/// RFLAGS bits that exist, but for those that are fixed (SDM vol. 1 §3.4.3).
const EXISTING: u64 = 0x3f_7fd5;

/// RFLAGS of a guest that goes back to where it says (iret): interrupts stay on, and the privileged bits are not its own.
pub const fn flags_of_return(wanted: u64) -> u64 {
    wanted & !(f::IOPL | f::VM | f::VIF | f::VIP) & EXISTING | f::IF | f::FIXED
}

/// RFLAGS of a vCPU whose context is set from outside: as [`flags_of_return`], and nothing that traps at once.
pub const fn flags_of_context(wanted: u64) -> u64 {
    flags_of_return(wanted) & !(f::RF | f::NT | f::TF)
}

/// RFLAGS of a guest kernel that is entered, from those it was interrupted with.
pub const fn flags_of_entry(interrupted: u64) -> u64 {
    interrupted & !(f::TF | f::NT | f::RF | f::VM | f::AC | f::IOPL) | f::IF | f::FIXED
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every single bit, all but one, none and all: what a mask lets through shows.
    fn patterns() -> impl Iterator<Item = u64> {
        (0..64).flat_map(|n| [1 << n, !(1 << n)]).chain([0, u64::MAX])
    }

    /// No guest runs with interrupts off, at another I/O privilege level, or in virtual-8086 mode.
    fn harmless(flags: u64) -> bool {
        let off = f::IOPL | f::VM | f::VIF | f::VIP;
        flags & (f::IF | f::FIXED) == f::IF | f::FIXED && flags & off == 0 && flags & !(EXISTING | f::FIXED) == 0
    }

    #[test]
    fn flags() {
        let kept = EXISTING & !(f::IOPL | f::VM | f::VIF | f::VIP | f::IF);
        for v in patterns() {
            assert!(harmless(flags_of_return(v)) && harmless(flags_of_context(v)), "{v:#x}");
            assert_eq!(flags_of_return(v) & kept, v & kept, "a guest's own bits are not touched: {v:#x}");
            assert_eq!(flags_of_context(v) & (f::TF | f::NT | f::RF), 0, "{v:#x}");
            // What a guest was interrupted with is harmless already.
            let entered = flags_of_entry(flags_of_return(v));
            assert!(harmless(entered) && entered & (f::TF | f::NT | f::RF | f::AC) == 0, "{v:#x}");
        }
        assert_eq!(
            flags_of_return(0x202 | f::TF | f::AC | f::ID | f::NT | f::RF),
            0x202 | f::TF | f::AC | f::ID | f::NT | f::RF
        );
    }
}
