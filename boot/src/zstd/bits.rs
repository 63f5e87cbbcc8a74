//! Bit streams: read backwards (Huffman and FSE data), and forwards (FSE table descriptions).

use super::Stop;
use crate::bytes::u64_at;

/// A stream that is read from its end: the last byte's highest set bit marks where.
pub(super) struct ReverseBits<'a> {
    data: &'a [u8],
    /// Bits not read yet.
    left: usize,
}

impl<'a> ReverseBits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Result<Self, Stop> {
        match data.last() {
            Some(last) if *last != 0 => {
                Ok(ReverseBits { data, left: data.len() * 8 - 1 - last.leading_zeros() as usize })
            }
            _ => Err(Stop::Corrupt("a bit stream has no end mark")),
        }
    }

    /// Bits not read yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next bits, the first one highest: at least 57 of them, zeroes after the stream's beginning.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        let end = self.left.div_ceil(8);
        let word = match end.checked_sub(8) {
            Some(start) => u64_at(self.data, start).unwrap_or(0),
            None => {
                let bytes = self.data.get(..end).unwrap_or_default();
                let low = bytes.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
                // 8 × 8 for an empty stream would be too far to shift.
                if end == 0 { 0 } else { low << (64 - 8 * end) }
            }
        };
        word << (8 * end - self.left)
    }

    /// Takes `count` bits that were peeked at.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(count).ok_or(Stop::Corrupt("a bit stream ends early"))?;
        Ok(())
    }

    /// The next `count` bits (at most 57) as a number.
    #[inline(always)]
    pub(super) fn read(&mut self, count: u32) -> Result<u64, Stop> {
        let value = top(self.peek(), count);
        self.skip(count as usize)?;
        Ok(value)
    }
}

/// The highest `count` bits (less than 64) of `word`.
#[inline(always)]
pub(super) fn top(word: u64, count: u32) -> u64 {
    word >> 1 >> (63 - (count & 63))
}

/// A stream that is read from its beginning, lowest bit first.
pub(super) struct ForwardBits<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> ForwardBits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        ForwardBits { data, pos: 0 }
    }

    /// The next `count` bits, at most 16.
    pub(super) fn read(&mut self, count: u32) -> Result<u32, Stop> {
        let byte = |n: usize| u32::from(self.data.get(self.pos / 8 + n).copied().unwrap_or(0));
        let word = byte(0) | byte(1) << 8 | byte(2) << 16;
        let value = word >> (self.pos % 8) & ((1 << count) - 1);
        self.pos += count as usize;
        if self.pos > self.data.len() * 8 { Err(Stop::Corrupt("a table description ends early")) } else { Ok(value) }
    }

    /// Gives one bit back.
    pub(super) fn rewind(&mut self) {
        self.pos = self.pos.saturating_sub(1);
    }

    /// Bytes begun so far.
    pub(super) fn bytes(&self) -> usize {
        self.pos.div_ceil(8)
    }
}
