//! The kernel's memory: pages of its own image, and what the hypervisor says about them.
//!
//! The pool lies in .bss, so every page of it is mapped writable at start, at VIRT_BASE + PFN * 4 KiB.
use crate::start::start_info;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use pv_abi::arch::MACH2PHYS_VIRT_START;
use pv_abi::ids::PAGE_SIZE;

/// Where PFN 0 is mapped.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;

/// Memory that the hypervisor, trap handlers or other vCPUs also touch.
#[repr(transparent)]
pub struct Racy<T>(UnsafeCell<T>);

// SAFETY: only reached through raw pointers, with volatile or atomic accesses where there is company.
unsafe impl<T> Sync for Racy<T> {}

impl<T> Racy<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Racy(UnsafeCell::new(value))
    }
    /// Where it stands.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
    /// Its address.
    pub fn addr(&self) -> u64 {
        self.get() as u64
    }
}

const POOL_PAGES: usize = 384;

#[repr(C, align(4096))]
struct PageBytes([u8; PAGE_SIZE as usize]);

static POOL: Racy<[PageBytes; POOL_PAGES]> = Racy::new([const { PageBytes([0; PAGE_SIZE as usize]) }; POOL_PAGES]);
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where the pages are that [`Page::alloc`] hands out.
pub(crate) fn pool() -> core::ops::Range<u64> {
    let start = POOL.addr();
    start..start + POOL_PAGES as u64 * PAGE_SIZE
}

/// A page of the kernel's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it is mapped.
    pub va: u64,
}

impl Page {
    /// A fresh page; zero unless the builder left something there.
    pub fn alloc() -> Page {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        if n >= POOL_PAGES {
            crate::report::error(format_args!("out of pages"));
        }
        let page = Page { va: POOL.addr() + n as u64 * PAGE_SIZE };
        page.clear();
        page
    }
    /// The page at `va`, which must be in the image.
    pub fn at(va: u64) -> Page {
        Page { va: va & !(PAGE_SIZE - 1) }
    }
    /// Its pseudo-physical number.
    pub fn pfn(self) -> u64 {
        (self.va - VIRT_BASE) / PAGE_SIZE
    }
    /// Its machine frame.
    pub fn mfn(self) -> u64 {
        mfn_of(self.pfn())
    }
    /// Its machine address.
    pub fn ma(self) -> u64 {
        self.mfn() * PAGE_SIZE
    }
    /// Reads word `i` (0 to 511).
    pub fn read(self, i: usize) -> u64 {
        read64(self.va + 8 * (i as u64 % 512))
    }
    /// Writes word `i` (0 to 511).
    pub fn write(self, i: usize, value: u64) {
        write64(self.va + 8 * (i as u64 % 512), value)
    }
    /// All zero.
    pub fn clear(self) {
        for i in 0..512 {
            self.write(i, 0);
        }
    }
    /// Copies bytes to its start.
    pub fn fill(self, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate().take(PAGE_SIZE as usize) {
            // SAFETY: within the page.
            unsafe { ((self.va + i as u64) as *mut u8).write_volatile(*b) };
        }
    }
}

/// Reads eight bytes.
pub fn read64(va: u64) -> u64 {
    // SAFETY: the test names mapped memory, or wants the fault.
    unsafe { (va as *const u64).read_volatile() }
}

/// Writes eight bytes.
pub fn write64(va: u64, value: u64) {
    // SAFETY: as in [`read64`].
    unsafe { (va as *mut u64).write_volatile(value) }
}

/// The machine frame of `pfn`, from the table the builder made.
pub fn mfn_of(pfn: u64) -> u64 {
    read64(start_info().mfn_list + pfn * 8)
}

/// What the machine-to-phys table says about `mfn`.
pub fn pfn_of(mfn: u64) -> u64 {
    read64(MACH2PHYS_VIRT_START + mfn * 8)
}

/// A page of this kernel by machine frame, as far as the start-of-day mapping reaches.
pub fn page_of_mfn(mfn: u64) -> Page {
    Page { va: VIRT_BASE + pfn_of(mfn) * PAGE_SIZE }
}
