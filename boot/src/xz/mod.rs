//! XZ payloads (Debian's 6.1): a decoder that writes straight to where the image is wanted.
//!
//! A general decoder keeps a dictionary beside its output, here 32 MiB, from Linux 6.12 on 128 MiB. The whole output is at
//! hand, so it *is* the dictionary: LZMA2 is decoded in place, and when a block is complete the x86 filter is undone in
//! place, too. Besides that the decoder needs 32 KiB for LZMA's probabilities. Supported is what Linux's own decompressor
//! supports on x86: LZMA2 with or without the x86 filter, and CRC32 or no checksum. All checksums are verified.

mod bcj;
mod lzma;

use crate::bytes::{slice, u32_at};
use crate::crc32::crc32;
use crate::payload::{Format, UnpackError};
use lzma::Lzma;

/// Why decoding stopped. Texts complete "payload is corrupt (…)".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The stream is damaged.
    Corrupt(&'static str),
    /// It yields more than there is room for.
    Full,
    /// No memory for the probabilities.
    NoMemory(usize),
}

const EARLY: Stop = Stop::Corrupt("it ends early");
const HEADER: Stop = Stop::Corrupt("bad header");
const INDEX: Stop = Stop::Corrupt("bad index or footer");

/// Heap the decoder takes.
pub(crate) const SCRATCH: usize = lzma::PROBABILITY_BYTES;

/// The output; what has been written since the last dictionary reset is the dictionary.
struct Dictionary<'a> {
    out: &'a mut [u8],
    len: usize,
    /// Where the dictionary begins.
    start: usize,
}

/// Unpacks the stream to exactly fill `out`.
pub(crate) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    let wanted = out.len();
    let length = |got| UnpackError::WrongLength { format: Format::Xz, got, wanted };
    match unpack_stream(stream, out) {
        Ok(written) if written == wanted => Ok(()),
        Ok(written) => Err(length(written)),
        Err(Stop::Full) => Err(length(wanted + 1)),
        Err(Stop::Corrupt(what)) => Err(UnpackError::Corrupt { format: Format::Xz, what }),
        Err(Stop::NoMemory(bytes)) => Err(UnpackError::OutOfMemory(bytes)),
    }
}

/// A stream: header, blocks, index of the blocks, footer.
fn unpack_stream(stream: &[u8], out: &mut [u8]) -> Result<usize, Stop> {
    const STREAM_HEADER: usize = 12;
    let flags = slice(stream, 6, 2).ok_or(EARLY)?;
    if !stream.starts_with(b"\xfd7zXZ\0") || u32_at(stream, 8).ok_or(EARLY)? != crc32(flags) {
        return Err(HEADER);
    }
    let check_len = match flags {
        [0, 0] => 0,
        [0, 1] => 4,
        _ => {
            return Err(Stop::Corrupt("its kind of checksum is not supported: CRC32 is"));
        }
    };
    let mut lzma = Lzma::new()?;
    let mut dictionary = Dictionary { out, len: 0, start: 0 };
    let mut pos = STREAM_HEADER;
    // What the index must hold: a digest of it, so that nothing needs to be kept.
    let mut blocks = BlockDigest::default();
    while *stream.get(pos).ok_or(EARLY)? != 0 {
        let (unpadded, size) = unpack_block(stream, pos, check_len, &mut lzma, &mut dictionary)?;
        blocks.add(unpadded as u64, size as u64);
        pos += unpadded.next_multiple_of(4);
    }
    let index_len = check_index(stream.get(pos..).ok_or(EARLY)?, &blocks)?;
    pos += index_len;
    let footer = slice(stream, pos, 12).ok_or(EARLY)?;
    let backward = u32_at(footer, 4).ok_or(INDEX)?;
    if u32_at(footer, 0) != Some(crc32(slice(footer, 4, 6).ok_or(INDEX)?))
        || (u64::from(backward) + 1) * 4 != index_len as u64
        || slice(footer, 8, 2) != Some(flags)
        || !footer.ends_with(b"YZ")
    {
        return Err(INDEX);
    }
    if stream.get(pos + 12..).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
        return Err(Stop::Corrupt("data after its end"));
    }
    Ok(dictionary.len)
}

/// One block at `pos`; returns its length without padding, and the bytes it yielded.
fn unpack_block(
    stream: &[u8],
    pos: usize,
    check_len: usize,
    lzma: &mut Lzma,
    dictionary: &mut Dictionary<'_>,
) -> Result<(usize, usize), Stop> {
    let header_len = (usize::from(*stream.get(pos).ok_or(EARLY)?) + 1) * 4;
    let header = slice(stream, pos, header_len).ok_or(EARLY)?;
    let (header, crc) = header.split_last_chunk::<4>().ok_or(HEADER)?;
    if u32::from_le_bytes(*crc) != crc32(header) {
        return Err(HEADER);
    }
    let header = BlockHeader::read(header)?;
    let input = stream.get(pos + header_len..).ok_or(EARLY)?;
    let start = dictionary.len;
    let packed = lzma.unpack(input, dictionary)?;
    let size = dictionary.len - start;
    if header.packed.is_some_and(|n| n != packed as u64) || header.unpacked.is_some_and(|n| n != size as u64) {
        return Err(Stop::Corrupt("a block's size is not the announced one"));
    }
    let padding = packed.next_multiple_of(4) - packed;
    if slice(input, packed, padding).ok_or(EARLY)?.iter().any(|b| *b != 0) {
        return Err(Stop::Corrupt("bad padding"));
    }
    let block = dictionary.out.get_mut(start..dictionary.len).unwrap_or_default();
    if header.x86 {
        bcj::decode_x86(block);
    }
    let check = slice(input, packed + padding, check_len).ok_or(EARLY)?;
    if check_len == 4 && u32_at(check, 0) != Some(crc32(block)) {
        return Err(Stop::Corrupt("checksum mismatch"));
    }
    // As the index counts it; the padding comes to what rounding up adds, since header and check are multiples of 4.
    Ok((header_len + packed + check_len, size))
}

/// What of a block header matters.
struct BlockHeader {
    packed: Option<u64>,
    unpacked: Option<u64>,
    x86: bool,
}

impl BlockHeader {
    fn read(header: &[u8]) -> Result<Self, Stop> {
        const X86: u64 = 4;
        const LZMA2: u64 = 0x21;
        let flags = *header.get(1).ok_or(HEADER)?;
        if flags & 0x3c != 0 {
            return Err(HEADER);
        }
        let mut numbers = Numbers { data: header, pos: 2 };
        let packed = if flags & 0x40 != 0 { Some(numbers.next().ok_or(HEADER)?) } else { None };
        let unpacked = if flags & 0x80 != 0 { Some(numbers.next().ok_or(HEADER)?) } else { None };
        let last = flags & 3;
        let mut x86 = false;
        for n in 0..=last {
            let (id, len) = (numbers.next().ok_or(HEADER)?, numbers.next().ok_or(HEADER)?);
            match (id, len) {
                // The dictionary's size is of no interest: the output is the dictionary.
                (LZMA2, 1) if n == last => {}
                (X86, 0) if n == 0 && last == 1 => x86 = true,
                _ => return Err(Stop::Corrupt("its filter is not supported")),
            }
            numbers.pos += len as usize; // 0 or 1
        }
        if header.get(numbers.pos..).ok_or(HEADER)?.iter().any(|b| *b != 0) {
            return Err(HEADER);
        }
        Ok(BlockHeader { packed, unpacked, x86 })
    }
}

/// Numbers of variable length: seven bits a byte, the lowest first, bit 7 set in all bytes but the last.
struct Numbers<'a> {
    data: &'a [u8],
    pos: usize,
}

impl Numbers<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = *self.data.get(self.pos)?;
            self.pos += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }
}

/// Number and sizes of blocks, condensed.
#[derive(Default, PartialEq, Eq)]
struct BlockDigest {
    count: u64,
    hash: u64,
}

impl BlockDigest {
    fn add(&mut self, unpadded: u64, size: u64) {
        const PRIME: u64 = 0x9e37_79b1_85eb_ca87;
        self.count += 1;
        for n in [unpadded, size] {
            self.hash = (self.hash ^ n).wrapping_mul(PRIME).rotate_left(29);
        }
    }
}

/// Compares the index with what was unpacked; returns its length.
fn check_index(data: &[u8], blocks: &BlockDigest) -> Result<usize, Stop> {
    let mut numbers = Numbers { data, pos: 1 };
    let count = numbers.next().ok_or(EARLY)?;
    if count != blocks.count {
        return Err(INDEX);
    }
    let mut listed = BlockDigest::default();
    for _ in 0..count {
        let (unpadded, size) = (numbers.next().ok_or(EARLY)?, numbers.next().ok_or(EARLY)?);
        listed.add(unpadded, size);
    }
    let len = numbers.pos.next_multiple_of(4);
    let bytes = slice(data, 0, len).ok_or(EARLY)?;
    let padding = bytes.get(numbers.pos..).unwrap_or_default();
    if listed != *blocks || padding.iter().any(|b| *b != 0) || u32_at(data, len).ok_or(EARLY)? != crc32(bytes) {
        return Err(INDEX);
    }
    Ok(len + 4)
}
