//! A domain's vCPUs and its share of the machine's CPUs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use pv_abi::domctl::{Credit2, Getdomaininfo, INVALID_MAX_VCPU_ID, SCHEDULER_CREDIT2};
use pv_abi::ids::DomId;
use serde::Serialize;

use crate::cfg::Cpus;
use crate::cli::Wait;
use crate::hypercalls::{Affinity, Hypervisor};
use crate::output::{self, table};
use crate::progress::Progress;
use crate::xs::Store;
use crate::{find, nodes, stored};

/// How often to look how far a guest is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

fn vcpus_of(info: &Getdomaininfo) -> u32 {
    if info.max_vcpu_id == INVALID_MAX_VCPU_ID { 0 } else { info.max_vcpu_id + 1 }
}

/// `dom vcpu-set`.
pub fn vcpu_set(hypervisor: &Hypervisor, store: &mut Store, which: &str, count: u32, wait: Wait) -> Result<()> {
    let info = super::running_guest(hypervisor, store, which, "use /sys/devices/system/cpu/cpuN/online")?;
    let domain = DomId(info.domain);
    let most = vcpus_of(&info);
    if count == 0 || count > most {
        bail!("domain `{which}` may use 1 to {most} vCPUs, not {count}; `maxvcpus` in its configuration says how many");
    }
    for vcpu in 0..most {
        let value = if vcpu < count { "online" } else { "offline" };
        store.write(&format!("{}/cpu/{vcpu}/availability", nodes::root(domain)), value)?;
    }
    stored::change(&info.handle, |config| config.vcpus = count)?;
    if !wait.wait {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(wait.timeout);
    let progress = Progress::new();
    loop {
        let now = hypervisor.domain_info(domain)?.with_context(|| format!("domain `{which}` is gone"))?.nr_online_vcpus;
        if now == count {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "domain `{which}` uses {now} vCPUs and is to use {count}; where the guest has no udev, it brings one up with: \
                 echo 1 >/sys/devices/system/cpu/cpuN/online"
            );
        }
        progress.step(&format!("domain `{which}` uses {now} vCPUs, not yet {count}"));
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// `dom vcpu-pin`: `cpus` is where it may run, `soft` is where it prefers to; `-` leaves either as it is.
pub fn vcpu_pin(
    hypervisor: &Hypervisor,
    store: &mut Store,
    which: &str,
    vcpu: &str,
    cpus: &str,
    soft: Option<&str>,
) -> Result<()> {
    let set = |text: Option<&str>| match text {
        None | Some("-") => Ok(None),
        Some(text) => Cpus::parse(text).map(Some).map_err(|what| anyhow!(what)),
    };
    let said = [(Affinity::Hard, set(Some(cpus))?), (Affinity::Soft, set(soft)?)];
    let info = find::domain(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    let all = vcpus_of(&info);
    let chosen = match vcpu.parse::<u32>() {
        _ if vcpu == "all" => 0..all,
        Ok(vcpu) if vcpu < all => vcpu..vcpu + 1,
        _ => bail!("domain `{which}` has vCPU 0 to {}, and no `{vcpu}`; all means all of them", all.saturating_sub(1)),
    };
    let machine = hypervisor.physinfo()?.max_cpu_id + 1;
    let mut maps = Vec::new();
    for (affinity, cpus) in said {
        let Some(cpus) = cpus else { continue };
        maps.push((affinity, cpus.among(machine).map_err(|what| anyhow!(what))?, cpus));
    }
    if maps.is_empty() {
        bail!("nothing is said: name CPUs that it may run on, CPUs that it prefers, or both");
    }
    for (affinity, map, _) in &maps {
        for vcpu in chosen.clone() {
            hypervisor.set_vcpu_affinity(domain, vcpu, *affinity, map)?;
        }
    }
    stored::change(&info.handle, |config| {
        for (affinity, _, cpus) in &maps {
            let pinning = match affinity {
                Affinity::Hard => &mut config.cpus,
                Affinity::Soft => &mut config.cpus_soft,
            };
            chosen.clone().for_each(|vcpu| pinning.set(vcpu, all, cpus));
        }
    })
}

/// A domain's share as `dom sched` shows it.
#[derive(Debug, Serialize)]
struct Share {
    name: String,
    id: u16,
    weight: u16,
    cap: u16,
}

/// `dom sched`: shows shares, or sets one.
pub fn sched(
    hypervisor: &Hypervisor,
    store: &mut Store,
    which: Option<&str>,
    weight: Option<u16>,
    cap: Option<u16>,
    json: bool,
) -> Result<()> {
    if hypervisor.scheduler()? != SCHEDULER_CREDIT2 {
        bail!("this hypervisor's scheduler has no weights and caps that dom knows; boot Xen with sched=credit2");
    }
    let infos = match which {
        Some(name) => vec![find::domain(hypervisor, store, name)?],
        None => hypervisor.domains()?,
    };
    if weight.is_some() || cap.is_some() {
        for info in &infos {
            let now = hypervisor.share(DomId(info.domain))?;
            let share = Credit2 { weight: weight.unwrap_or(now.weight), cap: cap.unwrap_or(now.cap) };
            hypervisor.set_share(DomId(info.domain), share)?;
            stored::change(&info.handle, |config| {
                config.weight = Some(share.weight);
                config.cap = Some(share.cap);
            })?;
        }
        return Ok(());
    }
    let mut shares = Vec::new();
    for info in infos {
        let id = DomId(info.domain);
        let share = hypervisor.share(id)?;
        shares.push(Share { name: find::name(store, id)?, id: id.0, weight: share.weight, cap: share.cap });
    }
    if json {
        return output::json(&shares);
    }
    let row = |s: Share| vec![s.name, s.id.to_string(), s.weight.to_string(), s.cap.to_string()];
    output::line(&table(&["NAME", "ID", "WEIGHT", "CAP"], &[1, 2, 3], shares.into_iter().map(row).collect()));
    Ok(())
}
