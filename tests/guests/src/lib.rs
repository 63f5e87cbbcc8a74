//! The runtime of the PV test kernels: what a kernel of a few kilobytes needs to run on Xen's x86-64 PV ABI, as dom0.
//!
//! Each kernel is one file in `src/bin`, about one subject. It prints what it *observes*, one line
//! `obs: name = value` each (`report`), with no machine address in it, so that the transcripts of two hypervisors
//! can be compared line by line; and at the end a verdict of its own:
//!
//! - `VERDICT: pass`,
//! - `VERDICT: fail`: the hypervisor did what the ABI does not allow,
//! - `VERDICT: error`: the test itself went wrong (a trap nobody asked for, a panic),
//! - `VERDICT: skip`: this machine cannot show it.
//!
//! A kernel that ends without a verdict (crash, triple fault, hang) has failed.
//!
//! Soundness: a test kernel breaks rules on purpose, in one address space that it owns alone. The wrappers here
//! are safe functions although a wrong argument can make the kernel trample on itself: then the test errs, and
//! nobody else is hurt. `unsafe` marks where instructions and raw memory are touched.
#![cfg_attr(target_os = "none", no_std)]

pub mod bad;
pub mod child;
pub mod console;
pub mod events;
pub mod hostile;
pub mod hypercall;
pub mod mem;
pub mod paging;
pub mod probe;
pub mod report;
pub mod ret;
pub mod smp;
pub mod start;
pub mod trap;
pub mod user;

/// What nearly every kernel uses.
pub mod prelude {
    pub use crate::child::{self, Child, Spec};
    pub use crate::hypercall::{call, call_ref};
    pub use crate::mem::{self, Page};
    pub use crate::paging::{self, flags_of};
    pub use crate::probe::{self, Gprs, Outcome};
    pub use crate::report::{self, Hex, check, expect, obs};
    pub use crate::ret::{OK, Ret, errno};
    pub use crate::{bad, code, events, smp, trap, user};
    pub use core::format_args as f;
    pub use pv_abi::errno::Errno::*;
    pub use pv_abi::hypercall::nr;
    pub use pv_abi::ids::PAGE_SIZE;
}

/// Makes `$run`, a `fn()`, the kernel's body. On the host the program says where it belongs.
#[macro_export]
macro_rules! kernel {
    ($run:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "Rust" fn kernel_body() {
            $run()
        }
        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn() = $run;
            println!("a PV test kernel: build it for x86_64-unknown-none and run it with the harness");
        }
    };
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    report::error(format_args!("panic: {info}"))
}
