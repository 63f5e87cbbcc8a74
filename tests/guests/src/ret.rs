//! Results of hypercalls as the transcript shows them.
use core::fmt;
use pv_abi::errno::Errno;

/// What came back in rax; negative errors print as `-EBUSY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ret(pub i64);

/// Success without a value.
pub const OK: Ret = Ret(0);

/// The result that reports `e`.
pub const fn errno(e: Errno) -> Ret {
    Ret(e.as_ret())
}

impl Ret {
    /// Stops the test unless the call succeeded: for steps that only prepare what is tested.
    pub fn must(self, what: &str) -> i64 {
        if self.0 < 0 {
            crate::report::error(format_args!("{what}: {self}"));
        }
        self.0
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Errno::from_ret(self.0) {
            Some(e) => write!(f, "-{e}"),
            None => write!(f, "{}", self.0),
        }
    }
}
