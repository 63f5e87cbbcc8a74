//! Grant tables, version 1: pages one domain lends another.
//!
//! Two tables a domain. [`table`]: what it grants, and who uses that now. [`track`]: what it has mapped of others', by
//! handle. An operation touches the granter's table and the mapper's track one after the other, never both locked.
//!
//! Taking a mapping down goes in three steps over a batch: the entries go ([`unmap`]), the mapper's CPUs flush
//! ([`flush`]), and only then is the granter told ([`finish`]): what it does with the page afterwards nobody sees
//! through a stale translation.

pub mod table;
pub mod track;

use crate::domain::{Domain, DomainRef, Life, slots};
use crate::mm::foreign::{self, Look, PageUse, Place};
use crate::platform::tlb;
use crate::sync::{Lock, Rank};
use pv_abi::errno::Errno;
use pv_abi::grant::{
    Copy, CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE,
    GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL0, GNTMAP_HOST_MAP, GNTMAP_READONLY, MapGrantRef, ST_BAD_COPY_ARG,
    ST_BAD_DOMAIN, ST_BAD_GNTREF, ST_BAD_HANDLE, ST_BAD_PAGE, ST_GENERAL_ERROR, ST_NO_SPACE, ST_PERMISSION_DENIED,
    UnmapGrantRef,
};
use pv_abi::ids::{DomId, MachineAddr, Mfn, PAGE_SIZE};
use table::Table;
use track::{Mapping, Sweep, Tracks};

/// A domain's grant table and what it has mapped of others'.
pub struct Grants {
    table: Lock<Table>,
    tracks: Lock<Tracks>,
}

impl Grants {
    /// Nothing granted, nothing mapped; the table may grow to `frames`, the handles to `maptrack_frames`' worth.
    pub const fn new(frames: u32, maptrack_frames: u32) -> Self {
        Grants {
            table: Lock::new(Rank::Grants, Table::new(frames)),
            tracks: Lock::new(Rank::Grants, Tracks::new(maptrack_frames.saturating_mul(track::PER_FRAME))),
        }
    }

    /// Frames of the table, and how many there may be.
    pub fn size(&self) -> (u32, u32) {
        let t = self.table.lock();
        (t.len(), t.max())
    }

    /// Makes the table of `owner` at least `n` frames long.
    ///
    /// # Errors
    /// `EINVAL` beyond the limit, `ENOMEM`.
    pub fn grow(&self, owner: DomId, n: u32) -> Result<(), Errno> {
        self.table.lock().grow(owner, n)
    }

    /// Frame `i` of the table.
    pub fn frame(&self, i: u32) -> Option<Mfn> {
        self.table.lock().frame(i)
    }

    /// Calls `f` for each frame of the table (one reference each), for the audit.
    pub fn for_each_frame(&self, f: impl FnMut(Mfn)) {
        self.table.lock().frames().for_each(f);
    }

    /// Calls `f` with each page the domain keeps mapped of others' (owner, page, writable), for the audit. These are
    /// the handles' references; the page-table entries have their own.
    pub fn for_each_mapping(&self, mut f: impl FnMut(DomId, Mfn, bool)) {
        self.tracks.lock().mappings().for_each(|m| f(m.granter, m.page.mfn(), m.page.writable()));
    }

    /// Handles in use.
    pub fn mapped(&self) -> u32 {
        self.tracks.lock().used()
    }
}

/// The domain `id`, whose pages others may still come to use.
fn granter(id: DomId) -> Result<DomainRef, i16> {
    slots::find(id).filter(|d| d.life() == Life::Alive).ok_or(ST_BAD_DOMAIN)
}

/// Where `host_addr` leads under the mapper's kernel tables.
fn place(l4: Option<Mfn>, host_addr: u64, contains_pte: bool) -> Result<Place, i16> {
    if contains_pte {
        return Ok(Place::Entry(MachineAddr(host_addr)));
    }
    let l4 = l4.ok_or(ST_GENERAL_ERROR)?;
    Ok(Place::Virtual { l4, va: host_addr & !(PAGE_SIZE - 1) })
}

/// Maps a grant for `d`, whose running vCPU has kernel base `l4`. Returns the handle and the page.
///
/// # Errors
/// A `GNTST_*` status.
pub fn map(d: &Domain, l4: Option<Mfn>, op: &MapGrantRef) -> Result<(u32, Mfn), i16> {
    let (host, device) = (op.flags & GNTMAP_HOST_MAP != 0, op.flags & GNTMAP_DEVICE_MAP != 0);
    if !host && !device {
        return Err(ST_BAD_GNTREF);
    }
    let from = granter(DomId(op.dom))?;
    let write = op.flags & GNTMAP_READONLY == 0;
    let handle = d.grants.tracks.lock().reserve().map_err(|_| ST_NO_SPACE)?;
    let page = from.grants.table.lock().begin(from.id, op.gref, d.id, write);
    let page = match page {
        Ok(p) => p,
        Err(status) => {
            d.grants.tracks.lock().free(handle);
            return Err(status);
        }
    };
    let mfn = page.mfn();
    if host && let Err(status) = map_host(d, l4, op, &page) {
        drop(page);
        from.grants.table.lock().end(op.gref, write);
        d.grants.tracks.lock().free(handle);
        return Err(status);
    }
    let by_entry = op.flags & GNTMAP_CONTAINS_PTE != 0;
    d.grants.tracks.lock().set(handle, Mapping { granter: from.id, gref: op.gref, host, by_entry, device, page });
    Ok((handle, mfn))
}

fn map_host(d: &Domain, l4: Option<Mfn>, op: &MapGrantRef, page: &PageUse) -> Result<(), i16> {
    let to = place(l4, op.host_addr, op.flags & GNTMAP_CONTAINS_PTE != 0)?;
    let look =
        Look { user: op.flags & GNTMAP_APPLICATION_MAP != 0, available: (op.flags >> GNTMAP_GUEST_AVAIL0 & 7) as u8 };
    let for_entry = page.another(page.writable()).map_err(|_| ST_GENERAL_ERROR)?;
    foreign::map(&d.mem, to, for_entry, look).map_err(|_| ST_GENERAL_ERROR)
}

/// A mapping that was taken down and waits for the flush.
#[must_use = "the granter waits for `finish`"]
pub struct Unmapped {
    handle: u32,
    /// `None`: part of the mapping is left, the handle stays.
    mapping: Option<Mapping>,
}

/// Takes a mapping (or the part the guest names) down.
///
/// # Errors
/// A `GNTST_*` status; the mapping stays.
pub fn unmap(d: &Domain, l4: Option<Mfn>, op: &UnmapGrantRef) -> Result<Unmapped, i16> {
    let mut m = d.grants.tracks.lock().take(op.handle).ok_or(ST_BAD_HANDLE)?;
    if m.host && op.host_addr != 0 {
        let (mfn, write) = (m.page.mfn(), m.page.writable());
        let at = place(l4, op.host_addr, m.by_entry);
        if !at.is_ok_and(|at| foreign::unmap(&d.mem, at, mfn, write).is_ok()) {
            d.grants.tracks.lock().set(op.handle, m);
            return Err(ST_GENERAL_ERROR);
        }
        m.host = false;
    }
    if op.dev_bus_addr != 0 {
        m.device = false;
    }
    let handle = op.handle;
    if m.host || m.device {
        d.grants.tracks.lock().set(handle, m);
        return Ok(Unmapped { handle, mapping: None });
    }
    Ok(Unmapped { handle, mapping: Some(m) })
}

/// Makes the CPUs that ran `d` forget what was unmapped. All of it: the L1 that held an entry may stand at several
/// places, so flushing the one address the guest names is not enough.
pub fn flush(d: &Domain) {
    tlb::flush_cpus(d.mem.dirty_cpus.load(), tlb::Flush::All);
}

/// Tells the granter that a mapping is gone.
pub fn finish(d: &Domain, u: Unmapped) {
    let Some(m) = u.mapping else { return };
    end(m);
    d.grants.tracks.lock().free(u.handle);
}

fn end(m: Mapping) {
    let Mapping { granter, gref, page, .. } = m;
    let write = page.writable();
    // The page goes before the mark: a granter that sees the mark gone finds its page writable or not, as it likes.
    // (The slot is there: a domain whose pages others hold keeps it.)
    let from = slots::find(granter);
    drop(page);
    if let Some(from) = from {
        from.grants.table.lock().end(gref, write);
    }
}

/// One end of a copy.
struct End {
    page: PageUse,
    /// The grant to end afterwards.
    grant: Option<(DomainRef, u32, bool)>,
}

impl End {
    fn begin(d: &DomainRef, ptr: &CopyPtr, is_ref: bool, write: bool) -> Result<End, i16> {
        let id = DomId(ptr.domid);
        if !is_ref {
            // A frame by number: one's own only.
            if id != DomId::SELF {
                return Err(if slots::find(id).is_some() { ST_PERMISSION_DENIED } else { ST_BAD_DOMAIN });
            }
            let page = PageUse::take(d.id, Mfn(ptr.reference), write).map_err(|e| match e {
                foreign::Unusable::NotAPage => ST_BAD_PAGE,
                foreign::Unusable::Busy => ST_GENERAL_ERROR,
            })?;
            return Ok(End { page, grant: None });
        }
        let from = if id == DomId::SELF { d.clone() } else { granter(id)? };
        // The ABI's union: a grant reference is the low half.
        let gref = ptr.reference as u32;
        let page = from.grants.table.lock().begin(from.id, gref, d.id, write)?;
        Ok(End { page, grant: Some((from, gref, write)) })
    }

    fn end(self) {
        drop(self.page);
        if let Some((from, gref, write)) = self.grant {
            from.grants.table.lock().end(gref, write);
        }
    }
}

/// Copies between two pages, each named by a grant or one's own.
///
/// # Errors
/// A `GNTST_*` status.
pub fn copy(d: &DomainRef, op: &Copy) -> Result<(), i16> {
    let len = usize::from(op.len);
    let (from, to) = (usize::from(op.source.offset), usize::from(op.dest.offset));
    if from + len > PAGE_SIZE as usize || to + len > PAGE_SIZE as usize {
        return Err(ST_BAD_COPY_ARG);
    }
    let src = End::begin(d, &op.source, op.flags & GNTCOPY_SOURCE_GREF != 0, false)?;
    let dst = match End::begin(d, &op.dest, op.flags & GNTCOPY_DEST_GREF != 0, true) {
        Ok(e) => e,
        Err(status) => {
            src.end();
            return Err(status);
        }
    };
    let done = dst.page.copy_from(to, &src.page, from, len);
    dst.end();
    src.end();
    done.map_err(|_| ST_GENERAL_ERROR)
}

/// Gives up all that a dying domain has mapped of others' pages. Its vCPUs have stopped for good; its page tables are
/// taken apart later and keep their own references. False when something more urgent is due: call again.
pub fn release_mappings(d: &DomainRef) -> bool {
    if d.grants.tracks.lock().used() == 0 {
        return true;
    }
    flush(d);
    loop {
        let next = d.grants.tracks.lock().sweep();
        match next {
            Sweep::Done => return true,
            Sweep::Goes => {}
            Sweep::Took(handle, m) => {
                end(m);
                d.grants.tracks.lock().free(handle);
            }
        }
        if crate::domain::current::should_preempt() {
            return false;
        }
    }
}
