//! XZ payloads (Debian's 6.1): the `xz4rust` crate with a dictionary we allocate fallibly.

use alloc::vec::Vec;

use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

use crate::payload::{Format, UnpackError};

/// The largest dictionary we accept. Linux builds use 32 MiB, from 6.12 on up to 128 MiB.
const MAX_DICTIONARY: usize = 128 << 20;

/// Size of the LZMA2 dictionary the first block header asks for.
///
/// The header is: stream header of 12 bytes; header size in words; flags (number of filters − 1 in bits 0–1, bits 6
/// and 7 for optional sizes); then the filters, each an id, the length of its properties, and those.
pub(crate) fn dictionary_bytes(stream: &[u8]) -> Option<usize> {
    const LZMA2: u8 = 0x21;
    let header = stream.get(12..)?;
    let flags = *header.get(1)?;
    let mut pos = 2;
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            // A variable-length number: its last byte has bit 7 clear.
            pos += header.get(pos..)?.iter().take(9).position(|b| b & 0x80 == 0)? + 1;
        }
    }
    for _ in 0..=(flags & 3) {
        let (id, len) = (*header.get(pos)?, *header.get(pos + 1)?);
        if id == LZMA2 && len == 1 {
            let bits = u32::from(*header.get(pos + 2)?);
            return (bits <= 39).then(|| (2 | (bits as usize & 1)) << (bits / 2 + 11));
        }
        pos += 2 + usize::from(len);
    }
    None
}

/// Unpacks the XZ stream to exactly fill `out`.
pub(crate) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    let corrupt = |what| UnpackError::Corrupt { format: Format::Xz, what };
    let wanted = out.len();
    let size = dictionary_bytes(stream).ok_or(corrupt("bad block header"))?;
    if size > MAX_DICTIONARY {
        return Err(UnpackError::OutOfMemory(size));
    }
    let mut dictionary = Vec::new();
    dictionary.try_reserve_exact(size).map_err(|_| UnpackError::OutOfMemory(size))?;
    dictionary.resize(size, 0);
    let mut decoder = XzDecoder::in_heap_with_alloc_dict(dictionary, size);
    let (mut read, mut written) = (0, 0);
    loop {
        let input = stream.get(read..).unwrap_or_default();
        // When `out` is full the stream must still end well: index and footer have to be read.
        let mut spare = [0u8; 16];
        let space = match out.get_mut(written..) {
            Some(space) if !space.is_empty() => space,
            _ => &mut spare,
        };
        match decoder.decode(input, space) {
            Ok(step) => {
                read += step.input_consumed();
                written += step.output_produced();
                if written > wanted {
                    return Err(UnpackError::WrongLength { format: Format::Xz, got: written, wanted });
                }
                if matches!(step, XzNextBlockResult::EndOfStream(..)) {
                    break;
                }
                if !step.made_progress() {
                    return Err(corrupt("it ends early"));
                }
            }
            Err(error) => return Err(corrupt(describe(&error))),
        }
    }
    if written != wanted {
        return Err(UnpackError::WrongLength { format: Format::Xz, got: written, wanted });
    }
    // Stream padding is allowed, anything else is not.
    if stream.get(read..).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
        return Err(corrupt("data after its end"));
    }
    Ok(())
}

fn describe(error: &XzError) -> &'static str {
    match error {
        XzError::NeedsLargerInputBuffer => "it ends early",
        XzError::ContentCrc32Mismatch(..) | XzError::ContentCrc64Mismatch(..) => "checksum mismatch",
        XzError::UnsupportedCheckType(_) => "its kind of checksum is not supported",
        XzError::UnsupportedBcjFilter(_) | XzError::DeltaFilterUnsupported => "its filter is not supported",
        XzError::StreamHeaderMagicNumberMismatch
        | XzError::StreamHeaderCrc32Mismatch(..)
        | XzError::BlockHeaderCrc32Mismatch(..) => "bad header",
        XzError::FooterMagicNumberMismatch
        | XzError::FooterCrc32Mismatch(..)
        | XzError::IndexCrc32Mismatch(..)
        | XzError::CorruptedDataInBlockIndex => "bad index or footer",
        _ => "bad LZMA data",
    }
}
