//! LZMA2: chunks of LZMA data or of plain bytes, and LZMA itself.

use alloc::vec::Vec;

use super::{Dictionary, EARLY, Stop};
use crate::bytes::slice;

// Places of the groups of probabilities. A group of `n`-bit numbers has 2^n probabilities, of which the first is unused.
const STATES: usize = 12;
const POS_STATES: usize = 16;
const IS_MATCH: usize = 0;
const IS_REP: usize = IS_MATCH + STATES * POS_STATES;
const IS_REP0: usize = IS_REP + STATES;
const IS_REP1: usize = IS_REP0 + STATES;
const IS_REP2: usize = IS_REP1 + STATES;
const IS_REP0_LONG: usize = IS_REP2 + STATES;
const DIST_SLOT: usize = IS_REP0_LONG + STATES * POS_STATES;
const DIST_SPECIAL: usize = DIST_SLOT + 4 * 64;
const DIST_ALIGN: usize = DIST_SPECIAL + 128;
const MATCH_LEN: usize = DIST_ALIGN + 16;
const REP_LEN: usize = MATCH_LEN + LEN_SIZE;
const LITERAL: usize = REP_LEN + LEN_SIZE;
const USED: usize = LITERAL + 16 * 0x300;

// Within a length coder.
const LEN_CHOICE: usize = 0;
const LEN_LOW: usize = 2;
const LEN_MID: usize = LEN_LOW + POS_STATES * 8;
const LEN_HIGH: usize = LEN_MID + POS_STATES * 8;
const LEN_SIZE: usize = LEN_HIGH + 256;

/// Rounded up to a power of two, so that a masked index needs no check.
const PROBABILITIES: usize = 16384;
const _: () = assert!(USED <= PROBABILITIES);
/// Bytes of all probabilities.
pub(super) const PROBABILITY_BYTES: usize = PROBABILITIES * 2;

/// All probabilities.
type Model = [u16; PROBABILITIES];

/// An LZMA2 decoder.
pub(super) struct Lzma {
    model: Vec<u16>,
    /// Bits of the previous byte that choose a literal coder.
    lc: u32,
    /// Bits of the position that choose a literal coder.
    literal_mask: usize,
    /// Bits of the position that choose among the other models.
    pos_mask: usize,
    state: usize,
    /// The last four distances, less one.
    reps: [u32; 4],
}

impl Lzma {
    pub(super) fn new() -> Result<Self, Stop> {
        let mut model = Vec::new();
        model.try_reserve_exact(PROBABILITIES).map_err(|_| Stop::NoMemory(PROBABILITY_BYTES))?;
        model.resize(PROBABILITIES, 0);
        Ok(Lzma { model, lc: 0, literal_mask: 0, pos_mask: 0, state: 0, reps: [0; 4] })
    }

    /// Unpacks all chunks of a block; returns the bytes they took.
    pub(super) fn unpack(&mut self, input: &[u8], dictionary: &mut Dictionary<'_>) -> Result<usize, Stop> {
        const CHUNK: Stop = Stop::Corrupt("bad LZMA2 chunk");
        let (mut need_dictionary, mut need_properties, mut need_state) = (true, true, true);
        let mut pos = 0;
        loop {
            let control = *input.get(pos).ok_or(EARLY)?;
            pos += 1;
            if control == 0 {
                return Ok(pos);
            }
            if control >= 0xe0 || control == 1 {
                need_dictionary = false;
                dictionary.start = dictionary.len;
            } else if need_dictionary {
                return Err(CHUNK);
            }
            let be16 = |at: usize| match slice(input, at, 2) {
                Some([a, b]) => Ok(usize::from(*a) << 8 | usize::from(*b)),
                _ => Err(EARLY),
            };
            if control < 0x80 {
                if control > 2 {
                    return Err(CHUNK);
                }
                let len = be16(pos)? + 1;
                let bytes = slice(input, pos + 2, len).ok_or(EARLY)?;
                let end = dictionary.len + len;
                dictionary.out.get_mut(dictionary.len..end).ok_or(Stop::Full)?.copy_from_slice(bytes);
                dictionary.len = end;
                pos += 2 + len;
                continue;
            }
            let unpacked = (usize::from(control & 0x1f) << 16 | be16(pos)?) + 1;
            let packed = be16(pos + 2)? + 1;
            pos += 4;
            if control >= 0xc0 {
                self.set_properties(*input.get(pos).ok_or(EARLY)?)?;
                need_properties = false;
                pos += 1;
            }
            if control >= 0xa0 {
                self.reset();
                need_state = false;
            }
            if need_properties || need_state {
                return Err(CHUNK);
            }
            let chunk = slice(input, pos, packed).ok_or(EARLY)?;
            self.chunk(chunk, unpacked, dictionary)?;
            pos += packed;
        }
    }

    fn set_properties(&mut self, byte: u8) -> Result<(), Stop> {
        let byte = u32::from(byte);
        let (lc, lp, pb) = (byte % 9, byte / 9 % 5, byte / 45);
        if pb > 4 || lc + lp > 4 {
            return Err(Stop::Corrupt("bad LZMA properties"));
        }
        self.lc = lc;
        self.literal_mask = (1 << lp) - 1;
        self.pos_mask = (1 << pb) - 1;
        Ok(())
    }

    fn reset(&mut self) {
        self.model.fill(1 << 10);
        self.state = 0;
        self.reps = [0; 4];
    }

    /// One chunk of LZMA data, which yields `size` bytes.
    fn chunk(&mut self, input: &[u8], size: usize, dictionary: &mut Dictionary<'_>) -> Result<(), Stop> {
        const BAD: Stop = Stop::Corrupt("bad LZMA data");
        let model: &mut Model = self.model.as_mut_slice().try_into().map_err(|_| BAD)?;
        let base = dictionary.start;
        let end = dictionary.len + size;
        // Everything before `base` is out of reach, everything behind `end` not yet ours.
        let out = dictionary.out.get_mut(base..end).ok_or(Stop::Full)?;
        let mut pos = dictionary.len - base;
        let mut bits = RangeDecoder::new(input)?;
        let mut state = self.state;
        let [mut rep0, mut rep1, mut rep2, mut rep3] = self.reps;
        while pos < out.len() {
            let pos_state = pos & self.pos_mask;
            if !bits.bit(model, IS_MATCH + state * POS_STATES + pos_state) {
                let previous = pos.checked_sub(1).and_then(|p| out.get(p)).copied().unwrap_or(0);
                let coder = ((pos & self.literal_mask) << self.lc) + (usize::from(previous) >> (8 - self.lc));
                let probs = LITERAL + coder * 0x300;
                let byte = if state < 7 {
                    bits.tree(model, probs, 8)
                } else {
                    // After a match: what follows the matched stretch helps to guess.
                    let matched = pos.checked_sub(rep0 as usize + 1).and_then(|p| out.get(p)).ok_or(BAD)?;
                    bits.literal_after_match(model, probs, usize::from(*matched))
                };
                *out.get_mut(pos).ok_or(BAD)? = byte as u8;
                pos += 1;
                state = match state {
                    0..4 => 0,
                    4..10 => state - 3,
                    _ => state - 6,
                };
                continue;
            }
            let len;
            if !bits.bit(model, IS_REP + state) {
                (rep3, rep2, rep1) = (rep2, rep1, rep0);
                len = bits.length(model, MATCH_LEN, pos_state);
                rep0 = bits.distance(model, len);
                state = if state < 7 { 7 } else { 10 };
            } else {
                if !bits.bit(model, IS_REP0 + state) {
                    if !bits.bit(model, IS_REP0_LONG + state * POS_STATES + pos_state) {
                        // A single byte from the last distance.
                        let byte = pos.checked_sub(rep0 as usize + 1).and_then(|p| out.get(p)).copied().ok_or(BAD)?;
                        *out.get_mut(pos).ok_or(BAD)? = byte;
                        pos += 1;
                        state = if state < 7 { 9 } else { 11 };
                        continue;
                    }
                } else if !bits.bit(model, IS_REP1 + state) {
                    (rep0, rep1) = (rep1, rep0);
                } else if !bits.bit(model, IS_REP2 + state) {
                    (rep0, rep1, rep2) = (rep2, rep0, rep1);
                } else {
                    (rep0, rep1, rep2, rep3) = (rep3, rep0, rep1, rep2);
                }
                len = bits.length(model, REP_LEN, pos_state);
                state = if state < 7 { 8 } else { 11 };
            }
            let offset = rep0 as usize + 1;
            let start = pos.checked_sub(offset).ok_or(BAD)?;
            let region = out.get_mut(start..pos + len).ok_or(BAD)?;
            copy_match(region, offset);
            pos += len;
        }
        if !bits.is_finished() {
            return Err(BAD);
        }
        self.state = state;
        self.reps = [rep0, rep1, rep2, rep3];
        dictionary.len = end;
        Ok(())
    }
}

/// Fills `region` behind its first `offset` bytes by repeating these.
#[inline(always)]
fn copy_match(region: &mut [u8], offset: usize) {
    let mut have = offset;
    while have < region.len() {
        let step = have.min(region.len() - have);
        region.copy_within(..step, have);
        have += step;
    }
}

/// LZMA's range decoder. Behind the end of its input it reads zeroes; [`is_finished`](Self::is_finished) tells.
struct RangeDecoder<'a> {
    range: u32,
    code: u32,
    input: &'a [u8],
    pos: usize,
}

impl<'a> RangeDecoder<'a> {
    fn new(input: &'a [u8]) -> Result<Self, Stop> {
        match input.first_chunk::<5>() {
            Some([0, code @ ..]) => {
                Ok(RangeDecoder { range: u32::MAX, code: u32::from_be_bytes(*code), input, pos: 5 })
            }
            Some(_) => Err(Stop::Corrupt("bad LZMA data")),
            None => Err(EARLY),
        }
    }

    /// Has exactly the input been used up?
    fn is_finished(&mut self) -> bool {
        self.normalise();
        self.pos == self.input.len() && self.code == 0
    }

    #[inline(always)]
    fn normalise(&mut self) {
        if self.range < 1 << 24 {
            let byte = self.input.get(self.pos).copied().unwrap_or(0);
            self.pos += 1;
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(byte);
        }
    }

    /// One bit of the probability at `index`.
    #[inline(always)]
    #[allow(clippy::indexing_slicing)] // the mask keeps the index within the array
    fn bit(&mut self, model: &mut Model, index: usize) -> bool {
        self.normalise();
        let probability = &mut model[index & (PROBABILITIES - 1)];
        // A probability has 11 bits, so neither the product nor the sums overflow.
        let bound = (self.range >> 11).wrapping_mul(u32::from(*probability));
        if self.code < bound {
            self.range = bound;
            *probability = probability.wrapping_add((2048u16.wrapping_sub(*probability)) >> 5);
            false
        } else {
            self.range = self.range.wrapping_sub(bound);
            self.code = self.code.wrapping_sub(bound);
            *probability = probability.wrapping_sub(*probability >> 5);
            true
        }
    }

    /// A number of `bits` bits, the highest first.
    #[inline(always)]
    fn tree(&mut self, model: &mut Model, base: usize, bits: u32) -> usize {
        let mut symbol = 1;
        for _ in 0..bits {
            symbol = symbol << 1 | usize::from(self.bit(model, base + symbol));
        }
        symbol - (1 << bits)
    }

    /// A number of `bits` bits, the lowest first.
    #[inline(always)]
    fn reverse_tree(&mut self, model: &mut Model, base: usize, bits: u32) -> u32 {
        let (mut symbol, mut value) = (1, 0);
        for n in 0..bits {
            let bit = self.bit(model, base + symbol);
            symbol = symbol << 1 | usize::from(bit);
            value |= u32::from(bit) << n;
        }
        value
    }

    /// A literal where `matched` is the byte that would have continued the last match.
    #[inline(always)]
    fn literal_after_match(&mut self, model: &mut Model, base: usize, matched: usize) -> usize {
        let mut symbol = 1;
        let mut matched = matched << 1;
        // 0x100 as long as all bits were those of `matched`.
        let mut offset = 0x100;
        for _ in 0..8 {
            let matched_bit = matched & offset;
            matched <<= 1;
            let bit = self.bit(model, base + offset + matched_bit + symbol);
            symbol = symbol << 1 | usize::from(bit);
            offset &= if bit { matched_bit } else { !matched_bit };
        }
        symbol & 0xff
    }

    /// The length of a match, from 2 to 273.
    #[inline(always)]
    fn length(&mut self, model: &mut Model, base: usize, pos_state: usize) -> usize {
        if !self.bit(model, base + LEN_CHOICE) {
            2 + self.tree(model, base + LEN_LOW + pos_state * 8, 3)
        } else if !self.bit(model, base + LEN_CHOICE + 1) {
            10 + self.tree(model, base + LEN_MID + pos_state * 8, 3)
        } else {
            18 + self.tree(model, base + LEN_HIGH, 8)
        }
    }

    /// The distance of a match of `len` bytes, less one.
    #[inline(always)]
    fn distance(&mut self, model: &mut Model, len: usize) -> u32 {
        let slot = self.tree(model, DIST_SLOT + (len - 2).min(3) * 64, 6) as u32;
        if slot < 4 {
            return slot;
        }
        let extra = (slot >> 1) - 1;
        let high = (2 | slot & 1) << extra;
        if slot < 14 {
            high | self.reverse_tree(model, DIST_SPECIAL + (high - slot) as usize, extra)
        } else {
            let mut middle = 0u32;
            for _ in 4..extra {
                self.normalise();
                self.range >>= 1;
                let bit = self.code >= self.range;
                if bit {
                    self.code = self.code.wrapping_sub(self.range);
                }
                middle = middle << 1 | u32::from(bit);
            }
            high | middle << 4 | self.reverse_tree(model, DIST_ALIGN, 4)
        }
    }
}
