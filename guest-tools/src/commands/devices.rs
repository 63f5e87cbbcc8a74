//! Commands about disks, network interfaces and bridges.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use pv_abi::ids::DomId;
use serde::Serialize;

use crate::cfg::{Disk, Mac, Network, Vdev, check_interface};
use crate::devices::{Device, disk, netlink, network};
use crate::find;
use crate::hypercalls::Hypervisor;
use crate::output::{self, State, table};
use crate::xs::Store;

/// A domain that can be given devices.
fn running(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<DomId> {
    let info = find::domain(hypervisor, store, which)?;
    if info.domain == 0 {
        bail!("domain 0 has devices of its own; this is for the other domains");
    }
    if State(info.flags).shutdown_reason().is_some() {
        bail!("domain `{which}` has ended ({}); `dom destroy {which}` removes it", State(info.flags).word());
    }
    Ok(DomId(info.domain))
}

/// Waits for the guest's driver; tells on stderr if it does not come, since the device is there all the same.
fn wait_for_guest(store: &mut Store, device: Device, what: &str, driver: &str) -> Result<()> {
    if !device.wait_for_guest(store)? {
        eprintln!("dom: {what} is attached, but the guest has not taken it yet; has it the driver {driver}?");
    }
    Ok(())
}

/// `dom block-attach`.
pub fn block_attach(hypervisor: &Hypervisor, store: &mut Store, which: &str, text: &str) -> Result<()> {
    let new = Disk::parse(text).map_err(|what| anyhow!("the disk '{text}': {what}"))?;
    let domain = running(hypervisor, store, which)?;
    for other in disk::list(store, domain)? {
        if Vdev::parse(&other.vdev).is_ok_and(|vdev| vdev.same_place(&new.vdev)) {
            bail!("domain `{which}` has a disk {} already ({}); name another", other.vdev, other.target);
        }
    }
    disk::check(store, &new).with_context(|| format!("the disk {}", new.vdev))?;
    disk::attach(store, domain, &new)?;
    wait_for_guest(store, disk::device(domain, &new.vdev), &new.vdev.to_string(), "xen-blkfront")
}

/// `dom block-detach`.
pub fn block_detach(hypervisor: &Hypervisor, store: &mut Store, which: &str, vdev: &str, force: bool) -> Result<()> {
    let domain = DomId(find::domain(hypervisor, store, which)?.domain);
    let vdev = Vdev::parse(vdev).map_err(|what| anyhow!(what))?;
    let device = disk::device(domain, &vdev);
    if device.read(store, "frontend")?.is_none() {
        bail!("domain `{which}` has no disk {vdev}; `dom block-list {which}` shows those it has");
    }
    if force { device.remove(store) } else { device.detach(store, &vdev.to_string()) }
}

/// What a list shows of one domain's device.
#[derive(Debug, Serialize)]
struct Of<T> {
    domain: String,
    id: u16,
    #[serde(flatten)]
    device: T,
}

/// The devices that `list` tells of one domain, or of all.
fn collect<T>(
    hypervisor: &Hypervisor,
    store: &mut Store,
    which: Option<&str>,
    list: impl Fn(&mut Store, DomId) -> Result<Vec<T>, crate::xs::StoreError>,
) -> Result<Vec<Of<T>>> {
    let infos = match which {
        Some(name) => vec![find::domain(hypervisor, store, name)?],
        None => hypervisor.domains()?,
    };
    let mut all = Vec::new();
    for info in infos {
        let id = DomId(info.domain);
        let domain = find::name(store, id)?;
        all.extend(list(store, id)?.into_iter().map(|device| Of { domain: domain.clone(), id: id.0, device }));
    }
    Ok(all)
}

/// `dom block-list`.
pub fn block_list(hypervisor: &Hypervisor, store: &mut Store, which: Option<&str>, json: bool) -> Result<()> {
    let disks = collect(hypervisor, store, which, disk::list)?;
    if json {
        return output::json(&disks);
    }
    let row = |Of { domain, device: d, .. }: Of<disk::Listed>| {
        vec![domain, d.vdev, d.frontend.word().into(), if d.writable { "rw" } else { "ro" }.into(), d.device, d.target]
    };
    let rows = disks.into_iter().map(row).collect();
    output::line(&table(&["DOMAIN", "VDEV", "STATE", "MODE", "DEVICE", "TARGET"], &[], rows));
    Ok(())
}

/// `dom network-attach`.
pub fn network_attach(hypervisor: &Hypervisor, store: &mut Store, which: &str, text: &str) -> Result<()> {
    let mut new = Network::parse(text).map_err(|what| anyhow!("the network interface '{text}': {what}"))?;
    let domain = running(hypervisor, store, which)?;
    let number = network::free_number(store, domain)?;
    if new.mac.is_none() {
        new.mac = Some(Mac::of(&find::name(store, domain)?, number));
    }
    network::check(store, &new)?;
    network::attach(store, domain, number, &new)?;
    wait_for_guest(store, network::device(domain, number), &format!("interface {number}"), "xen-netfront")
}

/// `dom network-detach`.
pub fn network_detach(hypervisor: &Hypervisor, store: &mut Store, which: &str, interface: &str, force: bool) -> Result<()> {
    let domain = DomId(find::domain(hypervisor, store, which)?.domain);
    let mac = Mac::parse(interface).ok();
    let found = network::list(store, domain)?
        .into_iter()
        .find(|listed| interface == listed.number.to_string() || (mac.is_some() && Mac::parse(&listed.mac).ok() == mac))
        .with_context(|| format!("domain `{which}` has no network interface {interface}; `dom network-list {which}` shows those it has"))?;
    let device = network::device(domain, found.number);
    if force { device.remove(store) } else { device.detach(store, &format!("interface {}", found.number)) }
}

/// `dom network-list`.
pub fn network_list(hypervisor: &Hypervisor, store: &mut Store, which: Option<&str>, json: bool) -> Result<()> {
    let networks = collect(hypervisor, store, which, network::list)?;
    if json {
        return output::json(&networks);
    }
    let row = |Of { domain, device: n, .. }: Of<network::Listed>| {
        vec![domain, n.number.to_string(), n.mac, n.frontend.word().into(), n.bridge, n.interface, n.ip]
    };
    let rows = networks.into_iter().map(row).collect();
    output::line(&table(&["DOMAIN", "NR", "MAC", "STATE", "BRIDGE", "INTERFACE", "IP"], &[1], rows));
    Ok(())
}

/// `10.0.0.1/24`.
fn parse_address(text: &str) -> Result<(IpAddr, u8)> {
    let read = || -> Option<(IpAddr, u8)> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some((address, bits.parse().ok().filter(|bits| *bits <= most)?))
    };
    read().with_context(|| format!("`{text}` is no address with the bits of its network; it must look like 10.0.0.1/24"))
}

/// `dom bridge-create`: the whole of it, or nothing.
pub fn bridge_create(name: &str, address: Option<&str>, ports: &[String]) -> Result<()> {
    check_interface(name).map_err(|what| anyhow!(what))?;
    let address = address.map(parse_address).transpose()?;
    for port in ports {
        netlink::index(port).with_context(|| format!("there is no network interface `{port}` in dom0"))?;
    }
    netlink::create_bridge(name)?;
    let finished = || -> Result<()> {
        if let Some((address, bits)) = address {
            netlink::add_address(name, address, bits)?;
        }
        ports.iter().try_for_each(|port| netlink::plug(port, name, None, None))
    };
    finished().inspect_err(|_| {
        // What went wrong first is what counts.
        let _ = netlink::delete_link(name);
    })
}

/// `dom bridge-delete`.
pub fn bridge_delete(name: &str) -> Result<()> {
    if !netlink::is_bridge(name) {
        bail!("there is no bridge `{name}`; `dom bridge-list` shows those there are");
    }
    let ports = netlink::ports(name);
    if !ports.is_empty() {
        bail!("the bridge `{name}` is in use by {}", ports.join(", "));
    }
    netlink::delete_link(name)
}

/// A bridge as `dom bridge-list` shows it.
#[derive(Debug, Serialize)]
struct Bridge {
    name: String,
    ports: Vec<String>,
}

/// `dom bridge-list`.
pub fn bridge_list(json: bool) -> Result<()> {
    let bridges: Vec<Bridge> =
        netlink::bridges().into_iter().map(|name| Bridge { ports: netlink::ports(&name), name }).collect();
    if json {
        return output::json(&bridges);
    }
    let rows = bridges.into_iter().map(|bridge| vec![bridge.name, bridge.ports.join(" ")]).collect();
    output::line(&table(&["BRIDGE", "PORTS"], &[], rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("10.0.0.1/24").unwrap(), ("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(parse_address("fd00::1/64").unwrap(), ("fd00::1".parse().unwrap(), 64));
        for bad in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0/24", "fd00::1/129", "10.0.0.1/x"] {
            let error = parse_address(bad).unwrap_err().to_string();
            assert_eq!(error, format!("`{bad}` is no address with the bits of its network; it must look like 10.0.0.1/24"));
        }
    }
}
