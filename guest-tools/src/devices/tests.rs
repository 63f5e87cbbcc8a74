//! Devices on a store that plays the drivers.

use super::*;
use crate::cfg::{Disk, Mac, Network};
use crate::xs::fake::{self, Nodes};

const DISK: Device = Device { kind: Kind::Disk, domain: DomId(3), number: 51712 };
const BACKEND: &str = "/local/domain/0/backend/vbd/3/51712";
const FRONTEND: &str = "/local/domain/3/device/vbd/51712";

fn idle(_: &mut Nodes, _: &str, _: &str) {}

/// A back end that is ready at once, and a guest that connects and gives back when it is asked to.
fn willing(nodes: &mut Nodes, path: &str, value: &str) {
    match (path.strip_suffix("/state"), value) {
        (Some(BACKEND), "1") => nodes.set(&format!("{BACKEND}/state"), "2"),
        (Some(BACKEND), "5") => nodes.set(&format!("{FRONTEND}/state"), "6"),
        _ => {}
    }
}

fn refusing(nodes: &mut Nodes, path: &str, value: &str) {
    if path == format!("{BACKEND}/state") && value == "1" {
        nodes.set("/local/domain/0/error/backend/vbd/3/51712/error", "-19 creating vbd structure");
        nodes.set(&format!("{BACKEND}/state"), "6");
    }
}

fn some(text: &str) -> Vec<(&'static str, String)> {
    vec![("mode", text.to_owned())]
}

#[test]
fn both_sides_find_each_other() {
    let (mut store, nodes) = fake::store(Nodes::with_conflicts(2), idle);
    DISK.write(&mut store, &some("front"), &some("w")).unwrap();
    let nodes = nodes.lock().unwrap();
    let value = |path: &str| nodes.values.get(path).map(String::as_str);
    assert_eq!(value(&format!("{FRONTEND}/backend")), Some(BACKEND));
    assert_eq!(value(&format!("{BACKEND}/frontend")), Some(FRONTEND));
    assert_eq!(
        (value(&format!("{FRONTEND}/backend-id")), value(&format!("{BACKEND}/frontend-id"))),
        (Some("0"), Some("3"))
    );
    assert_eq!((value(&format!("{FRONTEND}/state")), value(&format!("{BACKEND}/state"))), (Some("1"), Some("1")));
    assert_eq!((value(&format!("{FRONTEND}/mode")), value(&format!("{BACKEND}/mode"))), (Some("front"), Some("w")));
    // Each owns its side and reads the other's.
    assert_eq!((nodes.perms[FRONTEND].as_str(), nodes.perms[BACKEND].as_str()), ("n3 r0", "n0 r3"));
}

#[test]
fn a_device_is_there_once() {
    let (mut store, _) = fake::store(Nodes::default(), idle);
    DISK.write(&mut store, &[], &[]).unwrap();
    assert_eq!(DISK.write(&mut store, &[], &[]).unwrap_err().to_string(), "domain 3 has this device already");
}

#[test]
fn waiting_for_the_driver() {
    let (mut store, _) = fake::store(Nodes::default(), willing);
    DISK.write(&mut store, &[], &[]).unwrap();
    DISK.wait_for_backend(&mut store).unwrap();

    let (mut store, _) = fake::store(Nodes::default(), refusing);
    DISK.write(&mut store, &[], &[]).unwrap();
    assert_eq!(
        DISK.wait_for_backend(&mut store).unwrap_err().to_string(),
        "xen-blkback refuses it: -19 creating vbd structure"
    );

    let (mut store, _) = fake::store(Nodes::default(), idle);
    DISK.write(&mut store, &[], &[]).unwrap();
    let error = DISK.wait_for_backend(&mut store).unwrap_err().to_string();
    assert!(error.starts_with("xen-blkback did not take it within"), "{error}");
}

#[test]
fn a_guest_is_asked_before_its_disk_goes() {
    for (driver, given_back) in [(willing as fake::Driver, true), (idle, false)] {
        let (mut store, nodes) = fake::store(Nodes::default(), driver);
        DISK.write(&mut store, &[], &[]).unwrap();
        nodes.lock().unwrap().set(&format!("{FRONTEND}/state"), "4");
        let result = DISK.detach(&mut store, "xvda");
        assert_eq!(result.is_ok(), given_back);
        assert_eq!(nodes.lock().unwrap().with("51712").is_empty(), given_back);
        if let Err(e) = result {
            assert!(e.to_string().starts_with("the guest has not given xvda back within"), "{e}");
            // With force it goes all the same.
            DISK.remove(&mut store).unwrap();
            assert!(nodes.lock().unwrap().with("51712").is_empty());
        }
    }
}

#[test]
fn a_domain_takes_its_devices_along_and_no_others() {
    let (mut store, nodes) = fake::store(Nodes::default(), idle);
    let network = Device { kind: Kind::Network, domain: DomId(3), number: 0 };
    let other = Device { kind: Kind::Disk, domain: DomId(31), number: 51712 };
    for device in [DISK, network, other] {
        device.write(&mut store, &[], &[]).unwrap();
    }
    nodes.lock().unwrap().set("/local/domain/0/error/backend/vbd/3/51712/error", "x");
    assert_eq!(of_all(&mut store, Kind::Disk).unwrap(), [DISK, other]);
    remove_all(&mut store, DomId(3)).unwrap();
    assert_eq!(of_all(&mut store, Kind::Disk).unwrap(), [other]);
    let nodes = nodes.lock().unwrap();
    assert_eq!(
        nodes.with("/3/"),
        ["/local/domain/3/device", "/local/domain/3/device/vbd", "/local/domain/3/device/vif"]
    );
    assert_eq!(nodes.with("51712/state").len(), 2);
}

fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("dom-{name}-{}", std::process::id()));
    std::fs::write(&path, [0; 4096]).unwrap();
    path
}

#[test]
fn a_disk_has_one_writer() {
    let path = temporary("writer");
    let link = path.with_extension("link");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let check = |mode: &str, target: &Path, access: &str| {
        let mut nodes = Nodes::default();
        nodes.set("/local/domain/3/name", "web");
        nodes.set(&format!("{BACKEND}/params"), &path.display().to_string());
        nodes.set(&format!("{BACKEND}/mode"), mode);
        let (mut store, _) = fake::store(nodes, idle);
        let disk = Disk::parse(&format!("{},raw,xvda,{access}", target.display())).unwrap();
        disk::check(&mut store, &disk).map_err(|e| e.to_string())
    };
    let taken =
        |target: &Path| Err(format!("{} is a disk of domain `web` already; w! as access shares it", target.display()));
    assert_eq!(check("w", &path, "w"), taken(&path));
    assert_eq!(check("w", &link, "r"), taken(&link), "by another name");
    assert_eq!(check("r", &path, "w"), taken(&path));
    assert_eq!(check("r", &path, "r"), Ok(()));
    assert_eq!(check("w", &path, "w!"), Ok(()));
    let own = |target: &Path, vdev: &str, access: &str| {
        Disk::parse(&format!("{},raw,{vdev},{access}", target.display())).unwrap()
    };
    let twice = disk::check_others(&[own(&path, "xvda", "r")], &own(&link, "xvdb", "w")).unwrap_err().to_string();
    assert_eq!(twice, format!("{} is the disk xvda already; w! as access shares it", link.display()));
    disk::check_others(&[own(&path, "xvda", "r")], &own(&link, "xvdb", "r")).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&path, []).unwrap();
    assert!(check("r", &path, "r").unwrap_err().contains("is empty: give it a size first"));
    std::fs::remove_file(&path).unwrap();
    assert!(check("r", &path, "r").unwrap_err().ends_with("cannot be opened"));
    assert!(check("r", Path::new("/dev/null"), "r").unwrap_err().ends_with("is neither a file nor a block device"));
}

#[test]
fn a_network_needs_its_bridge() {
    let (mut store, _) = fake::store(Nodes::default(), idle);
    let check =
        |store: &mut Store, text: &str| network::check(store, &Network::parse(text).unwrap()).unwrap_err().to_string();
    assert_eq!(
        check(&mut store, "bridge=nowhere0"),
        "there is no bridge `nowhere0`; `dom bridge-create nowhere0` makes one, or name another with bridge="
    );
    assert_eq!(
        check(&mut store, "bridge=lo"),
        "`lo` is no bridge; name one with bridge=, `dom bridge-list` shows those there are"
    );
}

#[test]
fn an_attachment_that_fails_leaves_nothing() {
    // No Xen back ends here: the drivers cannot be loaded, or do not answer.
    let path = temporary("nothing");
    let before = Nodes::default();
    let (mut store, nodes) = fake::store(before.clone(), idle);
    let one = Disk::parse(&format!("{},raw,xvda,w", path.display())).unwrap();
    let error = format!("{:#}", disk::attach(&mut store, DomId(3), &one).unwrap_err());
    assert!(error.starts_with(&format!("the disk xvda ({}): ", path.display())), "{error}");
    let mut network = Network::parse("bridge=nowhere0").unwrap();
    network.mac = Some(Mac::of("g", 0));
    let error = format!("{:#}", network::attach(&mut store, DomId(3), 0, &network).unwrap_err());
    assert!(error.starts_with("the network interface 0 (bridge nowhere0): "), "{error}");
    for kind in ["vbd/3/51712", "vif/3/0"] {
        assert!(nodes.lock().unwrap().with(kind).is_empty(), "{kind}");
    }
    std::fs::remove_file(&path).unwrap();
}
