//! Floor 2: machine memory. Who owns which frame, what it may be used as, and access to guests' memory.

pub mod alloc;
pub mod descriptor;
pub mod device;
pub mod domain_memory;
pub mod frame;
pub mod guest;
#[cfg(target_os = "none")]
pub mod heap;
pub mod init;
pub mod m2p;
pub mod page_type;
pub mod phys;
pub mod pin;
pub mod pte;
pub mod shared_frame;
pub mod tables;
#[cfg(test)]
pub mod testing;
#[cfg(all(not(test), not(target_os = "none")))]
pub mod testing;
pub mod update;
pub mod window;
