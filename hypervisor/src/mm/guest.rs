//! Guest memory by guest address. *Guest pointers are allegations*: a handle proves nothing but its type.
//!
//! These are the only ways in. Each checks that the whole range lies outside the hypervisor, then uses the one
//! fault-recovering copy routine through the page tables of the vCPU that runs. Nobody makes a Rust reference to guest
//! memory, and nothing is read twice: copy in, check the copy, use the copy.

use crate::arch::layout::is_guest_range;
use pv_abi::errno::Errno;
use pv_abi::ids::GuestHandle;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Copies bytes in.
///
/// # Errors
/// `EFAULT` when any of the range is missing or not the guest's. `dst` is then partly filled.
#[inline(always)]
pub fn read_bytes(addr: u64, dst: &mut [u8]) -> Result<(), Errno> {
    if !is_guest_range(addr, dst.len() as u64) {
        return Err(Errno::EFAULT);
    }
    #[cfg(target_os = "none")]
    // SAFETY: the range is outside the hypervisor, dst is ours.
    let left = unsafe { crate::arch::uaccess::copy(dst.as_mut_ptr(), addr as *const u8, dst.len()) };
    #[cfg(not(target_os = "none"))]
    let left = dst.len();
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies bytes out.
///
/// # Errors
/// `EFAULT` as for [`read_bytes`]; part may have been written.
#[inline(always)]
pub fn write_bytes(addr: u64, src: &[u8]) -> Result<(), Errno> {
    if !is_guest_range(addr, src.len() as u64) {
        return Err(Errno::EFAULT);
    }
    #[cfg(target_os = "none")]
    // SAFETY: the range is outside the hypervisor, src is ours.
    let left = unsafe { crate::arch::uaccess::copy(addr as *mut u8, src.as_ptr(), src.len()) };
    #[cfg(not(target_os = "none"))]
    let left = src.len();
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies a value in.
///
/// # Errors
/// `EFAULT`.
#[inline(always)]
pub fn copy_from_guest<T: FromBytes + IntoBytes>(from: GuestHandle<T>) -> Result<T, Errno> {
    let mut v = core::mem::MaybeUninit::<T>::uninit();
    if !is_guest_range(from.addr(), size_of::<T>() as u64) {
        return Err(Errno::EFAULT);
    }
    #[cfg(target_os = "none")]
    // SAFETY: the range is outside the hypervisor, `v` is ours.
    let left = unsafe { crate::arch::uaccess::copy(v.as_mut_ptr().cast(), from.addr() as *const u8, size_of::<T>()) };
    #[cfg(not(target_os = "none"))]
    let left = size_of::<T>();
    if left != 0 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: every byte was written, and any bytes make a T.
    Ok(unsafe { v.assume_init() })
}

/// Copies a value out.
///
/// # Errors
/// `EFAULT`.
#[inline(always)]
pub fn copy_to_guest<T: IntoBytes + Immutable>(to: GuestHandle<T>, v: &T) -> Result<(), Errno> {
    write_bytes(to.addr(), v.as_bytes())
}

/// Copies element `i` of an array in.
///
/// # Errors
/// `EFAULT`.
#[inline(always)]
pub fn copy_element_from_guest<T: FromBytes + IntoBytes>(from: GuestHandle<T>, i: u64) -> Result<T, Errno> {
    copy_from_guest(from.offset(i))
}

/// Copies element `i` of an array out.
///
/// # Errors
/// `EFAULT`.
#[inline(always)]
pub fn copy_element_to_guest<T: IntoBytes + Immutable>(to: GuestHandle<T>, i: u64, v: &T) -> Result<(), Errno> {
    copy_to_guest(to.offset(i), v)
}
