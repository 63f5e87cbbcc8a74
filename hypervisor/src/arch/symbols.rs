//! Names for addresses of the hypervisor's code.
//!
//! The linker script keeps room for a table in section `.symbols`; the build fills it after the link (see
//! `scripts/`): a count (u64), then sorted pairs of address and name offset (u64, u64), then the names, NUL-ended.
//! An empty table prints bare addresses.

use core::fmt;

/// Bytes kept for the table.
const ROOM: usize = 512 * 1024;

#[used]
#[unsafe(link_section = ".symbols")]
static TABLE: [u8; ROOM] = [0; ROOM];

/// Prints an address with the function it lies in.
pub struct Symbol(pub u64);

fn word(at: usize) -> Option<u64> {
    // Read through a volatile pointer: the compiler must not fold the empty table in.
    let b = TABLE.get(at..at + 8)?;
    // SAFETY: eight bytes of a static.
    Some(u64::from_le(unsafe { b.as_ptr().cast::<u64>().read_volatile() }))
}

/// Start and name of the function that holds `addr`.
pub fn find(addr: u64) -> Option<(u64, &'static str)> {
    let n = word(0)? as usize;
    let (mut lo, mut hi) = (0usize, n);
    while lo < hi {
        let mid = (lo + hi) / 2;
        if word(8 + mid * 16)? <= addr { lo = mid + 1 } else { hi = mid }
    }
    let at = 8 + lo.checked_sub(1)? * 16;
    let name = usize::try_from(word(at + 8)?).ok()?;
    let bytes = TABLE.get(name..)?;
    let len = bytes.iter().take(512).position(|&b| b == 0)?;
    Some((word(at)?, core::str::from_utf8(bytes.get(..len)?).ok()?))
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match find(self.0) {
            Some((start, name)) => write!(f, "{:#x} {name}+{:#x}", self.0, self.0 - start),
            None => write!(f, "{:#x}", self.0),
        }
    }
}
