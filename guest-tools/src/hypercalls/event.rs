//! event_channel_op on behalf of another domain.

use pv_abi::event::{self as abi, AllocUnbound};
use pv_abi::hypercall::nr;
use pv_abi::ids::{DomId, EvtchnPort};

use super::{Hypervisor, Result};

impl Hypervisor {
    /// A port of `domain` that `remote` can bind to.
    pub fn alloc_unbound(&self, domain: DomId, remote: DomId) -> Result<EvtchnPort> {
        let mut alloc = AllocUnbound { dom: domain.0, remote_dom: remote.0, port: 0 };
        self.with_struct(
            "an event channel for the domain (alloc_unbound)",
            nr::EVENT_CHANNEL_OP,
            &mut alloc,
            |addr| [abi::OP_ALLOC_UNBOUND, addr, 0, 0, 0],
        )?;
        Ok(EvtchnPort(alloc.port))
    }
}
