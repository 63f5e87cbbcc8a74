//! Bridges: what domains' networks are plugged into.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use crate::cfg::check_interface;
use crate::devices::netlink;
use crate::output::{self, table};

/// `10.0.0.1/24`.
fn parse_address(text: &str) -> Result<(IpAddr, u8)> {
    let read = || -> Option<(IpAddr, u8)> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some((address, bits.parse().ok().filter(|bits| *bits <= most)?))
    };
    read()
        .with_context(|| format!("`{text}` is no address with the bits of its network; it must look like 10.0.0.1/24"))
}

/// `dom bridge-create`: the whole of it, or nothing.
pub fn create(name: &str, address: Option<&str>, ports: &[String]) -> Result<()> {
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
pub fn delete(name: &str) -> Result<()> {
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
pub fn list(json: bool) -> Result<()> {
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
            assert_eq!(
                error,
                format!("`{bad}` is no address with the bits of its network; it must look like 10.0.0.1/24")
            );
        }
    }
}
