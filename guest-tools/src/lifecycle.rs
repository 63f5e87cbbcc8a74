//! The end of a domain.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pv_abi::ids::DomId;

use crate::devices;
use crate::hypercalls::Hypervisor;
use crate::nodes;
use crate::stored;
use crate::xs::{RELEASE_DOMAIN, Store};

/// How long its last pages may be held by those who mapped them.
const GONE_WAIT: Duration = Duration::from_secs(5);
/// How often to look again while waiting: some of what holds pages tells nobody when it lets go.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Destroys a domain and all that belongs to it, and waits until its memory is back.
pub fn destroy(hypervisor: &Hypervisor, store: &mut Store, domain: DomId) -> Result<()> {
    if domain == DomId::DOM0 {
        bail!("domain 0 cannot be destroyed: it is the one this runs in");
    }
    let uuid = hypervisor.domain_info(domain)?.map(|info| info.handle);
    // Its devices go first, as with a machine that is switched off; a guest that went on running would see them break.
    hypervisor.pause_domain(domain)?;
    devices::remove_all(store, domain)?;
    let token = "destroy";
    store.watch(RELEASE_DOMAIN, token)?;
    let destroyed = hypervisor.destroy_domain(domain);
    if destroyed.is_ok() {
        store.release(domain.0)?;
        nodes::remove(store, domain)?;
        if let Some(uuid) = uuid {
            stored::forget(&uuid)?;
        }
        let deadline = Instant::now() + GONE_WAIT;
        while hypervisor.domain_info(domain)?.is_some() && Instant::now() < deadline {
            store.event(Some(deadline.min(Instant::now() + LOOK_AGAIN)))?;
        }
    }
    store.unwatch(RELEASE_DOMAIN, token)?;
    Ok(destroyed?)
}
