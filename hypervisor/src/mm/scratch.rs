//! A large temporary buffer of the hypervisor's, given back page by page when it is dropped. For boot (unpacking the
//! dom0 kernel), where the small-object heap would keep the memory for ever.
#![cfg(target_os = "none")]

use super::alloc;
use crate::arch::layout::IOREMAP;
use crate::arch::paging::{self, flag};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::Mfn;

/// Where buffers are mapped, one behind the other; the window is never reused (it is large and boot is short).
const WINDOW: u64 = IOREMAP + (32 << 30);
static NEXT: AtomicU64 = AtomicU64::new(WINDOW);

/// The buffer, zeroed at first.
pub struct Scratch {
    start: u64,
    len: usize,
}

impl Scratch {
    /// A buffer of `len` bytes; `None` when memory runs out.
    pub fn try_new(len: usize) -> Option<Scratch> {
        let pages = len.div_ceil(4096).max(1) as u64;
        let start = NEXT.fetch_add((pages + 1) * 4096, Ordering::Relaxed);
        let mut buffer = Scratch { start, len: 0 };
        for i in 0..pages {
            let mfn = alloc::page()?;
            let table = || alloc::page().and_then(|m| m.to_addr());
            // SAFETY: a piece of the window that is only this buffer's.
            let mapped = unsafe { paging::map(start + i * 4096, mfn.0 << 12, 4096, flag::DATA, table) };
            mapped.ok()?;
            buffer.len = ((i + 1) * 4096) as usize;
        }
        buffer.len = len;
        Some(buffer)
    }
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialised, and owned by self.
        unsafe { core::slice::from_raw_parts(self.start as *const u8, self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for i in 0..(self.len as u64).div_ceil(4096) {
            let va = self.start + i * 4096;
            if let Some((entry, _)) = paging::lookup(va) {
                // SAFETY: the buffer's own mapping; nobody has a reference any more. Other CPUs never touched it.
                unsafe {
                    paging::unmap_page(va);
                    crate::arch::cr::invlpg(va);
                    alloc::give_back(Mfn((entry & flag::ADDR) >> 12), 0);
                }
            }
        }
    }
}
