//! Where domains are found by id.

use crate::arch::layout;
use crate::domain::DomainRef;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Domain ids are below this. (The ABI allows 0x7ff0; ids are handed out from the bottom, so this is a limit on living
/// domains, not on creations.)
pub const MAX_DOMAINS: usize = 4096;

static SLOTS: [Lock<Option<DomainRef>>; MAX_DOMAINS] = [const { Lock::new(Rank::Domains, None) }; MAX_DOMAINS];
const _: () = assert!(MAX_DOMAINS <= 0x7ff0 && layout::MAX_CPUS > 0);

/// Which slots are taken, a bit each, so that looking for the next domain does not look at each slot. Changed with the
/// slot locked.
static TAKEN: [AtomicU64; MAX_DOMAINS / 64] = [const { AtomicU64::new(0) }; MAX_DOMAINS / 64];

fn taken(id: DomId) -> Option<(&'static AtomicU64, u64)> {
    Some((TAKEN.get(usize::from(id.0) / 64)?, 1 << (id.0 % 64)))
}

/// The domain `id`, if it exists (dying ones do).
pub fn find(id: DomId) -> Option<DomainRef> {
    SLOTS.get(id.0 as usize)?.lock().clone()
}

/// Puts `domain` into its slot.
///
/// # Errors
/// `EEXIST` when the slot is taken, `EINVAL` when the id is out of range.
pub fn insert(domain: DomainRef) -> Result<(), Errno> {
    let mut slot = SLOTS.get(domain.id.0 as usize).ok_or(Errno::EINVAL)?.lock();
    if slot.is_some() {
        return Err(Errno::EEXIST);
    }
    if let Some((word, bit)) = taken(domain.id) {
        word.fetch_or(bit, Ordering::AcqRel);
    }
    *slot = Some(domain);
    Ok(())
}

/// Empties the slot of `id`.
pub fn remove(id: DomId) -> Option<DomainRef> {
    let mut slot = SLOTS.get(id.0 as usize)?.lock();
    if let Some((word, bit)) = taken(id) {
        word.fetch_and(!bit, Ordering::AcqRel);
    }
    slot.take()
}

/// The existing domain with the lowest id that is at least `from`.
pub fn next(from: u32) -> Option<DomainRef> {
    let (first, skip) = (from / 64, from % 64);
    for (n, word) in (0u32..).zip(&TAKEN).skip(first as usize) {
        let mut bits = word.load(Ordering::Acquire);
        if n == first {
            bits &= u64::MAX << skip;
        }
        while bits != 0 {
            let id = n * 64 + bits.trailing_zeros();
            bits &= bits - 1;
            let found = find(DomId(id as u16));
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// Every existing domain, in rising id.
pub fn all() -> impl Iterator<Item = DomainRef> {
    let mut from = 0;
    core::iter::from_fn(move || {
        let d = next(from)?;
        from = u32::from(d.id.0) + 1;
        Some(d)
    })
}

/// A free id of at least 1, searched upwards from behind the last one given, so that ids are not reused at once.
pub fn free_id() -> Option<DomId> {
    use core::sync::atomic::AtomicU32;
    static LAST: AtomicU32 = AtomicU32::new(0);
    let start = LAST.load(Ordering::Relaxed) as usize;
    let n = MAX_DOMAINS - 1;
    let id = (0..n).map(|i| 1 + (start + i) % n).find(|&i| SLOTS.get(i).is_some_and(|s| s.lock().is_none()))?;
    LAST.store(id as u32, Ordering::Relaxed);
    Some(DomId(id as u16))
}
