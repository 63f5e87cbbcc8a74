//! Finite-state entropy tables (RFC 8878, 4.1).

use alloc::vec::Vec;

use super::Stop;
use super::bits::{ForwardBits, ReverseBits};

/// The most symbols any FSE alphabet has: match lengths have 53, weights 13.
const MAX_SYMBOLS: usize = 53;
/// The largest table: 2^9 states.
const MAX_LOG: u32 = 9;

const BAD: Stop = Stop::Corrupt("bad FSE table");

/// One state: the symbol it means, and how to come to the next state.
#[derive(Clone, Copy, Default)]
struct Entry {
    symbol: u8,
    bits: u8,
    base: u16,
}

/// A decoding table.
pub(super) struct FseTable {
    entries: Vec<Entry>,
    log: u32,
}

/// Probabilities of symbols; −1 is "less than one".
#[derive(Clone, Copy)]
struct Counts {
    counts: [i16; MAX_SYMBOLS],
    len: usize,
}

impl FseTable {
    /// An empty table, with memory for the largest one.
    pub(super) fn new() -> Result<Self, Stop> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(1 << MAX_LOG).map_err(|_| Stop::NoMemory(size_of::<Entry>() << MAX_LOG))?;
        Ok(FseTable { entries, log: 0 })
    }

    /// Has it been set?
    pub(super) fn is_set(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Reads a table description; returns its bytes.
    pub(super) fn read(&mut self, data: &[u8], max_log: u32, max_symbol: usize) -> Result<usize, Stop> {
        let mut bits = ForwardBits::new(data);
        let log = bits.read(4)? + 5;
        if log > max_log.min(MAX_LOG) {
            return Err(BAD);
        }
        let mut counts = Counts { counts: [0; MAX_SYMBOLS], len: 0 };
        let mut remaining = 1i32 << log;
        while remaining > 0 {
            let width = (remaining + 1).ilog2() + 1;
            let low_mask = (1u32 << (width - 1)) - 1;
            let threshold = (1u32 << width) - 1 - (remaining as u32 + 1);
            let mut value = bits.read(width)?;
            if value & low_mask < threshold {
                bits.rewind();
                value &= low_mask;
            } else if value > low_mask {
                value -= threshold;
            }
            let count = value as i32 - 1;
            remaining -= count.abs();
            counts.push(count as i16, max_symbol)?;
            if count == 0 {
                loop {
                    let zeroes = bits.read(2)?;
                    for _ in 0..zeroes {
                        counts.push(0, max_symbol)?;
                    }
                    if zeroes != 3 {
                        break;
                    }
                }
            }
        }
        if remaining != 0 {
            return Err(BAD);
        }
        self.build(&counts, log)?;
        Ok(bits.bytes())
    }

    /// Sets one of the predefined tables.
    pub(super) fn predefined(&mut self, counts: &[i16], log: u32) -> Result<(), Stop> {
        let mut all = Counts { counts: [0; MAX_SYMBOLS], len: 0 };
        for count in counts {
            all.push(*count, MAX_SYMBOLS - 1)?;
        }
        self.build(&all, log)
    }

    /// Sets the table that always means `symbol`.
    pub(super) fn single(&mut self, symbol: u8) {
        self.entries.clear();
        self.entries.push(Entry { symbol, bits: 0, base: 0 });
        self.log = 0;
    }

    fn build(&mut self, counts: &Counts, log: u32) -> Result<(), Stop> {
        let size = 1usize << log;
        self.entries.clear();
        self.entries.resize(size, Entry::default());
        self.log = log;
        let symbols = || counts.counts.iter().take(counts.len).enumerate();
        // Symbols of a probability below one take the last states, one each.
        let mut high = size;
        for (symbol, _) in symbols().filter(|(_, count)| **count == -1) {
            high = high.checked_sub(1).ok_or(BAD)?;
            self.entries.get_mut(high).ok_or(BAD)?.symbol = symbol as u8;
        }
        // The others are spread over the rest.
        let step = (size >> 1) + (size >> 3) + 3;
        let mut pos = 0;
        for (symbol, count) in symbols() {
            for _ in 0..(*count).max(0) {
                self.entries.get_mut(pos).ok_or(BAD)?.symbol = symbol as u8;
                loop {
                    pos = (pos + step) & (size - 1);
                    if pos < high {
                        break;
                    }
                    if high == 0 {
                        return Err(BAD);
                    }
                }
            }
        }
        if pos != 0 {
            return Err(BAD);
        }
        let mut next = [0u16; MAX_SYMBOLS];
        for (next, (_, count)) in next.iter_mut().zip(symbols()) {
            *next = count.unsigned_abs();
        }
        for entry in &mut self.entries {
            let next = next.get_mut(usize::from(entry.symbol)).ok_or(BAD)?;
            let bits = log.checked_sub((*next).checked_ilog2().ok_or(BAD)?).ok_or(BAD)?;
            entry.bits = bits as u8;
            entry.base = ((usize::from(*next) << bits) - size) as u16;
            *next += 1;
        }
        Ok(())
    }
}

impl Counts {
    fn push(&mut self, count: i16, max_symbol: usize) -> Result<(), Stop> {
        if self.len > max_symbol {
            return Err(BAD);
        }
        *self.counts.get_mut(self.len).ok_or(BAD)? = count;
        self.len += 1;
        Ok(())
    }
}

/// A place in a table.
pub(super) struct State(usize);

impl State {
    /// The first state, chosen by the stream's first bits.
    pub(super) fn first(table: &FseTable, bits: &mut ReverseBits<'_>) -> Result<Self, Stop> {
        Ok(State(bits.read(table.log)? as usize))
    }

    /// What it means.
    #[inline(always)]
    pub(super) fn symbol(&self, table: &FseTable) -> u8 {
        table.entries.get(self.0).map_or(0, |entry| entry.symbol)
    }

    /// Bits that the way to the next state takes, at most 9.
    #[inline(always)]
    pub(super) fn bits(&self, table: &FseTable) -> u32 {
        table.entries.get(self.0).map_or(0, |entry| u32::from(entry.bits))
    }

    /// Goes to the next state, chosen by `bits`.
    #[inline(always)]
    pub(super) fn advance(&mut self, table: &FseTable, bits: u64) {
        self.0 = table.entries.get(self.0).map_or(0, |entry| usize::from(entry.base) + bits as usize);
    }
}
