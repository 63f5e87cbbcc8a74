//! Network interfaces: netback's end of each is plugged into a bridge.

use anyhow::{Context, Result, bail};
use pv_abi::ids::DomId;
use serde::Serialize;

use super::{Device, Kind, State, load_backend, look_until, netlink};
use crate::cfg::{Mac, Network};
use crate::find;
use crate::xs::{Store, StoreError};

/// A domain's interface of that number.
pub fn device(domain: DomId, number: u32) -> Device {
    Device { kind: Kind::Network, domain, number }
}

/// The name of its end in dom0.
fn interface_name(domain: DomId, number: u32, network: &Network) -> String {
    network.interface.clone().unwrap_or_else(|| format!("vif{domain}.{number}"))
}

/// Fails if an interface cannot be had: its bridge is missing, or another domain has its address.
pub fn check(store: &mut Store, network: &Network) -> Result<()> {
    let bridge = &network.bridge;
    if !netlink::is_bridge(bridge) {
        match netlink::index(bridge) {
            Some(_) => bail!("`{bridge}` is no bridge; name one with bridge=, `dom bridge-list` shows those there are"),
            None => bail!(
                "there is no bridge `{bridge}`; `dom bridge-create {bridge}` makes one, or name another with bridge="
            ),
        }
    }
    for other in super::of_all(store, Kind::Network)? {
        let mac = other.read(store, "mac")?;
        if mac.is_some() && mac.as_deref().and_then(|text| Mac::parse(text).ok()) == network.mac {
            let (mac, name) = (mac.unwrap_or_default(), find::name(store, other.domain)?);
            bail!(
                "domain `{name}` has an interface with the MAC address {mac} already; give this one another with mac="
            );
        }
    }
    if let Some(name) = &network.interface
        && netlink::index(name).is_some()
    {
        bail!("dom0 has an interface `{name}` already; give this one another vifname");
    }
    Ok(())
}

fn backend_nodes(number: u32, network: &Network, mac: Mac, interface: &str) -> Vec<(&'static str, String)> {
    let mut nodes = vec![
        ("online", "1".into()),
        ("handle", number.to_string()),
        ("mac", mac.to_string()),
        ("bridge", network.bridge.clone()),
        ("type", "vif".into()),
        // Nobody runs it, but netback wants one to be named.
        ("script", "/etc/xen/scripts/vif-bridge".into()),
        ("vifname", interface.to_owned()),
    ];
    if !network.ip.is_empty() {
        let addresses: Vec<String> = network.ip.iter().map(ToString::to_string).collect();
        nodes.push(("ip", addresses.join(" ")));
    }
    if let Some(rate) = network.rate {
        nodes.push(("rate", format!("{},{}", rate.bytes, rate.interval_us)));
    }
    if let Some(mtu) = network.mtu {
        nodes.push(("mtu", mtu.to_string()));
    }
    nodes
}

/// Gives a domain an interface, and plugs its other end in. If that fails, nothing of it is left.
pub fn attach(store: &mut Store, domain: DomId, number: u32, network: &Network) -> Result<()> {
    try_attach(store, domain, number, network)
        .with_context(|| format!("the network interface {number} (bridge {})", network.bridge))
}

fn try_attach(store: &mut Store, domain: DomId, number: u32, network: &Network) -> Result<()> {
    load_backend(Kind::Network)?;
    let device = device(domain, number);
    let mac = network.mac.context("it has no MAC address (a bug of dom)")?;
    let interface = interface_name(domain, number, network);
    let mut front = vec![("handle", number.to_string()), ("mac", mac.to_string())];
    front.extend(network.mtu.map(|mtu| ("mtu", mtu.to_string())));
    device.write(store, &front, &backend_nodes(number, network, mac, &interface))?;
    let result = device.wait_for_backend(store).and_then(|()| {
        let first_name = format!("vif{domain}.{number}");
        look_until(|| Ok(netlink::index(&first_name).is_some()))?;
        netlink::plug(&first_name, &network.bridge, network.interface.as_deref(), network.mtu)?;
        // The back end waits for this before it connects.
        Ok(store.write(&format!("{}/hotplug-status", device.backend()), "connected")?)
    });
    if result.is_err() {
        // What went wrong first is what counts.
        let _ = device.remove(store);
    }
    result
}

/// The first number that a domain has no interface of.
pub fn free_number(store: &mut Store, domain: DomId) -> Result<u32, StoreError> {
    let taken = super::of_domain(store, Kind::Network, domain)?;
    Ok((0..).find(|number| taken.iter().all(|device| device.number != *number)).unwrap_or(0))
}

/// An interface as `dom network-list` shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its number.
    pub number: u32,
    /// Its address.
    pub mac: String,
    /// The bridge.
    pub bridge: String,
    /// The name of its end in dom0.
    pub interface: String,
    /// IP addresses that the configuration names, with blanks between.
    pub ip: String,
    /// How far the guest's driver is.
    pub frontend: State,
    /// How far dom0's driver is.
    pub backend: State,
}

/// A domain's interfaces.
pub fn list(store: &mut Store, domain: DomId) -> Result<Vec<Listed>, StoreError> {
    super::of_domain(store, Kind::Network, domain)?.into_iter().map(|device| listed(store, device)).collect()
}

fn listed(store: &mut Store, device: Device) -> Result<Listed, StoreError> {
    let (frontend, backend) = device.states(store)?;
    let mut node = |name: &str| device.read(store, name);
    Ok(Listed {
        number: device.number,
        mac: node("mac")?.unwrap_or_default(),
        bridge: node("bridge")?.unwrap_or_default(),
        interface: node("vifname")?.unwrap_or_else(|| format!("vif{}.{}", device.domain, device.number)),
        ip: node("ip")?.unwrap_or_default(),
        frontend,
        backend,
    })
}
