//! Segment descriptors: what a guest may have in its GDT and LDT.
//!
//! Everything runs at ring 3, so code and data descriptors are raised to DPL 3; call gates may only lead to guest
//! selectors or to the flat code segment; system segments and interrupt gates are refused. The descriptors above entry 7168 are ours.

use super::phys;
use pv_abi::arch::sel;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

const PRESENT: u64 = 1 << 47;
const DPL: u64 = 3 << 45;
const CODE_OR_DATA: u64 = 1 << 44;
/// In a selector: of the LDT.
const LDT: u16 = 4;

/// `desc` as it may be loaded.
///
/// # Errors
/// `EINVAL` for a kind of descriptor guests may not have.
pub fn sanitise(desc: u64) -> Result<u64, Errno> {
    if desc & PRESENT == 0 {
        return Ok(desc);
    }
    if desc & CODE_OR_DATA != 0 {
        return Ok(desc | DPL);
    }
    match desc >> 40 & 0x1f {
        // The upper half of a 64-bit gate: no selector can name it.
        0 => return Ok(desc),
        12 => {}
        _ => return Err(Errno::EINVAL),
    }
    // Bits 32 to 39 of a gate are reserved in long mode.
    let (selector, reserved) = ((desc >> 16) as u16, desc >> 32 & 0xff);
    let ours = selector & !7 >= sel::FIRST_RESERVED_GDT_ENTRY * 8 && selector & LDT == 0;
    if reserved != 0 || (ours && selector != sel::FLAT_RING3_CS64) {
        return Err(Errno::EINVAL);
    }
    Ok(desc & !DPL | 3 << 16)
}

/// Checks and adjusts all descriptors of a page that is to become part of a GDT or LDT.
pub(super) fn validate_page(mfn: Mfn) -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    // Look before touching: a page that fails is left as it was.
    for pass in 0..2 {
        for i in 0..512 {
            // SAFETY: the domain's RAM in state `validating`: no writable mapping exists.
            let slot = unsafe { phys::entry(mfn, i) };
            let old = slot.load(Relaxed);
            match sanitise(old) {
                Err(_) => return false,
                Ok(new) if pass == 1 && new != old => slot.store(new, Relaxed),
                Ok(_) => {}
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_privilege_and_refuses_system_segments() {
        assert_eq!(sanitise(0x00af_9b00_0000_ffff), Ok(0x00af_fb00_0000_ffff));
        assert_eq!(sanitise(0), Ok(0));
        for system in [2u64, 5, 9, 11, 14, 15] {
            assert_eq!(sanitise(PRESENT | system << 40), Err(Errno::EINVAL), "type {system}");
        }
        let gate = PRESENT | 12 << 40;
        assert_eq!(sanitise(gate | 0x33 << 16), Ok(gate | 0x33 << 16));
        assert_eq!(sanitise(gate | 0x10 << 16), Ok(gate | 0x13 << 16));
        assert_eq!(sanitise(gate | 0xe008 << 16), Err(Errno::EINVAL));
        assert_eq!(sanitise(gate | 0xe033 << 16), Ok(gate | 0xe033 << 16));
        assert_eq!(sanitise(gate | 0xe030 << 16), Err(Errno::EINVAL));
        assert_eq!(sanitise(gate | 0x33 << 16 | 1 << 32), Err(Errno::EINVAL));
        assert_eq!(sanitise(PRESENT), Ok(PRESENT));
    }
}
