//! I/O ports, for dom0's accesses that reach the machine. Ports the hypervisor uses are refused here.

use super::pci;

/// Whether an access of `size` bytes at `port` meets one that no domain, not even dom0, may touch: the interrupt
/// controllers, the system timer, the hypervisor's serial port.
pub fn guarded(port: u16, size: usize) -> bool {
    let port = u32::from(port);
    (port..port + size as u32).any(|p| matches!(p, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x40..=0x43 | 0x3f8..=0x3ff))
}

/// Reads 1, 2 or 4 bytes.
pub fn read(port: u16, size: usize) -> u32 {
    if guarded(port, size) {
        return u32::MAX;
    }
    if pci::is_config(port, size) {
        return pci::guest_read(port, size);
    }
    #[cfg(target_os = "none")]
    // SAFETY: a port dom0 may drive: it owns the machine's devices; what the hypervisor needs is guarded.
    unsafe {
        use x86_64::instructions::port::Port;
        match size {
            1 => u32::from(Port::<u8>::new(port).read()),
            2 => u32::from(Port::<u16>::new(port).read()),
            _ => Port::<u32>::new(port).read(),
        }
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = size;
        u32::MAX
    }
}

/// Writes 1, 2 or 4 bytes.
pub fn write(port: u16, size: usize, v: u32) {
    if guarded(port, size) {
        return;
    }
    if pci::is_config(port, size) {
        return pci::guest_write(port, size, v);
    }
    #[cfg(target_os = "none")]
    // SAFETY: as in `read`.
    unsafe {
        use x86_64::instructions::port::Port;
        match size {
            1 => Port::<u8>::new(port).write(v as u8),
            2 => Port::<u16>::new(port).write(v as u16),
            _ => Port::<u32>::new(port).write(v),
        }
    }
    #[cfg(not(target_os = "none"))]
    let _ = (size, v);
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn wide_accesses_do_not_reach_what_is_guarded_from_beside() {
        assert!(guarded(0x3f8, 1) && !guarded(0x3f7, 1) && !guarded(0x400, 4));
        assert!(guarded(0x3f7, 2) && guarded(0x3f5, 4) && !guarded(0x3f4, 4));
        assert!(guarded(0x1f, 2) && guarded(0x3d, 4) && guarded(0x9f, 2) && !guarded(0x44, 4));
        assert!(!guarded(0xffff, 4));
    }
}
