//! Floor 2: machine memory. Who owns which frame, what it may be used as, and access to guests' memory.

pub mod alloc;
pub mod audit;
pub mod descriptor;
pub mod device;
pub mod domain_memory;
mod entries;
pub mod exchange;
pub mod foreign;
pub mod frame;
pub mod guest;
#[cfg(target_os = "none")]
pub mod heap;
pub mod init;
pub mod l1tf;
pub mod m2p;
#[cfg(test)]
mod model;
pub mod page_type;
pub mod phys;
pub mod pin;
mod prepare;
pub mod pte;
#[cfg(test)]
mod races;
pub mod scratch;
pub mod shared_frame;
pub mod tables;
#[cfg(test)]
pub mod testing;
#[cfg(all(not(test), not(target_os = "none")))]
pub mod testing;
pub mod unfinished;
pub mod update;
pub mod window;

use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

/// Bytes of the heap's window, and bytes of them in use; nothing where the heap is the host's.
pub fn heap_usage() -> (u64, u64) {
    #[cfg(target_os = "none")]
    return heap::usage();
    #[cfg(not(target_os = "none"))]
    (0, 0)
}

/// Writes into a page of a domain that is being built.
///
/// # Errors
/// `EINVAL` when the page is not the domain's, or is a page table already.
pub fn write_domain_page(mem: &domain_memory::DomainMemory, mfn: Mfn, offset: usize, data: &[u8]) -> Result<(), Errno> {
    on_data_page(mem, mfn, || {
        // SAFETY: the domain's data page, held writable by `on_data_page`; clipped to the page.
        unsafe { phys::write(mfn, offset, data) }
    })
}

/// Fills a page of a domain that is being built with zeroes.
///
/// # Errors
/// As [`write_domain_page`].
pub fn zero_domain_page(mem: &domain_memory::DomainMemory, mfn: Mfn) -> Result<(), Errno> {
    on_data_page(mem, mfn, || {
        // SAFETY: as above.
        unsafe { phys::zero(mfn) }
    })
}

fn on_data_page(mem: &domain_memory::DomainMemory, mfn: Mfn, f: impl FnOnce()) -> Result<(), Errno> {
    let frame =
        page_type::get_page_and_type(mfn, page_type::Kind::Writable, mem.owner(), false).map_err(|_| Errno::EINVAL)?;
    f();
    let _ = page_type::put_page_and_type(frame, mem.owner(), false);
    Ok(())
}
