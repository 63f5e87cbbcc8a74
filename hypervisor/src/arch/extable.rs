//! The exception table: instructions of the hypervisor that may fault, and where to go on then.

/// Where the table stands.
#[cfg(target_os = "none")]
pub fn start() -> u64 {
    unsafe extern "C" {
        static extable_start: [u64; 2];
    }
    (&raw const extable_start) as u64
}

/// Where to go on when the instruction at `rip` faults, if that was foreseen.
#[cfg(target_os = "none")]
pub fn find(rip: u64) -> Option<u64> {
    unsafe extern "C" {
        static extable_start: [u64; 2];
        static extable_end: [u64; 2];
    }
    // SAFETY: the linker script brackets the section with these symbols; it holds pairs of u64 and is never written.
    let table = unsafe {
        let start = &raw const extable_start;
        let n = ((&raw const extable_end) as usize - start as usize) / 16;
        core::slice::from_raw_parts(start, n)
    };
    table.iter().find(|e| e[0] == rip).map(|e| e[1])
}
