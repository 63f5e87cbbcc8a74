//! Pointers that are none, for calls that must look before they believe.
use crate::mem::Page;
use crate::paging;
use pv_abi::ids::PAGE_SIZE;

/// Pointers that lead nowhere, by name.
pub const POINTERS: [(&str, u64); 5] = [
    ("NULL", 0),
    ("unmapped", 0x10_0000),
    ("non-canonical", 0x8000_0000_0000),
    ("the hypervisor's", 0xffff_8300_0000_0000),
    ("the last bytes", 0xffff_ffff_ffff_fffc),
];

/// The end of a writable page behind which nothing is mapped.
pub fn edge() -> u64 {
    let (page, behind) = (Page::alloc(), Page::alloc());
    if page.va + PAGE_SIZE != behind.va {
        crate::report::error(format_args!("two pages of the pool do not follow each other"));
    }
    paging::update_va(behind.va, 0).must("unmap a page");
    behind.va
}
