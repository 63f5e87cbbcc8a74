//! From a loader's modules to a kernel ready to run.
//!
//! Both builders of domains use this crate: the hypervisor for dom0, with its own memory, and the tools for domUs, over
//! foreign mappings. It knows file formats and the PV start-of-day layout, and touches memory only through the two traits
//! [`PhysRead`] and [`GuestMemory`](builder::GuestMemory). The way of a kernel through it:
//!
//! 1. [`multiboot`] reads what the boot loader left (hypervisor only), [`cmdline`] the hypervisor's options;
//! 2. [`bzimage::locate`] finds the payload in a kernel file, [`payload::Payload`] unpacks it;
//! 3. [`kernel::KernelImage`] reads segments and Xen notes;
//! 4. [`layout::Layout`] decides which guest page is what, [`builder::build`] writes them.
//!
//! Every input is taken for damaged or hostile until checked: no function here panics for any input, every failure is a
//! typed error whose text says what is wrong and what to do.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod builder;
pub mod bzimage;
pub mod cmdline;
pub mod hypercall_page;
pub mod kernel;
pub mod layout;
pub mod multiboot;
pub mod notes;
pub mod payload;

mod bytes;
mod crc32;
mod start_info;
mod xz;
mod zstd;

pub use pv_abi::ids::PAGE_SIZE;
