//! What guest, hypervisor and tools agree on: the Xen x86-64 PV ABI as types and numbers.
//!
//! A PV kernel, the hypervisor below it and the tools in dom0 are built at different times by different people from
//! different sources. All they share is memory layouts and numbers, and those must match to the bit. This crate is the
//! project's one place for them; the hypervisor, the domain builder, `dom` and the test kernels all use it.
//!
//! # Rules
//! * Every structure that crosses the border is `repr(C)`, without hidden padding, and has its size and every offset
//!   asserted at compile time ([`abi_layout!`]). A wrong layout does not compile.
//! * It derives `zerocopy`'s traits: it is copied in and out as bytes, with no `unsafe` anywhere. Any bytes are a
//!   valid value, so enumerations are plain integers with named constants; what a number means is checked by whoever
//!   uses it.
//! * Pointers are guest addresses in a `u64` ([`ids::GuestHandle`] where the type matters). They prove nothing.
//! * A C union is `u: [u64; 16]` with `payload` and `set_payload` on top ([`domctl::Domctl`], [`sysctl::Sysctl`],
//!   [`platform::PlatformOp`]).
//! * Frame numbers, addresses and ids that must not be mixed up have types of their own ([`ids`]).
//!
//! # Where to look
//! | subject | module | header |
//! |---|---|---|
//! | the list of hypercalls, their operations, how far each is | [`hypercall`], [`subops`], [`coverage`] | xen/xen.h |
//! | registers, traps, the whole vCPU | [`arch`], [`callback`], [`vcpu`], [`sched`] | arch-x86/xen.h, arch-x86/xen-x86_64.h |
//! | memory and page tables | [`mmu`], [`memory`] | xen/xen.h, xen/memory.h |
//! | what guest and hypervisor share | [`shared_info`], [`start_info`], [`features`], [`elfnote`], [`cpuid`] | xen/xen.h … |
//! | events, grants, rings | [`event`], [`grant`], [`console`], [`xenstore`] | xen/event_channel.h … io/xs_wire.h |
//! | dom0's machine and other domains | [`physdev`], [`platform`], [`mca`], [`domctl`], [`sysctl`], [`hospes`] | xen/domctl.h … |
//!
//! # Limits
//! 64-bit guests only. Management structures are those of Xen 4.17 (domctl and sysctl version 0x15); other versions
//! are refused by number, never guessed. Names follow the C headers where Rust's rules let them.
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
pub mod coverage;
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
pub mod mca;
pub mod memory;
pub mod mmu;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod shared_info;
pub mod start_info;
pub mod subops;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod xenstore;
