//! Commands that only look.

use anyhow::{Context, Result, bail};
use pv_abi::domctl::{Getdomaininfo, INVALID_MAX_VCPU_ID};
use pv_abi::ids::DomId;
use pv_abi::sysctl::physcap;
use serde::Serialize;

use crate::cfg::ranges;
use crate::hypercalls::{Affinity, Hypervisor};
use crate::output::{self, State, format_uuid, mib, seconds, table};
use crate::xs::Store;
use crate::{find, nodes, stored};

/// A domain as `dom list` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    id: u16,
    memory_mib: u64,
    memory_pages: u64,
    max_memory_pages: u64,
    /// Pages that the guest sees beyond its own memory: its shared_info page and its grant table.
    shared_pages: Option<u32>,
    vcpus: u32,
    online_vcpus: u32,
    state: &'static str,
    flags: String,
    cpu_time_ns: u64,
    uuid: String,
}

impl Listed {
    fn new(hypervisor: &Hypervisor, store: &mut Store, info: &Getdomaininfo) -> Result<Self> {
        let state = State(info.flags);
        // One that is being destroyed has no grant table any more.
        let grant_frames = hypervisor.grant_frames(DomId(info.domain)).ok();
        Ok(Listed {
            name: find::name(store, DomId(info.domain))?,
            id: info.domain,
            memory_mib: mib(info.tot_pages),
            memory_pages: info.tot_pages,
            max_memory_pages: info.max_pages,
            shared_pages: grant_frames.map(|frames| frames + 1),
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
    let domains = infos.iter().map(|info| Listed::new(hypervisor, store, info)).collect::<Result<Vec<_>>>()?;
    if json {
        return output::json(&domains);
    }
    let mut header = vec!["NAME", "ID", "MEM(MiB)", "VCPUS", "FLAGS", "STATE", "TIME(s)"];
    if verbose {
        header.extend(["PAGES", "MAXPAGES", "SHARED", "UUID"]);
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
            let shared = d.shared_pages.map_or("-".into(), |pages| pages.to_string());
            row.extend([d.memory_pages.to_string(), d.max_memory_pages.to_string(), shared, d.uuid]);
        }
        row
    });
    output::line(&table(&header, &[1, 2, 3, 6, 7, 8, 9], rows.collect()));
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
    soft_affinity: String,
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
            let Some(state) = hypervisor.vcpu_info(id, vcpu)? else {
                continue;
            };
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
                affinity: ranges(&hypervisor.vcpu_affinity(id, vcpu, Affinity::Hard, cpus)?),
                soft_affinity: ranges(&hypervisor.vcpu_affinity(id, vcpu, Affinity::Soft, cpus)?),
            });
        }
    }
    if json {
        return output::json(&vcpus);
    }
    let row = |v: ListedVcpu| {
        let cpu = v.cpu.map_or("-".into(), |cpu| cpu.to_string());
        vec![
            v.name,
            v.id.to_string(),
            v.vcpu.to_string(),
            cpu,
            v.state.to_owned(),
            seconds(v.cpu_time_ns),
            v.affinity,
            v.soft_affinity,
        ]
    };
    let header = ["NAME", "ID", "VCPU", "CPU", "STATE", "TIME(s)", "AFFINITY", "PREFERS"];
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
        guest_kinds: kinds
            .into_iter()
            .filter(|(bit, _)| machine.capabilities & bit != 0)
            .map(|(_, kind)| kind)
            .collect(),
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
    hypervisor_frames: u64,
    heap_bytes: u64,
    heap_used: u64,
}

/// `dom debug audit`: recounts all frames.
pub fn audit(hypervisor: &Hypervisor, json: bool) -> Result<()> {
    let audit = hypervisor.audit()?.context("this hypervisor has no audit; only Hospes has one")?;
    if json {
        output::json(&Audited {
            errors: audit.errors,
            frames_checked: audit.frames_checked,
            page_tables: audit.page_tables,
            free_frames: audit.free_frames,
            domains: audit.domains,
            hypervisor_frames: audit.hypervisor_frames,
            heap_bytes: audit.heap_bytes,
            heap_used: audit.heap_used,
        })?;
    } else {
        output::line(&format!(
            "{} frames checked ({} free, {} the hypervisor's, {} page tables) in {} domains, {} of {} KiB of heap in use: \
             {} errors",
            audit.frames_checked,
            audit.free_frames,
            audit.hypervisor_frames,
            audit.page_tables,
            audit.domains,
            audit.heap_used.div_ceil(1024),
            audit.heap_bytes / 1024,
            audit.errors
        ));
    }
    if audit.errors != 0 {
        bail!("the audit found {} errors; `dom dmesg` tells which", audit.errors);
    }
    Ok(())
}

/// `dom domid`.
pub fn domid(hypervisor: &Hypervisor, store: &mut Store, which: &str, json: bool) -> Result<()> {
    let id = find::domain(hypervisor, store, which)?.domain;
    if json {
        return output::json(&id);
    }
    output::line(&id.to_string());
    Ok(())
}

/// `dom domname`.
pub fn domname(hypervisor: &Hypervisor, store: &mut Store, which: &str, json: bool) -> Result<()> {
    let id = DomId(find::domain(hypervisor, store, which)?.domain);
    let name = find::name(store, id)?;
    if json {
        return output::json(&name);
    }
    output::line(&name);
    Ok(())
}

/// `dom config`: the configuration of a domain as it is now, with what was attached and set since its start.
pub fn config(hypervisor: &Hypervisor, store: &mut Store, which: &str, json: bool) -> Result<()> {
    let info = super::guest(hypervisor, store, which, "it has no configuration")?;
    let config = stored::load(&info.handle)?
        .with_context(|| format!("domain `{which}` was not made by dom: whoever made it knows its configuration"))?;
    if json {
        return output::json(&config);
    }
    output::line(config.to_string().trim_end());
    Ok(())
}

/// A domain's age as `dom uptime` shows it.
#[derive(Debug, Serialize)]
struct Uptime {
    name: String,
    id: u16,
    seconds: Option<u64>,
}

/// `3 days, 02:01:00`.
fn age(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

/// `dom uptime`: since when domains have been running.
pub fn uptime(hypervisor: &Hypervisor, store: &mut Store, which: Option<&str>, json: bool) -> Result<()> {
    let infos = match which {
        Some(name) => vec![find::domain(hypervisor, store, name)?],
        None => hypervisor.domains()?,
    };
    let mut all = Vec::new();
    for info in infos {
        let id = DomId(info.domain);
        all.push(Uptime { name: find::name(store, id)?, id: id.0, seconds: nodes::uptime(store, id)? });
    }
    if json {
        return output::json(&all);
    }
    let row = |u: Uptime| vec![u.name, u.id.to_string(), u.seconds.map_or("-".into(), age)];
    output::line(&table(&["NAME", "ID", "UPTIME"], &[1, 2], all.into_iter().map(row).collect()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        assert_eq!(age(0), "00:00:00");
        assert_eq!(age(3661), "01:01:01");
        assert_eq!(age(86400 + 59), "1 day, 00:00:59");
        assert_eq!(age(3 * 86400 + 7260), "3 days, 02:01:00");
    }
}
