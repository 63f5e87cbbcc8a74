//! console_io (xen/xen.h) and the console ring (io/console.h).
#![allow(missing_docs)]

pub const CONSOLEIO_WRITE: u64 = 0;
pub const CONSOLEIO_READ: u64 = 1;

/// Offsets in the page shared between a domU's console driver and the console daemon.
pub mod ring {
    #![allow(missing_docs)]
    pub const IN: usize = 0;
    pub const IN_SIZE: usize = 1024;
    pub const OUT: usize = 1024;
    pub const OUT_SIZE: usize = 2048;
    pub const IN_CONS: usize = 3072;
    pub const IN_PROD: usize = 3076;
    pub const OUT_CONS: usize = 3080;
    pub const OUT_PROD: usize = 3084;
}
