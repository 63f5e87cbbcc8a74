//! Typed hypercalls: one method an operation, so that nothing else of the tools knows of buffers and handles.

mod domctl;
mod event;
mod memory;
mod sysctl;
mod version;

pub use domctl::Affinity;

use pv_abi::hypercall::nr;
use pv_abi::ids::{DomId, Mfn};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::privcmd::{Foreign, OpenError, Privcmd};

/// A hypercall that came back with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hypervisor refused {op}: {}", reason(*.errno))]
pub struct CallError {
    /// The operation.
    pub op: &'static str,
    /// Its error.
    pub errno: Errno,
}

/// The error's name and text.
fn reason(errno: Errno) -> String {
    match (errno, pv_abi::errno::Errno::from_ret(-i64::from(errno.raw_os_error()))) {
        (Errno::PERM, _) => "EPERM (only a control domain may)".into(),
        (Errno::ACCESS, _) => {
            "EACCES (it has another version of the management interface than these tools, 0x15)".into()
        }
        (Errno::NOMEM, _) => "ENOMEM (no memory left)".into(),
        (_, Some(named)) => named.to_string(),
        (_, None) => errno.to_string(),
    }
}

/// Result of a hypercall.
pub type Result<T> = std::result::Result<T, CallError>;

/// The hypervisor, as a control domain reaches it.
#[derive(Debug)]
pub struct Hypervisor {
    privcmd: Privcmd,
}

impl Hypervisor {
    /// Opens the kernel's door to it.
    pub fn open() -> std::result::Result<Self, OpenError> {
        Ok(Hypervisor { privcmd: Privcmd::open()? })
    }

    /// A hypercall with one structure that is read and written: its number, and the arguments from the structure's address.
    fn with_struct<T: IntoBytes + FromBytes + Immutable>(
        &self,
        op: &'static str,
        number: usize,
        value: &mut T,
        args: impl Fn(u64) -> [u64; 5],
    ) -> Result<i64> {
        let fail = |errno| CallError { op, errno };
        let mut buffer = self.privcmd.buffer(size_of::<T>()).map_err(fail)?;
        buffer.put(value);
        let result = self.privcmd.hypercall(number, args(buffer.addr())).map_err(fail)?;
        *value = buffer.get();
        Ok(result)
    }

    /// Maps frames of a domain, writable.
    pub fn map_foreign(&self, domain: DomId, frames: &[Mfn]) -> Result<Foreign> {
        self.privcmd
            .map_foreign(domain, frames)
            .map_err(|errno| CallError { op: "a mapping of the domain's memory", errno })
    }

    /// Makes `mfn`, a page of `domain`, an L4 page table: from here on the hypervisor checks all changes to it.
    pub fn pin_l4(&self, domain: DomId, mfn: Mfn) -> Result<()> {
        let mut op = pv_abi::mmu::MmuextOp { cmd: pv_abi::mmu::EXT_PIN_L4_TABLE, arg1: mfn.0, ..Default::default() };
        self.with_struct("the domain's page tables (mmuext_op pin_l4_table)", nr::MMUEXT_OP, &mut op, |addr| {
            [addr, 1, 0, domain.0.into(), 0]
        })
        .map(drop)
    }
}
