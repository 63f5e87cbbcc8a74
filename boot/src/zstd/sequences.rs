//! Sequences: copy some literals, then repeat a stretch of the output (RFC 8878, 3.1.1.3.2).

use super::bits::{ReverseBits, top};
use super::fse::{FseTable, State};
use super::{EARLY, Stop, Window};

/// A code's lowest value and the number of bits to add to it.
type Code = (u32, u32);

/// Literal lengths by code.
const LITERAL_LENGTHS: [Code; 36] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];

/// Match lengths by code.
const MATCH_LENGTHS: [Code; 53] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 0),
    (17, 0),
    (18, 0),
    (19, 0),
    (20, 0),
    (21, 0),
    (22, 0),
    (23, 0),
    (24, 0),
    (25, 0),
    (26, 0),
    (27, 0),
    (28, 0),
    (29, 0),
    (30, 0),
    (31, 0),
    (32, 0),
    (33, 0),
    (34, 0),
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];

/// The highest offset code: 2^31 is more than any image.
const MAX_OFFSET_CODE: usize = 31;

const DEFAULT_LITERALS: [i16; 36] =
    [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1];
const DEFAULT_MATCHES: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const DEFAULT_OFFSETS: [i16; 29] =
    [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1];

/// The three tables, which a later block may use again.
pub(super) struct SequenceTables {
    literals: FseTable,
    offsets: FseTable,
    matches: FseTable,
}

impl SequenceTables {
    pub(super) fn new() -> Result<Self, Stop> {
        Ok(SequenceTables { literals: FseTable::new()?, offsets: FseTable::new()?, matches: FseTable::new()? })
    }

    /// Reads the tables that a block brings; `modes` is its byte of modes. Returns the bytes read.
    fn read(&mut self, modes: u8, data: &[u8]) -> Result<usize, Stop> {
        let mut used = 0;
        let all = [
            (&mut self.literals, modes >> 6, &LITERAL_ALPHABET),
            (&mut self.offsets, modes >> 4 & 3, &OFFSET_ALPHABET),
            (&mut self.matches, modes >> 2 & 3, &MATCH_ALPHABET),
        ];
        for (table, mode, alphabet) in all {
            used += alphabet.read(table, mode, data.get(used..).ok_or(EARLY)?)?;
        }
        Ok(used)
    }
}

/// What holds for the codes of one kind.
struct Alphabet {
    default: &'static [i16],
    default_log: u32,
    max_log: u32,
    max_symbol: usize,
}

const LITERAL_ALPHABET: Alphabet =
    Alphabet { default: &DEFAULT_LITERALS, default_log: 6, max_log: 9, max_symbol: LITERAL_LENGTHS.len() - 1 };
const OFFSET_ALPHABET: Alphabet =
    Alphabet { default: &DEFAULT_OFFSETS, default_log: 5, max_log: 8, max_symbol: MAX_OFFSET_CODE };
const MATCH_ALPHABET: Alphabet =
    Alphabet { default: &DEFAULT_MATCHES, default_log: 6, max_log: 9, max_symbol: MATCH_LENGTHS.len() - 1 };

impl Alphabet {
    /// Sets a block's table of this kind; returns the bytes its description takes.
    fn read(&self, table: &mut FseTable, mode: u8, data: &[u8]) -> Result<usize, Stop> {
        match mode {
            0 => table.predefined(self.default, self.default_log).map(|()| 0),
            1 => {
                let symbol = *data.first().ok_or(EARLY)?;
                if usize::from(symbol) > self.max_symbol {
                    return Err(Stop::Corrupt("bad sequence code"));
                }
                table.single(symbol);
                Ok(1)
            }
            2 => table.read(data, self.max_log, self.max_symbol),
            _ if table.is_set() => Ok(0),
            _ => Err(Stop::Corrupt("a table is used again that was never there")),
        }
    }
}

/// Executes a block's sequences section; returns the literals that are left over.
pub(super) fn execute<'l>(
    section: &[u8],
    tables: &mut SequenceTables,
    recent: &mut [usize; 3],
    literals: &'l [u8],
    window: &mut Window<'_>,
) -> Result<&'l [u8], Stop> {
    let byte = |n: usize| section.get(n).map(|b| usize::from(*b)).ok_or(EARLY);
    let (count, head) = match byte(0)? {
        0 => {
            return if section.len() == 1 { Ok(literals) } else { Err(Stop::Corrupt("data after a block's end")) };
        }
        n @ 1..128 => (n, 1),
        n @ 128..255 => ((n - 128) << 8 | byte(1)?, 2),
        _ => ((byte(1)? | byte(2)? << 8) + 0x7f00, 3),
    };
    let modes = byte(head)? as u8;
    if modes & 3 != 0 {
        return Err(Stop::Corrupt("bad sequence modes"));
    }
    let used = tables.read(modes, section.get(head + 1..).ok_or(EARLY)?)?;
    let mut bits = ReverseBits::new(section.get(head + 1 + used..).ok_or(EARLY)?)?;
    let SequenceTables { literals: ll, offsets: of, matches: ml } = tables;
    let mut ll_state = State::first(ll, &mut bits)?;
    let mut of_state = State::first(of, &mut bits)?;
    let mut ml_state = State::first(ml, &mut bits)?;
    let mut left = literals;
    for n in (0..count).rev() {
        let bad = Stop::Corrupt("bad sequence code");
        let of_code = u32::from(of_state.symbol(of));
        let (ml_base, ml_bits) = *MATCH_LENGTHS.get(usize::from(ml_state.symbol(ml))).ok_or(bad)?;
        let (ll_base, ll_bits) = *LITERAL_LENGTHS.get(usize::from(ll_state.symbol(ll))).ok_or(bad)?;
        let offset_value = (1usize << of_code) + bits.read(of_code)? as usize;
        // Both lengths take 32 bits at most: one look at the stream.
        let word = bits.peek();
        let match_len = (ml_base + top(word, ml_bits) as u32) as usize;
        let literal_len = (ll_base + top(word << ml_bits, ll_bits) as u32) as usize;
        bits.skip((ml_bits + ll_bits) as usize)?;

        let offset = resolve(recent, offset_value, literal_len == 0)?;
        let (now, after) = left.split_at_checked(literal_len).ok_or(Stop::Corrupt("too few literals"))?;
        window.push(now)?;
        left = after;
        window.repeat(offset, match_len)?;

        if n != 0 {
            // The next states: 26 bits at most.
            let word = bits.peek();
            let (a, b, c) = (ll_state.bits(ll), ml_state.bits(ml), of_state.bits(of));
            ll_state.advance(ll, top(word, a));
            ml_state.advance(ml, top(word << a, b));
            of_state.advance(of, top(word << (a + b), c));
            bits.skip((a + b + c) as usize)?;
        }
    }
    if bits.left() == 0 { Ok(left) } else { Err(Stop::Corrupt("a sequences stream is too long")) }
}

/// The offset that `value` means: one of the recent ones for 1 to 3, else `value − 3`; keeps the recent ones in order.
#[inline(always)]
fn resolve(recent: &mut [usize; 3], value: usize, no_literals: bool) -> Result<usize, Stop> {
    let [first, second, third] = *recent;
    let (offset, rest) = match value + usize::from(no_literals && value <= 3) {
        _ if value > 3 => (value - 3, [first, second]),
        1 => return Ok(first),
        2 => (second, [first, third]),
        3 => (third, [first, second]),
        _ => (first.checked_sub(1).ok_or(Stop::Corrupt("bad match offset"))?, [first, second]),
    };
    let [second, third] = rest;
    *recent = [offset, second, third];
    Ok(offset)
}
