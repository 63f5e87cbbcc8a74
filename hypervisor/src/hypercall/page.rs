//! The hypercall page, for kernels that call through one.

use crate::domain::DomainRef;
use crate::mm::shared_frame::SharedFrame;
use pv_abi::ids::Mfn;

/// Writes the page (`boot::hypercall_page`) into the domain's page `mfn`; false when that is not a page it can write.
pub fn fill(d: &DomainRef, mfn: Mfn) -> bool {
    let Ok(frame) = SharedFrame::of_guest(&d.mem, mfn) else {
        return false;
    };
    for (i, w) in boot::hypercall_page::contents().as_chunks::<8>().0.iter().enumerate() {
        frame.store_u64(i * 8, u64::from_le_bytes(*w));
    }
    true
}
