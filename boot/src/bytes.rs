//! Little-endian numbers out of bytes nobody has checked yet.

use core::ops::Range;

/// `len` bytes at `off`, or `None` where the data ends before that.
pub(crate) fn slice(data: &[u8], off: usize, len: usize) -> Option<&[u8]> {
    data.get(off..off.checked_add(len)?)
}

fn array<const N: usize>(data: &[u8], off: usize) -> Option<[u8; N]> {
    slice(data, off, N)?.try_into().ok()
}

/// The 16-bit number at `off`.
pub(crate) fn u16_at(data: &[u8], off: usize) -> Option<u16> {
    array(data, off).map(u16::from_le_bytes)
}

/// The 32-bit number at `off`.
pub(crate) fn u32_at(data: &[u8], off: usize) -> Option<u32> {
    array(data, off).map(u32::from_le_bytes)
}

/// The 64-bit number at `off`.
pub(crate) fn u64_at(data: &[u8], off: usize) -> Option<u64> {
    array(data, off).map(u64::from_le_bytes)
}

/// The bytes before the first NUL, or all of them where there is none.
pub(crate) fn until_nul(data: &[u8]) -> &[u8] {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    data.get(..end).unwrap_or(data)
}

/// `off..off+len` as positions within `data_len` bytes, from 64-bit numbers of a file header.
pub(crate) fn range_in(data_len: usize, off: u64, len: u64) -> Option<Range<usize>> {
    let start = usize::try_from(off).ok()?;
    let end = usize::try_from(off.checked_add(len)?).ok()?;
    (end <= data_len).then_some(start..end)
}
