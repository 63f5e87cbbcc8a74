//! A vCPU's trap table: the handler of each vector.
//!
//! Kernels set some 33 of the 256 vectors, so only those are kept: with hundreds of vCPUs the rest would be a megabyte.

use crate::fallible::OutOfMemory;
use alloc::vec::Vec;
use pv_abi::arch::TrapInfo;

/// What a vector without handler has.
static NONE: TrapInfo = TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 };
/// Entries the table grows by.
const STEP: usize = 8;

/// `set_trap_table`: handler of each vector, address 0 = none.
pub struct TrapTable {
    /// Place of each vector in `entries`, + 1; 0 = none.
    place: [u16; 256],
    entries: Vec<TrapInfo>,
}

impl TrapTable {
    /// No handlers.
    pub const fn new() -> Self {
        TrapTable { place: [0; 256], entries: Vec::new() }
    }

    /// What `vector` has; `None` beyond 255.
    #[inline(always)]
    pub fn get(&self, vector: usize) -> Option<&TrapInfo> {
        let place = *self.place.get(vector)?;
        Some(match place.checked_sub(1) {
            Some(i) => self.entries.get(usize::from(i)).unwrap_or(&NONE),
            None => &NONE,
        })
    }

    /// Gives `vector` a handler, or takes it away (address 0).
    ///
    /// # Errors
    /// Out of memory; nothing has changed then.
    pub fn set(&mut self, vector: u8, t: TrapInfo) -> Result<(), OutOfMemory> {
        let Some(place) = self.place.get_mut(usize::from(vector)) else {
            return Ok(());
        };
        if let Some(e) = place.checked_sub(1).and_then(|i| self.entries.get_mut(usize::from(i))) {
            *e = t;
            return Ok(());
        }
        if t.address == 0 {
            return Ok(());
        }
        let next = u16::try_from(self.entries.len() + 1).map_err(|_| OutOfMemory)?;
        if self.entries.len() == self.entries.capacity() {
            self.entries.try_reserve_exact(STEP).map_err(|_| OutOfMemory)?;
        }
        self.entries.push(t);
        *place = next;
        Ok(())
    }

    /// Takes all handlers away.
    pub fn clear(&mut self) {
        self.place = [0; 256];
        self.entries.clear();
    }

    /// What each vector has, from 0 to 255.
    pub fn iter(&self) -> impl Iterator<Item = &TrapInfo> {
        (0..256).filter_map(|v| self.get(v))
    }
}

impl Default for TrapTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_set() {
        let mut t = TrapTable::new();
        let info = |n: u8| TrapInfo { vector: n, flags: 1, cs: 0xe033, pad: 0, address: 0x1000 + u64::from(n) };
        for n in [14u8, 0, 0x80, 255, 14] {
            t.set(n, info(n)).unwrap();
        }
        assert_eq!(t.get(14).unwrap().address, 0x100e);
        assert_eq!(t.get(255).unwrap().address, 0x10ff);
        assert_eq!(t.get(13).unwrap().address, 0);
        assert!(t.get(256).is_none());
        assert_eq!(t.iter().count(), 256);
        assert_eq!(t.iter().filter(|t| t.address != 0).count(), 4);
        t.set(14, TrapInfo::default()).unwrap();
        assert_eq!(t.get(14).unwrap().address, 0);
        t.clear();
        assert!(t.iter().all(|t| t.address == 0));
        (0..=255).for_each(|n| t.set(n, info(n)).unwrap());
        assert!(t.iter().enumerate().all(|(n, t)| t.address == 0x1000 + n as u64));
    }
}
