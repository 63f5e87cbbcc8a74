//! The port table: pure data, tested on the host.

use crate::arch::nospec;
use crate::fallible::try_slice;
use alloc::boxed::Box;
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;

/// Ports of one allocation.
pub const BUCKET: u32 = 128;
const SIZE: usize = BUCKET as usize;
const BUCKETS: usize = 4096 / SIZE;

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing; may be allocated.
    Free,
    /// Waits for `remote` to bind to it.
    Unbound {
        /// Who may.
        remote: DomId,
    },
    /// Leads to another domain's port.
    Interdomain {
        /// Whose.
        dom: DomId,
        /// Which.
        port: u32,
    },
    /// A physical interrupt.
    Pirq(u32),
    /// A virtual interrupt.
    Virq(u32),
    /// Between vCPUs of the domain.
    Ipi,
}

/// One port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Bound to what.
    pub kind: Kind,
    /// vCPU that is notified.
    pub vcpu: u32,
}

/// A domain's ports. Port 0 is never used.
pub struct Ports {
    buckets: [Option<Box<[Channel]>>; BUCKETS],
    max: u32,
}

impl Ports {
    /// None in use, `max` at most.
    pub const fn new(max: u32) -> Self {
        Ports { buckets: [const { None }; BUCKETS], max }
    }

    /// Ports are below this.
    pub fn limit(&self) -> u32 {
        // Only buckets that exist can hold ports.
        let used = self.buckets.iter().rposition(Option::is_some).map_or(0, |b| (b + 1) * SIZE);
        (used as u32).min(self.max)
    }

    /// A port in use.
    #[inline(always)]
    pub fn get(&self, port: u32) -> Option<&Channel> {
        let b = nospec::get(&self.buckets, port as usize / SIZE)?.as_ref()?;
        b.get(port as usize % SIZE).filter(|c| c.kind != Kind::Free)
    }

    /// A port in use, to be changed.
    pub fn get_mut(&mut self, port: u32) -> Option<&mut Channel> {
        let b = nospec::get_mut(&mut self.buckets, port as usize / SIZE)?.as_mut()?;
        b.get_mut(port as usize % SIZE).filter(|c| c.kind != Kind::Free)
    }

    /// The lowest free port becomes `channel`.
    ///
    /// # Errors
    /// `ENOSPC` when all are in use, `ENOMEM` when the table cannot grow.
    pub fn allocate(&mut self, channel: Channel) -> Result<u32, Errno> {
        for (i, bucket) in self.buckets.iter_mut().enumerate() {
            if bucket.is_none() {
                if (i * SIZE) as u32 >= self.max {
                    break;
                }
                *bucket = Some(try_slice(SIZE, |_| Channel { kind: Kind::Free, vcpu: 0 })?);
            }
            let Some(b) = bucket else { continue };
            for (j, c) in b.iter_mut().enumerate() {
                let port = (i * SIZE + j) as u32;
                if port != 0 && port < self.max && c.kind == Kind::Free {
                    *c = channel;
                    return Ok(port);
                }
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Frees a port.
    pub fn free(&mut self, port: u32) {
        if let Some(c) = self.get_mut(port) {
            *c = Channel { kind: Kind::Free, vcpu: 0 };
        }
    }

    /// The port and vCPU of a physical interrupt.
    pub fn find_pirq(&self, pirq: u32) -> Option<(u32, u32)> {
        for (i, b) in self.buckets.iter().enumerate() {
            for (j, c) in b.iter().flat_map(|b| b.iter()).enumerate() {
                if c.kind == Kind::Pirq(pirq) {
                    return Some(((i * SIZE + j) as u32, c.vcpu));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_start_at_one_and_end_at_the_limit() {
        let mut p = Ports::new(300);
        let ipi = Channel { kind: Kind::Ipi, vcpu: 0 };
        for want in 1..300 {
            assert_eq!(p.allocate(ipi), Ok(want));
        }
        assert_eq!(p.allocate(ipi), Err(Errno::ENOSPC));
        p.free(7);
        assert_eq!(p.get(7), None);
        assert_eq!(p.allocate(ipi), Ok(7));
        assert_eq!(p.get(0), None);
        assert_eq!(p.get(4096), None);
    }
}
