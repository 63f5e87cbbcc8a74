//! XENMEM_exchange: pages of a domain against others of the same amount, contiguous or below an address.
//!
//! One chunk at a time, all or nothing: the new blocks are taken first, then the old pages are detached (each must be
//! unused: no mapping, no type), and only then do the new ones become the domain's. Nothing the guest gave is read
//! twice.

use super::alloc;
use super::domain_memory::DomainMemory;
use super::frame;
use super::page_type::Refused;
use crate::fallible::try_push;
use crate::platform::tlb;
use ::alloc::vec::Vec;
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::Mfn;

/// Gives the domain `count` blocks of 2^`order` pages below frame `below` for its pages `old`, of which there are as
/// many. Returns the new blocks.
///
/// # Errors
/// `EINVAL` when a page of `old` is not the domain's or is in use, `ENOMEM` when there are no such blocks;
/// `Preempted`: ask again. Nothing has changed then.
pub fn exchange(mem: &DomainMemory, old: &[Mfn], count: usize, order: u32, below: u64) -> Result<Vec<Mfn>, Refused> {
    if order > alloc::MAX_ORDER || count.checked_shl(order) != Some(old.len()) {
        return Err(Errno::EINVAL.into());
    }
    let mut new = Vec::new();
    new.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    let mut blocks = mem.prepare(count as u64, order, below, true)?;
    if !mem.detach(old) {
        return Err(Errno::EINVAL.into());
    }
    while let Some(first) = blocks.pop() {
        // There is room: reserved above.
        try_push(&mut new, first)?;
    }
    mem.attach(&new, 1 << order);
    for &mfn in old {
        super::m2p::clear(mfn);
        if let Some(f) = frame::get(mfn) {
            f.stamp.store(tlb::clock().max(f.stamp.load(Ordering::Relaxed)), Ordering::Release);
        }
    }
    // SAFETY: detached: nobody refers to them; stale translations are covered by the stamps.
    unsafe {
        match whole_block(old) {
            Some((first, order)) => alloc::give_back(first, order),
            None => alloc::give_back_pages(old),
        }
    }
    Ok(new)
}

/// `pages` as the one block they make, if they do: first frame and order.
fn whole_block(pages: &[Mfn]) -> Option<(Mfn, u32)> {
    let first = *pages.first()?;
    let n = pages.len() as u64;
    let whole = n.is_power_of_two()
        && n.ilog2() <= alloc::MAX_ORDER
        && first.0 & (n - 1) == 0
        && (first.0..).zip(pages).all(|(i, m)| m.0 == i);
    whole.then_some((first, n.ilog2()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::page_type::{self, Kind};
    use crate::mm::testing;

    #[test]
    fn exchanges_single_pages_for_a_block_or_nothing() {
        testing::machine(256);
        let mem = testing::domain(1, 16);
        let old: Vec<Mfn> = (0..8).map(|_| mem.allocate(0, u64::MAX).unwrap()).collect();
        let free = alloc::free_pages();
        // A page in use spoils the whole chunk.
        let used = frame::get(old[5]).unwrap();
        let held = page_type::get_page_and_type(old[5], Kind::Writable, mem.owner(), false).unwrap();
        assert_eq!(exchange(mem, &old, 1, 3, u64::MAX), Err(Errno::EINVAL.into()));
        assert_eq!((mem.pages(), alloc::free_pages()), (8, free));
        assert_eq!(used.owner(), Some(mem.id));
        let _ = page_type::put_page_and_type(held, mem.owner(), false);
        // Twice the same page is not two pages.
        let mut twice = old.clone();
        twice[1] = twice[0];
        assert_eq!(exchange(mem, &twice, 1, 3, u64::MAX), Err(Errno::EINVAL.into()));
        assert_eq!(exchange(mem, &old, 1, 3, 4), Err(Errno::ENOMEM.into()), "none below frame 4");
        assert_eq!(exchange(mem, &old, 1, 2, u64::MAX), Err(Errno::EINVAL.into()), "uneven");
        // A page that others had mapped stays known as such when it could not be exchanged, and can be exchanged later.
        used.mark_foreign();
        let other = frame::get(old[6]).unwrap();
        assert!(other.get_ref(mem.id));
        assert_eq!(exchange(mem, &old, 1, 3, u64::MAX), Err(Errno::EINVAL.into()));
        assert!(used.foreign());
        assert!(!other.put_ref());
        let new = exchange(mem, &old, 1, 3, 128).unwrap();
        assert_eq!(new.len(), 1);
        assert!(new[0].0.is_multiple_of(8) && new[0].0 + 8 <= 128);
        assert_eq!((mem.pages(), alloc::free_pages()), (8, free));
        for i in 0..8 {
            assert_eq!(frame::get(Mfn(new[0].0 + i)).unwrap().owner(), Some(mem.id));
        }
        let mut n = 0;
        mem.for_each_frame(|f| {
            assert_eq!(f.owner(), Some(mem.id));
            n += 1;
        });
        assert_eq!(n, 8);
        // And back: a whole block for single pages.
        let block: Vec<Mfn> = (0..8).map(|i| Mfn(new[0].0 + i)).collect();
        assert_eq!(whole_block(&block), Some((new[0], 3)));
        assert_eq!(whole_block(&block[1..]), None);
        assert_eq!(whole_block(&block[4..6]), Some((block[4], 1)));
        assert_eq!(whole_block(&[block[1], block[0]]), None);
        let singles = exchange(mem, &block, 8, 0, u64::MAX).unwrap();
        assert_eq!((singles.len(), mem.pages(), alloc::free_pages()), (8, 8, free));
    }
}
