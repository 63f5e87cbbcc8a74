//! The maptrack: what a domain has mapped of others' grants, by handle.

use crate::arch::nospec;
use crate::fallible::{try_push, try_slice};
use crate::mm::foreign::PageUse;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Entries added at a time: a page of them.
const CHUNK: usize = 128;
const _: () = assert!(CHUNK * size_of::<Slot>() == 4096);
/// Handles a frame of maptrack stands for in the limits of the ABI.
pub const PER_FRAME: u32 = 256;
const NONE: u32 = u32::MAX;

/// A grant that is mapped.
#[derive(Debug)]
pub struct Mapping {
    /// Whose grant.
    pub granter: DomId,
    /// Which.
    pub gref: u32,
    /// Mapped into the page tables.
    pub host: bool,
    /// By the machine address of the entry, not by virtual address.
    pub by_entry: bool,
    /// Mapped for devices.
    pub device: bool,
    /// The page, with the references this mapping owns.
    pub page: PageUse,
}

enum Slot {
    /// Free; the next free one.
    Free(u32),
    /// Given out, but there is no mapping yet, or somebody takes it down right now.
    Busy,
    Used(Mapping),
}

/// What [`Tracks::sweep`] found.
pub enum Sweep {
    /// A mapping; its handle is busy.
    Took(u32, Mapping),
    /// Nothing yet.
    Goes,
    /// No more.
    Done,
}

/// A domain's handles.
pub struct Tracks {
    /// Handles below this have been gone through by [`Tracks::sweep`].
    swept: u32,
    chunks: Vec<Box<[Slot]>>,
    free: u32,
    max: u32,
    used: u32,
}

impl Tracks {
    /// None; at most `max` handles.
    pub const fn new(max: u32) -> Self {
        Tracks { swept: 0, chunks: Vec::new(), free: NONE, max, used: 0 }
    }

    fn slot(&mut self, handle: u32) -> Option<&mut Slot> {
        let i = handle as usize;
        nospec::get_mut(&mut self.chunks, i / CHUNK)?.get_mut(i % CHUNK)
    }

    /// Handles there are, used or not.
    pub fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Handles in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// A fresh handle, busy until [`Tracks::set`] or [`Tracks::free`].
    ///
    /// # Errors
    /// `ENOSPC` at the limit, `ENOMEM`.
    pub fn reserve(&mut self) -> Result<u32, Errno> {
        if self.free == NONE {
            let first = self.capacity();
            if first >= self.max {
                return Err(Errno::ENOSPC);
            }
            let last = first + CHUNK as u32 - 1;
            let next = |i: usize| first + i as u32 + 1;
            let chunk = try_slice(CHUNK, |i| Slot::Free(if next(i) > last { NONE } else { next(i) }))?;
            try_push(&mut self.chunks, chunk)?;
            self.free = first;
        }
        let handle = self.free;
        let Some(slot) = self.slot(handle) else {
            return Err(Errno::ENOSPC);
        };
        let Slot::Free(next) = *slot else {
            return Err(Errno::ENOSPC);
        };
        *slot = Slot::Busy;
        self.free = next;
        self.used += 1;
        Ok(handle)
    }

    /// The busy handle stands for `mapping` from now on.
    pub fn set(&mut self, handle: u32, mapping: Mapping) {
        if let Some(slot @ Slot::Busy) = self.slot(handle) {
            *slot = Slot::Used(mapping);
        }
    }

    /// Takes the mapping of a handle in use out, so that nobody else takes it down; the handle is busy.
    pub fn take(&mut self, handle: u32) -> Option<Mapping> {
        let slot = self.slot(handle)?;
        match core::mem::replace(slot, Slot::Busy) {
            Slot::Used(m) => Some(m),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Takes the next mapping of a domain that will make no more: each handle is looked at once, a few at a time.
    pub fn sweep(&mut self) -> Sweep {
        for _ in 0..CHUNK {
            let handle = self.swept;
            if handle >= self.capacity() {
                return Sweep::Done;
            }
            self.swept += 1;
            if let Some(m) = self.take(handle) {
                return Sweep::Took(handle, m);
            }
        }
        Sweep::Goes
    }

    /// The busy handle is free again.
    pub fn free(&mut self, handle: u32) {
        let head = self.free;
        if let Some(slot @ Slot::Busy) = self.slot(handle) {
            *slot = Slot::Free(head);
            self.free = handle;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Every mapping, for the audit.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.chunks.iter().flatten().filter_map(|s| match s {
            Slot::Used(m) => Some(m),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;
    use pv_abi::ids::Mfn;

    fn mapping(mfn: Mfn) -> Mapping {
        let page = PageUse::take(DomId(1), mfn, false).unwrap();
        Mapping { granter: DomId(1), gref: 9, host: true, by_entry: false, device: false, page }
    }

    #[test]
    fn handles_are_used_once_and_come_back() {
        testing::machine(64);
        let mem = testing::domain(1, 8);
        let mfn = mem.allocate(0, u64::MAX).unwrap();
        let mut t = Tracks::new(2 * CHUNK as u32);
        let h = t.reserve().unwrap();
        assert!(t.take(h).is_none(), "busy");
        t.set(h, mapping(mfn));
        assert!(t.take(99).is_none() && t.take(1_000_000).is_none());
        let m = t.take(h).unwrap();
        assert!(t.take(h).is_none(), "somebody is at it");
        t.set(h, m);
        assert!(t.take(h).is_some());
        t.free(h);
        assert_eq!(t.used(), 0);
        let all: Vec<u32> = core::iter::from_fn(|| t.reserve().ok()).collect();
        assert_eq!(all.len(), 2 * CHUNK, "the limit");
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
        assert_eq!(t.reserve(), Err(Errno::ENOSPC));
        t.free(all[7]);
        assert_eq!(t.reserve(), Ok(all[7]));
    }
}
