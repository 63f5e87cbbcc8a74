//! A configuration as text, in the syntax it was read from.

use std::fmt;

use super::{Action, Config, Disk, Network, Pinning};
use crate::output::format_uuid;

/// A string in quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                _ => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Destroy => "destroy",
            Action::Restart => "restart",
            Action::Preserve => "preserve",
            Action::RenameRestart => "rename-restart",
        })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match (self.writable, self.shared) {
            (true, true) => "w!",
            (true, false) => "w",
            (false, _) => "r",
        };
        write!(f, "format=raw,vdev={},access={access}", self.vdev)?;
        if self.cdrom {
            f.write_str(",devtype=cdrom")?;
        }
        if !self.discard {
            f.write_str(",no-discard")?;
        }
        // Last, since a file's name may have anything in it.
        write!(f, ",target={}", self.target.display())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bridge={}", self.bridge)?;
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        if !self.ip.is_empty() {
            let addresses: Vec<String> = self.ip.iter().map(ToString::to_string).collect();
            write!(f, ",ip={}", addresses.join(" "))?;
        }
        if let Some(interface) = &self.interface {
            write!(f, ",vifname={interface}")?;
        }
        if let Some(rate) = self.rate {
            // Rounded up, so that reading it rounds down to the same.
            let bytes = (u64::from(rate.bytes) * 1_000_000).div_ceil(u64::from(rate.interval_us));
            write!(f, ",rate={bytes}B/s@{}us", rate.interval_us)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ",mtu={mtu}")?;
        }
        Ok(())
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, key: &str, values: &[T]) -> fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    writeln!(f, "{key} = [")?;
    for value in values {
        writeln!(f, "    {},", Quoted(&value.to_string()))?;
    }
    writeln!(f, "]")
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name = {}", Quoted(&self.name))?;
        if let Some(uuid) = &self.uuid {
            writeln!(f, "uuid = {}", Quoted(&format_uuid(uuid)))?;
        }
        writeln!(f, "kernel = {}", Quoted(&self.kernel.display().to_string()))?;
        if let Some(ramdisk) = &self.ramdisk {
            writeln!(f, "ramdisk = {}", Quoted(&ramdisk.display().to_string()))?;
        }
        writeln!(f, "cmdline = {}", Quoted(&self.cmdline))?;
        writeln!(f, "memory = {}\nmaxmem = {}", self.memory, self.max_memory)?;
        writeln!(f, "vcpus = {}\nmaxvcpus = {}", self.vcpus, self.max_vcpus)?;
        for (key, pinning) in [("cpus", &self.cpus), ("cpus_soft", &self.cpus_soft)] {
            match pinning {
                Pinning::None => {}
                Pinning::All(cpus) => writeln!(f, "{key} = {}", Quoted(&cpus.to_string()))?,
                Pinning::Each(each) => list(f, key, each)?,
            }
        }
        if let Some(weight) = self.weight {
            writeln!(f, "cpu_weight = {weight}")?;
        }
        if let Some(cap) = self.cap {
            writeln!(f, "cap = {cap}")?;
        }
        list(f, "disk", &self.disks)?;
        list(f, "vif", &self.networks)?;
        writeln!(f, "on_poweroff = {}", Quoted(&self.on_poweroff.to_string()))?;
        writeln!(f, "on_reboot = {}", Quoted(&self.on_reboot.to_string()))?;
        writeln!(f, "on_crash = {}", Quoted(&self.on_crash.to_string()))?;
        writeln!(f, "on_watchdog = {}", Quoted(&self.on_watchdog.to_string()))
    }
}
