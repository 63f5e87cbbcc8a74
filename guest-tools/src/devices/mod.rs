//! Disks and network interfaces of domains, served by dom0's stock drivers (xen-blkback, xen-netback).
//!
//! A device is a pair of directories in the store. The guest's driver (the front end) and dom0's (the back end) find each
//! other through them, and agree on a state each:
//!
//! ```text
//! /local/domain/N/device/KIND/NUMBER        front end's: backend, backend-id, state …
//! /local/domain/0/backend/KIND/N/NUMBER     back end's: frontend, frontend-id, online, state, what it serves …
//! ```
//!
//! Nothing of udev or of hotplug scripts takes part: what those would do is done here, between the back end's readiness and
//! the guest's start. A device goes with its directories: when the front end's are gone, dom0's driver lets go by itself, and
//! with it the loop device (see [`loops`]) or the interface.

pub mod disk;
#[allow(unsafe_code)]
mod loops;
pub mod netlink;
pub mod network;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pv_abi::ids::DomId;
use serde::Serialize;

use crate::cfg::Config;
use crate::nodes;
use crate::xs::{Perms, Store, StoreError};

/// How long a driver may take for a step.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 10_000 });
/// How often the kernel's own files are looked at; they tell nobody when they change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// States of front and back ends (public/io/xenbus.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum State {
    Unknown,
    Initialising,
    Waiting,
    Initialised,
    Connected,
    Closing,
    Closed,
    Reconfiguring,
}

impl State {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("1") => State::Initialising,
            Some("2") => State::Waiting,
            Some("3") => State::Initialised,
            Some("4") => State::Connected,
            Some("5") => State::Closing,
            Some("6") => State::Closed,
            Some("7" | "8") => State::Reconfiguring,
            _ => State::Unknown,
        }
    }

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Initialising => "initialising",
            State::Waiting => "waiting",
            State::Initialised => "initialised",
            State::Connected => "connected",
            State::Closing => "closing",
            State::Closed => "closed",
            State::Reconfiguring => "reconfiguring",
        }
    }
}

const INITIALISING: &str = "1";
const CLOSING: &str = "5";

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk.
    Disk,
    /// A network interface.
    Network,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Disk, Kind::Network];

    /// Its name in the store and in the kernel.
    fn name(self) -> &'static str {
        match self {
            Kind::Disk => "vbd",
            Kind::Network => "vif",
        }
    }

    fn module(self) -> &'static str {
        match self {
            Kind::Disk => "xen-blkback",
            Kind::Network => "xen-netback",
        }
    }
}

/// A device of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Disk or network.
    pub kind: Kind,
    /// Whose.
    pub domain: DomId,
    /// Its number among those of its kind.
    pub number: u32,
}

impl Device {
    fn frontend(self) -> String {
        format!("{}/device/{}/{}", nodes::root(self.domain), self.kind.name(), self.number)
    }

    fn backend(self) -> String {
        format!("{}/backend/{}/{}/{}", nodes::root(DomId::DOM0), self.kind.name(), self.domain, self.number)
    }

    /// Where dom0's driver says what went wrong.
    fn error(self) -> String {
        format!("{}/error/backend/{}/{}/{}", nodes::root(DomId::DOM0), self.kind.name(), self.domain, self.number)
    }

    /// The back end's directory in sysfs: there for as long as the driver serves the device.
    pub fn sysfs(self) -> PathBuf {
        Path::new("/sys/bus/xen-backend/devices").join(format!("{}-{}-{}", self.kind.name(), self.domain, self.number))
    }

    /// A node of the back end's.
    pub fn read(self, store: &mut Store, name: &str) -> Result<Option<String>, StoreError> {
        store.read(&format!("{}/{name}", self.backend()))
    }

    /// The states of its front end and of its back end.
    pub fn states(self, store: &mut Store) -> Result<(State, State), StoreError> {
        let front = store.read(&format!("{}/state", self.frontend()))?;
        let back = store.read(&format!("{}/state", self.backend()))?;
        Ok((State::parse(front.as_deref()), State::parse(back.as_deref())))
    }

    /// Writes both directories in one go; fails if the device is there already. `front` and `back` are nodes besides those
    /// that all devices have.
    fn write(self, store: &mut Store, front: &[(&str, String)], back: &[(&str, String)]) -> Result<()> {
        let (frontend, backend) = (self.frontend(), self.backend());
        store.transaction(|store| {
            if store.read(&format!("{backend}/frontend"))?.is_some() {
                bail!("domain {} has this device already", self.domain);
            }
            let sides = [
                (&frontend, &backend, ("backend", "backend-id"), DomId::DOM0, self.domain, front),
                (&backend, &frontend, ("frontend", "frontend-id"), self.domain, DomId::DOM0, back),
            ];
            for (here, there, (name, id_name), other, owner, more) in sides {
                store.mkdir(here)?;
                store.set_perms(here, Perms { owner: owner.0, reader: Some(other.0) })?;
                store.write(&format!("{here}/{name}"), there)?;
                store.write(&format!("{here}/{id_name}"), &other.to_string())?;
                for (name, value) in more {
                    store.write(&format!("{here}/{name}"), value)?;
                }
                store.write(&format!("{here}/state"), INITIALISING)?;
            }
            Ok(())
        })
    }

    /// What dom0's driver says is wrong, if anything.
    fn complaint(self, store: &mut Store) -> Result<Option<String>, StoreError> {
        store.read(&format!("{}/error", self.error()))
    }

    /// Waits until dom0's driver is ready for the guest's.
    fn wait_for_backend(self, store: &mut Store) -> Result<()> {
        let state = store.wait_until(&format!("{}/state", self.backend()), PATIENCE, |value| {
            Some(State::parse(value.as_deref())).filter(|state| *state != State::Initialising)
        })?;
        match state {
            Some(State::Waiting | State::Initialised | State::Connected) => Ok(()),
            Some(state) => match self.complaint(store)? {
                Some(complaint) => bail!("{} refuses it: {complaint}", self.kind.module()),
                None => bail!(
                    "{} refuses it (it is {}); the kernel's log (dmesg) may say why",
                    self.kind.module(),
                    state.word()
                ),
            },
            None => bail!(
                "{} did not take it within {} s; the kernel's log (dmesg) may say why",
                self.kind.module(),
                PATIENCE.as_secs()
            ),
        }
    }

    /// Waits until the guest's driver has it; false if it does not take it.
    pub fn wait_for_guest(self, store: &mut Store) -> Result<bool, StoreError> {
        let connected = store.wait_until(&format!("{}/state", self.frontend()), PATIENCE, |value| {
            (State::parse(value.as_deref()) == State::Connected).then_some(())
        })?;
        Ok(connected.is_some())
    }

    /// Has dom0's driver let go of it?
    fn is_gone(self) -> bool {
        !self.sysfs().exists()
    }

    /// The loop device that was made for it, if one was: it is released a moment after the driver has let go.
    fn loop_device(self, store: &mut Store) -> Result<Option<PathBuf>, StoreError> {
        let (Some(device), Some(target)) = (self.read(store, "physical-device-path")?, self.read(store, "params")?)
        else {
            return Ok(None);
        };
        let name = device.strip_prefix("/dev/").filter(|name| name.starts_with("loop") && device != target);
        Ok(name.map(|name| Path::new("/sys/block").join(name).join("loop")))
    }

    /// Removes what the store has of it.
    fn forget(self, store: &mut Store) -> Result<(), StoreError> {
        store.remove(&self.backend())?;
        store.remove(&self.frontend())?;
        store.remove(&self.error())
    }

    /// Takes it away from the guest, whether it agrees or not.
    pub fn remove(self, store: &mut Store) -> Result<()> {
        remove(store, &[self])
    }

    /// Asks the guest to give it back, and removes it when it has.
    pub fn detach(self, store: &mut Store, what: &str) -> Result<()> {
        let (front, _) = self.states(store)?;
        if front == State::Connected {
            store.write(&format!("{}/online", self.backend()), "0")?;
            store.write(&format!("{}/state", self.backend()), CLOSING)?;
            let closed = store.wait_until(&format!("{}/state", self.frontend()), PATIENCE, |value| {
                matches!(State::parse(value.as_deref()), State::Closed | State::Unknown | State::Initialising)
                    .then_some(())
            })?;
            if closed.is_none() {
                bail!(
                    "the guest has not given {what} back within {} s; it goes when nothing in the guest uses it any more, or at once with --force",
                    PATIENCE.as_secs()
                );
            }
        }
        self.remove(store)
    }
}

/// Waits until `done`, or for no longer than [`PATIENCE`].
fn look_until(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Removes devices: their front ends' directories first, so that dom0's drivers let go, then the rest.
fn remove(store: &mut Store, devices: &[Device]) -> Result<()> {
    let mut loops = Vec::new();
    for device in devices {
        loops.extend(device.loop_device(store)?);
        store.remove(&device.frontend())?;
    }
    // A driver that does not let go must not keep the rest of a domain's end from happening.
    look_until(|| Ok(devices.iter().all(|device| device.is_gone())))?;
    for device in devices {
        device.forget(store)?;
    }
    look_until(|| Ok(devices.iter().all(|device| device.is_gone()) && loops.iter().all(|path| !path.exists())))?;
    Ok(())
}

/// A domain's devices of a kind, in the order of their numbers.
pub fn of_domain(store: &mut Store, kind: Kind, domain: DomId) -> Result<Vec<Device>, StoreError> {
    let names = store.list(&format!("{}/backend/{}/{domain}", nodes::root(DomId::DOM0), kind.name()))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| Device { kind, domain, number }).collect())
}

/// All devices of a kind, of all domains.
pub fn of_all(store: &mut Store, kind: Kind) -> Result<Vec<Device>, StoreError> {
    let domains = store.list(&format!("{}/backend/{}", nodes::root(DomId::DOM0), kind.name()))?;
    let mut all = Vec::new();
    for domain in domains.iter().filter_map(|name| name.parse().ok()) {
        all.extend(of_domain(store, kind, DomId(domain))?);
    }
    Ok(all)
}

/// Removes all devices of a domain, and the directories they were in.
pub fn remove_all(store: &mut Store, domain: DomId) -> Result<()> {
    let mut devices = Vec::new();
    for kind in Kind::ALL {
        devices.extend(of_domain(store, kind, domain)?);
    }
    if devices.is_empty() {
        return Ok(());
    }
    remove(store, &devices)?;
    for kind in Kind::ALL {
        for directory in ["backend", "error/backend"] {
            store.remove(&format!("{}/{directory}/{}/{domain}", nodes::root(DomId::DOM0), kind.name()))?;
        }
    }
    Ok(())
}

/// Has the kernel load a driver, if it has none that `there` shows.
fn load(module: &str, there: &Path) -> Result<()> {
    if there.exists() {
        return Ok(());
    }
    let output = Command::new("modprobe")
        .arg(module)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("the kernel's module {module} is not loaded, and modprobe cannot be run"))?;
    if !there.exists() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim();
        bail!(
            "the kernel's module {module} cannot be loaded{}{words}; is it installed for this kernel?",
            if words.is_empty() { "" } else { ": " }
        );
    }
    Ok(())
}

fn load_backend(kind: Kind) -> Result<()> {
    load(kind.module(), &Path::new("/sys/bus/xen-backend/drivers").join(kind.name()))
}

/// Fails if a domain of this configuration could not get its devices: before there is one.
pub fn check(store: &mut Store, config: &Config) -> Result<()> {
    for (number, disk) in config.disks.iter().enumerate() {
        let before = config.disks.get(..number).unwrap_or_default();
        disk::check(store, disk)
            .and_then(|()| disk::check_others(before, disk))
            .with_context(|| format!("the disk {}", disk.vdev))?;
    }
    for network in &config.networks {
        network::check(store, network)?;
    }
    Ok(())
}

/// Gives a new domain the devices of its configuration.
pub fn attach_all(store: &mut Store, domain: DomId, config: &Config) -> Result<()> {
    for disk in &config.disks {
        disk::attach(store, domain, disk)?;
    }
    for (number, network) in config.networks.iter().enumerate() {
        network::attach(store, domain, number as u32, network)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
