//! What is asked of the kernel's network: bridges, and interfaces plugged into them. Routing netlink (rtnetlink(7)), as far
//! as it is needed here.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::load;

/// Message types (linux/rtnetlink.h).
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
/// Flags of messages (linux/netlink.h).
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
/// Attributes of links and addresses (linux/if_link.h, linux/if_addr.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        // Sequence number and sender: one message a socket, so nobody needs them.
        bytes.extend([0; 8]);
        Message(bytes)
    }

    /// A message about an interface; 0 for one that has no index yet. With `up` it is switched on.
    fn link(kind: u16, flags: u16, index: u32, up: bool) -> Self {
        let mut message = Message::new(kind, flags);
        let up = if up { IFF_UP } else { 0 };
        // struct ifinfomsg: family, pad, type, index, flags, and which of the flags are meant.
        message.0.extend([0; 4]);
        for word in [index, up, up] {
            message.0.extend(word.to_ne_bytes());
        }
        message
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Sends it, and waits for the kernel's answer.
    fn send(mut self) -> Result<(), Errno> {
        let len = (self.0.len() as u32).to_ne_bytes();
        self.0.iter_mut().zip(len).for_each(|(to, from)| *to = from);
        // Protocol 0 is the routing one (NETLINK_ROUTE).
        let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sendto(&socket, &self.0, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 4096];
        let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        error_of(answer.get(..count).unwrap_or_default())
    }
}

/// The error an answer tells: a header of 16 bytes, and a negative errno or 0.
fn error_of(answer: &[u8]) -> Result<(), Errno> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(code.wrapping_neg())),
        _ => Err(Errno::PROTO),
    }
}

/// The kernel's number of an interface; `None` if there is no such interface.
pub fn index(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Is it a bridge?
pub fn is_bridge(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).join("bridge").is_dir()
}

/// Names of the directories at `path`, sorted.
fn names(path: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// All bridges.
pub fn bridges() -> Vec<String> {
    names("/sys/class/net".as_ref()).into_iter().filter(|name| is_bridge(name)).collect()
}

/// What is plugged into a bridge.
pub fn ports(bridge: &str) -> Vec<String> {
    names(&std::path::Path::new("/sys/class/net").join(bridge).join("brif"))
}

fn index_of(name: &str) -> Result<u32> {
    index(name).with_context(|| format!("there is no network interface `{name}`"))
}

/// Makes a bridge and switches it on.
pub fn create_bridge(name: &str) -> Result<()> {
    load("bridge", "/sys/module/bridge".as_ref())?;
    // A port carries traffic at once: nothing here makes loops.
    let data = Message(Vec::new()).attribute(IFLA_BR_FORWARD_DELAY, &0u32.to_ne_bytes());
    let info = Message(Vec::new()).attribute(IFLA_INFO_KIND, b"bridge").attribute(IFLA_INFO_DATA, &data.0);
    let made = Message::link(RTM_NEWLINK, CREATE | EXCLUSIVE, 0, true)
        .attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
        .attribute(IFLA_LINKINFO, &info.0)
        .send();
    match made {
        Err(Errno::EXIST) => {
            bail!("there is an interface `{name}` already; `dom bridge-list` shows the bridges")
        }
        result => result.with_context(|| format!("the bridge `{name}` cannot be made")),
    }
}

/// Removes an interface.
pub fn delete_link(name: &str) -> Result<()> {
    let index = index_of(name)?;
    Message::link(RTM_DELLINK, 0, index, false).send().with_context(|| format!("`{name}` cannot be removed"))
}

/// Gives an interface an address with so many bits of network.
pub fn add_address(name: &str, address: IpAddr, bits: u8) -> Result<()> {
    let index = index_of(name)?;
    let (family, bytes) = match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    let mut message = Message::new(RTM_NEWADDR, CREATE | EXCLUSIVE);
    // struct ifaddrmsg: family, bits, flags, scope, index.
    message.0.extend([family, bits, 0, 0]);
    message.0.extend(index.to_ne_bytes());
    message
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes)
        .send()
        .with_context(|| format!("`{name}` cannot get the address {address}/{bits}"))
}

/// Plugs an interface into a bridge and switches it on; with a new name or packet size, if they are given.
pub fn plug(name: &str, bridge: &str, new_name: Option<&str>, mtu: Option<u32>) -> Result<()> {
    let (index, bridge_index) = (index_of(name)?, index_of(bridge)?);
    if let Some(new_name) = new_name {
        // Only while it is off.
        Message::link(RTM_NEWLINK, 0, index, false)
            .attribute(IFLA_IFNAME, &[new_name.as_bytes(), b"\0"].concat())
            .send()
            .with_context(|| format!("`{name}` cannot be renamed to `{new_name}`"))?;
    }
    let mut message = Message::link(RTM_NEWLINK, 0, index, true).attribute(IFLA_MASTER, &bridge_index.to_ne_bytes());
    if let Some(mtu) = mtu {
        message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    }
    message.send().with_context(|| format!("`{name}` cannot be plugged into `{bridge}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_on_the_wire() {
        let Message(bytes) =
            Message::link(RTM_NEWLINK, 0, 7, true).attribute(IFLA_IFNAME, b"br0\0").attribute(IFLA_MTU, b"x");
        let mut wanted = vec![0, 0, 0, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        wanted.extend([0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        wanted.extend([8, 0, 3, 0]);
        wanted.extend(b"br0\0");
        // Padded to a multiple of four.
        wanted.extend([5, 0, 4, 0, b'x', 0, 0, 0]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn answers() {
        let answer = |code: i32| [&[36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &code.to_ne_bytes()].concat();
        assert_eq!(error_of(&answer(0)), Ok(()));
        assert_eq!(error_of(&answer(-17)), Err(Errno::EXIST));
        assert_eq!(error_of(&[0; 20]), Err(Errno::PROTO));
        assert_eq!(error_of(&[]), Err(Errno::PROTO));
    }

    #[test]
    fn interfaces_that_are_there() {
        assert_eq!(index("lo"), Some(1));
        assert_eq!(index("nowhere0"), None);
        assert!(!is_bridge("lo"));
    }
}
