//! Numbers: a generator that can be replayed, and values that are worth trying.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// One stream of numbers per seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number: small, near a power of two, a border of the address space, or anything.
    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => self.below(16),
            3 => self.below(250),
            4 => match (1u64 << self.below(64)).wrapping_add(self.below(3)).wrapping_sub(1) {
                // The list of this kernel's frames is there.
                n if n >> 39 == 1 => 0,
                n => n,
            },
            5 => self.pick(&ADDRESSES),
            6 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    /// A 32-bit number, mostly small.
    pub fn number32(&mut self) -> u32 {
        match self.below(4) {
            0 | 1 => self.below(8) as u32,
            2 => self.below(250) as u32,
            _ => self.number() as u32,
        }
    }
}

/// Addresses at borders: none of them is memory this kernel needs.
pub const ADDRESSES: [u64; 22] = [
    0,
    1,
    0xfff,
    0x7fff_ffff_f000,
    0x7fff_ffff_fff8,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_fff8,
    0xffff_8000_0000_0000,
    0xffff_8000_0000_0ffc,
    0xffff_8040_0000_0000,
    0xffff_8080_0000_0000,
    0xffff_8100_0000_0000,
    0xffff_8100_0000_e000,
    0xffff_8180_0000_0000,
    0xffff_8200_0000_0000,
    0xffff_8200_2000_0000,
    0xffff_8280_0000_0000,
    0xffff_8300_0000_0000,
    0xffff_87ff_ffff_fffc,
    0xffff_8800_0000_0000,
    0xffff_ffff_ffff_fffc,
];
