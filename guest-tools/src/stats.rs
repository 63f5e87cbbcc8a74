//! What the domains use, at one moment: from the hypervisor (CPU, memory) and from the kernel's back ends (disks, networks).

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use pv_abi::domctl::Getdomaininfo;
use pv_abi::ids::{DomId, PAGE_SIZE};

use crate::devices::{self, Device, Kind, disk, network};
use crate::find;
use crate::hypercalls::Hypervisor;
use crate::output::State;
use crate::xs::Store;

/// Bytes of a sector, as back ends count them.
const SECTOR: u64 = 512;

/// One moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub at: Instant,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Its memory, bytes.
    pub memory: u64,
    /// What of it is free, bytes.
    pub free: u64,
    /// In ascending order of their ids.
    pub domains: Vec<Domain>,
}

/// What one domain uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u16,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// CPU time it has used, nanoseconds.
    pub cpu_ns: u64,
    /// Memory it has, bytes.
    pub memory: u64,
    /// Memory it may have, bytes; `None` for no limit.
    pub max_memory: Option<u64>,
    /// vCPUs it uses.
    pub vcpus: u32,
    /// Its disks, by their names in the guest.
    pub disks: Vec<(String, Traffic)>,
    /// Its network interfaces, by their numbers.
    pub networks: Vec<(String, Traffic)>,
}

/// What went through a device since it was attached, from the guest's point of view: `read` is what it read or received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes to the guest.
    pub read: u64,
    /// Bytes from the guest.
    pub written: u64,
    /// Requests or packets to the guest.
    pub reads: u64,
    /// Requests or packets from the guest.
    pub writes: u64,
}

impl Traffic {
    /// Both together.
    pub fn and(self, other: Traffic) -> Traffic {
        Traffic {
            read: self.read + other.read,
            written: self.written + other.written,
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
        }
    }
}

/// A number in a file of sysfs; 0 if it is not there, as with a device that has gone meanwhile.
fn number(directory: &Path, name: &str) -> u64 {
    std::fs::read_to_string(directory.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn disk_traffic(device: Device) -> Traffic {
    let directory = device.sysfs().join("statistics");
    Traffic {
        read: number(&directory, "rd_sect") * SECTOR,
        written: number(&directory, "wr_sect") * SECTOR,
        reads: number(&directory, "rd_req"),
        writes: number(&directory, "wr_req"),
    }
}

/// What dom0 receives from the interface is what the guest has sent.
fn network_traffic(interface: &str) -> Traffic {
    let directory = Path::new("/sys/class/net").join(interface).join("statistics");
    Traffic {
        read: number(&directory, "tx_bytes"),
        written: number(&directory, "rx_bytes"),
        reads: number(&directory, "tx_packets"),
        writes: number(&directory, "rx_packets"),
    }
}

fn domain(store: &mut Store, info: &Getdomaininfo) -> Result<Domain> {
    let id = DomId(info.domain);
    let mut disks = Vec::new();
    for device in devices::of_domain(store, Kind::Disk, id)? {
        disks.push((disk::listed(store, device)?.vdev, disk_traffic(device)));
    }
    let networks = network::list(store, id)?;
    Ok(Domain {
        name: find::name(store, id)?,
        id: id.0,
        state: State(info.flags).word(),
        cpu_ns: info.cpu_time,
        memory: info.tot_pages * PAGE_SIZE,
        // No limit shows as the largest number of pages, or nearly so.
        max_memory: info.max_pages.checked_mul(PAGE_SIZE).filter(|_| info.max_pages < u64::from(u32::MAX)),
        vcpus: info.nr_online_vcpus,
        disks,
        networks: networks
            .into_iter()
            .map(|listed| (listed.number.to_string(), network_traffic(&listed.interface)))
            .collect(),
    })
}

/// Looks at everything.
pub fn snapshot(hypervisor: &Hypervisor, store: &mut Store) -> Result<Snapshot> {
    let machine = hypervisor.physinfo()?;
    let at = Instant::now();
    let infos = hypervisor.domains()?;
    let domains = infos.iter().map(|info| domain(store, info)).collect::<Result<_>>()?;
    Ok(Snapshot {
        at,
        cpus: machine.nr_cpus,
        memory: machine.total_pages * PAGE_SIZE,
        free: (machine.free_pages + machine.scrub_pages) * PAGE_SIZE,
        domains,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine with two domains, for tests of what shows them.
    pub fn example() -> Snapshot {
        let quiet = Domain {
            name: "Domain-0".into(),
            id: 0,
            state: "running",
            cpu_ns: 17_250_000_000,
            memory: 512 << 20,
            max_memory: None,
            vcpus: 2,
            disks: vec![],
            networks: vec![],
        };
        let traffic = Traffic { read: 4096, written: 1 << 20, reads: 1, writes: 16 };
        let web = Domain {
            name: "web".into(),
            id: 3,
            state: "blocked",
            cpu_ns: 1_500_000_000,
            memory: 96 << 20,
            max_memory: Some(97 << 20),
            vcpus: 1,
            disks: vec![("xvda".into(), traffic), ("xvdb".into(), Traffic::default())],
            networks: vec![("0".into(), Traffic { read: 100, written: 200, reads: 1, writes: 2 })],
        };
        Snapshot { at: Instant::now(), cpus: 2, memory: 2 << 30, free: 1 << 30, domains: vec![quiet, web] }
    }

    #[test]
    fn a_number_that_is_not_there_is_none() {
        assert_eq!(number(Path::new("/nowhere"), "rd_req"), 0);
        assert!(number(Path::new("/sys/class/net/lo"), "mtu") > 0);
    }
}
