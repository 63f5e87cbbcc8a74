//! Which domain is meant: names and ids.

use anyhow::{Result, bail};
use pv_abi::domctl::Getdomaininfo;
use pv_abi::ids::DomId;

use crate::hypercalls::Hypervisor;
use crate::nodes;
use crate::xs::Store;

/// Finds the domain of a name or an id.
pub fn domain(hypervisor: &Hypervisor, store: &mut Store, name_or_id: &str) -> Result<Getdomaininfo> {
    let domains = hypervisor.domains()?;
    let id = name_or_id.parse::<u16>().ok();
    for info in domains {
        let found = match id {
            Some(id) => info.domain == id,
            None => nodes::name(store, DomId(info.domain))?.as_deref() == Some(name_or_id),
        };
        if found {
            return Ok(info);
        }
    }
    match id {
        Some(id) => bail!("there is no domain with the id {id}; `dom list` shows those there are"),
        None => bail!("there is no domain `{name_or_id}`; `dom list` shows those there are"),
    }
}

/// A domain's name, or what stands for it.
pub fn name(store: &mut Store, domain: DomId) -> Result<String> {
    let name = nodes::name(store, domain)?;
    Ok(name.unwrap_or_else(|| if domain == DomId::DOM0 { "Domain-0".into() } else { "(unnamed)".into() }))
}
