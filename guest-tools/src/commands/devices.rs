//! Commands about disks and network interfaces.

use anyhow::{Context, Result, anyhow, bail};
use pv_abi::domctl::Getdomaininfo;
use pv_abi::ids::DomId;
use serde::Serialize;

use crate::cfg::{Disk, Mac, Network, Vdev};
use crate::devices::{Device, disk, network};
use crate::find;
use crate::hypercalls::Hypervisor;
use crate::output::{self, table};
use crate::stored;
use crate::xs::Store;

/// A domain that can be given devices.
fn running(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<Getdomaininfo> {
    super::running_guest(hypervisor, store, which, "it has devices of its own")
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
    let info = running(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    for other in disk::list(store, domain)? {
        if Vdev::parse(&other.vdev).is_ok_and(|vdev| vdev.same_place(&new.vdev)) {
            bail!("domain `{which}` has a disk {} already ({}); name another", other.vdev, other.target);
        }
    }
    disk::check(store, &new).with_context(|| format!("the disk {}", new.vdev))?;
    disk::attach(store, domain, &new)?;
    stored::change(&info.handle, |config| config.disks.push(new.clone()))?;
    wait_for_guest(store, disk::device(domain, &new.vdev), &new.vdev.to_string(), "xen-blkfront")
}

/// `dom block-detach`.
pub fn block_detach(hypervisor: &Hypervisor, store: &mut Store, which: &str, vdev: &str, force: bool) -> Result<()> {
    let info = find::domain(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    let vdev = Vdev::parse(vdev).map_err(|what| anyhow!(what))?;
    let device = disk::device(domain, &vdev);
    if device.read(store, "frontend")?.is_none() {
        bail!("domain `{which}` has no disk {vdev}; `dom block-list {which}` shows those it has");
    }
    if force { device.remove(store) } else { device.detach(store, &vdev.to_string()) }?;
    stored::change(&info.handle, |config| config.disks.retain(|disk| disk.vdev != vdev))
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
    let info = running(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    let number = network::free_number(store, domain)?;
    if new.mac.is_none() {
        new.mac = Some(Mac::of(&find::name(store, domain)?, number));
    }
    network::check(store, &new)?;
    network::attach(store, domain, number, &new)?;
    stored::change(&info.handle, |config| config.networks.push(new.clone()))?;
    wait_for_guest(store, network::device(domain, number), &format!("interface {number}"), "xen-netfront")
}

/// `dom network-detach`.
pub fn network_detach(
    hypervisor: &Hypervisor,
    store: &mut Store,
    which: &str,
    interface: &str,
    force: bool,
) -> Result<()> {
    let info = find::domain(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    let mac = Mac::parse(interface).ok();
    let found = network::list(store, domain)?
        .into_iter()
        .find(|listed| interface == listed.number.to_string() || (mac.is_some() && Mac::parse(&listed.mac).ok() == mac))
        .with_context(|| {
            format!(
                "domain `{which}` has no network interface {interface}; `dom network-list {which}` shows those it has"
            )
        })?;
    let device = network::device(domain, found.number);
    if force { device.remove(store) } else { device.detach(store, &format!("interface {}", found.number)) }?;
    let mac = Mac::parse(&found.mac).ok();
    stored::change(&info.handle, |config| config.networks.retain(|network| network.mac != mac))
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
