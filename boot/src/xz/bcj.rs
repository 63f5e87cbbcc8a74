//! Undoing the x86 filter: calls and jumps, whose targets were made absolute for better compression, get their relative
//! displacements back.

/// Whether a byte can be the highest one of a near displacement.
fn is_extreme(byte: u8) -> bool {
    byte == 0 || byte == 0xff
}

/// Undoes the filter over a whole block in place.
///
/// The filter guesses what is an instruction: an `e8` or `e9` whose displacement's highest byte is 0 or ff. `mask` remembers
/// which of the last three bytes were opcodes that were not taken, since these may be displacement bytes of this one.
pub(super) fn decode_x86(block: &mut [u8]) {
    /// Number of the highest bit set in the mask, from 1.
    const BIT: [u32; 8] = [0, 1, 2, 2, 3, 3, 3, 3];
    /// Masks with which an opcode may still be taken.
    const ALLOWED: [bool; 8] = [true, true, true, false, true, false, false, false];
    let mut mask = 0usize;
    let mut previous: Option<usize> = None;
    let mut at = 0;
    while let Some(found) = block.get(at..).and_then(|rest| rest.iter().position(|b| b & 0xfe == 0xe8)) {
        at += found;
        let Some(&[a, b, c, d]) = block.get(at + 1..).and_then(|rest| rest.first_chunk::<4>()) else {
            return;
        };
        let displacement = [a, b, c, d];
        let distance = previous.map_or(usize::MAX, |previous| at - previous);
        mask = if distance > 3 { 0 } else { mask << (distance - 1) & 7 };
        previous = Some(at);
        let bit = BIT.get(mask).copied().unwrap_or(0);
        if mask != 0 {
            let byte = displacement.get(3 - bit as usize).copied().unwrap_or(0);
            if !ALLOWED.get(mask).is_some_and(|allowed| *allowed) || is_extreme(byte) {
                mask = mask << 1 | 1;
                at += 1;
                continue;
            }
        }
        if !is_extreme(d) {
            mask = mask << 1 | 1;
            at += 1;
            continue;
        }
        let next = (at as u32).wrapping_add(5);
        let mut source = u32::from_le_bytes(displacement);
        let target = loop {
            let target = source.wrapping_sub(next);
            if mask == 0 {
                break target;
            }
            let shift = bit * 8;
            if !is_extreme((target >> (24 - shift)) as u8) {
                break target;
            }
            source = target ^ ((1 << (32 - shift)) - 1);
        };
        // Sign-extended from bit 24.
        let target = ((target << 7) as i32 >> 7) as u32;
        if let Some(place) = block.get_mut(at + 1..at + 5) {
            place.copy_from_slice(&target.to_le_bytes());
        }
        at += 5;
    }
}
