//! `xenctl_bitmap`: bitmaps of CPUs or nodes in the caller's memory.

use crate::arch::cpumask::CpuMask;
use crate::arch::percpu;
use crate::mm::guest;
use pv_abi::domctl::CtlBitmap;
use pv_abi::errno::Errno;

/// Bytes of a bitmap looked at or cleared: more CPUs than anybody has.
const MAX_BYTES: u32 = 1024;

/// The first 64 bits of the caller's bitmap; bits beyond its length are 0.
///
/// # Errors
/// `EFAULT`.
pub fn read(b: &CtlBitmap) -> Result<u64, Errno> {
    let bits = b.nr_bits.min(64);
    let mut bytes = [0u8; 8];
    let n = bits.div_ceil(8) as usize;
    if let Some(part) = bytes.get_mut(..n) {
        guest::read_bytes(b.bitmap, part)?;
    }
    let v = u64::from_le_bytes(bytes);
    Ok(if bits < 64 { v & ((1 << bits) - 1) } else { v })
}

/// Writes `value` into the caller's bitmap, as far as it reaches; what it has beyond 64 bits is cleared.
///
/// # Errors
/// `EFAULT`.
pub fn write(b: &CtlBitmap, value: u64) -> Result<(), Errno> {
    let bytes = b.nr_bits.div_ceil(8).min(MAX_BYTES);
    let v = if b.nr_bits < 64 { value & ((1 << b.nr_bits) - 1) } else { value }.to_le_bytes();
    for i in 0..bytes {
        let byte = v.get(i as usize).copied().unwrap_or(0);
        guest::write_bytes(b.bitmap.wrapping_add(u64::from(i)), &[byte])?;
    }
    Ok(())
}

/// The CPUs that are online.
pub fn online() -> CpuMask {
    let n = percpu::online();
    CpuMask::from_bits(if n < 64 { (1 << n) - 1 } else { u64::MAX })
}
