//! Makes a domain: from its configuration to a paused domain that is ready to run. The Linux half of the work; what goes
//! where in its memory is decided and written by the crate `boot`.
//!
//! A domain that is not ready yet is undone when [`Unfinished`] is dropped, so that an error at any step leaves nothing.

mod cancel;
mod memory;
mod vcpu;

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use boot::builder::{BuildParams, StartOfDay};
use boot::kernel::KernelImage;
use boot::layout::{DomainPlan, Layout};
use pv_abi::domctl::Credit2;
use pv_abi::grant::{EntryV1, GTF_PERMIT_ACCESS, RESERVED_CONSOLE, RESERVED_XENSTORE};
use pv_abi::ids::{DomId, EvtchnPort, Mfn};
use pv_abi::shared_info::SharedInfo;
use zerocopy::IntoBytes;

use crate::cfg::Config;
use crate::devices;
use crate::hypercalls::{Affinity, Hypervisor};
use crate::lifecycle;
use crate::nodes::{self, NewDomain, Ring};
use crate::progress::Progress;
use crate::stored;
use crate::xs::Store;

pub use cancel::Cancel;
use memory::DomainMemory;

/// The most bytes a kernel may unpack to.
const MAX_KERNEL: usize = 512 << 20;
/// What a domain needs besides its memory, in pages: the hypervisor's own structures, its grant table, and some for each vCPU.
const OVERHEAD_PAGES: u64 = 256;
const OVERHEAD_PAGES_PER_VCPU: u64 = 32;
/// What a domain may have beyond `maxmem`, KiB: its ballooning is not exact to the page.
const MAX_MEMORY_SLACK_KIB: u64 = 1024;
/// Who serves store and console.
const BACKEND: DomId = DomId::DOM0;

/// Files that have been read, so that what is wrong with them is told before there is a domain.
struct Files {
    kernel: Vec<u8>,
    ramdisk: Vec<u8>,
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("the {what} {} cannot be read", path.display()))
}

impl Files {
    fn read(config: &Config) -> Result<Self> {
        let file = read("kernel", &config.kernel)?;
        let ramdisk = match &config.ramdisk {
            Some(path) => read("ramdisk", path)?,
            None => Vec::new(),
        };
        if let Some(path) = config.ramdisk.as_deref().filter(|_| ramdisk.is_empty()) {
            bail!("the ramdisk {} is empty; name another file or none", path.display());
        }
        // Last, because this takes long.
        let unpacked = || -> Result<Vec<u8>> {
            let payload = boot::bzimage::locate(&file)?;
            Ok(payload.unpack(MAX_KERNEL)?)
        };
        let kernel = unpacked().with_context(|| config.kernel.display().to_string())?;
        Ok(Files { kernel, ramdisk })
    }
}

/// A domain that is being made. Dropped, it is destroyed with all that belongs to it.
struct Unfinished<'a> {
    hypervisor: &'a Hypervisor,
    store: &'a mut Store,
    domain: DomId,
    finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished
            && let Err(e) = lifecycle::destroy(self.hypervisor, self.store, self.domain)
        {
            eprintln!("dom: domain {} could not be removed: {e:#}", self.domain);
        }
    }
}

/// Event channels to the store and to the console daemon.
#[derive(Debug, Clone, Copy)]
struct Ports {
    store: EvtchnPort,
    console: EvtchnPort,
}

/// A domain that is ready, and still paused.
#[derive(Debug)]
pub struct Ready {
    /// Its id.
    pub domain: DomId,
    /// The terminal its console daemon offers.
    pub tty: String,
}

/// Makes the domain. `cancel` says whether the user wants to stop; it is looked at between the steps.
pub fn create(hypervisor: &Hypervisor, store: &mut Store, config: &Config, cancel: &Cancel) -> Result<Ready> {
    // What can be refused at once comes first: unpacking a kernel takes seconds.
    let progress = Progress::new();
    progress.step("looking at the machine");
    let others = hypervisor.domains()?;
    nodes::check_name(store, &others, &config.name)?;
    check_host(hypervisor, config)?;
    devices::check(store, config)?;
    progress.step(&format!("unpacking {}", config.kernel.display()));
    let files = Files::read(config)?;
    let kernel = KernelImage::parse(&files.kernel).with_context(|| config.kernel.display().to_string())?;
    let plan = DomainPlan {
        nr_pages: config.memory * 256,
        ramdisk_len: files.ramdisk.len() as u64,
        is_dom0: false,
        cmdline: &config.cmdline,
    };
    let layout = Layout::plan(&kernel, &plan).with_context(|| format!("domain `{}`", config.name))?;
    cancel.check()?;

    let uuid = match config.uuid {
        Some(uuid) => uuid,
        None => random_uuid()?,
    };
    let domain = hypervisor.create_domain(uuid, config.max_vcpus)?;
    let mut unfinished = Unfinished { hypervisor, store, domain, finished: false };
    hypervisor.set_max_vcpus(domain, config.max_vcpus)?;
    hypervisor.set_max_memory(domain, config.max_memory * 1024 + MAX_MEMORY_SLACK_KIB)?;
    let ports = Ports {
        store: hypervisor.alloc_unbound(domain, BACKEND)?,
        console: hypervisor.alloc_unbound(domain, BACKEND)?,
    };
    hypervisor.set_default_tsc(domain)?;
    if config.max_memory > config.memory {
        hypervisor.set_memory_map(domain, config.max_memory << 20)?;
    }
    hypervisor.set_64_bit(domain)?;
    cancel.check()?;

    progress.step(&format!("giving it {} MiB", config.memory));
    let memory = DomainMemory::allocate(hypervisor, domain, plan.nr_pages)
        .with_context(|| shortage(hypervisor, config).unwrap_or_else(|_| "not enough memory".into()))?;
    cancel.check()?;
    progress.step("writing its memory");
    let start = fill(hypervisor, domain, &kernel, &layout, memory, &files.ramdisk, config, ports)?;
    cancel.check()?;

    let (xenstore, console) = match (start.xenstore_mfn, start.console_mfn) {
        (Some(xenstore), Some(console)) => (xenstore, console),
        _ => bail!("the domain's layout has no store and console pages (a bug of dom)"),
    };
    set_scheduling(hypervisor, domain, config)?;
    seed_grants(hypervisor, domain, xenstore, console)?;
    let rings = [Ring { mfn: xenstore.0, port: ports.store.0 }, Ring { mfn: console.0, port: ports.console.0 }];
    let others: Vec<_> = hypervisor.domains()?.into_iter().filter(|other| other.domain != domain.0).collect();
    NewDomain { domain, config, uuid }.write(unfinished.store, &others, rings[0], rings[1])?;
    unfinished.store.introduce(domain.0, xenstore.0, ports.store.0)?;
    progress.step("waiting for its console");
    let tty = nodes::wait_for_console(unfinished.store, domain)?;
    cancel.check()?;
    if !config.disks.is_empty() || !config.networks.is_empty() {
        progress.step("attaching its disks and networks");
    }
    devices::attach_all(unfinished.store, domain, config)?;
    stored::save(&uuid, config)?;
    cancel.check()?;
    unfinished.finished = true;
    Ok(Ready { domain, tty })
}

/// Which CPUs it may use, and its share of them.
fn set_scheduling(hypervisor: &Hypervisor, domain: DomId, config: &Config) -> Result<()> {
    let cpus = hypervisor.physinfo()?.max_cpu_id + 1;
    for vcpu in 0..config.max_vcpus {
        let said = [(Affinity::Hard, "cpus", &config.cpus), (Affinity::Soft, "cpus_soft", &config.cpus_soft)];
        for (affinity, key, pinning) in said {
            if let Some(set) = pinning.of(vcpu) {
                let map = set.among(cpus).map_err(|what| anyhow!("`{key}`: {what}"))?;
                hypervisor.set_vcpu_affinity(domain, vcpu, affinity, &map)?;
            }
        }
    }
    if config.weight.is_some() || config.cap.is_some() {
        let now = hypervisor.share(domain)?;
        let share = Credit2 { weight: config.weight.unwrap_or(now.weight), cap: config.cap.unwrap_or(now.cap) };
        hypervisor.set_share(domain, share)?;
    }
    Ok(())
}

/// A uuid that no other domain has.
pub fn random_uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty())
        .context("no random numbers for a uuid")?;
    // Version 4, variant 1 (RFC 9562).
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// Pages the domain takes from the machine.
fn pages_needed(config: &Config) -> u64 {
    config.memory * 256 + OVERHEAD_PAGES + OVERHEAD_PAGES_PER_VCPU * u64::from(config.max_vcpus)
}

fn shortage_text(name: &str, needed: u64, free: u64) -> String {
    format!(
        "not enough memory for domain `{name}`: it needs {} MiB and {} MiB are free; lower `memory` or destroy another domain",
        needed.div_ceil(256),
        free / 256
    )
}

fn shortage(hypervisor: &Hypervisor, config: &Config) -> Result<String> {
    let machine = hypervisor.physinfo()?;
    Ok(shortage_text(&config.name, pages_needed(config), machine.free_pages + machine.scrub_pages))
}

/// Can the machine take the domain at all?
fn check_host(hypervisor: &Hypervisor, config: &Config) -> Result<()> {
    let capabilities = hypervisor.versions()?.capabilities;
    if !capabilities.iter().any(|kind| kind == "xen-3.0-x86_64") {
        bail!("this hypervisor takes no 64-bit PV guests (it offers: {})", capabilities.join(" "));
    }
    let machine = hypervisor.physinfo()?;
    let (needed, free) = (pages_needed(config), machine.free_pages + machine.scrub_pages);
    if needed > free {
        bail!("{}", shortage_text(&config.name, needed, free));
    }
    Ok(())
}

/// Writes memory and registers: everything the guest starts from.
#[allow(clippy::too_many_arguments)]
fn fill(
    hypervisor: &Hypervisor,
    domain: DomId,
    kernel: &KernelImage<'_>,
    layout: &Layout,
    mut memory: DomainMemory<'_>,
    ramdisk: &[u8],
    config: &Config,
    ports: Ports,
) -> Result<StartOfDay> {
    let info = hypervisor.domain_info(domain)?.context("the new domain has vanished")?;
    let shared_info = Mfn(info.shared_info_frame);
    let params = BuildParams {
        cmdline: &config.cmdline,
        ramdisk,
        shared_info: shared_info.to_addr().context("the hypervisor tells no place of the domain's shared page")?,
        extra_flags: 0,
        store_evtchn: ports.store.0,
        console_evtchn: ports.console.0,
        dom0_console: &[],
    };
    let start = boot::builder::build(kernel, layout, &mut memory, &params)?;
    // A page that is still mapped writable here cannot become a page table.
    drop(memory);
    hypervisor.pin_l4(domain, start.cr3_mfn)?;
    write_shared_info(hypervisor, domain, shared_info)?;
    hypervisor.set_vcpu_context(domain, 0, &vcpu::first_context(&start))?;
    Ok(start)
}

/// No event is pending, none is delivered until the guest has set up its callbacks.
fn write_shared_info(hypervisor: &Hypervisor, domain: DomId, frame: Mfn) -> Result<()> {
    let mut info = SharedInfo::default();
    info.vcpu_info.iter_mut().for_each(|vcpu| vcpu.evtchn_upcall_mask = 1);
    let mut page = hypervisor.map_foreign(domain, &[frame])?;
    page.zero(0, boot::PAGE_SIZE as usize);
    page.write(0, info.as_bytes());
    Ok(())
}

/// Grants the store's and the console's page to those who serve them.
fn seed_grants(hypervisor: &Hypervisor, domain: DomId, xenstore: Mfn, console: Mfn) -> Result<()> {
    let mut table = hypervisor.map_grant_table(domain)?;
    for (reference, mfn) in [(RESERVED_CONSOLE, console), (RESERVED_XENSTORE, xenstore)] {
        let frame = u32::try_from(mfn.0).context("a page beyond what version 1 grants can name")?;
        let entry = EntryV1 { flags: GTF_PERMIT_ACCESS, domid: BACKEND.0, frame };
        table.write(reference as usize * size_of::<EntryV1>(), entry.as_bytes());
    }
    Ok(())
}
