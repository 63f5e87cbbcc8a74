//! Floor 5: hypercalls. One file a family: decode arguments, check rights, call down, encode the answer.
//!
//! [`dispatch`] looks the number up in a table made from `pv-abi`'s declarative list and applies the handler's
//! [`Outcome`] to the guest's registers.

use crate::arch::percpu::this_cpu;
use crate::domain::current::Cx;
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;

/// The five arguments of a hypercall: rdi, rsi, rdx, r10, r8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args(pub [u64; 5]);

#[allow(missing_docs)]
impl Args {
    #[inline(always)]
    pub fn a1(&self) -> u64 {
        self.0[0]
    }
    #[inline(always)]
    pub fn a2(&self) -> u64 {
        self.0[1]
    }
    #[inline(always)]
    pub fn a3(&self) -> u64 {
        self.0[2]
    }
    #[inline(always)]
    pub fn a4(&self) -> u64 {
        self.0[3]
    }
    #[inline(always)]
    pub fn a5(&self) -> u64 {
        self.0[4]
    }
    /// The same with argument `n` (0 to 4) replaced: how a preempted operation records its progress.
    pub fn with(mut self, n: usize, value: u64) -> Self {
        if let Some(a) = self.0.get_mut(n) {
            *a = value;
        }
        self
    }
}

/// Why a domain cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One line for the log.
    Because(&'static str),
}

/// What a hypercall leads to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value for rax.
    Return(i64),
    /// The register frame was replaced (iret): rax is not touched.
    Resume,
    /// Stopped half-way: the guest re-executes its SYSCALL with these arguments.
    Restart(Args),
    /// The value for rax, and the vCPU gives up its CPU.
    Deschedule(i64),
    /// The domain cannot go on.
    CrashDomain(Reason),
}

impl From<Result<i64, Errno>> for Outcome {
    fn from(r: Result<i64, Errno>) -> Self {
        Outcome::Return(r.unwrap_or_else(Errno::as_ret))
    }
}

impl From<Result<(), Errno>> for Outcome {
    fn from(r: Result<(), Errno>) -> Self {
        Outcome::Return(r.map_or_else(Errno::as_ret, |()| 0))
    }
}

impl From<Errno> for Outcome {
    fn from(e: Errno) -> Self {
        Outcome::Return(e.as_ret())
    }
}

/// A hypercall's implementation.
pub type Handler = fn(&mut Cx, Args) -> Outcome;
