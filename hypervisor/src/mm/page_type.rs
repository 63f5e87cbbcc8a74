//! Page types: what a frame may be used as. The heart of a PV hypervisor.
//!
//! A frame is at any time either writable data, or a page table of one level, or a descriptor table, or none of these;
//! each use holds a counted *type reference*, and only when the count is zero may the type change. So no guest can
//! ever write a live page table except through the checks of [`super::update`].
//!
//! # State machine
//!
//! ```text
//!            get (tables)                 all entries hold references
//!   none ───────────────▶ validating ───────────────────────────────▶ valid ◀─┐ get / put, count > 1
//!    ▲                      │     ▲                                     │  └───┘
//!    │ all released         │stop │resume                          put, │ count = 1
//!    │                      ▼     │                                     ▼
//!    └──────────────────── partial(n) ◀──────────── stop ──────────── releasing ──▶ none
//! ```
//!
//! `partial(n)` means one thing, however it came about: entries `0..n` hold references, the others do not. Validation
//! goes up from `n`, release goes down from it; so either can be resumed, or turned into the other. A partial frame
//! owns one type reference and one general reference until somebody finishes it.
//!
//! A frame's last type stays in its word while the count is zero: when the next type is a different one, CPUs that may
//! still translate through stale entries must have flushed first ([`flush_before_retype`]).

use super::domain_memory;
use super::entries::{release, validate};
use super::frame::{self, Frame};
use crate::atomic::Ordering;
use crate::domain::current::should_preempt;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// What a frame is used as.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing yet.
    None = 0,
    /// Data some page table maps writable.
    Writable = 1,
    /// Page table, lowest level.
    L1 = 2,
    /// Page directory.
    L2 = 3,
    /// Page-directory-pointer table.
    L3 = 4,
    /// Top-level table.
    L4 = 5,
    /// GDT or LDT page.
    SegDesc = 6,
}

impl Kind {
    fn from_word(w: u64) -> Kind {
        match w >> KIND_SHIFT & 0xf {
            1 => Kind::Writable,
            2 => Kind::L1,
            3 => Kind::L2,
            4 => Kind::L3,
            5 => Kind::L4,
            6 => Kind::SegDesc,
            _ => Kind::None,
        }
    }
    /// Whether it is a page table of some level.
    pub const fn is_table(self) -> bool {
        matches!(self, Kind::L1 | Kind::L2 | Kind::L3 | Kind::L4)
    }
    /// The kind one level down.
    pub const fn child(self) -> Option<Kind> {
        match self {
            Kind::L4 => Some(Kind::L3),
            Kind::L3 => Some(Kind::L2),
            Kind::L2 => Some(Kind::L1),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    None = 0,
    Validating = 1,
    Partial = 2,
    Valid = 3,
    Releasing = 4,
}

const COUNT: u64 = 0xffff_ffff;
const COUNT_MAX: u64 = 0x7fff_ffff;
const PROGRESS_SHIFT: u32 = 32;
const PROGRESS: u64 = 0x3ff << PROGRESS_SHIFT;
const STATE_SHIFT: u32 = 43;
const STATE: u64 = 7 << STATE_SHIFT;
const KIND_SHIFT: u32 = 46;
const KIND: u64 = 0xf << KIND_SHIFT;
const PINNED: u64 = 1 << 50;
const LOCK: u64 = 1 << 51;
/// Kind and state of data.
const DATA: u64 = (Kind::Writable as u64) << KIND_SHIFT | (State::Valid as u64) << STATE_SHIFT;
/// Entries of a table.
pub const ENTRIES: usize = 512;

/// Why a use was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The guest's mistake.
    Error(Errno),
    /// There is more urgent work: repeat the operation. Progress is kept in the frame.
    Preempted,
}

impl From<crate::fallible::OutOfMemory> for Refused {
    fn from(e: crate::fallible::OutOfMemory) -> Self {
        Refused::Error(e.into())
    }
}

impl From<Errno> for Refused {
    fn from(e: Errno) -> Self {
        Refused::Error(e)
    }
}

/// On whose behalf tables are validated.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// Owner of the tables.
    pub id: DomId,
    /// May map device memory.
    pub hardware: bool,
}

/// Whether type word `w` is that of a frame fully validated as `kind`.
#[inline(always)]
const fn is_valid(w: u64, kind: Kind) -> bool {
    w & COUNT != 0 && w & (KIND | STATE) == (kind as u64) << KIND_SHIFT | (State::Valid as u64) << STATE_SHIFT
}

impl Frame {
    fn state(w: u64) -> State {
        match w >> STATE_SHIFT & 7 {
            1 => State::Validating,
            2 => State::Partial,
            3 => State::Valid,
            4 => State::Releasing,
            _ => State::None,
        }
    }

    /// The kind the frame is used as now ([`Kind::None`] when nothing holds a type reference).
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        let w = self.type_word.load(Ordering::Acquire);
        if w & COUNT == 0 { Kind::None } else { Kind::from_word(w) }
    }

    /// Whether it is fully validated as `kind`.
    #[inline(always)]
    pub fn is_valid(&self, kind: Kind) -> bool {
        is_valid(self.type_word.load(Ordering::Acquire), kind)
    }

    /// Type references now.
    pub fn type_count(&self) -> u32 {
        self.type_word.load(Ordering::Acquire) as u32
    }

    /// Whether a guest pinned it.
    pub fn pinned(&self) -> bool {
        self.type_word.load(Ordering::Acquire) & PINNED != 0
    }

    /// Whether an operation on it stopped half-way.
    pub fn partial(&self) -> bool {
        Self::state(self.type_word.load(Ordering::Acquire)) == State::Partial
    }

    /// Entries of a partial table that hold references.
    pub(super) fn progress(&self) -> usize {
        ((self.type_word.load(Ordering::Acquire) & PROGRESS) >> PROGRESS_SHIFT) as usize
    }

    /// Sets the pin mark; false when it is set already. The pin owns one type and one general reference.
    pub(super) fn set_pinned(&self) -> bool {
        self.type_word.fetch_or(PINNED, Ordering::AcqRel) & PINNED == 0
    }

    /// Takes the pin mark off; false when there was none.
    pub(super) fn clear_pinned(&self) -> bool {
        self.type_word.fetch_and(!PINNED, Ordering::AcqRel) & PINNED != 0
    }

    /// Keeps other CPUs from updating entries of this table.
    #[inline(always)]
    pub(super) fn lock_table(&self) -> TableLock<'_> {
        loop {
            let word = self.type_word.fetch_or(LOCK, Ordering::Acquire);
            if word & LOCK == 0 {
                return TableLock { frame: self, word };
            }
            crate::atomic::spin_loop();
            crate::sync::serve_requests();
        }
    }

    pub(super) fn finish(&self, state: State, progress: usize) {
        let mut w = self.type_word.load(Ordering::Relaxed);
        loop {
            let mut new = w & !(STATE | PROGRESS) | (state as u64) << STATE_SHIFT | (progress as u64) << PROGRESS_SHIFT;
            if state == State::None {
                new &= !COUNT;
            }
            match self.type_word.compare_exchange_weak(w, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => w = now,
            }
        }
    }

    /// Remembers the flush clock as it is now; it never goes back.
    #[inline(always)]
    pub(super) fn stamp_now(&self) {
        let now = crate::platform::tlb::clock();
        if self.stamp.load(Ordering::Acquire) < now {
            self.stamp.fetch_max(now, Ordering::AcqRel);
        }
    }

    /// A clean type word for a frame with a new owner.
    pub(super) fn reset_type(&self) {
        self.type_word.store(0, Ordering::Release);
    }
}

/// Holding the entry lock of a table.
pub(super) struct TableLock<'a> {
    frame: &'a Frame,
    word: u64,
}

impl TableLock<'_> {
    /// Whether the frame is fully validated as `kind`. It stays that while the lock is held: the release of a table does
    /// not begin then.
    #[inline(always)]
    pub(super) fn is_valid(&self, kind: Kind) -> bool {
        is_valid(self.word, kind)
    }
}

impl Drop for TableLock<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.frame.type_word.fetch_and(!LOCK, Ordering::Release);
    }
}

/// Takes a type reference, validating the frame if it is to become a table. The caller holds a general reference,
/// which is not its own any more after `Preempted`.
///
/// # Errors
/// `EBUSY` when the frame is used as something else, the error of the entry that is not allowed, or `Preempted`.
pub(super) fn get_type(f: &Frame, kind: Kind, owner: Owner, preemptible: bool) -> Result<(), Refused> {
    let mut w = f.type_word.load(Ordering::Acquire);
    loop {
        let (state, new, fresh) = if w & COUNT == 0 {
            // Data of another kind before is nobody's to use until the flush is done.
            let at_once = kind == Kind::Writable && Kind::from_word(w) == kind;
            let state = if at_once { State::Valid } else { State::Validating };
            let new = w & LOCK | 1 | (kind as u64) << KIND_SHIFT | (state as u64) << STATE_SHIFT;
            (state, new, true)
        } else if Kind::from_word(w) != kind {
            return Err(Errno::EBUSY.into());
        } else {
            match Frame::state(w) {
                State::Valid if w & COUNT < COUNT_MAX => (State::Valid, w + 1, false),
                State::Valid => return Err(Errno::EBUSY.into()),
                State::Partial => (State::Validating, w & !STATE | (State::Validating as u64) << STATE_SHIFT, false),
                // Another CPU is at it, perhaps with a large tree and nothing more urgent to do: whoever has something
                // does not wait for that.
                State::Validating | State::Releasing | State::None => {
                    if preemptible && should_preempt() {
                        domain_memory::put_frame(f);
                        return Err(Refused::Preempted);
                    }
                    crate::atomic::spin_loop();
                    crate::sync::serve_requests();
                    w = f.type_word.load(Ordering::Acquire);
                    continue;
                }
            }
        };
        if let Err(now) = f.type_word.compare_exchange_weak(w, new, Ordering::AcqRel, Ordering::Acquire) {
            w = now;
            continue;
        }
        if state == State::Valid {
            return Ok(());
        }
        let from = if fresh {
            if Kind::from_word(w) != kind {
                flush_before_retype(f, owner.id);
            }
            if kind == Kind::Writable {
                f.finish(State::Valid, 0);
                return Ok(());
            }
            0
        } else {
            // Taking over a partial frame: the reference it kept is dropped, the caller's takes its place.
            let last = f.put_ref();
            debug_assert!(!last);
            ((w & PROGRESS) >> PROGRESS_SHIFT) as usize
        };
        return validate(f, kind, from, owner, preemptible);
    }
}

/// Drops a type reference; the last one releases a table's entries.
///
/// # Errors
/// `Preempted` when stopped half-way: the frame is partial and has kept the caller's general reference too, so the
/// caller must not drop that; repeat with [`resume_release`].
pub(super) fn put_type(f: &Frame, owner: Owner, preemptible: bool) -> Result<(), Preempted> {
    let mut w = f.type_word.load(Ordering::Acquire);
    loop {
        debug_assert!(w & COUNT != 0, "type reference of frame {:#x} dropped too often", f.mfn());
        let kind = Kind::from_word(w);
        if !kind.is_table() {
            // Each drop stamps, not only the last: another CPU may drop to zero with a clock it read before we came and
            // went, and the frame must not look older than our mapping.
            f.stamp_now();
        }
        let (new, releasing) = match Frame::state(w) {
            _ if w & COUNT > 1 => (w - 1, None),
            State::Valid if kind.is_table() => (w & !STATE | (State::Releasing as u64) << STATE_SHIFT, Some(ENTRIES)),
            State::Partial => (
                w & !STATE | (State::Releasing as u64) << STATE_SHIFT,
                Some(((w & PROGRESS) >> PROGRESS_SHIFT) as usize),
            ),
            State::Valid => {
                // Data and descriptor pages: nothing below them.
                ((w & !(STATE | COUNT)), None)
            }
            _ => {
                crate::atomic::spin_loop();
                crate::sync::serve_requests();
                w = f.type_word.load(Ordering::Acquire);
                continue;
            }
        };
        if releasing.is_some() && w & LOCK != 0 {
            // Somebody updates an entry; whoever gets the lock next sees that the table is not valid any more.
            crate::atomic::spin_loop();
            crate::sync::serve_requests();
            w = f.type_word.load(Ordering::Acquire);
            continue;
        }
        if let Err(now) = f.type_word.compare_exchange_weak(w, new, Ordering::AcqRel, Ordering::Acquire) {
            w = now;
            continue;
        }
        return match releasing {
            None => Ok(()),
            Some(from) => release(f, kind, from, owner, preemptible),
        };
    }
}

/// [`get_type`] of data: the common case, that others use the frame as data already, in a few instructions.
#[inline(always)]
pub(super) fn get_writable(f: &Frame, owner: Owner) -> Result<(), Refused> {
    let w = f.type_word.load(Ordering::Acquire);
    if w & (KIND | STATE) == DATA
        && (w & COUNT).wrapping_sub(1) < COUNT_MAX - 1
        && f.type_word.compare_exchange(w, w + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    {
        return Ok(());
    }
    get_type(f, Kind::Writable, owner, false)
}

/// [`put_type`] of data, likewise.
#[inline(always)]
pub(super) fn put_writable(f: &Frame, owner: Owner) {
    let w = f.type_word.load(Ordering::Acquire);
    if w & (KIND | STATE) == DATA && w & COUNT > 1 {
        f.stamp_now();
        if f.type_word.compare_exchange(w, w - 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
    }
    let _ = put_type(f, owner, false);
}

/// A release stopped at a preemption point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempted;

/// Goes on with the release of a frame that is partial, and drops the references it owned; does nothing for any other
/// frame. The caller holds a general reference of its own.
pub(super) fn resume_release(f: &Frame, owner: Owner, preemptible: bool) -> Result<(), Preempted> {
    let mut w = f.type_word.load(Ordering::Acquire);
    let from = loop {
        // Another CPU may take the frame over as a table at any time: only one of us gets it from `partial`.
        if Frame::state(w) != State::Partial {
            return Ok(());
        }
        let new = w & !STATE | (State::Releasing as u64) << STATE_SHIFT;
        match f.type_word.compare_exchange_weak(w, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break ((w & PROGRESS) >> PROGRESS_SHIFT) as usize,
            Err(now) => w = now,
        }
    };
    release(f, Kind::from_word(w), from, owner, preemptible)?;
    domain_memory::put_frame(f);
    Ok(())
}

/// Waits until no CPU that runs `owner` can hold a translation from the frame's former life.
#[cold]
fn flush_before_retype(f: &Frame, owner: DomId) {
    use crate::platform::tlb;
    let stamp = f.stamp.load(Ordering::Acquire);
    if f.foreign() {
        let stale = tlb::needs_flush(tlb::online(), stamp);
        if !stale.is_empty() {
            tlb::flush_cpus(stale, tlb::Flush::All);
        }
        debug_assert!(
            tlb::needs_flush(stale, stamp).is_empty(),
            "a frame changes its type before all CPUs have flushed"
        );
        return;
    }
    domain_memory::with(owner, |m| {
        let stale = tlb::needs_flush(m.dirty_cpus.load(), stamp);
        if !stale.is_empty() {
            tlb::flush_cpus(stale, tlb::Flush::All);
        }
        debug_assert!(
            tlb::needs_flush(stale, stamp).is_empty(),
            "a frame changes its type before all CPUs have flushed"
        );
    });
}

/// The frame of `mfn` with a general and a type reference of `owner`.
pub(super) fn get_page_and_type(
    mfn: Mfn,
    kind: Kind,
    owner: Owner,
    preemptible: bool,
) -> Result<&'static Frame, Refused> {
    let f = frame::get(mfn).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
    match get_type(f, kind, owner, preemptible) {
        Ok(()) => Ok(f),
        Err(Refused::Preempted) => Err(Refused::Preempted),
        Err(e) => {
            domain_memory::put_frame(f);
            Err(e)
        }
    }
}

/// Drops both. On `Preempted` the partial frame has kept them.
pub(super) fn put_page_and_type(f: &Frame, owner: Owner, preemptible: bool) -> Result<(), Preempted> {
    put_type(f, owner, preemptible)?;
    domain_memory::put_frame(f);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::entries::get_entry;
    use crate::mm::frame::Class;
    use crate::mm::pte::{Pte, bit};
    use crate::mm::shared_frame::SharedFrame;
    use crate::mm::testing;

    #[test]
    fn counts_stop_at_their_limits() {
        testing::machine(16);
        let mem = testing::domain(1, 4);
        let f = frame::get(mem.allocate(0, u64::MAX).unwrap()).unwrap();
        let get = || get_type(f, Kind::Writable, mem.owner(), false);
        get().unwrap();
        let word = f.type_word.load(Ordering::Relaxed);
        f.type_word.store((word & !COUNT) | COUNT_MAX, Ordering::Relaxed);
        assert_eq!(get(), Err(Errno::EBUSY.into()));
        assert_eq!(f.type_count(), COUNT_MAX as u32, "nothing was counted");
        f.type_word.store(word, Ordering::Relaxed);
        f.set_identity(Class::Domain, mem.id, u32::MAX / 2 - 1);
        assert!(f.get_ref(mem.id));
        assert!(!f.get_ref(mem.id) && !f.get_another(), "the limit");
        let pte = Pte(f.mfn().0 << 12 | bit::P);
        assert_eq!(get_entry(pte, Kind::L1, mem.owner(), mem.id, false), Err(Errno::EBUSY.into()));
        f.set_identity(Class::Domain, mem.id, 2);
        put_page_and_type(f, mem.owner(), false).unwrap();
    }

    #[test]
    fn shared_frames_are_data_and_nothing_else() {
        testing::machine(16);
        let mem = testing::domain(1, 4);
        let shared = SharedFrame::try_new(mem.id).unwrap();
        for kind in [Kind::L1, Kind::L2, Kind::L3, Kind::L4, Kind::SegDesc] {
            let got = get_page_and_type(shared.mfn(), kind, mem.owner(), true).map(|f| f.mfn());
            assert_eq!(got, Err(Errno::EINVAL.into()), "{kind:?}");
        }
        let f = get_page_and_type(shared.mfn(), Kind::Writable, mem.owner(), true).unwrap();
        put_page_and_type(f, mem.owner(), false).unwrap();
    }
}
