//! What the commands do, by subject.

pub mod bridges;
pub mod create;
pub mod devices;
pub mod manual;
pub mod memory;
pub mod metrics;
pub mod power;
pub mod query;
pub mod scheduling;
pub mod top;

use anyhow::{Result, bail};
use pv_abi::domctl::Getdomaininfo;

use crate::find;
use crate::hypercalls::Hypervisor;
use crate::output::State;
use crate::xs::Store;

/// Finds a domain that is not domain 0, which this runs in and which `what` is not for.
fn guest(hypervisor: &Hypervisor, store: &mut Store, which: &str, what: &str) -> Result<Getdomaininfo> {
    let info = find::domain(hypervisor, store, which)?;
    if info.domain == 0 {
        bail!("domain 0 is the one this runs in: {what}");
    }
    Ok(info)
}

/// The same for a domain that must not have ended.
fn running_guest(hypervisor: &Hypervisor, store: &mut Store, which: &str, what: &str) -> Result<Getdomaininfo> {
    let info = guest(hypervisor, store, which, what)?;
    check_running(&info, which)?;
    Ok(info)
}

fn check_running(info: &Getdomaininfo, which: &str) -> Result<()> {
    let state = State(info.flags);
    if state.shutdown_reason().is_some() {
        bail!("domain `{which}` has ended already ({}); `dom destroy {which}` removes it", state.word());
    }
    Ok(())
}
