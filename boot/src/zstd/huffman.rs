//! Huffman-coded literals (RFC 8878, 4.2).

use alloc::vec::Vec;

use super::bits::{ReverseBits, top};
use super::fse::{FseTable, State};
use super::{EARLY, Stop};
use crate::bytes::slice;

/// The longest code.
const MAX_BITS: u32 = 11;
/// The largest FSE table for weights.
const WEIGHT_LOG: u32 = 6;
/// Weights go to 11, and 12 symbols may be named.
const MAX_WEIGHT_SYMBOL: usize = 12;

const BAD: Stop = Stop::Corrupt("bad Huffman table");

/// A table from the next `bits` bits to a symbol (low byte) and the length of its code (high byte).
pub(super) struct HuffmanTable {
    entries: Vec<u16>,
    bits: u32,
    weights: FseTable,
}

impl HuffmanTable {
    /// An empty table, with memory for the largest one.
    pub(super) fn new() -> Result<Self, Stop> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(1 << MAX_BITS).map_err(|_| Stop::NoMemory(2 << MAX_BITS))?;
        Ok(HuffmanTable { entries, bits: 0, weights: FseTable::new()? })
    }

    /// Reads a tree description; returns its bytes.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<usize, Stop> {
        let head = usize::from(*data.first().ok_or(EARLY)?);
        let mut weights = [0u8; 256];
        let (count, used) = if head >= 128 {
            let count = head - 127;
            let packed = slice(data, 1, count.div_ceil(2)).ok_or(EARLY)?;
            let nibbles = packed.iter().flat_map(|b| [b >> 4, b & 15]).take(count);
            for (weight, nibble) in weights.iter_mut().zip(nibbles) {
                *weight = nibble;
            }
            (count, 1 + packed.len())
        } else {
            let packed = slice(data, 1, head).ok_or(EARLY)?;
            (self.read_weights(packed, &mut weights)?, 1 + head)
        };
        self.build(&mut weights, count)?;
        Ok(used)
    }

    /// Weights that are FSE-coded: two states take turns until the stream is used up.
    fn read_weights(&mut self, data: &[u8], weights: &mut [u8; 256]) -> Result<usize, Stop> {
        let used = self.weights.read(data, WEIGHT_LOG, MAX_WEIGHT_SYMBOL)?;
        let mut bits = ReverseBits::new(data.get(used..).ok_or(EARLY)?)?;
        let table = &self.weights;
        let mut states = [State::first(table, &mut bits)?, State::first(table, &mut bits)?];
        let mut count = 0;
        // 255 at most: the last symbol's weight is never written down.
        let mut put = |weight: u8| {
            *weights.get_mut(count).filter(|_| count < 255).ok_or(BAD)? = weight;
            count += 1;
            Ok(())
        };
        loop {
            let [one, other] = &mut states;
            put(one.symbol(table))?;
            let needed = one.bits(table);
            if needed as usize > bits.left() {
                put(other.symbol(table))?;
                return Ok(count);
            }
            one.advance(table, bits.read(needed)?);
            states.reverse();
        }
    }

    /// Builds the table from `count` weights; that of one more symbol follows from the others.
    fn build(&mut self, weights: &mut [u8; 256], count: usize) -> Result<(), Stop> {
        let mut sum = 0u32;
        for weight in weights.iter().take(count) {
            if u32::from(*weight) > MAX_BITS + 1 {
                return Err(BAD);
            }
            sum += (1u32 << weight) >> 1;
        }
        let bits = sum.checked_ilog2().ok_or(BAD)? + 1;
        let left = (1u32 << bits) - sum;
        if bits > MAX_BITS || !left.is_power_of_two() {
            return Err(BAD);
        }
        *weights.get_mut(count).ok_or(BAD)? = left.ilog2() as u8 + 1;
        self.entries.clear();
        // The longest codes (weight 1) come first, and within a length the symbols in order.
        for weight in 1..=bits {
            for (symbol, _) in weights.iter().take(count + 1).enumerate().filter(|(_, w)| u32::from(**w) == weight) {
                let entry = symbol as u16 | ((bits + 1 - weight) as u16) << 8;
                let end = self.entries.len() + (1 << (weight - 1));
                if end > 1 << bits {
                    return Err(BAD);
                }
                self.entries.resize(end, entry);
            }
        }
        self.bits = bits;
        if self.entries.len() == 1 << bits { Ok(()) } else { Err(BAD) }
    }

    /// Decodes a stream that must fill `out` exactly.
    pub(super) fn decode(&self, data: &[u8], out: &mut [u8]) -> Result<(), Stop> {
        if self.entries.is_empty() {
            return Err(Stop::Corrupt("literals without a Huffman table"));
        }
        let mut bits = ReverseBits::new(data)?;
        let table = self.entries.as_slice();
        // One look at the stream gives 57 bits: five codes.
        for group in out.chunks_mut(5) {
            let mut word = bits.peek();
            let mut taken = 0;
            for byte in group {
                let entry = table.get(top(word, self.bits) as usize).copied().unwrap_or(0);
                *byte = entry as u8;
                let len = u32::from(entry >> 8);
                word <<= len;
                taken += len as usize;
            }
            bits.skip(taken)?;
        }
        if bits.left() == 0 { Ok(()) } else { Err(Stop::Corrupt("a literals stream is too long")) }
    }
}
