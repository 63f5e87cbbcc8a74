//! What the commands do that only look or say one thing.

pub mod devices;

use anyhow::{Context, Result, bail};
use pv_abi::domctl::{Getdomaininfo, INVALID_MAX_VCPU_ID};
use pv_abi::ids::DomId;
use pv_abi::sysctl::physcap;
use serde::Serialize;

use crate::hypercalls::Hypervisor;
use crate::output::{self, State, format_uuid, mib, seconds, table};
use crate::xs::Store;
use crate::{find, nodes};

/// A domain as `dom list` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    id: u16,
    memory_mib: u64,
    memory_pages: u64,
    max_memory_pages: u64,
    vcpus: u32,
    online_vcpus: u32,
    state: &'static str,
    flags: String,
    cpu_time_ns: u64,
    uuid: String,
}

impl Listed {
    fn new(store: &mut Store, info: &Getdomaininfo) -> Result<Self> {
        let state = State(info.flags);
        Ok(Listed {
            name: find::name(store, DomId(info.domain))?,
            id: info.domain,
            memory_mib: mib(info.tot_pages),
            memory_pages: info.tot_pages,
            max_memory_pages: info.max_pages,
            vcpus: if info.max_vcpu_id == INVALID_MAX_VCPU_ID { 0 } else { info.max_vcpu_id + 1 },
            online_vcpus: info.nr_online_vcpus,
            state: state.word(),
            flags: state.letters(),
            cpu_time_ns: info.cpu_time,
            uuid: format_uuid(&info.handle),
        })
    }
}

/// `dom list`: all domains, or one.
pub fn list(hypervisor: &Hypervisor, store: &mut Store, which: Option<&str>, verbose: bool, json: bool) -> Result<()> {
    let infos = match which {
        Some(name) => vec![find::domain(hypervisor, store, name)?],
        None => hypervisor.domains()?,
    };
    let domains = infos.iter().map(|info| Listed::new(store, info)).collect::<Result<Vec<_>>>()?;
    if json {
        return output::json(&domains);
    }
    let mut header = vec!["NAME", "ID", "MEM(MiB)", "VCPUS", "FLAGS", "STATE", "TIME(s)"];
    if verbose {
        header.extend(["PAGES", "MAXPAGES", "UUID"]);
    }
    let rows = domains.into_iter().map(|d| {
        let mut row = vec![
            d.name,
            d.id.to_string(),
            d.memory_mib.to_string(),
            d.online_vcpus.to_string(),
            d.flags,
            d.state.to_owned(),
            seconds(d.cpu_time_ns),
        ];
        if verbose {
            row.extend([d.memory_pages.to_string(), d.max_memory_pages.to_string(), d.uuid]);
        }
        row
    });
    output::line(&table(&header, &[1, 2, 3, 6, 7, 8], rows.collect()));
    Ok(())
}

/// A vCPU as `dom vcpu-list` shows it.
#[derive(Debug, Serialize)]
struct ListedVcpu {
    name: String,
    id: u16,
    vcpu: u32,
    cpu: Option<u32>,
    state: &'static str,
    cpu_time_ns: u64,
    affinity: String,
}

/// `0-2,5`, or `all`.
fn ranges(set: &[bool]) -> String {
    if set.iter().all(|&on| on) {
        return "all".into();
    }
    let mut parts = Vec::new();
    let mut cpu = 0;
    while cpu < set.len() {
        let run = set.iter().skip(cpu).take_while(|&&on| on).count();
        match run {
            0 => {}
            1 => parts.push(cpu.to_string()),
            _ => parts.push(format!("{cpu}-{}", cpu + run - 1)),
        }
        cpu += run + 1;
    }
    parts.join(",")
}

/// `dom vcpu-list`: vCPUs of all domains, or of one.
pub fn vcpu_list(hypervisor: &Hypervisor, store: &mut Store, which: Option<&str>, json: bool) -> Result<()> {
    let infos = match which {
        Some(name) => vec![find::domain(hypervisor, store, name)?],
        None => hypervisor.domains()?,
    };
    let cpus = hypervisor.physinfo()?.max_cpu_id + 1;
    let mut vcpus = Vec::new();
    for info in infos {
        let id = DomId(info.domain);
        let name = find::name(store, id)?;
        if info.max_vcpu_id == INVALID_MAX_VCPU_ID {
            continue;
        }
        for vcpu in 0..=info.max_vcpu_id {
            let Some(state) = hypervisor.vcpu_info(id, vcpu)? else { continue };
            let online = state.online != 0;
            vcpus.push(ListedVcpu {
                name: name.clone(),
                id: id.0,
                vcpu,
                cpu: online.then_some(state.cpu),
                state: match (online, state.running != 0, state.blocked != 0) {
                    (false, ..) => "offline",
                    (_, true, _) => "running",
                    (_, _, true) => "blocked",
                    _ => "ready",
                },
                cpu_time_ns: state.cpu_time,
                affinity: ranges(&hypervisor.vcpu_affinity(id, vcpu, cpus)?),
            });
        }
    }
    if json {
        return output::json(&vcpus);
    }
    let row = |v: ListedVcpu| {
        let cpu = v.cpu.map_or("-".into(), |cpu| cpu.to_string());
        vec![v.name, v.id.to_string(), v.vcpu.to_string(), cpu, v.state.to_owned(), seconds(v.cpu_time_ns), v.affinity]
    };
    let header = ["NAME", "ID", "VCPU", "CPU", "STATE", "TIME(s)", "AFFINITY"];
    output::line(&table(&header, &[1, 2, 3, 5], vcpus.into_iter().map(row).collect()));
    Ok(())
}

/// The machine as `dom info` shows it.
#[derive(Debug, Serialize)]
struct Info {
    version: String,
    capabilities: Vec<String>,
    hypervisor_command_line: String,
    compiler: String,
    compile_date: String,
    changeset: String,
    scheduler: String,
    cpus: u32,
    cores_per_socket: u32,
    threads_per_core: u32,
    nodes: u32,
    cpu_khz: u32,
    guest_kinds: Vec<&'static str>,
    total_memory_pages: u64,
    free_memory_pages: u64,
    total_memory_mib: u64,
    free_memory_mib: u64,
    domains: usize,
}

/// Names of schedulers by number (public/domctl.h).
fn scheduler_name(id: u32) -> String {
    match id {
        4 => "sedf".into(),
        5 => "credit".into(),
        6 => "credit2".into(),
        7 => "arinc653".into(),
        8 => "rtds".into(),
        9 => "null".into(),
        other => format!("number {other}"),
    }
}

/// `dom info`: the machine and its hypervisor.
pub fn info(hypervisor: &Hypervisor, json: bool) -> Result<()> {
    let version = hypervisor.versions()?;
    let machine = hypervisor.physinfo()?;
    let kinds = [(physcap::PV, "pv"), (physcap::HVM, "hvm")];
    let free = machine.free_pages + machine.scrub_pages;
    let info = Info {
        version: format!("{}.{}{}", version.major, version.minor, version.extra),
        capabilities: version.capabilities,
        hypervisor_command_line: version.command_line,
        compiler: version.compiler,
        compile_date: version.compile_date,
        changeset: version.changeset,
        scheduler: scheduler_name(hypervisor.scheduler()?),
        cpus: machine.nr_cpus,
        cores_per_socket: machine.cores_per_socket,
        threads_per_core: machine.threads_per_core,
        nodes: machine.nr_nodes,
        cpu_khz: machine.cpu_khz,
        guest_kinds: kinds.into_iter().filter(|(bit, _)| machine.capabilities & bit != 0).map(|(_, kind)| kind).collect(),
        total_memory_pages: machine.total_pages,
        free_memory_pages: free,
        total_memory_mib: mib(machine.total_pages),
        free_memory_mib: mib(free),
        domains: hypervisor.domains()?.len(),
    };
    if json {
        return output::json(&info);
    }
    let rows = [
        ("version", info.version),
        ("capabilities", info.capabilities.join(" ")),
        ("guests", info.guest_kinds.join(" ")),
        ("scheduler", info.scheduler),
        ("cpus", info.cpus.to_string()),
        ("cpu MHz", (info.cpu_khz / 1000).to_string()),
        ("memory", format!("{} MiB", info.total_memory_mib)),
        ("free memory", format!("{} MiB ({} pages)", info.free_memory_mib, info.free_memory_pages)),
        ("domains", info.domains.to_string()),
        ("command line", info.hypervisor_command_line),
        ("compiled", [info.compiler, info.compile_date].join(" ").trim().to_owned()),
        ("changeset", info.changeset),
    ];
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in rows {
        output::line(format!("{key:width$}  {value}").trim_end());
    }
    Ok(())
}

/// `dom dmesg`: the hypervisor's messages.
pub fn dmesg(hypervisor: &Hypervisor, clear: bool, json: bool) -> Result<()> {
    let log = hypervisor.log(clear)?;
    let text = String::from_utf8_lossy(&log);
    if json {
        return output::json(&text.lines().collect::<Vec<_>>());
    }
    for line in text.lines() {
        output::line(line);
    }
    Ok(())
}

/// An audit's result as JSON.
#[derive(Debug, Serialize)]
struct Audited {
    errors: u64,
    frames_checked: u64,
    page_tables: u64,
    free_frames: u64,
    domains: u64,
}

/// `dom debug audit`: recounts all frames.
pub fn audit(hypervisor: &Hypervisor, json: bool) -> Result<()> {
    let audit = hypervisor.audit()?.context("this hypervisor has no audit; only Hospes has one")?;
    if json {
        let pv_abi::hospes::Audit { errors, frames_checked, domains, page_tables, free_frames } = audit;
        output::json(&Audited { errors, frames_checked, page_tables, free_frames, domains })?;
    } else {
        output::line(&format!(
            "{} frames checked ({} free, {} page tables) in {} domains: {} errors",
            audit.frames_checked, audit.free_frames, audit.page_tables, audit.domains, audit.errors
        ));
    }
    if audit.errors != 0 {
        bail!("the audit found {} errors; `dom dmesg` tells which", audit.errors);
    }
    Ok(())
}

/// `dom shutdown` and `dom reboot`: asks the guest's kernel, by the store.
pub fn ask_to_end(hypervisor: &Hypervisor, store: &mut Store, which: &str, request: &str) -> Result<()> {
    let info = find::domain(hypervisor, store, which)?;
    let domain = DomId(info.domain);
    if domain == DomId::DOM0 {
        bail!("domain 0 is the one this runs in; use its own {request} command");
    }
    if State(info.flags).shutdown_reason().is_some() {
        bail!("domain `{which}` has ended already ({}); `dom destroy {which}` removes it", State(info.flags).word());
    }
    store.write(&format!("{}/control/shutdown", nodes::root(domain)), request)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ranges() {
        assert_eq!(ranges(&[true, true]), "all");
        assert_eq!(ranges(&[true, true, false, true, false]), "0-1,3");
        assert_eq!(ranges(&[false, false]), "");
        assert_eq!(ranges(&[false, true, true, true]), "1-3");
    }
}
