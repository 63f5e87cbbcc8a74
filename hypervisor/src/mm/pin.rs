//! Operations on whole pages a guest asks for: pinning tables, clearing, copying, renumbering.

use super::domain_memory::{self, DomainMemory};
use super::frame;
use super::page_type::{self, Kind, Refused};
use super::{m2p, phys};
use pv_abi::errno::Errno;
use pv_abi::ids::{Mfn, PAGE_SIZE, Pfn};

/// Validates `mfn` as a table and keeps it one until it is unpinned.
///
/// # Errors
/// `EINVAL` when it is not the domain's, in other use, not valid, pinned already, or the domain is dying. `Preempted`: repeat.
pub fn pin(mem: &DomainMemory, mfn: Mfn, kind: Kind) -> Result<(), Refused> {
    let _operation = mem.operate().ok_or(Errno::EINVAL)?;
    let used = frame::get(mfn).map_or(Kind::None, |f| f.kind());
    let f = page_type::get_page_and_type(mfn, kind, mem.owner(), true).map_err(|e| match e {
        Refused::Preempted => Refused::Preempted,
        // What is wrong with an entry of an L1 is told as it is.
        Refused::Error(e) if kind == Kind::L1 && matches!(used, Kind::None | Kind::L1) => Refused::Error(e),
        Refused::Error(_) => Refused::Error(Errno::EINVAL),
    })?;
    if f.set_pinned() {
        return Ok(());
    }
    if page_type::put_page_and_type(f, mem.owner(), true).is_err() {
        super::unfinished::remember(mem.id, mfn);
    }
    Err(Errno::EINVAL.into())
}

/// The opposite.
///
/// # Errors
/// `EINVAL` when it was not pinned, or the domain is dying. `Preempted`: repeat (the frame is partial then, and the repetition finishes it).
pub fn unpin(mem: &DomainMemory, mfn: Mfn) -> Result<(), Refused> {
    let _operation = mem.operate().ok_or(Errno::EINVAL)?;
    let owner = mem.owner();
    let f = frame::get(mfn).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
    let r = if f.clear_pinned() {
        page_type::put_page_and_type(f, owner, true)
    } else if f.partial() {
        page_type::resume_release(f, owner, true)
    } else {
        domain_memory::put_frame(f);
        return Err(Errno::EINVAL.into());
    };
    domain_memory::put_frame(f);
    r.map_err(|_| Refused::Preempted)
}

/// Renumbers a page of the domain in the M2P.
///
/// # Errors
/// `EINVAL` when the domain does not own it.
pub fn set_m2p(mem: &DomainMemory, mfn: Mfn, pfn: Pfn) -> Result<(), Errno> {
    let f = frame::get(mfn).filter(|f| f.get_ref(mem.id)).ok_or(Errno::EINVAL)?;
    m2p::set(mfn, pfn);
    domain_memory::put_frame(f);
    Ok(())
}

/// Fills a data page with zeroes.
///
/// # Errors
/// `EINVAL` when it is not a data page of the domain.
pub fn clear_page(mem: &DomainMemory, mfn: Mfn) -> Result<(), Errno> {
    let f = page_type::get_page_and_type(mfn, Kind::Writable, mem.owner(), false).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a data page of the domain, held writable.
    unsafe { phys::zero(mfn) };
    let _ = page_type::put_page_and_type(f, mem.owner(), false);
    Ok(())
}

/// Copies page `src` to data page `dst`.
///
/// # Errors
/// `EINVAL` when one is not the domain's or `dst` is no data page.
pub fn copy_page(mem: &DomainMemory, dst: Mfn, src: Mfn) -> Result<(), Errno> {
    let owner = mem.owner();
    let s = frame::get(src).filter(|f| f.get_ref(owner.id)).ok_or(Errno::EINVAL)?;
    let d = page_type::get_page_and_type(dst, Kind::Writable, owner, false);
    if d.is_ok() {
        // SAFETY: both are the domain's and held; the destination is data.
        unsafe { phys::copy(dst, 0, src, 0, PAGE_SIZE as usize) };
    }
    domain_memory::put_frame(s);
    let d = d.map_err(|_| Errno::EINVAL)?;
    let _ = page_type::put_page_and_type(d, owner, false);
    Ok(())
}
