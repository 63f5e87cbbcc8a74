//! The atomics of everything that CPUs share.
//!
//! On the machine they are `core`'s. In tests each operation is also a point at which a model check may let another CPU go
//! first (`model/`): so it is the real code that is checked, on its real memory, not a copy of it.

#[cfg(test)]
pub use crate::model::atomics::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(test))]
pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// One turn of a loop that waits for another CPU.
#[inline(always)]
pub fn spin_loop() {
    core::hint::spin_loop();
    #[cfg(test)]
    crate::model::wait();
}
