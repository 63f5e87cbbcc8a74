//! Where domains are found by id.

use crate::arch::layout;
use crate::domain::DomainRef;
use crate::sync::{Lock, Rank};
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Domain ids are below this. (The ABI allows 0x7ff0; ids are handed out from the bottom, so this is a limit on living
/// domains, not on creations.)
pub const MAX_DOMAINS: usize = 4096;

static SLOTS: [Lock<Option<DomainRef>>; MAX_DOMAINS] = [const { Lock::new(Rank::Domains, None) }; MAX_DOMAINS];
const _: () = assert!(MAX_DOMAINS <= 0x7ff0 && layout::MAX_CPUS > 0);

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
    *slot = Some(domain);
    Ok(())
}

/// Empties the slot of `id`.
pub fn remove(id: DomId) -> Option<DomainRef> {
    SLOTS.get(id.0 as usize)?.lock().take()
}

/// The existing domain with the lowest id that is at least `from`.
pub fn next(from: u32) -> Option<DomainRef> {
    SLOTS.iter().skip(from as usize).find_map(|s| s.lock().clone())
}

/// Every existing domain, in rising id.
pub fn all() -> impl Iterator<Item = DomainRef> {
    SLOTS.iter().filter_map(|s| s.lock().clone())
}

/// A free id of at least 1, searched upwards from behind the last one given, so that ids are not reused at once.
pub fn free_id() -> Option<DomId> {
    use core::sync::atomic::{AtomicU32, Ordering};
    static LAST: AtomicU32 = AtomicU32::new(0);
    let start = LAST.load(Ordering::Relaxed) as usize;
    let n = MAX_DOMAINS - 1;
    let id = (0..n).map(|i| 1 + (start + i) % n).find(|&i| SLOTS.get(i).is_some_and(|s| s.lock().is_none()))?;
    LAST.store(id as u32, Ordering::Relaxed);
    Some(DomId(id as u16))
}
