//! ZSTD payloads (Debian's 6.12 and newer): the `ruzstd` crate.

use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::FrameDecoderError;

use crate::payload::{Format, UnpackError};

/// The largest window we accept: what `zstd --ultra -22` makes, with which the kernel's payload is compressed.
const MAX_WINDOW: u64 = 128 << 20;

/// Unpacks the frame to exactly fill `out`.
pub(crate) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<(), UnpackError> {
    let corrupt = |what| UnpackError::Corrupt { format: Format::Zstd, what };
    let wanted = out.len();
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW);
    let written = decoder.decode_all(stream, out).map_err(|error| match error {
        FrameDecoderError::TargetTooSmall => UnpackError::WrongLength { format: Format::Zstd, got: wanted + 1, wanted },
        FrameDecoderError::WindowSizeTooBig { requested, .. } => {
            UnpackError::OutOfMemory(usize::try_from(requested).unwrap_or(usize::MAX))
        }
        FrameDecoderError::ReadFrameHeaderError(_) => corrupt("bad frame header"),
        FrameDecoderError::FailedToReadBlockHeader(_) => corrupt("bad block header"),
        _ => corrupt("bad block"),
    })?;
    if written != wanted {
        return Err(UnpackError::WrongLength { format: Format::Zstd, got: written, wanted });
    }
    Ok(())
}
