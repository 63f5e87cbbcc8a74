//! xen_version: who the hypervisor is.

use pv_abi::hypercall::nr;
use pv_abi::version as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Hypervisor, Result};

/// The hypervisor's own description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// 4 in 4.17.
    pub major: u32,
    /// 17 in 4.17.
    pub minor: u32,
    /// What follows the numbers.
    pub extra: String,
    /// Kinds of guests it takes, such as `xen-3.0-x86_64`.
    pub capabilities: Vec<String>,
    /// Who and what compiled it.
    pub compiler: String,
    /// When.
    pub compile_date: String,
    /// Source revision.
    pub changeset: String,
    /// Its command line.
    pub command_line: String,
}

/// A NUL-terminated text.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim().to_owned()
}

impl Hypervisor {
    fn version_op<T: IntoBytes + FromBytes + Immutable>(&self, op: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.with_struct("its version (xen_version)", nr::XEN_VERSION, &mut value, |addr| [op, addr, 0, 0, 0])?;
        Ok(value)
    }

    /// Asks for all of it. Only the version number and the capabilities must be there.
    pub fn versions(&self) -> Result<Versions> {
        let number = self.privcmd.hypercall(nr::XEN_VERSION, [abi::OP_VERSION, 0, 0, 0, 0]).unwrap_or(0);
        let compile: abi::CompileInfo = self.version_op(abi::OP_COMPILE_INFO).unwrap_or_default();
        let capabilities: [u8; 1024] = self.version_op(abi::OP_CAPABILITIES)?;
        let compiler = [&compile.compiler[..], &compile.compile_by, &compile.compile_domain];
        Ok(Versions {
            major: (number >> 16) as u32,
            minor: (number & 0xffff) as u32,
            extra: text(&self.version_op::<[u8; 16]>(abi::OP_EXTRAVERSION).unwrap_or_default()),
            capabilities: text(&capabilities).split_whitespace().map(str::to_owned).collect(),
            compiler: compiler.map(text).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
            compile_date: text(&compile.compile_date),
            changeset: text(&self.version_op::<[u8; 64]>(abi::OP_CHANGESET).unwrap_or([0; 64])),
            command_line: text(&self.version_op::<[u8; 1024]>(abi::OP_COMMANDLINE).unwrap_or([0; 1024])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn texts_end_at_their_nul() {
        assert_eq!(text(b"xen-3.0-x86_64 \0junk"), "xen-3.0-x86_64");
        assert_eq!(text(b"no end"), "no end");
        assert_eq!(text(b""), "");
    }
}
