//! domctl: what is done to one domain.

use pv_abi::arch::VcpuGuestContext;
use pv_abi::domctl::{self as abi, Createdomain, Credit2, Domctl, Getdomaininfo, Getvcpuinfo};
use pv_abi::hypercall::nr;
use pv_abi::ids::DomId;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{CallError, Hypervisor, Result};

/// What is said of a vCPU and CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// It may run on them and on no others.
    Hard,
    /// Of those it may run on it prefers them.
    Soft,
}

impl Affinity {
    /// The call's payload with a bitmap of `cpus` CPUs at `bitmap`.
    fn payload(self, vcpu: u32, bitmap: u64, cpus: u32) -> abi::Vcpuaffinity {
        let map = abi::CtlBitmap { bitmap, nr_bits: cpus, pad: 0 };
        match self {
            Affinity::Hard => {
                abi::Vcpuaffinity { vcpu, flags: abi::VCPUAFFINITY_HARD, hard: map, ..Default::default() }
            }
            Affinity::Soft => {
                abi::Vcpuaffinity { vcpu, flags: abi::VCPUAFFINITY_SOFT, soft: map, ..Default::default() }
            }
        }
    }
}

impl Hypervisor {
    fn domctl(&self, op: &'static str, ctl: &mut Domctl) -> Result<()> {
        // A long operation that was interrupted wants to be called again, with what it has written back.
        loop {
            match self.with_struct(op, nr::DOMCTL, ctl, |addr| [addr, 0, 0, 0, 0]) {
                Err(CallError { errno: Errno::AGAIN | Errno::INTR, .. }) => {}
                result => return result.map(drop),
            }
        }
    }

    fn domctl_with<T: IntoBytes + FromBytes + Immutable>(
        &self,
        op: &'static str,
        cmd: u32,
        domain: DomId,
        payload: &T,
    ) -> Result<T> {
        let mut ctl = Domctl::with(cmd, domain.0, payload);
        self.domctl(op, &mut ctl)?;
        ctl.payload().ok_or(CallError { op, errno: Errno::INVAL })
    }

    fn domctl_plain(&self, op: &'static str, cmd: u32, domain: DomId) -> Result<()> {
        self.domctl(op, &mut Domctl::new(cmd, domain.0))
    }

    /// Creates an empty, paused PV domain with a free id.
    pub fn create_domain(&self, uuid: [u8; 16], max_vcpus: u32) -> Result<DomId> {
        let payload = Createdomain {
            handle: uuid,
            max_vcpus,
            // As xl has it: enough for many devices, and memory for ports is bounded.
            max_evtchn_port: 1023,
            max_grant_frames: -1,
            max_maptrack_frames: -1,
            grant_opts: 1,
            ..Default::default()
        };
        let mut ctl = Domctl::with(abi::OP_CREATEDOMAIN, 0, &payload);
        self.domctl("a new domain (createdomain)", &mut ctl)?;
        Ok(DomId(ctl.domain))
    }

    /// Ends a domain and gives back what it had. Its last pages follow when nobody maps them any more.
    pub fn destroy_domain(&self, domain: DomId) -> Result<()> {
        self.domctl_plain("to destroy the domain (destroydomain)", abi::OP_DESTROYDOMAIN, domain)
    }

    /// Gives a domain another uuid.
    pub fn set_uuid(&self, domain: DomId, uuid: [u8; 16]) -> Result<()> {
        let payload = abi::SetDomainHandle { handle: uuid };
        self.domctl_with("the domain's uuid (setdomainhandle)", abi::OP_SETDOMAINHANDLE, domain, &payload).map(drop)
    }

    /// Stops a domain's vCPUs; counted.
    pub fn pause_domain(&self, domain: DomId) -> Result<()> {
        self.domctl_plain("to pause the domain (pausedomain)", abi::OP_PAUSEDOMAIN, domain)
    }

    /// Takes back one [`Self::pause_domain`]; a new domain is paused once.
    pub fn unpause_domain(&self, domain: DomId) -> Result<()> {
        self.domctl_plain("to unpause the domain (unpausedomain)", abi::OP_UNPAUSEDOMAIN, domain)
    }

    /// What the hypervisor knows of a domain; `None` if there is no such domain.
    pub fn domain_info(&self, domain: DomId) -> Result<Option<Getdomaininfo>> {
        let op = "information on the domain (getdomaininfo)";
        match self.domctl_with(op, abi::OP_GETDOMAININFO, domain, &Getdomaininfo::default()) {
            // Up to 4.18 the answer may be the next domain there is.
            Ok(info) => Ok((info.domain == domain.0).then_some(info)),
            Err(CallError { errno: Errno::SRCH, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives a new domain its vCPUs.
    pub fn set_max_vcpus(&self, domain: DomId, max: u32) -> Result<()> {
        self.domctl_with("the domain's vCPUs (max_vcpus)", abi::OP_MAX_VCPUS, domain, &abi::MaxVcpus { max }).map(drop)
    }

    /// Bounds a domain's memory, in KiB.
    pub fn set_max_memory(&self, domain: DomId, kib: u64) -> Result<()> {
        let payload = abi::MaxMem { max_memkb: kib };
        self.domctl_with("the domain's memory limit (max_mem)", abi::OP_MAX_MEM, domain, &payload).map(drop)
    }

    /// Leaves the choice of how the guest sees the time-stamp counter to the hypervisor.
    pub fn set_default_tsc(&self, domain: DomId) -> Result<()> {
        let payload = abi::TscInfo { mode: abi::TSC_MODE_DEFAULT, ..Default::default() };
        self.domctl_with("the domain's clock (settscinfo)", abi::OP_SETTSCINFO, domain, &payload).map(drop)
    }

    /// Says that the guest is a 64-bit one.
    pub fn set_64_bit(&self, domain: DomId) -> Result<()> {
        let payload = abi::AddressSize { size: 64 };
        self.domctl_with("a 64-bit guest (set_address_size)", abi::OP_SET_ADDRESS_SIZE, domain, &payload).map(drop)
    }

    /// Sets all of a vCPU's state and brings it online.
    pub fn set_vcpu_context(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<()> {
        let op = "the domain's first registers (setvcpucontext)";
        let mut buffer = self.privcmd.buffer(size_of_val(context)).map_err(|errno| CallError { op, errno })?;
        buffer.put(context);
        let payload = abi::Vcpucontext { vcpu, pad: 0, ctxt: buffer.addr() };
        self.domctl_with(op, abi::OP_SETVCPUCONTEXT, domain, &payload).map(drop)
    }

    /// State of one vCPU; `None` if the domain has no such vCPU.
    pub fn vcpu_info(&self, domain: DomId, vcpu: u32) -> Result<Option<Getvcpuinfo>> {
        let payload = Getvcpuinfo { vcpu, ..Default::default() };
        let op = "information on a vCPU (getvcpuinfo)";
        match self.domctl_with(op, abi::OP_GETVCPUINFO, domain, &payload) {
            Ok(info) => Ok(Some(info)),
            Err(CallError { errno: Errno::INVAL | Errno::SRCH, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The CPUs a vCPU may run on, or prefers, one bool a CPU.
    pub fn vcpu_affinity(&self, domain: DomId, vcpu: u32, affinity: Affinity, cpus: u32) -> Result<Vec<bool>> {
        let op = "a vCPU's affinity (getvcpuaffinity)";
        let bytes = cpus.div_ceil(8) as usize;
        let buffer = self.privcmd.buffer(bytes).map_err(|errno| CallError { op, errno })?;
        self.domctl_with(op, abi::OP_GETVCPUAFFINITY, domain, &affinity.payload(vcpu, buffer.addr(), cpus))?;
        let map: Vec<u8> = buffer.get_slice(bytes);
        Ok((0..cpus).map(|cpu| map.get(cpu as usize / 8).is_some_and(|byte| byte >> (cpu % 8) & 1 != 0)).collect())
    }

    /// Says which CPUs a vCPU may run on, or prefers: one bool a CPU, at least one of them true.
    pub fn set_vcpu_affinity(&self, domain: DomId, vcpu: u32, affinity: Affinity, cpus: &[bool]) -> Result<()> {
        let op = "a vCPU's affinity (setvcpuaffinity)";
        let mut map = vec![0u8; cpus.len().div_ceil(8)];
        for (cpu, _) in cpus.iter().enumerate().filter(|(_, on)| **on) {
            if let Some(byte) = map.get_mut(cpu / 8) {
                *byte |= 1 << (cpu % 8);
            }
        }
        let mut buffer = self.privcmd.buffer(map.len()).map_err(|errno| CallError { op, errno })?;
        buffer.put(map.as_slice());
        let payload = affinity.payload(vcpu, buffer.addr(), cpus.len() as u32);
        self.domctl_with(op, abi::OP_SETVCPUAFFINITY, domain, &payload).map(drop)
    }

    /// A domain's share of the CPUs under the credit2 scheduler.
    pub fn share(&self, domain: DomId) -> Result<Credit2> {
        self.credit2(domain, abi::SCHEDOP_GETINFO, Credit2::default())
    }

    /// Sets it. A weight of 0 is no weight.
    pub fn set_share(&self, domain: DomId, share: Credit2) -> Result<()> {
        self.credit2(domain, abi::SCHEDOP_PUTINFO, share).map(drop)
    }

    fn credit2(&self, domain: DomId, cmd: u32, share: Credit2) -> Result<Credit2> {
        let word = u64::from(share.weight) | u64::from(share.cap) << 16;
        let payload = abi::SchedulerOp { sched_id: abi::SCHEDULER_CREDIT2, cmd, u: [word, 0] };
        let answer =
            self.domctl_with("the domain's share of the CPUs (scheduler_op)", abi::OP_SCHEDULER_OP, domain, &payload)?;
        let [word, _] = answer.u;
        Ok(Credit2 { weight: word as u16, cap: (word >> 16) as u16 })
    }
}
