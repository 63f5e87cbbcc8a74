//! The hypercall page: 128 slots of 32 bytes that execute SYSCALL with the slot's number.

use crate::domain::DomainRef;
use crate::mm::shared_frame::SharedFrame;
use pv_abi::ids::Mfn;

/// The page's contents.
pub fn contents() -> [u8; 4096] {
    let mut page = [0xccu8; 4096];
    for (n, slot) in page.chunks_exact_mut(32).enumerate() {
        let nr = (n as u32).to_le_bytes();
        if n == pv_abi::hypercall::nr::IRET {
            // push rcx; push r11; push rax; mov eax, nr; syscall
            slot[..4].copy_from_slice(&[0x51, 0x41, 0x53, 0x50]);
            slot[4] = 0xb8;
            slot[5..9].copy_from_slice(&nr);
            slot[9..11].copy_from_slice(&[0x0f, 0x05]);
        } else {
            // push rcx; push r11; mov eax, nr; syscall; pop r11; pop rcx; ret
            slot[..3].copy_from_slice(&[0x51, 0x41, 0x53]);
            slot[3] = 0xb8;
            slot[4..8].copy_from_slice(&nr);
            slot[8..14].copy_from_slice(&[0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]);
        }
    }
    page
}

/// Writes it into the domain's page `mfn`; false when that is not a page it can write.
pub fn fill(d: &DomainRef, mfn: Mfn) -> bool {
    let Ok(frame) = SharedFrame::of_guest(&d.mem, mfn) else { return false };
    for (i, w) in contents().chunks_exact(8).enumerate() {
        let mut b = [0u8; 8];
        b.copy_from_slice(w);
        frame.store_u64(i * 8, u64::from_le_bytes(b));
    }
    true
}
