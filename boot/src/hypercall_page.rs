//! The page of hypercall stubs, for kernels that carry the HYPERCALL_PAGE note (newer Linux executes `syscall` itself).
//!
//! 128 slots of 32 bytes, one for each hypercall number; what a stub does not use is `int3`.

use crate::PAGE_SIZE;

const SLOT: usize = 32;
const SLOTS: usize = PAGE_SIZE as usize / SLOT;
const INT3: u8 = 0xcc;

/// iret does not return: its stub leaves the saved registers and rax on the stack for the hypervisor.
const IRET: u32 = 23;

/// The page's contents.
pub fn contents() -> [u8; PAGE_SIZE as usize] {
    let mut page = [INT3; PAGE_SIZE as usize];
    for (slot, number) in page.as_chunks_mut::<SLOT>().0.iter_mut().zip(0..SLOTS as u32) {
        let [a, b, c, d] = number.to_le_bytes();
        // push %rcx; push %r11; mov $number, %eax; syscall; pop %r11; pop %rcx; ret
        let call = [0x51, 0x41, 0x53, 0xb8, a, b, c, d, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3];
        // push %rcx; push %r11; push %rax; mov $23, %eax; syscall
        let iret = [0x51, 0x41, 0x53, 0x50, 0xb8, a, b, c, d, 0x0f, 0x05];
        let code: &[u8] = if number == IRET { &iret } else { &call };
        for (to, from) in slot.iter_mut().zip(code) {
            *to = *from;
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_their_number() {
        let page = contents();
        assert_eq!(page[29 * 32..][..14], [0x51, 0x41, 0x53, 0xb8, 29, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]);
        assert_eq!(page[29 * 32 + 14..30 * 32], [0xcc; 18]);
        assert_eq!(page[23 * 32..][..11], [0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 0x05]);
        assert_eq!(page[127 * 32 + 4], 127);
    }
}
