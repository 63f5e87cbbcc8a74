//! What kind of file a kernel is, and where in it the compressed (or plain) ELF image lies.
//!
//! A distribution's `vmlinuz` is a *bzImage*: some 16-bit real-mode sectors with a header, a small 32-bit
//! decompressor, and in the middle of that the payload we want, whose place the header names (Linux boot protocol
//! 2.08 and newer). PV guests never run the real-mode part or the decompressor: the loader takes the payload out and
//! unpacks it itself. A plain ELF kernel, and one compressed with gzip as a whole file, are taken as they are.

use crate::bytes::{range_in, slice, u16_at, u32_at};
use crate::payload::{Format, Payload};

const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL_VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first boot protocol whose header says where the payload is (Linux 2.6.26).
const FIRST_PROTOCOL_WITH_PAYLOAD: u16 = 0x208;

/// Why a file is not a kernel we can unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing there.
    #[error("the kernel file is empty")]
    Empty,
    /// Neither bzImage, ELF nor gzip.
    #[error("not a kernel image: neither a Linux bzImage nor an ELF file (first bytes {0:02x?}); name a vmlinuz file")]
    NotAKernel([u8; 4]),
    /// The bzImage is from before Linux 2.6.26.
    #[error("the bzImage speaks boot protocol {}.{:02}, and 2.08 or newer is needed to find its payload; use a newer kernel", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    /// The file ends before what its header announces.
    #[error("the kernel file is truncated: its header announces {wanted} bytes and the file has {have}; copy it again")]
    Truncated {
        /// Bytes the file must have, going by its header.
        wanted: u64,
        /// Bytes it has.
        have: u64,
    },
    /// A compression we have no decompressor for, or none that anyone knows.
    #[error(
        "the kernel's payload is compressed with {0}, which is not supported; use one built with gzip, XZ, ZSTD or LZ4"
    )]
    UnsupportedCompression(&'static str),
    /// The payload starts with bytes no known format starts with.
    #[error("the kernel's payload is in no known format (first bytes {0:02x?}); the file is damaged")]
    UnknownPayload([u8; 4]),
}

/// Finds the payload of a kernel file.
///
/// Nothing is unpacked yet: see [`Payload::unpack_into`].
pub fn locate(file: &[u8]) -> Result<Payload<'_>, FileError> {
    if file.is_empty() {
        return Err(FileError::Empty);
    }
    if slice(file, HEADER_MAGIC, 4) == Some(b"HdrS") {
        return payload_of_bzimage(file);
    }
    match Format::recognise(file) {
        // ELF and a whole file in gzip are unambiguous. Other compressed files are somebody's initrd or a slip: they
        // carry no trailing length, so their size would be unbounded.
        Some(Format::Plain) => Ok(Payload::plain(file)),
        Some(Format::Gzip) => {
            Payload::new(Format::Gzip, file).ok_or(FileError::Truncated { wanted: 18, have: file.len() as u64 })
        }
        _ => Err(FileError::NotAKernel(first_four(file))),
    }
}

fn payload_of_bzimage(file: &[u8]) -> Result<Payload<'_>, FileError> {
    let have = file.len() as u64;
    let header_short = FileError::Truncated { wanted: PAYLOAD_LENGTH as u64 + 4, have };
    let version = u16_at(file, PROTOCOL_VERSION).ok_or(header_short)?;
    if version < FIRST_PROTOCOL_WITH_PAYLOAD {
        return Err(FileError::OldProtocol(version));
    }
    // For compatibility with very old kernels 0 means 4.
    let sectors = match *file.get(SETUP_SECTS).ok_or(header_short)? {
        0 => 4,
        n => u64::from(n),
    };
    let offset = u64::from(u32_at(file, PAYLOAD_OFFSET).ok_or(header_short)?);
    let length = u64::from(u32_at(file, PAYLOAD_LENGTH).ok_or(header_short)?);
    let start = (sectors + 1) * 512 + offset;
    let bytes = range_in(file.len(), start, length)
        .and_then(|r| file.get(r))
        .ok_or(FileError::Truncated { wanted: start + length, have })?;
    match Format::recognise(bytes) {
        Some(Format::Plain) => Ok(Payload::plain(bytes)),
        Some(format) => Payload::new(format, bytes).ok_or(FileError::Truncated { wanted: start + 4, have }),
        None => Err(match unsupported(bytes) {
            Some(name) => FileError::UnsupportedCompression(name),
            None => FileError::UnknownPayload(first_four(bytes)),
        }),
    }
}

/// Compressions the kernel can be built with and we cannot unpack.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\x5d\x00\x00", "LZMA"), (b"\x89LZO", "LZO")];
    KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

fn first_four(bytes: &[u8]) -> [u8; 4] {
    let mut four = [0; 4];
    for (to, from) in four.iter_mut().zip(bytes) {
        *to = *from;
    }
    four
}
