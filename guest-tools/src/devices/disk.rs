//! Disks: block devices, and raw files behind loop devices.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pv_abi::ids::DomId;
use rustix::fs::OFlags;
use serde::Serialize;

use super::loops::{self, Loop};
use super::{Device, Kind, State, load, load_backend, look_until};
use crate::cfg::{Disk, Vdev};
use crate::find;
use crate::xs::{Store, StoreError};

/// The device of a disk.
pub fn device(domain: DomId, vdev: &Vdev) -> Device {
    Device { kind: Kind::Disk, domain, number: vdev.number() }
}

/// A target that is open: file, what it is, and its size in bytes.
fn open(disk: &Disk) -> Result<(File, Metadata)> {
    let path = disk.target.display();
    let file = OpenOptions::new()
        .read(true)
        .write(disk.writable)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(&disk.target)
        .with_context(|| match disk.writable {
            true => format!("{path} cannot be opened for reading and writing"),
            false => format!("{path} cannot be opened"),
        })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        bail!("{path} is neither a file nor a block device");
    }
    if metadata.is_file() && metadata.len() < 512 {
        bail!("{path} is empty: give it a size first, such as truncate -s 4G {path}");
    }
    Ok((file, metadata))
}

/// What tells a target from others, whatever its name.
#[derive(PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Block(u64),
}

fn identity(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        Identity::Block(metadata.rdev())
    } else {
        Identity::File(metadata.dev(), metadata.ino())
    }
}

/// Fails if a disk cannot be had: it is not there, or somebody else has it in a way that does not go with ours.
pub fn check(store: &mut Store, disk: &Disk) -> Result<()> {
    let (_, metadata) = open(disk)?;
    if disk.shared {
        return Ok(());
    }
    let path = disk.target.display();
    for other in super::of_all(store, Kind::Disk)? {
        let Some(target) = other.read(store, "params")? else {
            continue;
        };
        let same = std::fs::metadata(&target).is_ok_and(|found| identity(&found) == identity(&metadata));
        let writes = other.read(store, "mode")?.is_some_and(|mode| mode.starts_with('w'));
        if same && (disk.writable || writes) {
            bail!("{path} is a disk of domain `{}` already; w! as access shares it", find::name(store, other.domain)?);
        }
    }
    if !disk.writable {
        return Ok(());
    }
    if metadata.is_file() {
        if let Some(loop_device) = loops::of_file(&disk.target) {
            bail!("{path} is in use in dom0 as {}; losetup -d frees it", loop_device.display());
        }
    } else {
        // A mounted device, one in use as swap or by LVM cannot be opened exclusively.
        let exclusive = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::EXCL | OFlags::NONBLOCK).bits() as i32)
            .open(&disk.target);
        if let Err(e) = exclusive {
            bail!("{path} is in use in dom0 ({e}); unmount it there, or write w! as access to share it");
        }
    }
    Ok(())
}

/// Fails if one of the same domain's other disks is the same file or device, and one of both can be written.
pub fn check_others(others: &[Disk], disk: &Disk) -> Result<()> {
    let this = std::fs::metadata(&disk.target)?;
    for other in others.iter().filter(|other| (other.writable || disk.writable) && !(other.shared || disk.shared)) {
        if std::fs::metadata(&other.target).is_ok_and(|found| identity(&found) == identity(&this)) {
            bail!("{} is the disk {} already; w! as access shares it", disk.target.display(), other.vdev);
        }
    }
    Ok(())
}

/// A disk as a block device: the device's path and number, and what keeps a loop device alive until the back end has it.
struct Opened {
    path: PathBuf,
    number: u64,
    _keep: (Option<Loop>, File),
}

fn as_block_device(disk: &Disk) -> Result<Opened> {
    let (file, metadata) = open(disk)?;
    if metadata.file_type().is_block_device() {
        return Ok(Opened { path: disk.target.clone(), number: metadata.rdev(), _keep: (None, file) });
    }
    load("loop", Path::new("/dev/loop-control"))?;
    let made = Loop::attach(&file, &disk.target, disk.writable)
        .with_context(|| format!("{} cannot be made a loop device", disk.target.display()))?;
    let number = std::fs::metadata(&made.path)?.rdev();
    Ok(Opened { path: made.path.clone(), number, _keep: (Some(made), file) })
}

/// The nodes of the back end's directory.
fn backend_nodes(disk: &Disk, opened: &Opened) -> Vec<(&'static str, String)> {
    let (major, minor) = (rustix::fs::major(opened.number), rustix::fs::minor(opened.number));
    let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
    vec![
        ("online", flag(true)),
        ("removable", flag(disk.cdrom)),
        ("bootable", flag(true)),
        ("dev", disk.vdev.to_string()),
        ("type", "phy".into()),
        ("mode", if disk.writable { "w" } else { "r" }.into()),
        ("device-type", if disk.cdrom { "cdrom" } else { "disk" }.into()),
        ("discard-enable", flag(disk.discard && disk.writable)),
        ("params", disk.target.display().to_string()),
        ("node", opened.path.display().to_string()),
        ("physical-device-path", opened.path.display().to_string()),
        ("physical-device", format!("{major:x}:{minor:x}")),
        ("hotplug-status", "connected".into()),
    ]
}

/// Gives a domain a disk, and waits until the back end has it. If that fails, nothing of it is left.
pub fn attach(store: &mut Store, domain: DomId, disk: &Disk) -> Result<()> {
    try_attach(store, domain, disk).with_context(|| format!("the disk {} ({})", disk.vdev, disk.target.display()))
}

fn try_attach(store: &mut Store, domain: DomId, disk: &Disk) -> Result<()> {
    load_backend(Kind::Disk)?;
    let opened = as_block_device(disk)?;
    let device = device(domain, &disk.vdev);
    let front = [
        ("virtual-device", device.number.to_string()),
        ("device-type", if disk.cdrom { "cdrom" } else { "disk" }.to_owned()),
    ];
    device.write(store, &front, &backend_nodes(disk, &opened))?;
    let result = device.wait_for_backend(store).and_then(|()| wait_until_open(store, device));
    if result.is_err() {
        // What went wrong first is what counts.
        let _ = device.remove(store);
    }
    result
}

/// Waits until the back end has opened the block device: from then on a loop device lives as long as the back end.
fn wait_until_open(store: &mut Store, device: Device) -> Result<()> {
    let open = device.sysfs().join("physical_device");
    let opened = look_until(|| {
        if let Some(complaint) = device.complaint(store)? {
            bail!("{} refuses it: {complaint}", device.kind.module());
        }
        Ok(open.exists())
    })?;
    if !opened {
        bail!("{} did not open it; the kernel's log (dmesg) may say why", device.kind.module());
    }
    Ok(())
}

/// A disk as `dom block-list` shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name in the guest.
    pub vdev: String,
    /// Its number in the store.
    pub number: u32,
    /// File or device.
    pub target: String,
    /// The block device that is served: the target or a loop device.
    pub device: String,
    /// May the guest write?
    pub writable: bool,
    /// How far the guest's driver is.
    pub frontend: State,
    /// How far dom0's driver is.
    pub backend: State,
}

/// A domain's disks.
pub fn list(store: &mut Store, domain: DomId) -> Result<Vec<Listed>, StoreError> {
    super::of_domain(store, Kind::Disk, domain)?.into_iter().map(|device| listed(store, device)).collect()
}

/// One disk or interface.
pub fn listed(store: &mut Store, device: Device) -> Result<Listed, StoreError> {
    let (frontend, backend) = device.states(store)?;
    let mut node = |name: &str| device.read(store, name).map(Option::unwrap_or_default);
    Ok(Listed {
        vdev: node("dev")?,
        number: device.number,
        target: node("params")?,
        device: node("physical-device-path")?,
        writable: node("mode")?.starts_with('w'),
        frontend,
        backend,
    })
}
