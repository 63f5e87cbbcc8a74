//! The grant table of a domain: what it lets others do with its pages.
//!
//! The table itself is memory the granter writes at any time. An entry that is in use is marked so by the hypervisor
//! (flags reading and writing), and remembered here together with the frame it named at first use: what the granter
//! writes there later changes nothing for those who use it.

use crate::arch::nospec;
use crate::fallible::{OutOfMemory, try_push, try_slice};
use crate::mm::foreign::{PageUse, Unusable};
use crate::mm::shared_frame::SharedFrame;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pv_abi::errno::Errno;
use pv_abi::grant::{
    ENTRIES_PER_FRAME, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_TYPE_MASK, GTF_WRITING, ST_BAD_GNTREF,
    ST_BAD_PAGE, ST_GENERAL_ERROR,
};
use pv_abi::ids::{DomId, Mfn};

/// Attempts to mark an entry that its granter keeps changing.
const ATTEMPTS: usize = 8;
const ENTRY_SIZE: usize = 8;

/// An entry somebody uses. There may be very many of them, so they are small.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    /// The frame it named when the use began, as the guest's entry has it: 32 bits.
    frame: u32,
    /// Uses that only read.
    readers: u32,
    /// Uses that may write.
    writers: u32,
    /// By whom.
    user: DomId,
}
const _: () = assert!(size_of::<Active>() == 16);

/// Entries whose uses are counted in one allocation, made when the first of them is used: most entries of most tables
/// never are.
const CHUNK: u32 = 64;
const CHUNKS_PER_FRAME: u32 = ENTRIES_PER_FRAME / CHUNK;

/// A domain's grant table, version 1.
pub struct Table {
    frames: Vec<SharedFrame>,
    active: Vec<Option<Box<[Active]>>>,
    max: u32,
}

impl Table {
    /// Empty; it may grow to `max` frames.
    pub const fn new(max: u32) -> Self {
        Table { frames: Vec::new(), active: Vec::new(), max }
    }

    /// Frames it has; the first is there as soon as anybody looks.
    pub fn len(&self) -> u32 {
        (self.frames.len() as u32).max(1)
    }

    /// Frames it may have.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Grows the table of domain `owner` to `n` frames.
    ///
    /// # Errors
    /// `EINVAL` beyond the limit, `ENOMEM`; frames made so far stay.
    pub fn grow(&mut self, owner: DomId, n: u32) -> Result<(), Errno> {
        if n > self.max {
            return Err(Errno::EINVAL);
        }
        while (self.frames.len() as u32) < n {
            self.active.try_reserve(CHUNKS_PER_FRAME as usize).map_err(|_| Errno::ENOMEM)?;
            try_push(&mut self.frames, SharedFrame::try_new(owner)?)?;
            self.active.resize_with(self.frames.len() * CHUNKS_PER_FRAME as usize, || None);
        }
        Ok(())
    }

    /// Frame `i` of the table.
    pub fn frame(&self, i: u32) -> Option<Mfn> {
        self.frames.get(i as usize).map(SharedFrame::mfn)
    }

    /// Its frames, for the audit.
    pub fn frames(&self) -> impl Iterator<Item = Mfn> + '_ {
        self.frames.iter().map(SharedFrame::mfn)
    }

    /// Entry `gref`: its frame, the offset there, and its uses, if room for them was made.
    fn at(&mut self, gref: u32) -> Option<(&SharedFrame, usize, &mut Active)> {
        let active =
            nospec::get_mut(&mut self.active, (gref / CHUNK) as usize)?.as_mut()?.get_mut((gref % CHUNK) as usize)?;
        let frame = nospec::get(&self.frames, (gref / ENTRIES_PER_FRAME) as usize)?;
        Some((frame, (gref % ENTRIES_PER_FRAME) as usize * ENTRY_SIZE, active))
    }

    /// Makes room for the uses of entry `gref`, if the table has it.
    fn make_room(&mut self, gref: u32) -> Result<(), OutOfMemory> {
        if let Some(chunk) = nospec::get_mut(&mut self.active, (gref / CHUNK) as usize)
            && chunk.is_none()
        {
            *chunk = Some(try_slice(CHUNK as usize, |_| Active::default())?);
        }
        Ok(())
    }

    /// Begins a use of entry `gref` of `owner`'s table by `user`; marks the entry.
    ///
    /// # Errors
    /// A `GNTST_*` status: bad reference, general error (not granted so), bad page.
    pub fn begin(&mut self, owner: DomId, gref: u32, user: DomId, write: bool) -> Result<PageUse, i16> {
        let known = gref / ENTRIES_PER_FRAME < self.len();
        self.make_room(gref).map_err(|OutOfMemory| ST_GENERAL_ERROR)?;
        let Some((frame, offset, active)) = self.at(gref) else {
            // The first frame may not have been touched yet: all its entries are unused.
            return Err(if known { ST_GENERAL_ERROR } else { ST_BAD_GNTREF });
        };
        let in_use = active.readers != 0 || active.writers != 0;
        if in_use && active.user != user {
            return Err(ST_GENERAL_ERROR);
        }
        mark(frame, offset, user, write)?;
        if !in_use {
            *active = Active { user, frame: frame.load_u32(offset + 4), readers: 0, writers: 0 };
        }
        let page = PageUse::take(owner, Mfn(u64::from(active.frame)), write).map_err(|e| match e {
            Unusable::NotAPage => ST_BAD_PAGE,
            Unusable::Busy => ST_GENERAL_ERROR,
        });
        let count = if write { &mut active.writers } else { &mut active.readers };
        let counted = match (&page, count.checked_add(1)) {
            (Ok(_), Some(n)) => {
                *count = n;
                true
            }
            _ => false,
        };
        let left = *active;
        if !counted {
            unmark(frame, offset, &left);
            return Err(page.err().unwrap_or(ST_GENERAL_ERROR));
        }
        page
    }

    /// Ends a use that [`Table::begin`] began. The page's references are the caller's to drop.
    pub fn end(&mut self, gref: u32, write: bool) {
        let Some((frame, offset, active)) = self.at(gref) else {
            return;
        };
        let count = if write { &mut active.writers } else { &mut active.readers };
        debug_assert!(*count != 0, "grant {gref} ended more often than begun");
        *count = count.saturating_sub(1);
        let left = *active;
        unmark(frame, offset, &left);
    }

    /// Entries in use, for the audit and a table's end.
    pub fn in_use(&self) -> usize {
        self.active.iter().flatten().flatten().filter(|a| a.readers != 0 || a.writers != 0).count()
    }
}

/// Marks an entry as in use if it grants that to `user`.
fn mark(frame: &SharedFrame, offset: usize, user: DomId, write: bool) -> Result<(), i16> {
    let wanted = if write { GTF_READING | GTF_WRITING } else { GTF_READING };
    let mut word = frame.load_u32(offset);
    for _ in 0..ATTEMPTS {
        let (flags, domid) = (word as u16, (word >> 16) as u16);
        let granted =
            flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS && domid == user.0 && !(write && flags & GTF_READONLY != 0);
        if !granted {
            return Err(ST_GENERAL_ERROR);
        }
        match frame.compare_exchange_u32(offset, word, word | u32::from(wanted)) {
            Ok(()) => return Ok(()),
            Err(now) => word = now,
        }
    }
    Err(ST_GENERAL_ERROR)
}

/// Takes off the marks that the uses left do not need.
fn unmark(frame: &SharedFrame, offset: usize, left: &Active) {
    let mut gone = 0;
    if left.writers == 0 {
        gone |= GTF_WRITING;
        if left.readers == 0 {
            gone |= GTF_READING;
        }
    }
    if gone != 0 {
        frame.fetch_and_u64(offset, !u64::from(gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    const OWNER: DomId = DomId(1);
    const USER: DomId = DomId(2);

    fn setup() -> (Table, Mfn) {
        testing::machine(64);
        let mem = testing::domain(OWNER.0, 16);
        let page = mem.allocate(0, u64::MAX).unwrap();
        let mut t = Table::new(4);
        t.grow(OWNER, 1).unwrap();
        (t, page)
    }

    fn grant(t: &Table, gref: usize, flags: u16, user: DomId, mfn: u64) {
        let f = &t.frames[0];
        f.store_u64(gref * 8, u64::from(flags) | u64::from(user.0) << 16 | mfn << 32);
    }

    fn flags(t: &Table, gref: usize) -> u16 {
        t.frames[0].load_u32(gref * 8) as u16
    }

    #[test]
    fn marks_follow_the_uses() {
        let (mut t, page) = setup();
        grant(&t, 3, GTF_PERMIT_ACCESS, USER, page.0);
        let r = t.begin(OWNER, 3, USER, false).unwrap();
        assert_eq!(flags(&t, 3), GTF_PERMIT_ACCESS | GTF_READING);
        let w = t.begin(OWNER, 3, USER, true).unwrap();
        assert_eq!(flags(&t, 3), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        drop(w);
        t.end(3, true);
        assert_eq!(flags(&t, 3), GTF_PERMIT_ACCESS | GTF_READING, "the reader is left");
        drop(r);
        t.end(3, false);
        assert_eq!(flags(&t, 3), GTF_PERMIT_ACCESS);
        assert_eq!(t.in_use(), 0);
    }

    #[test]
    fn refusals_are_the_measured_ones() {
        let (mut t, page) = setup();
        let status = |t: &mut Table, gref, write| t.begin(OWNER, gref, USER, write).map(drop).unwrap_err();
        assert_eq!(status(&mut t, 512, false), ST_BAD_GNTREF, "beyond the table");
        assert_eq!(status(&mut t, 5, false), ST_GENERAL_ERROR, "unused");
        grant(&t, 5, pv_abi::grant::GTF_ACCEPT_TRANSFER, USER, page.0);
        assert_eq!(status(&mut t, 5, false), ST_GENERAL_ERROR, "transfer");
        grant(&t, 5, GTF_PERMIT_ACCESS, DomId(7), page.0);
        assert_eq!(status(&mut t, 5, false), ST_GENERAL_ERROR, "granted to another");
        grant(&t, 5, GTF_PERMIT_ACCESS | GTF_READONLY, USER, page.0);
        assert_eq!(status(&mut t, 5, true), ST_GENERAL_ERROR, "read-only");
        grant(&t, 5, GTF_PERMIT_ACCESS, USER, 0xff_ffff);
        assert_eq!(status(&mut t, 5, true), ST_BAD_PAGE);
        assert_eq!(flags(&t, 5), GTF_PERMIT_ACCESS, "a failed use leaves no mark");
        assert_eq!(t.grow(OWNER, 5), Err(Errno::EINVAL));
    }

    #[test]
    fn a_used_entry_keeps_its_frame_whatever_the_granter_writes() {
        let (mut t, page) = setup();
        grant(&t, 0, GTF_PERMIT_ACCESS, USER, page.0);
        let first = t.begin(OWNER, 0, USER, false).unwrap();
        grant(&t, 0, GTF_PERMIT_ACCESS | GTF_READING, USER, page.0 + 1);
        let second = t.begin(OWNER, 0, USER, false).unwrap();
        assert_eq!(first.mfn(), second.mfn());
        // Handing the entry to somebody else while it is in use opens it to nobody.
        grant(&t, 0, GTF_PERMIT_ACCESS | GTF_READING, DomId(9), page.0);
        assert_eq!(t.begin(OWNER, 0, DomId(9), false).map(drop).unwrap_err(), ST_GENERAL_ERROR);
    }
}
