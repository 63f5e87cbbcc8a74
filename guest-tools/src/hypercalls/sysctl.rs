//! sysctl: what is asked of the whole machine.

use pv_abi::domctl::Getdomaininfo;
use pv_abi::hospes::{self, Audit};
use pv_abi::hypercall::nr;
use pv_abi::sysctl::{self as abi, Physinfo, Readconsole, Sysctl};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{CallError, Hypervisor, Result};

/// Domains asked for at a time.
const DOMAINS_AT_ONCE: u32 = 256;
/// Bytes of log asked for at a time.
const LOG_AT_ONCE: u32 = 16 << 10;

impl Hypervisor {
    fn sysctl<T: IntoBytes + FromBytes + Immutable>(&self, op: &'static str, cmd: u32, payload: &T) -> Result<T> {
        let mut ctl = Sysctl::with(cmd, payload);
        self.with_struct(op, nr::SYSCTL, &mut ctl, |addr| [addr, 0, 0, 0, 0])?;
        ctl.payload().ok_or(CallError { op, errno: Errno::INVAL })
    }

    /// CPUs, memory and capabilities of the machine.
    pub fn physinfo(&self) -> Result<Physinfo> {
        self.sysctl("information on the machine (physinfo)", abi::OP_PHYSINFO, &Physinfo::default())
    }

    /// The scheduler's number.
    pub fn scheduler(&self) -> Result<u32> {
        Ok(self.sysctl("the scheduler's number (sched_id)", abi::OP_SCHED_ID, &abi::SchedId::default())?.sched_id)
    }

    /// All domains, in ascending order of their ids.
    pub fn domains(&self) -> Result<Vec<Getdomaininfo>> {
        let op = "the list of domains (getdomaininfolist)";
        let fail = |errno| CallError { op, errno };
        let mut all: Vec<Getdomaininfo> = Vec::new();
        let buffer = self.privcmd.buffer(DOMAINS_AT_ONCE as usize * size_of::<Getdomaininfo>()).map_err(fail)?;
        loop {
            let request = abi::Getdomaininfolist {
                first_domain: all.last().map_or(0, |last| last.domain + 1),
                max_domains: DOMAINS_AT_ONCE,
                buffer: buffer.addr(),
                ..Default::default()
            };
            let count = self.sysctl(op, abi::OP_GETDOMAININFOLIST, &request)?.num_domains.min(DOMAINS_AT_ONCE);
            all.extend(buffer.get_slice::<Getdomaininfo>(count as usize));
            if count < DOMAINS_AT_ONCE {
                return Ok(all);
            }
        }
    }

    /// The hypervisor's messages, oldest first; with `clear` they are forgotten then.
    pub fn log(&self, clear: bool) -> Result<Vec<u8>> {
        let op = "its messages (readconsole)";
        let buffer = self.privcmd.buffer(LOG_AT_ONCE as usize).map_err(|errno| CallError { op, errno })?;
        let mut text = Vec::new();
        let mut index = 0;
        loop {
            let request = Readconsole {
                incremental: (index != 0).into(),
                index,
                buffer: buffer.addr(),
                count: LOG_AT_ONCE,
                ..Default::default()
            };
            let answer = self.sysctl(op, abi::OP_READCONSOLE, &request)?;
            let count = answer.count.min(LOG_AT_ONCE);
            if count == 0 {
                break;
            }
            text.extend(buffer.get_slice::<u8>(count as usize));
            index = answer.index;
        }
        if clear {
            self.sysctl(op, abi::OP_READCONSOLE, &Readconsole { clear: 1, ..Default::default() })?;
        }
        Ok(text)
    }

    /// Has Hospes recount all frames; `None` on a hypervisor that cannot.
    pub fn audit(&self) -> Result<Option<Audit>> {
        match self.sysctl("an audit", hospes::SYSCTL_AUDIT, &Audit::default()) {
            Ok(audit) => Ok(Some(audit)),
            Err(CallError { errno: Errno::NOSYS | Errno::OPNOTSUPP, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
