//! Allocation that can fail: the only kind allowed for a guest's sake (`docs/design.md` §1 rule 5).
//!
//! `Box::new`, `Arc::new` and a growing `Vec::push` abort on an empty heap; a guest could drive them there. These
//! return [`OutOfMemory`] instead. Vectors use `try_reserve` before they push.

use alloc::alloc::{Layout, alloc, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use pv_abi::errno::Errno;

/// The heap had no room; for a guest this is -ENOMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Errno {
        Errno::ENOMEM
    }
}

/// A box around `value`, or [`OutOfMemory`] (and `value` is dropped).
pub fn try_box<T>(value: T) -> Result<Box<T>, OutOfMemory> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the size is not zero.
    let p = unsafe { alloc(layout) }.cast::<T>();
    if p.is_null() {
        return Err(OutOfMemory);
    }
    // SAFETY: freshly allocated with T's layout; Box frees it with the same.
    unsafe {
        p.write(value);
        Ok(Box::from_raw(p))
    }
}

/// A boxed slice of `n` values made by `f`, or [`OutOfMemory`].
pub fn try_slice<T>(n: usize, mut f: impl FnMut(usize) -> T) -> Result<Box<[T]>, OutOfMemory> {
    try_slice_with(n, |i| Ok(f(i)))
}

/// [`try_slice`] whose elements may themselves fail.
pub fn try_slice_with<T, E: From<OutOfMemory>>(
    n: usize,
    mut f: impl FnMut(usize) -> Result<T, E>,
) -> Result<Box<[T]>, E> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| OutOfMemory)?;
    for i in 0..n {
        v.push(f(i)?);
    }
    Ok(v.into_boxed_slice())
}

/// Pushes within fallible growth.
pub fn try_push<T>(v: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    v.try_reserve(1).map_err(|_| OutOfMemory)?;
    v.push(value);
    Ok(())
}

struct Inner<T> {
    count: AtomicUsize,
    value: T,
}

/// `Arc` with a constructor that can fail.
pub struct Shared<T> {
    inner: NonNull<Inner<T>>,
}

// SAFETY: the same as for Arc: the value is shared by reference and dropped by whoever is last.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// A counted value with one reference.
    pub fn try_new(value: T) -> Result<Self, OutOfMemory> {
        let b = try_box(Inner { count: AtomicUsize::new(1), value })?;
        Ok(Shared { inner: NonNull::from(Box::leak(b)) })
    }

    /// Whether both name the same value.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        a.inner == b.inner
    }

    /// References that exist now; only a hint.
    pub fn count(this: &Self) -> usize {
        // SAFETY: alive while `this` is.
        unsafe { this.inner.as_ref() }.count.load(Ordering::Relaxed)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: alive while a reference exists.
        &unsafe { self.inner.as_ref() }.value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // A count cannot overflow: each reference is a pointer-sized object somewhere in memory.
        // SAFETY: alive while `self` is.
        unsafe { self.inner.as_ref() }.count.fetch_add(1, Ordering::Relaxed);
        Shared { inner: self.inner }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: alive while `self` is.
        if unsafe { self.inner.as_ref() }.count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: the last reference is gone; allocated by try_box with Inner's layout.
            unsafe {
                core::ptr::drop_in_place(self.inner.as_ptr());
                dealloc(self.inner.as_ptr().cast(), Layout::new::<Inner<T>>());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_drops_once() {
        let inner = std::sync::Arc::new(());
        let a = Shared::try_new(inner.clone()).unwrap();
        let b = a.clone();
        assert_eq!(Shared::count(&a), 2);
        drop(a);
        assert_eq!(std::sync::Arc::strong_count(&inner), 2);
        drop(b);
        assert_eq!(std::sync::Arc::strong_count(&inner), 1);
    }
}
