//! The new domain's memory: allocated, and reached through mappings of many pages at a time.

use boot::builder::GuestMemory;
use pv_abi::ids::{DomId, Mfn, PAGE_SIZE, Pfn};

use crate::hypercalls::{CallError, Hypervisor};
use crate::privcmd::Foreign;

/// Pages asked for at a time. A hypercall of that many extents takes some milliseconds.
const BATCH: usize = 16 << 10;
/// Extents of 2 MiB keep the machine's memory in large pieces; where there are none left, single pages do.
const LARGE_ORDER: u32 = 9;
const LARGE: u64 = 1 << LARGE_ORDER;
/// Pages mapped at the least, because the next write is mostly to the next page.
const WINDOW: u64 = 512;
/// Pages mapped at the most; a longer write goes through several mappings.
const MAX_WINDOW: u64 = 8192;

/// Not all memory could be had.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The hypervisor said no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It gave less.
    #[error("the hypervisor gave {got} of {wanted} pages")]
    Short {
        /// Pages there are.
        got: u64,
        /// Pages asked for.
        wanted: u64,
    },
}

/// A domain's pages by PFN, and the part of them that is mapped.
pub struct DomainMemory<'a> {
    hypervisor: &'a Hypervisor,
    domain: DomId,
    frames: Vec<Mfn>,
    window: Option<(u64, u64, Foreign)>,
}

impl<'a> DomainMemory<'a> {
    /// Gives `domain` its pages 0 to `pages`.
    pub fn allocate(hypervisor: &'a Hypervisor, domain: DomId, pages: u64) -> Result<Self, AllocateError> {
        let mut frames: Vec<Mfn> = Vec::with_capacity(pages as usize);
        let large: Vec<u64> = (0..pages / LARGE).map(|n| n * LARGE).collect();
        for batch in large.chunks(BATCH) {
            // That there are no large pieces is no error.
            let got = hypervisor.populate(domain, LARGE_ORDER, batch).unwrap_or_default();
            frames.extend(got.iter().flat_map(|mfn| (mfn.0..mfn.0 + LARGE).map(Mfn)));
            if got.len() < batch.len() {
                break;
            }
        }
        let single: Vec<u64> = (frames.len() as u64..pages).collect();
        for batch in single.chunks(BATCH) {
            let got = hypervisor.populate(domain, 0, batch)?;
            frames.extend(&got);
            if got.len() < batch.len() {
                return Err(AllocateError::Short { got: frames.len() as u64, wanted: pages });
            }
        }
        Ok(DomainMemory { hypervisor, domain, frames, window: None })
    }

    /// Maps a window from `pfn` on with at least one and, where there are so many, `count` pages. Tells the byte at which
    /// `pfn` is in it, and the pages from there to its end.
    fn window(&mut self, pfn: u64, count: u64) -> Result<(usize, u64, &mut Foreign), CallError> {
        let usable = |first: u64, pages: u64| first <= pfn && pfn < first + pages;
        if !matches!(&self.window, Some((first, pages, _)) if usable(*first, *pages)) {
            self.window = None;
            let end = (pfn + count.clamp(WINDOW, MAX_WINDOW)).min(self.frames.len() as u64);
            let frames = self.frames.get(pfn as usize..end as usize).unwrap_or_default();
            let mapping = self.hypervisor.map_foreign(self.domain, frames)?;
            self.window = Some((pfn, end - pfn, mapping));
        }
        match &mut self.window {
            Some((first, pages, mapping)) => {
                Ok((((pfn - *first) * PAGE_SIZE) as usize, *first + *pages - pfn, mapping))
            }
            None => Err(CallError { op: "a mapping of the domain's memory", errno: rustix::io::Errno::INVAL }),
        }
    }

    /// Calls `body` for each stretch of the `len` bytes from `offset` of `pfn` on that is mapped in one piece: with the
    /// mapping, the place in it, and where in the `len` bytes it begins and ends.
    fn each(
        &mut self,
        pfn: Pfn,
        offset: usize,
        len: usize,
        mut body: impl FnMut(&mut Foreign, usize, std::ops::Range<usize>),
    ) -> Result<(), CallError> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let page = pfn.0 + at as u64 / PAGE_SIZE;
            let in_page = at % PAGE_SIZE as usize;
            let wanted = ((in_page + len - done) as u64).div_ceil(PAGE_SIZE);
            let (start, pages, mapping) = self.window(page, wanted)?;
            let room = (pages * PAGE_SIZE) as usize - in_page;
            let end = len.min(done + room);
            body(mapping, start + in_page, done..end);
            done = end;
        }
        Ok(())
    }
}

impl GuestMemory for DomainMemory<'_> {
    type Error = CallError;

    fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        self.frames.get(pfn.0 as usize).copied()
    }

    fn write(&mut self, pfn: Pfn, offset: usize, data: &[u8]) -> Result<(), CallError> {
        self.each(pfn, offset, data.len(), |mapping, at, part| mapping.write(at, data.get(part).unwrap_or_default()))
    }

    fn zero(&mut self, pfn: Pfn, count: u64) -> Result<(), CallError> {
        self.each(pfn, 0, (count * PAGE_SIZE) as usize, |mapping, at, part| mapping.zero(at, part.len()))
    }
}
