//! Hospes: a Type-1 hypervisor that speaks the Xen x86-64 PV ABI.
//!
//! The floors of the house, from the ground up; a module uses what is below it, never what is above
//! (`docs/design.md` §2):
//!
//! | floor | module | knows |
//! |---|---|---|
//! | 6 | [`upcalls`], [`dom0`], `main` | how the floors meet; the order of boot; how the first domain is made |
//! | 5 | [`hypercall`] | one file a hypercall family |
//! | 4 | [`pv`] | the paravirtual CPU a guest sees |
//! | 3 | [`domain`], [`events`], [`grants`], [`sched`], [`time`] | domains, vCPUs and what they share |
//! | 2 | [`mm`] | frames, page types, guest memory |
//! | 1 | [`platform`] | the machine's devices |
//! | 0 | [`arch`], [`sync`], [`atomic`] | instructions, locks, atomics |
//!
//! `unsafe` lives in floors 0 to 2 (and in the thin shells of floor 6); floors 3 to 5 are safe Rust, and everything
//! that is not an instruction or a device compiles on the host and is tested there.
#![cfg_attr(target_os = "none", no_std)]
// Host tests build what is pure; what only bare metal uses is left over there.
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports, unused_macros, unused_mut))]

extern crate alloc;

pub mod arch;
pub mod atomic;
#[cfg(target_os = "none")]
pub mod dom0;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod domain;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod events;
pub mod fallible;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod grants;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod hypercall;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod mm;
#[cfg(test)]
pub mod model;
#[cfg(target_os = "none")]
pub mod panic;
pub mod platform;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod pv;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod sched;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod softirq;
#[cfg(target_os = "none")]
pub mod start;
pub mod sync;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
pub mod time;
#[cfg(target_os = "none")]
pub mod upcalls;

/// Counts what the fuzzers' inputs make the parsers allocate.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: fuzzing::Counting = fuzzing::Counting;
