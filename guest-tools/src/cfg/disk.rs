//! One entry of `disk = [ ... ]`, in all the ways xl-disk-configuration(5) lets people write it.
//!
//! ```text
//! target,format,vdev,access          /srv/root.img,raw,xvda,w        by position
//! key=value, ...                     format=raw, vdev=xvda, access=rw, target=/srv/root.img
//! prefix:target,vdev,access          phy:vg/root,xvda,w   file:/srv/root.img,xvda,w
//! ```
//!
//! They can be mixed. `target=` comes last and takes the rest, so that file names may have commas.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file or block device with its contents; absolute.
    pub target: PathBuf,
    /// Its name in the guest.
    pub vdev: Vdev,
    /// May the guest write?
    pub writable: bool,
    /// `w!`: others may have it at the same time.
    pub shared: bool,
    /// Is it a CD-ROM to the guest?
    pub cdrom: bool,
    /// May the guest give blocks back (discard)?
    pub discard: bool,
}

/// A disk's name, such as `xvda` or `sdb1`, and with it its number in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vdev {
    name: String,
    number: u32,
    place: (u32, u32),
}

impl Vdev {
    /// From its name; the error says what is wrong with it.
    pub fn parse(name: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{name}` is no disk's name: there are xvda to xvdzz, sda to sdp and hda to hdd, with a partition's number if need be"
            )
        };
        let (prefix, rest) =
            name.split_at_checked(3).filter(|(p, _)| *p == "xvd").or(name.split_at_checked(2)).ok_or_else(bad)?;
        let letters: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
        let digits = rest.get(letters.len()..).unwrap_or_default();
        if letters.is_empty()
            || letters.len() > 2
            || digits.starts_with('0')
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(bad());
        }
        let disk = letters.bytes().fold(0, |index, letter| index * 26 + u32::from(letter - b'a') + 1) - 1;
        let partition: u32 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| bad())? };
        // vbd-interface.7: a major and a minor number, or, beyond those of xvd, the extended scheme.
        let number = match prefix {
            "xvd" if disk < 16 && partition < 16 => 202 << 8 | disk << 4 | partition,
            "xvd" if partition < 256 => 1 << 28 | disk << 8 | partition,
            "sd" if disk < 16 && partition < 16 => 8 << 8 | disk << 4 | partition,
            "hd" if disk < 4 && partition < 64 => (if disk < 2 { 3 } else { 22 }) << 8 | (disk & 1) << 6 | partition,
            _ => return Err(bad()),
        };
        Ok(Vdev { name: name.to_owned(), number, place: (disk, partition) })
    }

    /// Its number in the store.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Linux shows `sda`, `hda` and `xvda` all as `xvda`: only one of them can be there.
    pub fn same_place(&self, other: &Vdev) -> bool {
        self.place == other.place
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl TryFrom<String> for Vdev {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Vdev::parse(&name)
    }
}

impl From<Vdev> for String {
    fn from(vdev: Vdev) -> String {
        vdev.name
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Parts {
    target: Option<PathBuf>,
    format: bool,
    vdev: Option<Vdev>,
    access: Option<(bool, bool)>,
    cdrom: bool,
    no_discard: bool,
}

impl Disk {
    /// Reads an entry; the error says what is wrong with it, without its place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Parts::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(target) = rest.strip_prefix("target=") {
                parts.target(Path::new(target))?;
                break;
            }
            let (word, after) = rest.split_once(',').unwrap_or((rest, ""));
            match word.split_once('=') {
                Some((key, value)) => parts.named(key.trim(), value.trim())?,
                None => parts.positional(word.trim())?,
            }
            rest = after.trim_start();
        }
        parts.into_disk()
    }
}

impl Parts {
    fn target(&mut self, path: &Path) -> Result<(), String> {
        if self.target.is_some() {
            return Err("it names two targets".into());
        }
        if path.as_os_str().is_empty() {
            return Err("its target is empty".into());
        }
        let path = std::path::absolute(path).map_err(|e| format!("its target {} has no place: {e}", path.display()))?;
        self.target = Some(path);
        Ok(())
    }

    /// `phy:`, `file:` and what else stood before targets in the days of xm.
    fn first(&mut self, word: &str) -> Result<(), String> {
        let mut rest = word;
        while let Some((prefix, after)) =
            rest.split_once(':').filter(|(p, _)| p.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            match prefix {
                "phy" | "file" | "tap" | "tap2" | "aio" => self.format = true,
                "raw" | "qcow" | "qcow2" | "vhd" | "vhdx" | "qed" => self.format(prefix)?,
                _ => {
                    return Err(format!(
                        "not supported: `{prefix}:`; make it a block device or a raw file in dom0 first"
                    ));
                }
            }
            rest = after;
            if prefix == "phy" && !rest.starts_with('/') {
                return self.target(&Path::new("/dev").join(rest));
            }
        }
        self.target(Path::new(rest))
    }

    fn positional(&mut self, word: &str) -> Result<(), String> {
        match word {
            "cdrom" => self.cdrom = true,
            "no-discard" => self.no_discard = true,
            // Speaks of QEMU's cache, which is not in the way here.
            "discard" | "direct-io-safe" => {}
            _ if self.target.is_none() => self.first(word)?,
            _ if !self.format => {
                if Vdev::parse(word).is_ok() {
                    return Err(format!("where its format is expected there is `{word}`; write raw before it"));
                }
                self.format(word)?;
            }
            _ if self.vdev.is_none() => self.vdev(word)?,
            _ if self.access.is_none() => self.access(word)?,
            _ => return Err(format!("`{word}` is one word too many")),
        }
        Ok(())
    }

    fn named(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("format", _) => self.format(value),
            ("vdev", _) => self.vdev(value),
            ("access", _) => self.access(value),
            ("devtype", "cdrom") => {
                self.cdrom = true;
                Ok(())
            }
            ("devtype", "disk") | ("backendtype", "phy") | ("script", "block") | ("backend", "0" | "Domain-0") => {
                Ok(())
            }
            ("devtype", _) => Err(format!("`devtype` is `{value}` and may be disk or cdrom")),
            ("backendtype", "qdisk" | "tap" | "standalone" | "other") => Err(format!(
                "not supported: backendtype={value}; without it the kernel's own back end (phy) serves the disk"
            )),
            ("backendtype", _) => Err(format!("`backendtype` is `{value}` and may be phy")),
            ("script", _) => {
                Err(format!("not supported: script={value}; make it a block device in dom0 first, and name that"))
            }
            ("backend", _) => Err(format!("not supported: backend={value}; disks come from dom0 only")),
            ("colo" | "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk", _) => {
                Err(format!("not supported: `{key}`; take it out"))
            }
            _ => Err(format!(
                "unknown key `{key}`; there are target, format, vdev, access, devtype, discard and no-discard"
            )),
        }
    }

    fn format(&mut self, value: &str) -> Result<(), String> {
        match value {
            "" | "raw" => {}
            "qcow" | "qcow2" | "vhd" | "vhdx" | "qed" => {
                return Err(format!(
                    "not supported: format {value}; make a raw file of it: qemu-img convert -O raw OLD NEW"
                ));
            }
            "empty" => {
                return Err("not supported: a drive without a medium (format empty); take the entry out".into());
            }
            _ => return Err(format!("`{value}` is no format there is; raw is supported")),
        }
        self.format = true;
        Ok(())
    }

    fn vdev(&mut self, value: &str) -> Result<(), String> {
        let name = match value.split_once(':') {
            Some((name, "cdrom")) => {
                self.cdrom = true;
                name
            }
            Some((name, "disk")) => name,
            _ => value,
        };
        self.vdev = Some(Vdev::parse(name)?);
        Ok(())
    }

    fn access(&mut self, value: &str) -> Result<(), String> {
        self.access = Some(match value {
            "" | "w" | "rw" => (true, false),
            "r" | "ro" => (false, false),
            "w!" => (true, true),
            _ => {
                return Err(format!("its access is `{value}` and may be r or w (ro or rw)"));
            }
        });
        Ok(())
    }

    fn into_disk(self) -> Result<Disk, String> {
        let target = self.target.ok_or("it names no target: a raw file or a block device")?;
        let vdev = self.vdev.ok_or("it names no vdev, the disk's name in the guest, such as xvda")?;
        // A CD-ROM is read, whatever access its disk was to have.
        let access = self.access.filter(|_| !self.cdrom);
        let (writable, shared) = access.unwrap_or((!self.cdrom, false));
        Ok(Disk { target, vdev, writable, shared, cdrom: self.cdrom, discard: !self.no_discard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(text: &str) -> Disk {
        Disk::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn error(text: &str) -> String {
        Disk::parse(text).unwrap_err()
    }

    #[test]
    fn all_spellings_mean_the_same() {
        let wanted = disk("/dev/vg/guest-volume,raw,xvda,rw");
        assert_eq!(
            wanted,
            Disk {
                target: "/dev/vg/guest-volume".into(),
                vdev: Vdev::parse("xvda").unwrap(),
                writable: true,
                shared: false,
                cdrom: false,
                discard: true
            }
        );
        // From xl-disk-configuration(5) and from configurations people have published.
        for text in [
            "/dev/vg/guest-volume,,xvda",
            "/dev/vg/guest-volume, raw, xvda, w",
            "format=raw, vdev=xvda, access=rw, target=/dev/vg/guest-volume",
            "raw:/dev/vg/guest-volume,xvda,w",
            "phy:/dev/vg/guest-volume,xvda,w",
            "phy:vg/guest-volume,xvda,w",
            "file:/dev/vg/guest-volume,xvda,w",
            "tap:aio:/dev/vg/guest-volume,xvda,w",
            "vdev=xvda,/dev/vg/guest-volume",
            "phy:/dev/vg/guest-volume,xvda,w,backendtype=phy",
            "vdev=xvda,direct-io-safe,discard,script=block,backend=0,target=/dev/vg/guest-volume",
        ] {
            assert_eq!(disk(text), wanted, "{text}");
        }
    }

    #[test]
    fn access_and_kind() {
        assert!(!disk("/i,raw,xvda,r").writable);
        assert!(!disk("/i,raw,xvda,ro").writable);
        assert!(disk("/i,raw,xvda,w!").shared);
        assert!(!disk("/i,raw,xvda,w,no-discard").discard);
        for text in ["/i,raw,hdc,devtype=cdrom", "/i,raw,hdc,cdrom", "file:/i,hdc:cdrom,r", "/i,,hdc,r,devtype=cdrom"] {
            assert!(disk(text).cdrom && !disk(text).writable, "{text}");
        }
        for text in ["/i,raw,hdc,w!,devtype=cdrom", "/i,raw,hdc,w,cdrom"] {
            let d = disk(text);
            assert!(d.cdrom && !d.writable && !d.shared, "{text}");
        }
        assert_eq!(disk("vdev=xvda,target=/srv/a, b.img").target, Path::new("/srv/a, b.img"));
        assert!(disk("here.img,raw,xvda").target.is_absolute());
    }

    #[test]
    fn numbers_in_the_store() {
        let number = |name: &str| Vdev::parse(name).unwrap().number();
        // The examples of vbd-interface(7).
        assert_eq!(number("xvda"), 51712);
        assert_eq!(number("xvdb1"), 51729);
        assert_eq!(number("xvdp15"), 51967);
        assert_eq!(number("xvdq"), 1 << 28 | 16 << 8);
        assert_eq!(number("xvda16"), 1 << 28 | 16);
        assert_eq!(number("xvdaa"), 1 << 28 | 26 << 8);
        assert_eq!(number("sda"), 2048);
        assert_eq!(number("sdb3"), 2067);
        assert_eq!(number("hda1"), 769);
        assert_eq!(number("hdd2"), 22 << 8 | 64 | 2);
        for bad in [
            "",
            "x",
            "xvd",
            "xvd1",
            "xvda01",
            "xvda0",
            "sdq",
            "hde",
            "nvme0n1",
            "d0p1",
            "xvdA",
            "xvda1x",
            "xvda256",
            "xvdaaa",
            "vda",
            "xvda99999999999",
            "é",
        ] {
            assert!(Vdev::parse(bad).is_err(), "{bad}");
        }
        assert!(Vdev::parse("sda").unwrap().same_place(&Vdev::parse("xvda").unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error(""), "it names no target: a raw file or a block device");
        assert_eq!(error("/i"), "it names no vdev, the disk's name in the guest, such as xvda");
        assert_eq!(error("/i,xvda,w"), "where its format is expected there is `xvda`; write raw before it");
        assert_eq!(
            error("/i,qcow2,xvda"),
            "not supported: format qcow2; make a raw file of it: qemu-img convert -O raw OLD NEW"
        );
        assert_eq!(
            error("qcow2:/i,xvda"),
            "not supported: format qcow2; make a raw file of it: qemu-img convert -O raw OLD NEW"
        );
        assert_eq!(
            error("iscsi:x,xvda"),
            "not supported: `iscsi:`; make it a block device or a raw file in dom0 first"
        );
        assert_eq!(
            error("/i,raw,nvme0n1"),
            "`nvme0n1` is no disk's name: there are xvda to xvdzz, sda to sdp and hda to hdd, with a partition's number if need be"
        );
        assert_eq!(error("/i,raw,xvda,x"), "its access is `x` and may be r or w (ro or rw)");
        assert_eq!(error("/i,raw,xvda,w,w"), "`w` is one word too many");
        assert_eq!(
            error("/i,raw,xvda,backendtype=qdisk"),
            "not supported: backendtype=qdisk; without it the kernel's own back end (phy) serves the disk"
        );
        assert_eq!(
            error("/i,raw,xvda,acces=w"),
            "unknown key `acces`; there are target, format, vdev, access, devtype, discard and no-discard"
        );
        assert_eq!(error("/i,raw,xvda,target=/j"), "it names two targets");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC,=:]{0,60}") {
            let _ = Disk::parse(&text);
        }

        #[test]
        fn different_names_have_different_numbers(one in "(xvd[a-z]{1,2}|sd[a-p]|hd[a-d])[1-9]?", other in "(xvd[a-z]{1,2}|sd[a-p]|hd[a-d])[1-9]?") {
            let (a, b) = (Vdev::parse(&one).unwrap(), Vdev::parse(&other).unwrap());
            prop_assert_eq!(a.number() == b.number(), one == other);
        }
    }
}
