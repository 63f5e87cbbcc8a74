//! A domain's configuration: which xl.cfg settings there are, and what they mean.

mod cpus;
mod disk;
mod network;
mod syntax;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cpus::{Cpus, Pinning, ranges};
pub use disk::{Disk, Vdev};
pub use network::{Mac, Network, check_interface};
pub use syntax::ConfigError;
use syntax::{Place, Setting, Value};

/// The most vCPUs a domain may ask for; beyond 32 a guest has no vcpu_info at its start.
const MAX_VCPUS: u64 = 32;
/// The most memory, MiB: what the start-of-day layout can describe with ease.
const MAX_MEMORY: u64 = 16 << 20;
/// Names are used in paths of the store and of log files.
pub const MAX_NAME: usize = 64;

/// Settings of xl that give a domain something these tools cannot give it. They are refused: a domain that lacks its device is
/// worse than none.
const REFUSED: &[&str] = &[
    "channel",
    "console",
    "cpuid",
    "device_tree",
    "driver_domain",
    "e820_host",
    "gfx_passthru",
    "ioports",
    "iomem",
    "irqs",
    "nics",
    "p9",
    "passthrough",
    "pci",
    "pool",
    "pvcalls",
    "rdm",
    "seclabel",
    "usbctrl",
    "usbdev",
    "vdispl",
    "vnuma",
    "vsnd",
    "vtpm",
    "xen_9pfs",
    "init_seclabel",
    "device_model_stubdomain_override",
];

/// Settings of xl that a PV guest without a screen does not notice, or that only advise. They are named in a warning.
const IGNORED: &[&str] = &[
    "acpi",
    "acpi_firmware",
    "acpi_s3",
    "acpi_s4",
    "altp2m",
    "apic",
    "bios",
    "boot",
    "claim_mode",
    "device_model_args",
    "device_model_override",
    "device_model_user",
    "device_model_version",
    "dhcp",
    "disable_migrate",
    "firmware",
    "gateway",
    "hap",
    "hostname",
    "hpet",
    "ip",
    "keymap",
    "localtime",
    "max_event_channels",
    "max_grant_frames",
    "max_grant_version",
    "max_maptrack_frames",
    "memory_sharing",
    "monitor",
    "ms_vm_genid",
    "mwait",
    "nestedhvm",
    "netmask",
    "nomigrate",
    "nx",
    "on_soft_reset",
    "pae",
    "parallel",
    "pci_msitranslate",
    "pci_permissive",
    "pci_power_mgmt",
    "pci_seize",
    "rtc_timeoffset",
    "sdl",
    "serial",
    "shadow_memory",
    "smbios_firmware",
    "soundhw",
    "spice",
    "stdvga",
    "suppress_global_vmgenid",
    "timer_mode",
    "tsc_mode",
    "uefi",
    "usb",
    "usbdevice",
    "usbversion",
    "vcpu_hard_affinity",
    "vcpu_soft_affinity",
    "vendor_device",
    "vfb",
    "vga",
    "videoram",
    "viridian",
    "vkb",
    "vnc",
    "vncconsole",
    "vncdisplay",
    "vnclisten",
    "vncpasswd",
    "vncunused",
    "vncviewer",
    "vpt_align",
    "vspt",
    "xend_suspend_evtchn_compat",
    "xenstore",
];

/// What stands in for a boot loader that runs in dom0.
const GRUB: &str = "kernel = \"/usr/lib/grub-xen/grub-x86_64-xen.bin\" boots from the guest's own disk instead";

/// What happens when a domain has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// All of it is given back.
    Destroy,
    /// It is destroyed and made anew from the same configuration.
    Restart,
    /// It stays as it is, to be looked at, until somebody destroys it.
    Preserve,
    /// It gets another name, stays as with `Preserve` but for its devices, and is made anew under its own name.
    #[serde(rename = "rename-restart")]
    RenameRestart,
}

/// A domain to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Unique among the domains that run.
    pub name: String,
    /// 16 bytes that tell it from all others; chosen by chance if it has none.
    pub uuid: Option<[u8; 16]>,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initrd's.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Memory it starts with, MiB.
    pub memory: u64,
    /// Memory it may have, MiB; not below `memory`.
    pub max_memory: u64,
    /// vCPUs it starts with.
    pub vcpus: u32,
    /// vCPUs it may bring up; not below `vcpus`.
    pub max_vcpus: u32,
    /// Which CPUs its vCPUs may run on.
    pub cpus: Pinning,
    /// Which of them they prefer.
    #[serde(default)]
    pub cpus_soft: Pinning,
    /// Its share of the CPUs; the scheduler's own default (256) if there is none.
    pub weight: Option<u16>,
    /// The most it may use, in hundredths of a CPU; 0 is no limit.
    pub cap: Option<u16>,
    /// Its disks; no two have the same name in the guest.
    pub disks: Vec<Disk>,
    /// Its network interfaces; each has its address.
    pub networks: Vec<Network>,
    /// After it powered off.
    pub on_poweroff: Action,
    /// After it asked for a reboot.
    pub on_reboot: Action,
    /// After it crashed.
    pub on_crash: Action,
    /// After its watchdog was not fed.
    pub on_watchdog: Action,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not text.
    #[error("the configuration {} is not a text file", .0.display())]
    NotText(PathBuf),
    /// Something in it is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads a configuration file; `overrides` are `key=value` words that come after it. What of it is not heeded is told on
/// stderr.
pub fn load(path: &Path, overrides: &[String]) -> Result<Config, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| LoadError::NotText(path.to_owned()))?;
    let (config, warnings) = parse_all(&path.display().to_string(), &text, overrides)?;
    for warning in warnings {
        eprintln!("dom: warning: {warning}");
    }
    Ok(config)
}

/// The configuration, and what of the text it does not heed.
fn parse_all(file: &str, text: &str, overrides: &[String]) -> Result<(Config, Vec<String>), ConfigError> {
    let mut settings = syntax::parse(file, text)?;
    for text in overrides {
        settings.push(syntax::parse_override(text)?);
    }
    let whole = Place { file: file.into(), line: 0 };
    // The last one of several with the same name counts.
    Settings { map: settings.into_iter().map(|s| (s.key.clone(), s)).collect(), whole, warnings: Vec::new() }
        .into_config()
}

/// Can a domain have this name? The error says why not.
pub fn check_name(name: &str) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || "_-.+:".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(usable) {
        return Err(format!(
            "the name `{name}` must have 1 to {MAX_NAME} of these characters: letters, digits, and _ - . + :"
        ));
    }
    if name.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!(
            "the name `{name}` is a number, so that it would be taken for a domain's id; give it a letter"
        ));
    }
    Ok(())
}

/// The settings by name; each is taken out as it is understood.
struct Settings {
    map: BTreeMap<String, Setting>,
    whole: Place,
    /// What is not heeded.
    warnings: Vec<String>,
}

fn error<T>(place: &Place, what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { place: place.clone(), what: what.into() })
}

impl Settings {
    fn into_config(mut self) -> Result<(Config, Vec<String>), ConfigError> {
        self.check_kind()?;
        let name = self.name()?;
        let Some(kernel) = self.text("kernel")?.filter(|k| !k.is_empty()) else {
            if let Some(Setting { key, place, .. }) = self.map.get("bootloader") {
                return error(place, format!("not supported: {key}; {GRUB}"));
            }
            return error(&self.whole, "there is no `kernel` in it; add a line like kernel = \"/boot/vmlinuz\"");
        };
        let ramdisk = self.text("ramdisk")?.filter(|r| !r.is_empty()).map(PathBuf::from);
        let cmdline = self.cmdline()?;
        let memory = self.number("memory", 1..=MAX_MEMORY)?;
        let max_memory = self.number("maxmem", 1..=MAX_MEMORY)?;
        let Some(memory) = memory.or(max_memory) else {
            return error(&self.whole, "there is no `memory` in it; add a line like memory = 256 (MiB)");
        };
        let vcpus = self.number("vcpus", 1..=MAX_VCPUS)?;
        let max_vcpus = self.number("maxvcpus", 1..=MAX_VCPUS)?.or(vcpus).unwrap_or(1);
        let vcpus = vcpus.unwrap_or(max_vcpus);
        let uuid = self.uuid()?;
        let disks = self.disks()?;
        let networks = self.networks(&name)?;
        // The watcher that makes it anew runs in another directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let config = Config {
            name,
            uuid,
            kernel: absolute(kernel.into()),
            ramdisk: ramdisk.map(absolute),
            cmdline,
            memory,
            max_memory: max_memory.unwrap_or(memory),
            vcpus: vcpus as u32,
            max_vcpus: max_vcpus as u32,
            cpus: self.cpus("cpus")?,
            cpus_soft: self.cpus("cpus_soft")?,
            weight: self.number("cpu_weight", 1..=65535)?.map(|weight| weight as u16),
            cap: self.number("cap", 0..=65535)?.map(|cap| cap as u16),
            disks,
            networks,
            on_poweroff: self.action("on_poweroff")?.unwrap_or(Action::Destroy),
            on_reboot: self.action("on_reboot")?.unwrap_or(Action::Restart),
            on_crash: self.action("on_crash")?.unwrap_or(Action::Preserve),
            on_watchdog: self.action("on_watchdog")?.unwrap_or(Action::Destroy),
        };
        if config.max_memory < config.memory {
            return error(&self.whole, format!("`maxmem` ({}) is less than `memory` ({memory})", config.max_memory));
        }
        if config.max_vcpus < config.vcpus {
            return error(&self.whole, format!("`maxvcpus` ({max_vcpus}) is less than `vcpus` ({vcpus})"));
        }
        self.check_rest()?;
        Ok((config, self.warnings))
    }

    fn take(&mut self, key: &str) -> Option<Setting> {
        self.map.remove(key)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting { value: Value::Text(text), .. }) => Ok(Some(text)),
            Some(Setting { place, .. }) => error(&place, format!("`{key}` must be a string in quotes")),
        }
    }

    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, ConfigError> {
        let Some(Setting { value, place, .. }) = self.take(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => Some(number),
            // xl takes numbers in quotes, too.
            Value::Text(text) => text.trim().parse().ok(),
            Value::List(_) => None,
        };
        match number {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            Some(number) => {
                error(&place, format!("`{key}` is {number} and may be {} to {}", range.start(), range.end()))
            }
            None => error(&place, format!("`{key}` must be a number")),
        }
    }

    /// A list of strings; a single string is a list of one.
    fn texts(&mut self, key: &str) -> Result<(Vec<String>, Place), ConfigError> {
        let Some(Setting { value, place, .. }) = self.take(key) else {
            return Ok((Vec::new(), self.whole.clone()));
        };
        let values = match value {
            Value::List(values) => values,
            Value::Text(text) if text.is_empty() => Vec::new(),
            text @ Value::Text(_) => vec![text],
            Value::Number(_) => {
                return error(&place, format!("`{key}` must be a list of strings: {key} = [ \"...\" ]"));
            }
        };
        let text = |value| match value {
            Value::Text(text) => Ok(text),
            _ => error(&place, format!("the list of `{key}` must hold strings in quotes")),
        };
        Ok((values.into_iter().map(text).collect::<Result<_, _>>()?, place))
    }

    /// `cpus = "0-3"` for all vCPUs, or a list with an entry for each; `cpus_soft` likewise.
    fn cpus(&mut self, key: &str) -> Result<Pinning, ConfigError> {
        let Some(Setting { value, place, .. }) = self.take(key) else {
            return Ok(Pinning::None);
        };
        let cpus = |value| match value {
            Value::Text(text) => Cpus::parse(&text).or_else(|what| error(&place, format!("`{key}`: {what}"))),
            Value::Number(cpu) => {
                Cpus::parse(&cpu.to_string()).or_else(|what| error(&place, format!("`{key}`: {what}")))
            }
            Value::List(_) => error(&place, format!("`{key}` must be a string such as \"0-3\", or a list of such")),
        };
        match value {
            Value::Text(text) if text.is_empty() => Ok(Pinning::None),
            Value::List(list) if list.is_empty() => Ok(Pinning::None),
            Value::List(list) => Ok(Pinning::Each(list.into_iter().map(cpus).collect::<Result<_, _>>()?)),
            value => Ok(Pinning::All(cpus(value)?)),
        }
    }

    fn disks(&mut self) -> Result<Vec<Disk>, ConfigError> {
        let (texts, place) = self.texts("disk")?;
        let mut disks: Vec<Disk> = Vec::new();
        for text in texts {
            let disk = Disk::parse(&text).or_else(|what| error(&place, format!("the disk '{text}': {what}")))?;
            if let Some(other) = disks.iter().find(|other| other.vdev.same_place(&disk.vdev)) {
                let what = format!(
                    "the disk '{text}': `{}` is there already as `{}`; Linux shows both as the same",
                    disk.vdev, other.vdev
                );
                return error(&place, what);
            }
            disks.push(disk);
        }
        Ok(disks)
    }

    fn networks(&mut self, name: &str) -> Result<Vec<Network>, ConfigError> {
        let (texts, place) = self.texts("vif")?;
        let mut networks: Vec<Network> = Vec::new();
        for (number, text) in texts.into_iter().enumerate() {
            let mut network =
                Network::parse(&text).or_else(|what| error(&place, format!("the vif '{text}': {what}")))?;
            let mac = *network.mac.get_or_insert_with(|| Mac::of(name, number as u32));
            if networks.iter().any(|other| other.mac == Some(mac)) {
                return error(&place, format!("the vif '{text}': another one has the MAC address {mac}, too"));
            }
            networks.push(network);
        }
        Ok(networks)
    }

    fn name(&mut self) -> Result<String, ConfigError> {
        let place = self.map.get("name").map(|setting| setting.place.clone());
        let (Some(name), Some(place)) = (self.text("name")?, place) else {
            return error(&self.whole, "there is no `name` in it; add a line like name = \"demo\"");
        };
        check_name(&name).or_else(|what| error(&place, what))?;
        Ok(name)
    }

    /// `cmdline` stands for the whole; otherwise it is made of `root` and `extra`, as xl does.
    fn cmdline(&mut self) -> Result<String, ConfigError> {
        let (root, extra) = (self.text("root")?, self.text("extra")?);
        if let Some(cmdline) = self.text("cmdline")? {
            return Ok(cmdline);
        }
        let root = root.filter(|root| !root.is_empty()).map(|root| format!("root={root}"));
        Ok([root, extra].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    fn uuid(&mut self) -> Result<Option<[u8; 16]>, ConfigError> {
        let place = self.map.get("uuid").map(|setting| setting.place.clone());
        let (Some(text), Some(place)) = (self.text("uuid")?, place) else {
            return Ok(None);
        };
        match crate::output::parse_uuid(&text) {
            Some(uuid) => Ok(Some(uuid)),
            None => error(&place, format!("the uuid `{text}` must look like 01234567-89ab-cdef-0123-456789abcdef")),
        }
    }

    fn action(&mut self, key: &str) -> Result<Option<Action>, ConfigError> {
        let place = self.map.get(key).map(|setting| setting.place.clone());
        let (Some(text), Some(place)) = (self.text(key)?, place) else {
            return Ok(None);
        };
        match text.as_str() {
            "destroy" => Ok(Some(Action::Destroy)),
            "restart" => Ok(Some(Action::Restart)),
            "preserve" => Ok(Some(Action::Preserve)),
            "rename-restart" => Ok(Some(Action::RenameRestart)),
            "coredump-destroy" | "coredump-restart" => {
                self.warnings.push(format!("{place}: {key} = \"{text}\" is heeded without the core dump"));
                Ok(Some(if text == "coredump-destroy" { Action::Destroy } else { Action::Restart }))
            }
            "soft-reset" => error(
                &place,
                format!("not supported: {key} = \"{text}\"; there are destroy, restart, rename-restart and preserve"),
            ),
            _ => error(&place, format!("`{key}` is `{text}` and may be destroy, restart, rename-restart or preserve")),
        }
    }

    /// Only PV guests.
    fn check_kind(&mut self) -> Result<(), ConfigError> {
        for (key, pv) in [("type", "pv"), ("builder", "linux")] {
            let place = self.map.get(key).map(|setting| setting.place.clone());
            if let (Some(kind), Some(place)) = (self.text(key)?, place)
                && kind != pv
                && !(key == "builder" && kind == "generic")
            {
                return error(
                    &place,
                    format!("not supported: {key} = \"{kind}\"; only PV guests can be started (type = \"pv\")"),
                );
            }
        }
        Ok(())
    }

    /// What is left is refused, or named in a warning, or does not ask for anything.
    fn check_rest(&mut self) -> Result<(), ConfigError> {
        // In the order of the file, so that the first mistake is the one that is told.
        let mut left: Vec<&Setting> = self.map.values().collect();
        left.sort_by_key(|setting| (setting.place.line == 0, setting.place.line));
        let mut warnings = Vec::new();
        for Setting { key, value, place } in left {
            let known =
                REFUSED.contains(&key.as_str()) || IGNORED.contains(&key.as_str()) || key.starts_with("bootloader");
            if known && value.is_nothing() {
                continue;
            }
            if key.starts_with("bootloader") {
                return error(place, format!("not supported: {key}; {GRUB}"));
            } else if REFUSED.contains(&key.as_str()) {
                return error(place, format!("not supported: {key}; take it out to start the domain without it"));
            } else if known {
                warnings.push(format!("{place}: `{key}` is not heeded: it does nothing for a PV guest here"));
            } else if let Some(meant) = nearest(key) {
                return error(place, format!("unknown setting `{key}`; is `{meant}` meant?"));
            } else {
                warnings.push(format!("{place}: `{key}` is not heeded: no such setting is known"));
            }
        }
        self.warnings.extend(warnings);
        Ok(())
    }
}

/// The known setting that differs from `key` the least, if it is near enough to be a slip.
fn nearest(key: &str) -> Option<&'static str> {
    const KNOWN: &[&str] = &[
        "name",
        "uuid",
        "kernel",
        "ramdisk",
        "cmdline",
        "root",
        "extra",
        "memory",
        "maxmem",
        "vcpus",
        "maxvcpus",
        "on_poweroff",
        "on_reboot",
        "on_crash",
        "on_watchdog",
        "type",
        "builder",
        "disk",
        "vif",
        "cpus",
        "cpus_soft",
        "cpu_weight",
        "cap",
    ];
    KNOWN.iter().map(|known| (distance(key, known), *known)).filter(|(d, _)| *d <= 2).min().map(|(_, known)| known)
}

/// Letters to change, add or take away to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.chars()) {
            let value = (diagonal + usize::from(a != b)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, value);
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Config, ConfigError> {
    parse_all(file, text, overrides).map(|(config, _)| config)
}

#[cfg(test)]
impl Config {
    /// The least there is, for tests.
    pub fn least(name: &str) -> Self {
        let text = format!("name = \"{name}\"\nkernel = \"/k\"\nmemory = 96\n");
        parse("test", &text, &[]).unwrap_or_else(|e| panic!("{e}"))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
