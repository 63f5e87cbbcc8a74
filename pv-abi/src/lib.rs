//! What guest, hypervisor and tools agree on: the Xen x86-64 PV ABI as types and numbers.
//!
//! Every structure that crosses the border is `repr(C)`, has its size and every offset asserted at compile time
//! ([`abi_layout!`]) and derives `zerocopy`'s traits, so that it can be copied in and out as bytes without any
//! `unsafe`. The facts come from the public headers (`xen/*.h`); each module names its header.
#![no_std]
#![forbid(unsafe_code)]

/// Asserts the size of an ABI structure and the offset of each of its fields.
#[macro_export]
macro_rules! abi_layout {
    ($t:ty, $size:expr $(, $field:ident @ $off:expr)* $(,)?) => {
        const _: () = assert!(core::mem::size_of::<$t>() == $size, concat!("size of ", stringify!($t)));
        $(const _: () = assert!(core::mem::offset_of!($t, $field) == $off, concat!("offset of ", stringify!($t), ".", stringify!($field)));)*
    };
}

/// Declares ABI structures with the derives they all need.
macro_rules! abi_struct {
    ($($(#[$m:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $f:ident : $ft:ty = $off:expr),* $(,)? } size $size:expr;)*) => {
        $(
            $(#[$m])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            pub struct $name { $($(#[$fm])* #[allow(missing_docs)] pub $f: $ft),* }
            impl Default for $name {
                fn default() -> Self { <Self as zerocopy::FromZeros>::new_zeroed() }
            }
            $crate::abi_layout!($name, $size, $($f @ $off),*);
        )*
    };
}

/// Typed access to the union at the end of an operation's envelope, which is kept as `u: [u64; 16]`.
macro_rules! union_payload {
    ($t:ident) => {
        impl $t {
            /// The structure in `u`; `None` only for a `T` that is larger than the union (none of this crate's is).
            pub fn payload<T: zerocopy::FromBytes>(&self) -> Option<T> {
                T::read_from_prefix(zerocopy::IntoBytes::as_bytes(&self.u)).ok().map(|(t, _)| t)
            }

            /// Writes the structure to the beginning of `u`; the rest stays.
            pub fn set_payload<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, payload: &T) {
                const { assert!(core::mem::size_of::<T>() <= 128) };
                let _ = payload.write_to_prefix(zerocopy::IntoBytes::as_mut_bytes(&mut self.u));
            }
        }
    };
}

pub mod arch;
pub mod callback;
pub mod console;
pub mod cpuid;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event;
pub mod features;
pub mod grant;
pub mod hospes;
pub mod hypercall;
pub mod ids;
pub mod memory;
pub mod mmu;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod shared_info;
pub mod start_info;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod xenstore;
