//! A domain's switches: shutdown, reboot, destroy, pause, its name, and its kernel's SysRq keys.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use pv_abi::domctl::{Getdomaininfo, dominf};
use pv_abi::ids::DomId;

use crate::cfg;
use crate::cli::{Wait, Which};
use crate::hypercalls::Hypervisor;
use crate::output::State;
use crate::progress::Progress;
use crate::xs::{RELEASE_DOMAIN, Store};
use crate::{find, lifecycle, nodes, stored, watcher};

/// What is left of a domain that has ended is taken away by its watcher, if it has one, within this.
const WATCHER_WAIT: Duration = Duration::from_secs(10);
/// How often to look again; what a guest does shows in no other way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a guest's kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To switch itself off.
    Poweroff,
    /// To start again.
    Reboot,
}

impl Request {
    fn word(self) -> &'static str {
        match self {
            Request::Poweroff => "poweroff",
            Request::Reboot => "reboot",
        }
    }
}

/// `dom shutdown` and `dom reboot`: asks the guests' kernels, by the store; all at once, then waits for each.
pub fn ask(hypervisor: &Hypervisor, store: &mut Store, which: &Which, request: Request, wait: Wait) -> Result<()> {
    let mut asked = Vec::new();
    if which.all {
        for info in hypervisor.domains()? {
            if info.domain != 0 && State(info.flags).shutdown_reason().is_none() {
                asked.push((find::name(store, DomId(info.domain))?, info));
            }
        }
    } else {
        for name in &which.domains {
            let what = format!("use its own {} command", request.word());
            asked.push((name.clone(), super::running_guest(hypervisor, store, name, &what)?));
        }
    }
    for (name, info) in &asked {
        if info.flags & dominf::PAUSED != 0 {
            bail!("domain `{name}` is paused and cannot hear it; `dom unpause {name}` lets it go on");
        }
        store.write(&format!("{}/control/shutdown", nodes::root(DomId(info.domain))), request.word())?;
    }
    if !wait.wait {
        return Ok(());
    }
    let progress = Progress::new();
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    store.watch(RELEASE_DOMAIN, "wait")?;
    for (name, info) in &asked {
        progress.step(&format!("waiting for domain `{name}`"));
        wait_for_end(hypervisor, store, name, info, request, deadline)?;
    }
    store.unwatch(RELEASE_DOMAIN, "wait")?;
    Ok(())
}

/// How far a domain's end is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Ended,
    Gone,
    Again,
}

/// How far the end of `before` is, by the domains there are now. One that is made again has its uuid, and is paused until it
/// is whole.
fn stage(before: &Getdomaininfo, now: &[Getdomaininfo]) -> Stage {
    match now.iter().find(|info| info.handle == before.handle) {
        None => Stage::Gone,
        Some(info) if info.domain != before.domain => match info.flags & dominf::PAUSED {
            0 => Stage::Again,
            _ => Stage::Gone,
        },
        Some(info) if State(info.flags).shutdown_reason().is_some() => Stage::Ended,
        Some(_) => Stage::Running,
    }
}

fn wait_for_end(
    hypervisor: &Hypervisor,
    store: &mut Store,
    name: &str,
    before: &Getdomaininfo,
    request: Request,
    deadline: Instant,
) -> Result<()> {
    let mut ended = None;
    loop {
        let stage = stage(before, &hypervisor.domains()?);
        let late = Instant::now() >= deadline;
        match (stage, request) {
            (Stage::Gone, Request::Poweroff) | (Stage::Again, _) => return Ok(()),
            // Its watcher takes it away, if there is one and it is told to.
            (Stage::Ended, Request::Poweroff) if ended.get_or_insert_with(Instant::now).elapsed() > WATCHER_WAIT => {
                return Ok(());
            }
            (Stage::Running, _) if late => bail!(
                "domain `{name}` has not heeded it in time; `dom console {name}` shows what it does, `dom destroy {name}` ends it"
            ),
            (Stage::Ended | Stage::Gone, Request::Reboot) if late => bail!(
                "domain `{name}` has ended and was not started again in time; see {}",
                watcher::log_path(name).display()
            ),
            _ => {}
        }
        store.event(Some(Instant::now() + LOOK_AGAIN))?;
    }
}

/// `dom destroy`.
pub fn destroy(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<()> {
    let info = super::guest(hypervisor, store, which, "it cannot be destroyed")?;
    let progress = Progress::new();
    progress.step(&format!("destroying domain `{which}`"));
    lifecycle::destroy(hypervisor, store, DomId(info.domain))
}

/// `dom pause`.
pub fn pause(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<()> {
    let info = super::guest(hypervisor, store, which, "it cannot be paused")?;
    if info.flags & dominf::PAUSED != 0 {
        bail!("domain `{which}` is paused already");
    }
    Ok(hypervisor.pause_domain(DomId(info.domain))?)
}

/// `dom unpause`.
pub fn unpause(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<()> {
    let info = find::domain(hypervisor, store, which)?;
    if info.flags & dominf::PAUSED == 0 {
        bail!("domain `{which}` is not paused");
    }
    Ok(hypervisor.unpause_domain(DomId(info.domain))?)
}

/// `dom rename`.
pub fn rename(hypervisor: &Hypervisor, store: &mut Store, which: &str, name: &str) -> Result<()> {
    cfg::check_name(name).map_err(|what| anyhow!(what))?;
    let info = super::guest(hypervisor, store, which, "it keeps its name")?;
    let before = find::name(store, DomId(info.domain))?;
    nodes::rename(store, &hypervisor.domains()?, DomId(info.domain), name)?;
    // Its watcher goes on writing to the same file; a domain without one has none.
    let _ = std::fs::rename(watcher::log_path(&before), watcher::log_path(name));
    stored::change(&info.handle, |config| config.name = name.to_owned())
}

/// `dom sysrq`.
pub fn sysrq(hypervisor: &Hypervisor, store: &mut Store, which: &str, key: char) -> Result<()> {
    let info = super::running_guest(hypervisor, store, which, "write the key to /proc/sysrq-trigger")?;
    if !key.is_ascii_alphanumeric() {
        bail!("`{key}` is no SysRq key: they are letters and digits; h has the guest list them on its console");
    }
    Ok(store.write(&format!("{}/control/sysrq", nodes::root(DomId(info.domain))), &key.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pv_abi::domctl::shutdown;

    #[test]
    fn stages_of_an_end() {
        let of = |domain, flags| Getdomaininfo { domain, flags, handle: [1; 16], ..Default::default() };
        let other = Getdomaininfo { domain: 9, handle: [2; 16], ..Default::default() };
        let off = dominf::SHUTDOWN | shutdown::POWEROFF << dominf::SHUTDOWN_SHIFT;
        let before = of(1, dominf::BLOCKED);
        assert_eq!(stage(&before, &[other, of(1, dominf::RUNNING)]), Stage::Running);
        assert_eq!(stage(&before, &[other, of(1, off)]), Stage::Ended);
        assert_eq!(stage(&before, &[other]), Stage::Gone);
        assert_eq!(stage(&before, &[other, of(2, dominf::PAUSED)]), Stage::Gone);
        assert_eq!(stage(&before, &[other, of(2, 0)]), Stage::Again);
    }
}
