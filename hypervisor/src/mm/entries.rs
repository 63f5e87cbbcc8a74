//! What the entries of a table stand for: the references that validating a table takes and releasing it drops, entry by
//! entry. When that happens is the business of [`super::page_type`].

use super::frame::{self, Class, Frame};
use super::page_type::{
    ENTRIES, Kind, Owner, Preempted, Refused, State, get_type, get_writable, put_type, put_writable,
};
use super::pte::{Pte, bit};
use super::{domain_memory, l1tf, phys};
use crate::atomic::{AtomicU64, Ordering};
use crate::domain::current::should_preempt;
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Validates a frame, of which the first `from` entries hold references already, as a table or descriptor page. The
/// frame is in state `validating`; it leaves it.
pub(super) fn validate(f: &Frame, kind: Kind, from: usize, owner: Owner, preemptible: bool) -> Result<(), Refused> {
    let mfn = f.mfn();
    // Shared frames (grant tables, shared_info) are the hypervisor's to write, without a type reference: neither page
    // tables nor descriptors may be there.
    if f.class() != Class::Domain {
        f.finish(State::None, 0);
        return Err(Errno::EINVAL.into());
    }
    if kind == Kind::SegDesc {
        let ok = super::descriptor::validate_page(mfn);
        f.finish(if ok { State::Valid } else { State::None }, 0);
        return if ok { Ok(()) } else { Err(Errno::EINVAL.into()) };
    }
    if kind == Kind::L1 {
        return validate_l1(f, owner);
    }
    for i in from..ENTRIES {
        if kind == Kind::L4 && is_hypervisor_slot(i) {
            continue;
        }
        if preemptible && i > from && should_preempt() {
            f.finish(State::Partial, i);
            return Err(Refused::Preempted);
        }
        // SAFETY: the frame is the domain's RAM; it is being validated, so no CPU walks it as a table yet, and no
        // writable mapping exists.
        let slot = unsafe { phys::entry(mfn, i) };
        let pte = Pte(slot.load(Ordering::Relaxed));
        // Most entries of a new table are empty.
        if pte.0 == 0 {
            continue;
        }
        match get_entry(pte, kind, owner, owner.id, preemptible) {
            Ok(stored) => {
                if stored != pte {
                    slot.store(stored.0, Ordering::Relaxed);
                }
            }
            Err(Refused::Preempted) => {
                f.finish(State::Partial, i);
                return Err(Refused::Preempted);
            }
            Err(e) => {
                // The entries below are given back. When that takes long the frame stays partial, with a reference of
                // its own (the caller drops its one), and is finished before the domain's next operation.
                if f.get_another() {
                    match release(f, kind, i, owner, preemptible) {
                        Ok(()) => domain_memory::put_frame(f),
                        Err(Preempted) => super::unfinished::remember(owner.id, mfn),
                    }
                } else {
                    let _ = release(f, kind, i, owner, false);
                }
                return Err(e);
            }
        }
    }
    if kind == Kind::L4 {
        super::tables::fill_hypervisor_slots(mfn, owner.id);
    }
    f.finish(State::Valid, 0);
    Ok(())
}

/// [`validate`] of an L1, in one go: it leads to data only. Most entries of most tables are empty, so they are looked at
/// four at a time.
fn validate_l1(f: &Frame, owner: Owner) -> Result<(), Refused> {
    // SAFETY: as in `validate`.
    let table = unsafe { phys::table(f.mfn()) };
    let telling = l1tf::telling_bits(owner);
    for (n, four) in table.as_chunks::<4>().0.iter().enumerate() {
        if !any(four, telling) {
            continue;
        }
        for (i, slot) in four.iter().enumerate() {
            let pte = Pte(slot.load(Ordering::Relaxed));
            if pte.0 & telling == 0 {
                continue;
            }
            let got = if pte.present() {
                get_l1_entry(pte, owner, owner.id)
            } else {
                l1tf::check(pte, owner).map(|()| pte).map_err(Refused::from)
            };
            match got {
                Ok(stored) if stored == pte => {}
                Ok(stored) => slot.store(stored.0, Ordering::Relaxed),
                Err(e) => {
                    release_l1(f, n * 4 + i, owner);
                    return Err(e);
                }
            }
        }
    }
    f.finish(State::Valid, 0);
    Ok(())
}

/// Whether any of these entries has any of `bits`.
#[inline(always)]
fn any(four: &[AtomicU64; 4], bits: u64) -> bool {
    let [a, b, c, d] = four;
    let all =
        a.load(Ordering::Relaxed) | b.load(Ordering::Relaxed) | c.load(Ordering::Relaxed) | d.load(Ordering::Relaxed);
    all & bits != 0
}

/// [`release`] of the first `n` entries of an L1.
fn release_l1(f: &Frame, n: usize, owner: Owner) {
    // SAFETY: as in `release`.
    let table = unsafe { phys::table(f.mfn()) };
    for (chunk, four) in table.as_chunks::<4>().0.iter().enumerate().take(n.div_ceil(4)) {
        if !any(four, bit::P) {
            continue;
        }
        for (i, slot) in four.iter().enumerate() {
            let pte = Pte(slot.load(Ordering::Relaxed));
            if chunk * 4 + i < n
                && pte.present()
                && let Some(f) = frame::get(pte.mfn())
            {
                put_l1_entry(pte, f, owner);
            }
        }
    }
    f.stamp_now();
    f.finish(State::None, 0);
}

pub(super) fn release(f: &Frame, kind: Kind, from: usize, owner: Owner, preemptible: bool) -> Result<(), Preempted> {
    if kind == Kind::L1 {
        release_l1(f, from, owner);
        return Ok(());
    }
    let mfn = f.mfn();
    for i in (0..from).rev() {
        if kind == Kind::L4 && is_hypervisor_slot(i) {
            continue;
        }
        if preemptible && i + 1 < from && should_preempt() {
            f.finish(State::Partial, i + 1);
            return Err(Preempted);
        }
        // SAFETY: a table of the domain in state `releasing`: nobody else changes it.
        let pte = Pte(unsafe { phys::load(mfn, i) });
        if pte.present() && put_entry(pte, kind, owner, preemptible).is_err() {
            // The child is partial and owns what this entry owned.
            super::unfinished::remember(owner.id, pte.mfn());
            f.finish(State::Partial, i);
            return Err(Preempted);
        }
    }
    f.stamp.store(crate::platform::tlb::clock(), Ordering::Release);
    f.finish(State::None, 0);
    Ok(())
}

/// Whether L4 slot `i` is the hypervisor's: what a guest put there is ignored and overwritten.
pub const fn is_hypervisor_slot(i: usize) -> bool {
    i >= crate::arch::layout::FIRST_SLOT && i <= crate::arch::layout::LAST_SLOT
}

/// Takes the references that an entry of a table of `kind` stands for. `frames_of` owns the mapped frames (another
/// domain only for L1 entries of a privileged domain). Returns the entry as it is to be stored.
pub(super) fn get_entry(
    pte: Pte,
    kind: Kind,
    owner: Owner,
    frames_of: DomId,
    preemptible: bool,
) -> Result<Pte, Refused> {
    if !pte.present() {
        l1tf::check(pte, owner)?;
        return Ok(pte);
    }
    let Some(child) = kind.child() else {
        return get_l1_entry(pte, owner, frames_of);
    };
    pte.check_upper()?;
    let f = frame::get(pte.mfn()).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
    match get_type(f, child, owner, preemptible) {
        Ok(()) => Ok(pte.adjust_upper()),
        Err(Refused::Preempted) => Err(Refused::Preempted),
        Err(Refused::Error(_)) => {
            domain_memory::put_frame(f);
            Err(Errno::EINVAL.into())
        }
    }
}

/// [`get_entry`] of a present L1 entry.
#[inline(always)]
pub(super) fn get_l1_entry(pte: Pte, owner: Owner, frames_of: DomId) -> Result<Pte, Refused> {
    let Some(f) = frame::get(pte.mfn()) else {
        return super::device::map_entry(pte, owner);
    };
    // Device memory (DomId::IO) owns no frames.
    if pte.cache_bits() != 0 || !f.get_ref(frames_of) {
        return get_unusual_l1_entry(pte, f, owner, frames_of);
    }
    take_l1_entry(pte, f, owner, frames_of)
}

/// The reference to the frame is taken; the type reference goes with it.
#[inline(always)]
fn take_l1_entry(pte: Pte, f: &Frame, owner: Owner, frames_of: DomId) -> Result<Pte, Refused> {
    if pte.writable() {
        if let Err(e) = get_writable(f, Owner { id: frames_of, hardware: false }) {
            domain_memory::put_frame(f);
            return Err(e);
        }
        if frames_of != owner.id {
            f.mark_foreign();
        }
    }
    Ok(pte.adjust_l1())
}

/// Device memory, cache attributes, and what is wrong with an entry that may not be.
#[cold]
fn get_unusual_l1_entry(pte: Pte, f: &Frame, owner: Owner, frames_of: DomId) -> Result<Pte, Refused> {
    if f.class() == Class::None {
        return super::device::map_entry(pte, owner);
    }
    // RAM as device memory (`DomId::IO`) ends below: no frame is owned by that domain, so there is nothing to check here.
    if pte.cache_bits() != 0 && !owner.hardware {
        return Err(Errno::EINVAL.into());
    }
    if !f.get_ref(frames_of) {
        return Err(Errno::EBUSY.into());
    }
    take_l1_entry(pte, f, owner, frames_of)
}

/// Drops the references a stored entry stands for.
pub(super) fn put_entry(pte: Pte, kind: Kind, owner: Owner, preemptible: bool) -> Result<(), Preempted> {
    if !pte.present() {
        return Ok(());
    }
    let Some(f) = frame::get(pte.mfn()) else {
        return Ok(());
    };
    if kind == Kind::L1 {
        put_l1_entry(pte, f, owner);
        return Ok(());
    }
    put_type(f, owner, preemptible)?;
    domain_memory::put_frame(f);
    Ok(())
}

/// [`put_entry`] of a present L1 entry, which names frame `f`.
#[inline(always)]
pub(super) fn put_l1_entry(pte: Pte, f: &Frame, owner: Owner) {
    // Device memory holds no references.
    if f.class() == Class::None {
        return;
    }
    if pte.writable() {
        put_writable(f, owner);
    }
    domain_memory::put_frame(f);
}
