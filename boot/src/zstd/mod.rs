//! ZSTD payloads (Debian's 6.12 and newer): a decoder (RFC 8878) that writes straight to where the image is wanted.
//!
//! The kernel is compressed with `zstd -22 --ultra`, whose frames ask for a window of 128 MiB. A general decoder keeps that
//! window in a buffer of its own; here the whole output is at hand, so it *is* the window, and the decoder needs some
//! 160 KiB in all: a block's literals and the tables. One frame, no dictionary, no skippable frames: what the kernel's
//! build makes. The content checksum is verified.

mod bits;
mod fse;
mod huffman;
mod sequences;
mod xxh64;

use alloc::vec::Vec;

use crate::bytes::{slice, u16_at, u32_at, u64_at};
use crate::payload::{Format, UnpackError};
use huffman::HuffmanTable;
use sequences::SequenceTables;

/// Why decoding stopped. Texts complete "payload is corrupt (…)".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The stream is damaged.
    Corrupt(&'static str),
    /// It yields more than there is room for.
    Full,
    /// No memory for the tables.
    NoMemory(usize),
}

/// The most bytes a block yields (RFC 8878, 3.1.1.2.4).
const MAX_BLOCK: usize = 128 << 10;

const EARLY: Stop = Stop::Corrupt("it ends early");

/// Heap the decoder takes: a block's literals, the Huffman table, three FSE tables and one for weights.
pub(crate) const SCRATCH: usize = MAX_BLOCK + 4096 + 4 * 4096;

/// Unpacks the frame to exactly fill `out`.
pub(crate) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    let wanted = out.len();
    let corrupt = |what| UnpackError::Corrupt { format: Format::Zstd, what };
    let length = |got| UnpackError::WrongLength { format: Format::Zstd, got, wanted };
    match Decoder::new().and_then(|mut decoder| decoder.frame(stream, out)) {
        Ok(written) if written == wanted => Ok(()),
        Ok(written) => Err(length(written)),
        Err(Stop::Full) => Err(length(wanted + 1)),
        Err(Stop::Corrupt(what)) => Err(corrupt(what)),
        Err(Stop::NoMemory(bytes)) => Err(UnpackError::OutOfMemory(bytes)),
    }
}

/// The output: what has been written is the window.
pub(crate) struct Window<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Window<'_> {
    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end).ok_or(Stop::Full)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends `count` times the same byte.
    fn fill(&mut self, byte: u8, count: usize) -> Result<(), Stop> {
        let end = self.len + count;
        self.out.get_mut(self.len..end).ok_or(Stop::Full)?.fill(byte);
        self.len = end;
        Ok(())
    }

    /// Appends `len` bytes that start `offset` bytes before the end; they may overlap what they make.
    pub(crate) fn repeat(&mut self, offset: usize, len: usize) -> Result<(), Stop> {
        let start = self.len.checked_sub(offset).filter(|_| offset != 0).ok_or(Stop::Corrupt("bad match offset"))?;
        let end = self.len + len;
        let region = self.out.get_mut(start..end).ok_or(Stop::Full)?;
        // `region` holds `offset` old bytes; each round doubles what has the pattern.
        let mut have = offset;
        while have < region.len() {
            let step = have.min(region.len() - have);
            region.copy_within(..step, have);
            have += step;
        }
        self.len = end;
        Ok(())
    }
}

struct Decoder {
    literals: Vec<u8>,
    huffman: HuffmanTable,
    tables: SequenceTables,
    /// The three most recent offsets.
    recent: [usize; 3],
}

impl Decoder {
    fn new() -> Result<Self, Stop> {
        let mut literals = Vec::new();
        literals.try_reserve_exact(MAX_BLOCK).map_err(|_| Stop::NoMemory(MAX_BLOCK))?;
        Ok(Decoder { literals, huffman: HuffmanTable::new()?, tables: SequenceTables::new()?, recent: [1, 4, 8] })
    }

    /// Decodes the one frame; returns the bytes it yielded.
    fn frame(&mut self, stream: &[u8], out: &mut [u8]) -> Result<usize, Stop> {
        let header = FrameHeader::read(stream)?;
        let mut window = Window { out, len: 0 };
        let mut pos = header.len;
        loop {
            let [a, b, c] = *slice(stream, pos, 3).ok_or(EARLY)? else {
                return Err(EARLY);
            };
            let word = u32::from_le_bytes([a, b, c, 0]);
            let (last, kind, size) = (word & 1 != 0, word >> 1 & 3, (word >> 3) as usize);
            pos += 3;
            if size > MAX_BLOCK {
                return Err(Stop::Corrupt("bad block size"));
            }
            let taken = if kind == 1 { 1 } else { size };
            let content = slice(stream, pos, taken).ok_or(EARLY)?;
            match kind {
                0 => window.push(content)?,
                1 => window.fill(content.first().copied().ok_or(EARLY)?, size)?,
                2 => self.block(content, &mut window)?,
                _ => return Err(Stop::Corrupt("bad block type")),
            }
            pos += taken;
            if last {
                break;
            }
        }
        let written = window.len;
        if header.checksum {
            let announced = u32_at(stream, pos).ok_or(EARLY)?;
            let content = out.get(..written).unwrap_or_default();
            // A wrong length is the better message.
            if written == out.len() && announced != xxh64::xxh64(content) as u32 {
                return Err(Stop::Corrupt("checksum mismatch"));
            }
            pos += 4;
        }
        if header.content_size.is_some_and(|size| size != written as u64) {
            return Err(Stop::Corrupt("its size is not the announced one"));
        }
        if pos != stream.len() {
            return Err(Stop::Corrupt("data after its end"));
        }
        Ok(written)
    }

    /// A compressed block: literals, then the sequences that use them.
    fn block(&mut self, content: &[u8], window: &mut Window<'_>) -> Result<(), Stop> {
        let used = self.read_literals(content)?;
        let rest = content.get(used..).ok_or(EARLY)?;
        let limit = window.len + MAX_BLOCK;
        let left = sequences::execute(rest, &mut self.tables, &mut self.recent, &self.literals, window)?;
        window.push(left)?;
        if window.len > limit { Err(Stop::Corrupt("a block is too long")) } else { Ok(()) }
    }

    /// Fills `literals` from the literals section; returns its bytes.
    fn read_literals(&mut self, content: &[u8]) -> Result<usize, Stop> {
        let first = *content.first().ok_or(EARLY)?;
        let (kind, size_format) = (first & 3, first >> 2 & 3);
        let bytes = |n: usize| {
            let header = slice(content, 0, n).ok_or(EARLY)?;
            Ok(header.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b)))
        };
        self.literals.clear();
        if kind < 2 {
            // Raw bytes, or one repeated byte.
            let (header, size) = match size_format {
                1 => (2, bytes(2)? >> 4),
                3 => (3, bytes(3)? >> 4),
                _ => (1, bytes(1)? >> 3),
            };
            let size = size as usize;
            if size > MAX_BLOCK {
                return Err(Stop::Corrupt("too many literals"));
            }
            return if kind == 0 {
                self.literals.extend_from_slice(slice(content, header, size).ok_or(EARLY)?);
                Ok(header + size)
            } else {
                self.literals.resize(size, *content.get(header).ok_or(EARLY)?);
                Ok(header + 1)
            };
        }
        let (header, bits) = match size_format {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let word = bytes(header)? >> 4;
        let mask = (1u64 << bits) - 1;
        let (size, compressed) = ((word & mask) as usize, (word >> bits & mask) as usize);
        if size > MAX_BLOCK {
            return Err(Stop::Corrupt("too many literals"));
        }
        let mut data = slice(content, header, compressed).ok_or(EARLY)?;
        if kind == 2 {
            let used = self.huffman.read(data)?;
            data = data.get(used..).ok_or(EARLY)?;
        }
        self.literals.resize(size, 0);
        if size_format == 0 {
            self.huffman.decode(data, &mut self.literals)?;
        } else {
            self.decode_four(data)?;
        }
        Ok(header + compressed)
    }

    /// Four Huffman streams, the lengths of three of them in front.
    fn decode_four(&mut self, data: &[u8]) -> Result<(), Stop> {
        let quarter = self.literals.len().div_ceil(4);
        let mut rest = data.get(6..).ok_or(EARLY)?;
        let mut outputs = self.literals.chunks_mut(quarter.max(1));
        for n in 0..4 {
            let output = outputs.next().ok_or(Stop::Corrupt("too few literals for four streams"))?;
            let len = match n {
                3 => rest.len(),
                n => usize::from(u16_at(data, 2 * n).ok_or(EARLY)?),
            };
            let (stream, after) = rest.split_at_checked(len).ok_or(EARLY)?;
            self.huffman.decode(stream, output)?;
            rest = after;
        }
        Ok(())
    }
}

/// What of the frame header matters.
struct FrameHeader {
    len: usize,
    checksum: bool,
    content_size: Option<u64>,
}

impl FrameHeader {
    fn read(stream: &[u8]) -> Result<Self, Stop> {
        const BAD: Stop = Stop::Corrupt("bad frame header");
        let descriptor = *stream.get(4).ok_or(EARLY)?;
        if !stream.starts_with(b"\x28\xb5\x2f\xfd") || descriptor & 8 != 0 {
            return Err(BAD);
        }
        let single_segment = descriptor & 0x20 != 0;
        let mut pos = 5 + usize::from(!single_segment);
        // A dictionary identifier of 0 means none.
        let id_len = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().ok_or(BAD)?;
        if slice(stream, pos, id_len).ok_or(EARLY)?.iter().any(|b| *b != 0) {
            return Err(Stop::Corrupt("it needs a dictionary"));
        }
        pos += id_len;
        let (size_len, content_size) = match descriptor >> 6 {
            0 if single_segment => (1, stream.get(pos).map(|b| u64::from(*b))),
            0 => (0, None),
            1 => (2, u16_at(stream, pos).map(|n| u64::from(n) + 256)),
            2 => (4, u32_at(stream, pos).map(u64::from)),
            _ => (8, u64_at(stream, pos)),
        };
        if size_len != 0 && content_size.is_none() {
            return Err(EARLY);
        }
        Ok(FrameHeader { len: pos + size_len, checksum: descriptor & 4 != 0, content_size })
    }
}
