//! A domain's nodes in the store: what its drivers, the console daemon and other tools look for.
//!
//! ```text
//! /local/domain/N/            name, domid, vm                readable by the guest
//!   cpu/K/availability        online or offline
//!   memory/                   target, static-max (KiB)
//!   store/                    ring-ref, port
//!   console/                  ring-ref, port, limit, type, output, tty (written by xenconsoled)
//!   control/shutdown          a request; the guest answers by clearing it
//!   data, device …            writable by the guest
//! /vm/UUID/                   uuid, name, start_time, image/…
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pv_abi::domctl::Getdomaininfo;
use pv_abi::ids::DomId;

use crate::cfg::Config;
use crate::output::format_uuid;
use crate::xs::{Perms, Store, StoreError};

/// How long xenconsoled may take to offer a terminal.
const CONSOLE_WAIT: Duration = Duration::from_secs(10);
/// Bytes xenconsoled keeps for a console nobody looks at.
const CONSOLE_LIMIT: &str = "1048576";

/// Why a domain got no nodes.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Names are unique.
    #[error("the name `{name}` is taken by domain {id}; choose another one or destroy that domain")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: u16,
    },
    /// No terminal came.
    #[error("the console daemon (xenconsoled) offers no terminal for the domain within 10 s; is xenconsoled running?")]
    NoConsole,
}

/// The root of a domain's nodes.
pub fn root(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

/// A domain's name; `None` for one that has none in the store.
pub fn name(store: &mut Store, domain: DomId) -> Result<Option<String>, StoreError> {
    store.read(&format!("{}/name", root(domain)))
}

/// Since when a domain has been running, in seconds; `None` for one whose maker did not say.
pub fn uptime(store: &mut Store, domain: DomId) -> Result<Option<u64>, StoreError> {
    if domain == DomId::DOM0 {
        let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        return Ok(text.split('.').next().and_then(|seconds| seconds.parse().ok()));
    }
    let Some(vm) = store.read(&format!("{}/vm", root(domain)))? else {
        return Ok(None);
    };
    // Seconds since 1970, with a fraction.
    let started = store.read(&format!("{vm}/start_time"))?;
    let started: Option<u64> =
        started.as_deref().and_then(|text| text.split('.').next()).and_then(|text| text.parse().ok());
    Ok(started.map(|started| now().as_secs().saturating_sub(started)))
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Gives a domain another name, which no other one of `domains` may have.
pub fn rename(store: &mut Store, domains: &[Getdomaininfo], domain: DomId, name: &str) -> Result<(), NodesError> {
    store.transaction(|store| {
        check_name(store, domains, name)?;
        store.write(&format!("{}/name", root(domain)), name)?;
        if let Some(vm) = store.read(&format!("{}/vm", root(domain)))? {
            store.write(&format!("{vm}/name"), name)?;
        }
        Ok(())
    })
}

/// Gives a domain that has ended another name, which no other one of `domains` may have, and another uuid, so that a new domain
/// can have its own.
pub fn set_aside(
    store: &mut Store,
    domains: &[Getdomaininfo],
    domain: DomId,
    name: &str,
    uuid: [u8; 16],
) -> Result<(), NodesError> {
    store.transaction(|store| {
        check_name(store, domains, name)?;
        let root = root(domain);
        let uuid = format_uuid(&uuid);
        let vm = format!("/vm/{uuid}");
        let before = store.read(&format!("{root}/vm"))?.filter(|vm| vm.starts_with("/vm/"));
        if let Some(before) = before {
            if let Some(started) = store.read(&format!("{before}/start_time"))? {
                store.write(&format!("{vm}/start_time"), &started)?;
            }
            store.remove(&before)?;
        }
        store.write(&format!("{vm}/uuid"), &uuid)?;
        store.write(&format!("{vm}/name"), name)?;
        store.write(&format!("{root}/vm"), &vm)?;
        store.write(&format!("{root}/name"), name)?;
        Ok(())
    })
}

/// Fails if one of `domains` has the name.
pub fn check_name(store: &mut Store, domains: &[Getdomaininfo], wanted: &str) -> Result<(), NodesError> {
    for other in domains {
        if name(store, DomId(other.domain))?.as_deref() == Some(wanted) {
            return Err(NodesError::NameTaken { name: wanted.to_owned(), id: other.domain });
        }
    }
    Ok(())
}

/// What a new domain's nodes tell.
#[derive(Debug)]
pub struct NewDomain<'a> {
    /// Its id.
    pub domain: DomId,
    /// Its configuration.
    pub config: &'a Config,
    /// Its uuid.
    pub uuid: [u8; 16],
}

/// A ring: its page and port.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// Page.
    pub mfn: u64,
    /// Port in the guest.
    pub port: u32,
}

impl NewDomain<'_> {
    /// Takes the name and writes all that the guest finds at its start, in one go: two domains cannot get the same name.
    /// `domains` are those there are.
    pub fn write(
        &self,
        store: &mut Store,
        domains: &[Getdomaininfo],
        xenstore: Ring,
        console: Ring,
    ) -> Result<(), NodesError> {
        store.transaction(|store| {
            check_name(store, domains, &self.config.name)?;
            self.write_all(store, xenstore, console)?;
            Ok(())
        })
    }

    fn write_all(&self, store: &mut Store, xenstore: Ring, console: Ring) -> Result<(), StoreError> {
        let config = self.config;
        let (root, id) = (root(self.domain), self.domain.0);
        let uuid = format_uuid(&self.uuid);
        let vm = format!("/vm/{uuid}");
        let readable = Perms { owner: 0, reader: Some(id) };
        let own = Perms { owner: id, reader: None };

        store.remove(&root)?;
        store.remove(&vm)?;
        for path in [&root, &vm] {
            store.mkdir(path)?;
            store.set_perms(path, readable)?;
        }
        let path = |name: &str| format!("{root}/{name}");
        let mut write = |name: &str, value: &str| store.write(&path(name), value);
        write("name", &config.name)?;
        write("domid", &id.to_string())?;
        write("vm", &vm)?;
        write("memory/target", &(config.memory * 1024).to_string())?;
        write("memory/static-max", &(config.max_memory * 1024).to_string())?;
        for vcpu in 0..config.max_vcpus {
            let value = if vcpu < config.vcpus { "online" } else { "offline" };
            write(&format!("cpu/{vcpu}/availability"), value)?;
        }
        write("store/ring-ref", &xenstore.mfn.to_string())?;
        write("store/port", &xenstore.port.to_string())?;
        write("console/ring-ref", &console.mfn.to_string())?;
        write("console/port", &console.port.to_string())?;
        write("console/type", "xenconsoled")?;
        write("console/output", "pty")?;
        write("console/limit", CONSOLE_LIMIT)?;
        write("console/tty", "")?;
        write("control/platform-feature-multiprocessor-suspend", "1")?;
        write("control/platform-feature-xs_reset_watches", "1")?;
        for name in [
            "control/shutdown",
            "control/feature-poweroff",
            "control/feature-reboot",
            "control/feature-suspend",
            "control/sysrq",
            "device/suspend/event-channel",
            "data",
            "drivers",
            "feature",
            "attr",
            "error",
        ] {
            store.write(&path(name), "")?;
            store.set_perms(&path(name), own)?;
        }

        let path = |name: &str| format!("{vm}/{name}");
        store.write(&path("uuid"), &uuid)?;
        store.write(&path("name"), &config.name)?;
        let started = now();
        store.write(&path("start_time"), &format!("{}.{:02}", started.as_secs(), started.subsec_millis() / 10))?;
        store.write(&path("image/ostype"), "linux")?;
        store.write(&path("image/kernel"), &config.kernel.display().to_string())?;
        if let Some(ramdisk) = &config.ramdisk {
            store.write(&path("image/ramdisk"), &ramdisk.display().to_string())?;
        }
        store.write(&path("image/cmdline"), &config.cmdline)
    }
}

/// Waits for the terminal that the console daemon offers for a domain, and tells its path.
pub fn wait_for_console(store: &mut Store, domain: DomId) -> Result<String, NodesError> {
    store.wait_for_value(&format!("{}/console/tty", root(domain)), CONSOLE_WAIT)?.ok_or(NodesError::NoConsole)
}

/// Removes all nodes of a domain that is gone.
pub fn remove(store: &mut Store, domain: DomId) -> Result<(), StoreError> {
    let root = root(domain);
    if let Some(vm) = store.read(&format!("{root}/vm"))?.filter(|vm| vm.starts_with("/vm/")) {
        store.remove(&vm)?;
    }
    store.remove(&root)?;
    // Made by xl, for domains of its own.
    store.remove(&format!("/libxl/{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xs::fake::{self, Nodes};

    fn info(domain: u16) -> Getdomaininfo {
        Getdomaininfo { domain, ..Default::default() }
    }

    #[test]
    fn a_domain_and_its_nodes_come_and_go() {
        let (mut store, nodes) = fake::store(Nodes::with_conflicts(3), |_, _, _| {});
        let config = Config::least("web");
        let ring = |mfn| Ring { mfn, port: 1 };
        let new = |id| NewDomain { domain: DomId(id), config: &config, uuid: [id as u8; 16] };
        new(7).write(&mut store, &[], ring(10), ring(11)).unwrap();
        assert_eq!(name(&mut store, DomId(7)).unwrap().as_deref(), Some("web"));
        assert_eq!(nodes.lock().unwrap().values["/local/domain/7/console/ring-ref"], "11");
        assert_eq!(nodes.lock().unwrap().perms["/local/domain/7"], "n0 r7");
        assert_eq!(uptime(&mut store, DomId(7)).unwrap().map(|seconds| seconds < 60), Some(true));

        let taken = new(8).write(&mut store, &[info(7)], ring(12), ring(13)).unwrap_err().to_string();
        assert_eq!(taken, "the name `web` is taken by domain 7; choose another one or destroy that domain");
        assert_eq!(name(&mut store, DomId(8)).unwrap(), None);

        rename(&mut store, &[info(7)], DomId(7), "shop").unwrap();
        assert_eq!(name(&mut store, DomId(7)).unwrap().as_deref(), Some("shop"));
        assert!(rename(&mut store, &[info(7)], DomId(7), "shop").is_err());

        // Set aside, it leaves its name and its uuid to a new one.
        set_aside(&mut store, &[info(7)], DomId(7), "shop-1", [9; 16]).unwrap();
        assert_eq!(name(&mut store, DomId(7)).unwrap().as_deref(), Some("shop-1"));
        assert_eq!(uptime(&mut store, DomId(7)).unwrap().map(|seconds| seconds < 60), Some(true));
        assert_eq!(nodes.lock().unwrap().with("07070707"), Vec::<&str>::new());
        let again = Config { name: "shop".into(), ..config };
        NewDomain { domain: DomId(8), config: &again, uuid: [7; 16] }
            .write(&mut store, &[info(7)], ring(12), ring(13))
            .unwrap();
        let taken = set_aside(&mut store, &[info(7), info(8)], DomId(8), "shop-1", [8; 16]).unwrap_err().to_string();
        assert_eq!(taken, "the name `shop-1` is taken by domain 7; choose another one or destroy that domain");
        remove(&mut store, DomId(8)).unwrap();

        remove(&mut store, DomId(7)).unwrap();
        assert_eq!(nodes.lock().unwrap().with("7"), Vec::<&str>::new());
    }
}
