//! A decoder for the few instructions that trap: prefixes, opcode, ModRM. Pure; tested on the host against a
//! disassembler.

/// An instruction's bytes as fetched, at most 15.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    buf: [u8; 15],
    len: usize,
}

impl Bytes {
    /// From what could be fetched.
    pub fn new(src: &[u8]) -> Self {
        let mut b = Bytes {
            len: src.len().min(15),
            ..Bytes::default()
        };
        for (to, from) in b.buf.iter_mut().zip(src) {
            *to = *from;
        }
        b
    }
    /// Byte `i`.
    pub fn at(&self, i: usize) -> Option<u8> {
        if i < self.len {
            self.buf.get(i).copied()
        } else {
            None
        }
    }
}

/// Prefixes and where the opcode starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// REX byte, 0 = none.
    pub rex: u8,
    /// 0x66.
    pub operand16: bool,
    /// 0xf2 or 0xf3.
    pub rep: Option<u8>,
    /// 0xf0.
    pub lock: bool,
    /// Last segment override.
    pub segment: Option<u8>,
    /// 0x67.
    pub address32: bool,
    /// Index of the opcode.
    pub opcode: usize,
}

impl Prefixes {
    /// REX.W
    pub fn w(&self) -> bool {
        self.rex & 8 != 0
    }
}

/// Reads prefixes; `long` when in 64-bit mode (REX exists).
pub fn prefixes(b: &Bytes, long: bool) -> Option<Prefixes> {
    let mut p = Prefixes::default();
    loop {
        match b.at(p.opcode)? {
            0x66 => p.operand16 = true,
            0x67 => p.address32 = true,
            0xf0 => p.lock = true,
            x @ (0xf2 | 0xf3) => p.rep = Some(x),
            x @ (0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) => p.segment = Some(x),
            x @ 0x40..=0x4f if long => {
                p.rex = x;
                p.opcode += 1;
                continue;
            }
            _ => return Some(p),
        }
        // A REX counts only right before the opcode.
        p.rex = 0;
        p.opcode += 1;
    }
}

/// A ModRM byte with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModRm {
    /// Register operand, 0 to 15.
    pub reg: u8,
    /// Register in r/m, if it is one.
    pub rm_register: Option<u8>,
    /// Bytes of ModRM, SIB and displacement.
    pub len: usize,
}

/// Decodes the ModRM at `at` (64-bit mode).
pub fn modrm(b: &Bytes, at: usize, rex: u8) -> Option<ModRm> {
    let m = b.at(at)?;
    let reg = m >> 3 & 7 | (rex & 4) << 1;
    let rm = m & 7;
    let mode = m >> 6;
    if mode == 3 {
        return Some(ModRm {
            reg,
            rm_register: Some(rm | (rex & 1) << 3),
            len: 1,
        });
    }
    let mut len = 1;
    let mut disp = match mode {
        1 => 1,
        2 => 4,
        _ => 0,
    };
    if rm == 4 {
        let sib = b.at(at + 1)?;
        len += 1;
        if mode == 0 && sib & 7 == 5 {
            disp = 4;
        }
    } else if mode == 0 && rm == 5 {
        disp = 4;
    }
    Some(ModRm {
        reg,
        rm_register: None,
        len: len + disp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_modrm() {
        let b = Bytes::new(&[0xf0, 0x48, 0x0f, 0xb1, 0x0c, 0x25, 1, 2, 3, 4]);
        let p = prefixes(&b, true).unwrap();
        assert!(p.lock && p.w() && p.opcode == 2);
        let m = modrm(&b, 4, p.rex).unwrap();
        assert_eq!((m.reg, m.rm_register, m.len), (1, None, 6));
        assert_eq!(
            modrm(&Bytes::new(&[0xe0]), 0, 0x41).unwrap().rm_register,
            Some(8)
        );
        assert_eq!(
            modrm(&Bytes::new(&[0x05, 0, 0, 0, 0]), 0, 0).unwrap().len,
            5
        );
        assert_eq!(prefixes(&Bytes::new(&[0x66]), true), None);
        let p = prefixes(&Bytes::new(&[0x48, 0x66, 0x0f]), true).unwrap();
        assert!(p.rex == 0 && p.operand16 && p.opcode == 2);
        assert_eq!(
            prefixes(&Bytes::new(&[0x66, 0x48, 0x41, 0x0f]), true)
                .unwrap()
                .rex,
            0x41
        );
    }
}
