//! What happens when a domain has ended: a small process for each domain, in the background, does what the configuration's
//! `on_poweroff`, `on_reboot` and `on_crash` say.
//!
//! It is this same program, started by `dom create` as `dom watch ID` with the configuration on its stdin, in a session of
//! its own. It sleeps until the store tells of a domain that has ended, and it ends when its domain is gone. Messages go to
//! `/var/log/xen/dom-NAME.log`. Without it (`dom create --no-watch`) a domain that has ended stays until it is destroyed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pv_abi::domctl::{Getdomaininfo, shutdown};
use pv_abi::ids::DomId;

use crate::build::{self, Cancel};
use crate::cfg::{Action, Config, MAX_NAME};
use crate::devices;
use crate::hypercalls::Hypervisor;
use crate::lifecycle;
use crate::nodes::{self, NodesError};
use crate::output::State;
use crate::stored;
use crate::xs::{RELEASE_DOMAIN, Store};

/// A domain that ends sooner than this after its start is not started again: it would go on like that for ever.
const SHORTEST_LIFE: Duration = Duration::from_secs(5);

/// Starts the watcher of a domain.
pub fn spawn(domain: DomId, config: &Config) -> Result<()> {
    let log = log_file(&config.name).map_or(Stdio::null(), Stdio::from);
    let mut child = Command::new("/proc/self/exe")
        .args(["watch", &domain.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("the domain's watcher cannot be started")?;
    let mut pipe = child.stdin.take().context("the watcher has no stdin (a bug of dom)")?;
    pipe.write_all(&serde_json::to_vec(config)?).context("the domain's watcher has ended at once")?;
    Ok(())
}

/// Where the watcher of a domain writes.
pub fn log_path(name: &str) -> PathBuf {
    format!("/var/log/xen/dom-{name}.log").into()
}

fn log_file(name: &str) -> Option<File> {
    OpenOptions::new().create(true).append(true).open(log_path(name)).ok()
}

/// `dom watch ID`: watches until the domain is gone.
pub fn run(domain: DomId) -> Result<()> {
    // No terminal's signals; that it fails when we lead a session already is no harm.
    let _ = rustix::process::setsid();
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("the configuration cannot be read")?;
    let config: Config = serde_json::from_slice(&text).context("the configuration makes no sense")?;
    let hypervisor = Hypervisor::open()?;
    let mut store = Store::open()?;
    store.watch(RELEASE_DOMAIN, "watcher")?;
    let mut domain = domain;
    while let Some(next) = watch(&hypervisor, &mut store, domain, &config)? {
        domain = next;
    }
    Ok(())
}

/// Watches one life of the domain; tells the id of the next one, if there is one.
fn watch(hypervisor: &Hypervisor, store: &mut Store, domain: DomId, config: &Config) -> Result<Option<DomId>> {
    let started = Instant::now();
    let Some(uuid) = hypervisor.domain_info(domain)?.map(|info| info.handle) else {
        return Ok(None);
    };
    let ended = loop {
        // The id of a domain that is gone may be given to another one.
        match hypervisor.domain_info(domain)?.filter(|info| info.handle == uuid) {
            // Whoever destroyed it may have left what dom0 served it with.
            None => {
                stored::forget(&uuid)?;
                return devices::remove_all(store, domain).map(|()| None);
            }
            Some(info) if action(config, &info).is_some() => break info,
            Some(_) => drop(store.event(None)?),
        }
    };
    // What has been attached, set and renamed meanwhile.
    let config = &stored::load(&uuid)?.unwrap_or_else(|| config.clone());
    let mut todo = action(config, &ended).unwrap_or(Action::Preserve);
    eprintln!("domain {domain} has ended: {}; {todo:?}", State(ended.flags).word());
    if matches!(todo, Action::Restart | Action::RenameRestart) && started.elapsed() < SHORTEST_LIFE {
        eprintln!(
            "it ended within {} s of its start: not restarted, and kept to be looked at",
            SHORTEST_LIFE.as_secs()
        );
        todo = Action::Preserve;
    }
    match todo {
        Action::Preserve => Ok(None),
        Action::Destroy => lifecycle::destroy(hypervisor, store, domain).map(|()| None),
        Action::Restart => {
            lifecycle::destroy(hypervisor, store, domain)?;
            again(hypervisor, store, uuid, config).map(Some)
        }
        Action::RenameRestart => {
            let name = set_aside(hypervisor, store, domain, config)?;
            eprintln!("what is left of it is called `{name}` now");
            again(hypervisor, store, uuid, config).map(Some)
        }
    }
}

/// Makes a domain anew and lets it run.
fn again(hypervisor: &Hypervisor, store: &mut Store, uuid: [u8; 16], config: &Config) -> Result<DomId> {
    let again = Config { uuid: Some(uuid), ..config.clone() };
    let ready = build::create(hypervisor, store, &again, &Cancel::on_signals()?)?;
    hypervisor.unpause_domain(ready.domain)?;
    Ok(ready.domain)
}

/// Gives an ended domain another name and another uuid, which is told, and takes its devices from it: those who look at it do
/// not need them, and the domain that is made in its place does.
fn set_aside(hypervisor: &Hypervisor, store: &mut Store, domain: DomId, config: &Config) -> Result<String> {
    devices::remove_all(store, domain)?;
    let uuid = build::random_uuid()?;
    let domains = hypervisor.domains()?;
    let name = (1..=u32::MAX)
        .find_map(|number| {
            let name = numbered(&config.name, number);
            match nodes::set_aside(store, &domains, domain, &name, uuid) {
                Err(NodesError::NameTaken { .. }) => None,
                result => Some(result.map(|()| name)),
            }
        })
        .context("all names are taken")??;
    if let Some(before) = hypervisor.domain_info(domain)?.map(|info| info.handle) {
        stored::forget(&before)?;
    }
    hypervisor.set_uuid(domain, uuid)?;
    let left =
        Config { name: name.clone(), uuid: Some(uuid), disks: Vec::new(), networks: Vec::new(), ..config.clone() };
    stored::save(&uuid, &left)?;
    Ok(name)
}

/// `web-1`; a long name loses its end.
fn numbered(name: &str, number: u32) -> String {
    let end = format!("-{number}");
    // Names have ASCII characters only.
    let kept: String = name.chars().take(MAX_NAME - end.len()).collect();
    kept + &end
}

/// What is to be done with a domain, if it has ended.
fn action(config: &Config, info: &Getdomaininfo) -> Option<Action> {
    match State(info.flags).shutdown_reason()? {
        shutdown::POWEROFF => Some(config.on_poweroff),
        shutdown::REBOOT => Some(config.on_reboot),
        shutdown::WATCHDOG => Some(config.on_watchdog),
        // Whoever suspended it knows what comes next.
        shutdown::SUSPEND => None,
        _ => Some(config.on_crash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pv_abi::domctl::dominf;

    #[test]
    fn names_of_what_is_left() {
        assert_eq!(numbered("web", 12), "web-12");
        let long = numbered(&"x".repeat(MAX_NAME), 7);
        assert!(long.len() == MAX_NAME && long.ends_with("x-7"), "{long}");
        assert!(crate::cfg::check_name(&long).is_ok());
    }

    #[test]
    fn each_reason_has_its_setting() {
        let config = Config::least("g");
        let of = |flags| action(&config, &Getdomaininfo { flags, ..Default::default() });
        let ended = |reason: u32| of(dominf::SHUTDOWN | reason << dominf::SHUTDOWN_SHIFT);
        assert_eq!(of(dominf::RUNNING), None);
        assert_eq!(ended(shutdown::POWEROFF), Some(Action::Destroy));
        assert_eq!(ended(shutdown::REBOOT), Some(Action::Restart));
        assert_eq!(ended(shutdown::CRASH), Some(Action::Preserve));
        assert_eq!(ended(shutdown::WATCHDOG), Some(Action::Destroy));
        assert_eq!(ended(shutdown::SUSPEND), None);
    }
}
