//! CRC-32 as gzip and XZ use it (polynomial 0xedb88320, reflected), eight bytes at a step.
//!
//! Under an emulator the classical byte-wise loop would take longer than the decompression it checks.

const TABLES: [[u32; 256]; 8] = tables();

#[allow(clippy::indexing_slicing)] // const: out of range would not compile
const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        t[0][n] = crc;
        n += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut n = 0;
        while n < 256 {
            t[k][n] = (t[k - 1][n] >> 8) ^ t[0][(t[k - 1][n] & 0xff) as usize];
            n += 1;
        }
        k += 1;
    }
    t
}

/// Entry of table `k` for the lowest byte of `value`; the index cannot be out of range.
#[allow(clippy::indexing_slicing)]
const fn entry(k: usize, value: u32) -> u32 {
    TABLES[k & 7][(value & 0xff) as usize]
}

/// The CRC-32 of `data`.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    let (eights, rest) = data.as_chunks::<8>();
    for chunk in eights {
        let both = u64::from_le_bytes(*chunk);
        let low = both as u32 ^ crc;
        let high = (both >> 32) as u32;
        crc = entry(7, low)
            ^ entry(6, low >> 8)
            ^ entry(5, low >> 16)
            ^ entry(4, low >> 24)
            ^ entry(3, high)
            ^ entry(2, high >> 8)
            ^ entry(1, high >> 16)
            ^ entry(0, high >> 24);
    }
    for byte in rest {
        crc = (crc >> 8) ^ entry(0, crc ^ u32::from(*byte));
    }
    !crc
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc32(b""), 0);
        assert_eq!(super::crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }
}
