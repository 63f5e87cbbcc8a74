//! Configurations good and bad, with the exact words of each complaint.

use super::*;

const GOOD: &str = "name = \"g\"\nkernel = \"/k\"\nmemory = 96\n";

fn config(text: &str) -> Config {
    parse("g.cfg", text, &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn error_of(text: &str) -> String {
    parse("g.cfg", text, &[]).unwrap_err().to_string()
}

/// The complaint about GOOD with one more line, which is its fourth.
fn error_with(line: &str) -> String {
    error_of(&format!("{GOOD}{line}\n"))
}

#[test]
fn the_least_configuration() {
    assert_eq!(
        config(GOOD),
        Config {
            name: "g".into(),
            uuid: None,
            kernel: "/k".into(),
            ramdisk: None,
            cmdline: String::new(),
            memory: 96,
            max_memory: 96,
            vcpus: 1,
            max_vcpus: 1,
            cpus: Pinning::None,
            cpus_soft: Pinning::None,
            weight: None,
            cap: None,
            disks: Vec::new(),
            networks: Vec::new(),
            on_poweroff: Action::Destroy,
            on_reboot: Action::Restart,
            on_crash: Action::Preserve,
            on_watchdog: Action::Destroy,
        }
    );
}

#[test]
fn disks_and_networks() {
    let both = config(&format!(
        "{GOOD}disk = [\n  'phy:/dev/vg/root,xvda,w',  # root\n  \"format=raw, vdev=xvdb, access=ro, target=/srv/data.img\",\n]\nvif = [ '', 'bridge=br1' ]\n"
    ));
    assert_eq!(
        both.disks.iter().map(|d| (d.vdev.to_string(), d.writable)).collect::<Vec<_>>(),
        [("xvda".into(), true), ("xvdb".into(), false)]
    );
    assert_eq!(both.networks.iter().map(|n| n.mac).collect::<Vec<_>>(), [Some(Mac::of("g", 0)), Some(Mac::of("g", 1))]);
    assert_eq!(
        error_with("disk = [ '/a,raw,xvda', '/b,raw,sda' ]"),
        "g.cfg:4: the disk '/b,raw,sda': `sda` is there already as `xvda`; Linux shows both as the same"
    );
    assert_eq!(
        error_with("disk = [ '/a' ]"),
        "g.cfg:4: the disk '/a': it names no vdev, the disk's name in the guest, such as xvda"
    );
    assert_eq!(error_with("disk = [ 5 ]"), "g.cfg:4: the list of `disk` must hold strings in quotes");
    assert_eq!(error_with("disk = 5"), "g.cfg:4: `disk` must be a list of strings: disk = [ \"...\" ]");
    assert_eq!(
        error_with("vif = [ 'mac=00:16:3e:00:00:01', 'mac=00:16:3e:00:00:01' ]"),
        "g.cfg:4: the vif 'mac=00:16:3e:00:00:01': another one has the MAC address 00:16:3e:00:00:01, too"
    );
    let stored = serde_json::to_vec(&both).unwrap();
    assert_eq!(serde_json::from_slice::<Config>(&stored).unwrap(), both);
}

#[test]
fn all_settings() {
    let all = config(
        "type = 'pv'\nname = 'a.b-c'\nuuid = '01234567-89ab-cdef-0123-456789abcdef'\nkernel = '/k'\nramdisk = '/r'\nroot = '/dev/xvda1 ro'\n\
         extra = 'console=hvc0'\nmemory = 128\nmaxmem = 256\nvcpus = 2\nmaxvcpus = 4\non_poweroff = 'preserve'\non_reboot = 'destroy'\n\
         on_crash = 'restart'\nvif = []\ndisk = [ ]\nvnc = 0\nbuilder = 'linux'\n",
    );
    assert_eq!(all.uuid.map(|u| (u[0], u[15])), Some((0x01, 0xef)));
    assert_eq!(all.cmdline, "root=/dev/xvda1 ro console=hvc0");
    assert_eq!((all.memory, all.max_memory, all.vcpus, all.max_vcpus), (128, 256, 2, 4));
    assert_eq!((all.on_poweroff, all.on_reboot, all.on_crash), (Action::Preserve, Action::Destroy, Action::Restart));
    assert_eq!(all.ramdisk.as_deref(), Some(Path::new("/r")));
}

#[test]
fn what_is_shown_reads_the_same() {
    let all = config(
        "name = 'a'\nuuid = '01234567-89ab-cdef-0123-456789abcdef'\nkernel = '/k'\nramdisk = '/r'\nextra = 'a=\"b\" \\\\'\nmemory = 128\n\
         maxmem = 256\nvcpus = 2\nmaxvcpus = 4\ncpus = [ '0-1', 3 ]\ncpus_soft = [ '1', '3' ]\ncpu_weight = 512\ncap = 50\non_crash = 'restart'\non_reboot = 'rename-restart'\n\
         disk = [ '/a,raw,xvda,w!', 'vdev=hdc,cdrom,target=/b, \"c\".iso', '/d,raw,xvdb1,r,no-discard' ]\n\
         vif = [ 'rate=10Mb/s,mtu=1400,vifname=x,ip=10.0.0.2 10.0.0.3', 'bridge=br1,rate=7KB/s@33ms' ]\n",
    );
    assert_eq!(config(&all.to_string()), all, "{all}");
    assert_eq!(config(&format!("{GOOD}cpus = 'all,^0'")).cpus.of(5).map(ToString::to_string), Some("all,^0".into()));
    assert_eq!(error_with("cpus = '3-1'"), "g.cfg:4: `cpus`: `3-1` is no set of CPUs; it must look like 0-3,^2 or all");
    assert_eq!(all.cpus_soft.of(1).map(ToString::to_string), Some("3".into()));
    assert_eq!(config(&format!("{GOOD}cpus_soft = 2")).cpus_soft.of(0).map(ToString::to_string), Some("2".into()));
    assert_eq!(
        error_with("cpus_soft = 'x'"),
        "g.cfg:4: `cpus_soft`: `x` is no set of CPUs; it must look like 0-3,^2 or all"
    );
    assert_eq!(error_with("cpu_weight = 0"), "g.cfg:4: `cpu_weight` is 0 and may be 1 to 65535");
}

#[test]
fn defaults_follow_one_another() {
    assert_eq!(config("name='g'\nkernel='/k'\nmaxmem=64").memory, 64);
    let more = config(&format!("{GOOD}maxvcpus=4"));
    assert_eq!((more.vcpus, more.max_vcpus), (4, 4));
    assert_eq!(config(&format!("{GOOD}cmdline='all'\nextra='not'")).cmdline, "all");
    assert_eq!(config(&format!("{GOOD}memory='128'")).memory, 128);
}

#[test]
fn the_command_line_comes_last() {
    let config = parse("g.cfg", GOOD, &["memory=128".into(), "name=other".into()]).unwrap();
    assert_eq!((config.memory, config.name.as_str()), (128, "other"));
    let error = parse("g.cfg", GOOD, &["memroy=128".into()]).unwrap_err().to_string();
    assert_eq!(error, "`memroy=128` on the command line: unknown setting `memroy`; is `memory` meant?");
}

#[test]
fn what_is_missing() {
    assert_eq!(error_of("kernel='/k'\nmemory=1"), "g.cfg: there is no `name` in it; add a line like name = \"demo\"");
    assert_eq!(
        error_of("name='g'\nmemory=1"),
        "g.cfg: there is no `kernel` in it; add a line like kernel = \"/boot/vmlinuz\""
    );
    assert_eq!(
        error_of("name='g'\nkernel='/k'"),
        "g.cfg: there is no `memory` in it; add a line like memory = 256 (MiB)"
    );
}

#[test]
fn what_is_not_there_yet_is_refused() {
    assert_eq!(
        error_with("pci = [ '01:00.0' ]"),
        "g.cfg:4: not supported: pci; take it out to start the domain without it"
    );
    assert_eq!(
        error_with("bootloader = 'pygrub'"),
        "g.cfg:4: not supported: bootloader; kernel = \"/usr/lib/grub-xen/grub-x86_64-xen.bin\" boots from the guest's own disk instead"
    );
    // Without a kernel of its own, it is what matters most.
    assert!(
        error_of("name = 'g'\nmemory = 1\nbootloader = 'pygrub'")
            .starts_with("g.cfg:3: not supported: bootloader; kernel =")
    );
    assert_eq!(
        error_with("type = 'hvm'"),
        "g.cfg:4: not supported: type = \"hvm\"; only PV guests can be started (type = \"pv\")"
    );
    assert_eq!(
        error_with("on_crash = 'soft-reset'"),
        "g.cfg:4: not supported: on_crash = \"soft-reset\"; there are destroy, restart, rename-restart and preserve"
    );
}

#[test]
fn wrong_values() {
    assert_eq!(error_with("memory = 0"), "g.cfg:4: `memory` is 0 and may be 1 to 16777216");
    assert_eq!(error_with("vcpus = 33"), "g.cfg:4: `vcpus` is 33 and may be 1 to 32");
    assert_eq!(error_with("vcpus = 'two'"), "g.cfg:4: `vcpus` must be a number");
    assert_eq!(error_with("kernel = 5"), "g.cfg:4: `kernel` must be a string in quotes");
    assert_eq!(error_with("maxmem = 64"), "g.cfg: `maxmem` (64) is less than `memory` (96)");
    assert_eq!(error_with("vcpus = 2\nmaxvcpus = 1"), "g.cfg: `maxvcpus` (1) is less than `vcpus` (2)");
    assert_eq!(
        error_with("on_reboot = 'maybe'"),
        "g.cfg:4: `on_reboot` is `maybe` and may be destroy, restart, rename-restart or preserve"
    );
    assert_eq!(error_with("uuid = '12'"), "g.cfg:4: the uuid `12` must look like 01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(
        error_with("name = 'a/b'"),
        "g.cfg:4: the name `a/b` must have 1 to 64 of these characters: letters, digits, and _ - . + :"
    );
    assert_eq!(
        error_with("name = '12'"),
        "g.cfg:4: the name `12` is a number, so that it would be taken for a domain's id; give it a letter"
    );
    assert_eq!(error_with("vcpu = 2"), "g.cfg:4: unknown setting `vcpu`; is `vcpus` meant?");
}

#[test]
fn a_file_that_is_not_there() {
    let error = load(Path::new("/nowhere/x.cfg"), &[]).unwrap_err().to_string();
    assert_eq!(error, "the configuration /nowhere/x.cfg cannot be read: No such file or directory (os error 2)");
}

fn warnings(text: &str) -> Vec<String> {
    parse_all("g.cfg", text, &[]).unwrap_or_else(|e| panic!("{e}")).1
}

#[test]
fn what_is_not_heeded_is_named() {
    assert_eq!(
        warnings(&format!("{GOOD}frobnicate = 2\nvnc = 0\nsdl = ''\npci = []\n")),
        ["g.cfg:4: `frobnicate` is not heeded: no such setting is known"]
    );
    assert_eq!(config(&format!("{GOOD}on_crash = 'coredump-restart'")).on_crash, Action::Restart);
    assert_eq!(
        warnings(&format!("{GOOD}on_crash = 'coredump-destroy'")),
        ["g.cfg:4: on_crash = \"coredump-destroy\" is heeded without the core dump"]
    );
    assert_eq!(
        warnings(&format!("{GOOD}vfb = [ 'type=vnc' ]")),
        ["g.cfg:4: `vfb` is not heeded: it does nothing for a PV guest here"]
    );
}

#[test]
fn files_that_people_have() {
    let read = |text: &str| parse_all("g.cfg", text, &[]).unwrap_or_else(|e| panic!("{e}"));

    let (web, warnings) = read(include_str!("samples/xen-tools.cfg"));
    assert_eq!((web.name.as_str(), web.memory, web.vcpus), ("web1", 2048, 2));
    assert_eq!(web.cmdline, "root=/dev/xvda2 ro elevator=noop");
    assert_eq!(web.disks.iter().map(|d| d.vdev.number()).collect::<Vec<_>>(), [51714, 51713]);
    assert_eq!(web.networks[0].mac.unwrap().to_string(), "00:16:3e:12:34:56");
    assert_eq!(warnings, ["g.cfg:33: `dhcp` is not heeded: it does nothing for a PV guest here"]);

    let (mail, warnings) = read(include_str!("samples/crlf.cfg"));
    assert_eq!((mail.name.as_str(), mail.memory), ("mail", 512));
    assert_eq!(
        mail.disks.iter().map(|d| d.target.display().to_string()).collect::<Vec<_>>(),
        ["/srv/xen/mail \"old\".img", "/srv/xen/rescue.iso"]
    );
    assert!(mail.disks[1].cdrom && !mail.disks[1].writable);
    assert_eq!(mail.networks[0].ip.len(), 2);
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    let (db, warnings) = read(include_str!("samples/keys.cfg"));
    assert_eq!((db.memory, db.max_memory, db.vcpus, db.max_vcpus), (1024, 4096, 2, 8));
    assert_eq!(db.cmdline, "root=UUID=\"0f\" ro console=hvc0 quiet");
    assert_eq!(db.cpus.of(0).unwrap().among(8).map(|map| ranges(&map)), Ok("3-7".into()));
    assert_eq!(db.disks[1].target, Path::new("/srv/images/db,logs.img"));
    assert_eq!(
        db.networks.iter().map(|n| (n.interface.as_deref(), n.mtu)).collect::<Vec<_>>(),
        [(Some("db-1.0"), None), (None, Some(9000))]
    );
    assert_eq!(db.on_watchdog, Action::Restart);
    let keys: Vec<&str> = warnings.iter().filter_map(|w| w.split('`').nth(1)).collect();
    assert_eq!(keys, ["usb", "serial", "boot"]);
}
