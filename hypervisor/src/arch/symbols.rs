//! Names for addresses of the hypervisor's code.
//!
//! Names are known only after the link. The image keeps room for a table in section `.symbols`, and
//! `scripts/embed-symbols` writes it there: a line for each function, sorted by address: eight hexadecimal digits (the
//! address, relative to [`IMAGE`]), a blank, the name. An image without a table prints bare addresses. The table is read
//! only to report a panic, line by line.

use super::layout::IMAGE;
use core::fmt;

/// Bytes kept for the table.
const ROOM: usize = 512 * 1024;

#[used]
#[unsafe(link_section = ".symbols")]
static TABLE: [u8; ROOM] = [0; ROOM];

/// Prints an address with the function it lies in.
pub struct Symbol(pub u64);

/// Start and name of the function that holds `addr`.
fn find(table: &[u8], addr: u64) -> Option<(u64, &str)> {
    let end = table.iter().position(|&b| b == 0).unwrap_or(table.len());
    let mut best = None;
    for line in table.get(..end)?.split(|&b| b == b'\n') {
        let text = core::str::from_utf8(line).ok()?;
        let Some((number, name)) = text.split_once(' ') else {
            break;
        };
        let start = IMAGE + u64::from_str_radix(number, 16).ok()?;
        if start > addr {
            break;
        }
        best = Some((start, name));
    }
    best
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The compiler knows the table as zeroes and must not draw conclusions from that.
        let table: &[u8] = core::hint::black_box(&TABLE);
        match find(table, self.0) {
            Some((start, name)) => write!(f, "{:#x} {name}+{:#x}", self.0, self.0 - start),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_below_is_found() {
        let table = b"00001000 first\n00001040 core::second<T>\n00002000 third\n\0\0\0";
        let name = |a: u64| find(table, IMAGE + a);
        assert_eq!(name(0xfff), None);
        assert_eq!(name(0x1000), Some((IMAGE + 0x1000, "first")));
        assert_eq!(name(0x1fff), Some((IMAGE + 0x1040, "core::second<T>")));
        assert_eq!(name(0x9999), Some((IMAGE + 0x2000, "third")));
        assert_eq!(find(b"\0\0", IMAGE), None);
    }
}
