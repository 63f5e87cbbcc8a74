//! Unpacking a kernel's payload into memory the caller provides.
//!
//! The size of the result is known beforehand (the kernel's build appends it as the payload's last four bytes; gzip's
//! own trailer is the same four bytes), the caller's limit bounds it, and a stream that yields one byte more or less is
//! an error. So the output is written once, where it is wanted, and nothing grows.
//!
//! Memory besides the output: below 160 KiB, whatever dictionary or window the stream asks for, because the output serves
//! as that; see [`Payload::scratch_bytes`].

use alloc::vec::Vec;

use crate::bytes::{slice, u16_at, u32_at};
use crate::crc32::crc32;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all: the bytes are the ELF image.
    Plain,
    /// gzip (RFC 1952), one member.
    Gzip,
    /// XZ with LZMA2 and, usually, the x86 BCJ filter.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4 in the *legacy* framing of `lz4 -l`.
    Lz4,
}

impl Format {
    /// Tells the format from the first bytes.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Format); 5] = [
            (b"\x7fELF", Format::Plain),
            (b"\x1f\x8b", Format::Gzip),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x02\x21\x4c\x18", Format::Lz4),
        ];
        MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format)
    }

    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Format::Plain => "uncompressed",
            Format::Gzip => "gzip",
            Format::Xz => "XZ",
            Format::Zstd => "ZSTD",
            Format::Lz4 => "LZ4",
        }
    }
}

/// Why a payload could not be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The image would be larger than the caller allows.
    #[error("the kernel says it unpacks to {size} bytes, more than the {limit} bytes there are for it")]
    TooLarge {
        /// Size the payload announces.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// No memory for the image or for the decompressor's own use.
    #[error("not enough memory to unpack the kernel: {0} bytes could not be had")]
    OutOfMemory(usize),
    /// The stream is damaged.
    #[error("the kernel's {} payload is corrupt ({what}); copy the file again", .format.name())]
    Corrupt {
        /// The compression.
        format: Format,
        /// What the decompressor found.
        what: &'static str,
    },
    /// The stream ended early or went on: its length is not the announced one.
    #[error("the kernel's {} payload unpacks to {got} bytes where its trailer announces {wanted}; copy the file again", .format.name())]
    WrongLength {
        /// The compression.
        format: Format,
        /// Bytes the stream yielded (at most one more than wanted).
        got: usize,
        /// Bytes announced.
        wanted: usize,
    },
    /// The caller's buffer does not have the payload's size.
    #[error("the output buffer has {have} bytes and the kernel unpacks to {wanted} (a bug of the caller)")]
    BufferSize {
        /// Bytes the buffer has.
        have: usize,
        /// Bytes it must have.
        wanted: usize,
    },
}

/// A kernel's payload, found but not yet unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    format: Format,
    stream: &'a [u8],
    unpacked_len: u32,
}

impl<'a> Payload<'a> {
    /// A compressed payload whose last four bytes are the unpacked size; `None` if it is too short for that.
    pub(crate) fn new(format: Format, bytes: &'a [u8]) -> Option<Self> {
        let stream_end = bytes.len().checked_sub(4)?;
        let unpacked_len = u32_at(bytes, stream_end)?;
        // gzip ends with that number by itself; to the others the kernel's build adds it.
        let stream = if format == Format::Gzip { bytes } else { bytes.get(..stream_end)? };
        Some(Payload { format, stream, unpacked_len })
    }

    /// A payload that needs no unpacking.
    pub(crate) fn plain(bytes: &'a [u8]) -> Self {
        Payload { format: Format::Plain, stream: bytes, unpacked_len: 0 }
    }

    /// How it is compressed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The ELF image itself where it is not compressed, so that nothing needs copying.
    pub fn as_plain(&self) -> Option<&'a [u8]> {
        (self.format == Format::Plain).then_some(self.stream)
    }

    /// Bytes of the unpacked image; announced by the file, so not to be trusted before it is held against a limit.
    pub fn unpacked_len(&self) -> usize {
        match self.format {
            Format::Plain => self.stream.len(),
            _ => self.unpacked_len as usize,
        }
    }

    /// Bytes of heap that unpacking takes besides the output.
    pub fn scratch_bytes(&self) -> usize {
        match self.format {
            Format::Plain | Format::Lz4 => 0,
            Format::Gzip => size_of::<miniz_oxide::inflate::core::DecompressorOxide>(),
            Format::Xz => crate::xz::SCRATCH,
            Format::Zstd => crate::zstd::SCRATCH,
        }
    }

    /// Unpacks into `out`, which must have exactly [`unpacked_len`](Self::unpacked_len) bytes.
    pub fn unpack_into(&self, out: &mut [u8]) -> Result<(), UnpackError> {
        let wanted = self.unpacked_len();
        if out.len() != wanted {
            return Err(UnpackError::BufferSize { have: out.len(), wanted });
        }
        match self.format {
            Format::Plain => {
                out.copy_from_slice(self.stream);
                Ok(())
            }
            Format::Gzip => gunzip(self.stream, out),
            Format::Xz => crate::xz::unpack(self.stream, out),
            Format::Zstd => crate::zstd::unpack(self.stream, out),
            Format::Lz4 => unlz4(self.stream, out),
        }
    }

    /// Unpacks into memory of its own, at most `limit` bytes. Allocation is fallible.
    pub fn unpack(&self, limit: usize) -> Result<Vec<u8>, UnpackError> {
        let size = self.unpacked_len();
        if size > limit {
            return Err(UnpackError::TooLarge { size: size as u64, limit: limit as u64 });
        }
        let mut out = Vec::new();
        out.try_reserve_exact(size).map_err(|_| UnpackError::OutOfMemory(size))?;
        out.resize(size, 0);
        self.unpack_into(&mut out)?;
        Ok(out)
    }
}

/// The deflate stream within a gzip member (RFC 1952 §2.3), without header and trailer.
fn gzip_body(stream: &[u8]) -> Option<&[u8]> {
    const HCRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let flags = *stream.get(3)?;
    if *stream.get(2)? != 8 || flags & 0xe0 != 0 {
        return None;
    }
    let mut pos: usize = 10;
    if flags & EXTRA != 0 {
        pos += 2 + usize::from(u16_at(stream, pos)?);
    }
    for bit in [NAME, COMMENT] {
        if flags & bit != 0 {
            pos += stream.get(pos..)?.iter().position(|b| *b == 0)? + 1;
        }
    }
    if flags & HCRC != 0 {
        pos += 2;
    }
    stream.get(pos..stream.len().checked_sub(8)?)
}

fn gunzip(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::{
        DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    };
    let corrupt = |what| UnpackError::Corrupt { format: Format::Gzip, what };
    let body = gzip_body(stream).ok_or(corrupt("bad gzip header"))?;
    // Some 10 KiB: boxed, since a hypervisor's stack is small; and zeroed in place rather than moved there.
    let mut tables: Vec<DecompressorOxide> = Vec::new();
    tables.try_reserve_exact(1).map_err(|_| UnpackError::OutOfMemory(size_of::<DecompressorOxide>()))?;
    tables.push(DecompressorOxide::new());
    let state = tables.first_mut().ok_or(corrupt("no state"))?;
    let (status, read, written) = decompress(state, body, out, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
    match status {
        TINFLStatus::Done if written == out.len() && read == body.len() => {}
        TINFLStatus::Done if written == out.len() => return Err(corrupt("data after its end")),
        TINFLStatus::Done => {
            return Err(UnpackError::WrongLength { format: Format::Gzip, got: written, wanted: out.len() });
        }
        TINFLStatus::HasMoreOutput => {
            return Err(UnpackError::WrongLength { format: Format::Gzip, got: out.len() + 1, wanted: out.len() });
        }
        TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
            return Err(corrupt("it ends early"));
        }
        _ => return Err(corrupt("bad deflate data")),
    }
    let announced = u32_at(stream, stream.len().saturating_sub(8));
    if announced != Some(crc32(out)) {
        return Err(corrupt("CRC mismatch"));
    }
    Ok(())
}

/// The legacy framing: a magic number, then blocks of a 32-bit length and that many bytes, each unpacking to 8 MiB but
/// for the last one. Blocks do not refer to each other.
fn unlz4(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    const MAGIC: u32 = 0x184c_2102;
    const BLOCK: usize = 8 << 20;
    let corrupt = |what| UnpackError::Corrupt { format: Format::Lz4, what };
    let wanted = out.len();
    let (mut read, mut written) = (4, 0);
    while read < stream.len() {
        let len = u32_at(stream, read).ok_or(corrupt("it ends early"))?;
        read += 4;
        if len == MAGIC {
            continue; // several streams in a row are one, says the format
        }
        let block = slice(stream, read, len as usize).ok_or(corrupt("it ends early"))?;
        read += block.len();
        let space = out.get_mut(written..).unwrap_or_default();
        let room = space.len().min(BLOCK);
        let space = space.get_mut(..room).unwrap_or_default();
        written += lz4_flex::block::decompress_into(block, space).map_err(|e| match e {
            lz4_flex::block::DecompressError::OutputTooSmall { .. } => {
                UnpackError::WrongLength { format: Format::Lz4, got: wanted + 1, wanted }
            }
            _ => corrupt("bad block"),
        })?;
    }
    if written != wanted {
        return Err(UnpackError::WrongLength { format: Format::Lz4, got: written, wanted });
    }
    Ok(())
}
