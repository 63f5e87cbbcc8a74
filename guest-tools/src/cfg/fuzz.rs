//! Configurations made up from settings people write, and damaged.

use std::time::Duration;

use fuzzing::{Fuzzer, Rng, mutate};

use super::{Config, parse_all};

const SAMPLES: [&str; 3] =
    [include_str!("samples/xen-tools.cfg"), include_str!("samples/crlf.cfg"), include_str!("samples/keys.cfg")];

fn disk(rng: &mut Rng) -> String {
    const PARTS: [&str; 16] = [
        "/a",
        "raw",
        "xvda",
        "w",
        "vdev=hdc",
        "cdrom",
        "target=/b, \"c\".iso",
        "no-discard",
        "r",
        "w!",
        "phy:/dev/x",
        "xvdb1",
        "format=raw",
        "access=w",
        "devtype=disk",
        "script=x",
    ];
    (0..1 + rng.below(5)).map(|_| *rng.pick(&PARTS)).collect::<Vec<_>>().join(",")
}

fn vif(rng: &mut Rng) -> String {
    const PARTS: [&str; 12] = [
        "bridge=br0",
        "mac=00:16:3e:12:34:56",
        "mac=01:00:00:00:00:00",
        "ip=10.0.0.2 10.0.0.3",
        "ip=fe80::1",
        "vifname=x",
        "rate=10Mb/s",
        "rate=7KB/s@33ms",
        "mtu=1400",
        "script=vif-bridge",
        "model=e1000",
        "type=vif",
    ];
    (0..rng.below(5)).map(|_| *rng.pick(&PARTS)).collect::<Vec<_>>().join(", ")
}

fn rate(rng: &mut Rng) -> String {
    let unit = *rng.pick(&["b", "B", "Kb", "KB", "Mb", "MB", "Gb", "GB"]);
    let interval = rng.number() >> 32;
    let window = *rng.pick(&["", "@50ms", "@33us", "@1s", "@4294967295us", "@5000s"]);
    if rng.one_in(2) {
        format!("rate={}{unit}/s{window}", rng.number() >> 30)
    } else {
        format!("rate={}{unit}/s@{interval}us", rng.below(9999))
    }
}

fn text(rng: &mut Rng) -> String {
    const PARTS: [&str; 14] =
        ["a", " ", "\\\"", "\\\\", "\\n", "é", "#", ";", "=", "\\x41", "\\101", "/", "quiet", "\\t"];
    (0..rng.below(8)).map(|_| *rng.pick(&PARTS)).collect()
}

fn number(rng: &mut Rng) -> String {
    match rng.below(4) {
        0 => format!("{:#x}", rng.number()),
        1 => rng.number().to_string(),
        2 => format!("'{}'", rng.below(100)),
        _ => rng.below(300).to_string(),
    }
}

fn setting(rng: &mut Rng) -> String {
    let action = ["destroy", "restart", "preserve", "rename-restart", "coredump-destroy", "x"];
    let cpus = ["all", "0-3", "1", "0,^2", "all,^0", "3-1", "^1", "0-99999999999", "4294967295", "nodes:0"];
    let list = |items: Vec<String>| format!("[ {} ]", items.join(" ,\n "));
    let (key, value) = match rng.below(18) {
        0 => ("name", format!("'{}'", rng.pick(&["g", "a/b", "12", "x.y", ""]))),
        1 => ("uuid", "'01234567-89ab-cdef-0123-456789abcdef'".into()),
        2 => ("kernel", format!("\"/{}\"", text(rng))),
        3 => ("ramdisk", format!("\"{}\"", text(rng))),
        4 => (*rng.pick(&["extra", "cmdline", "root"]), format!("\"{}\"", text(rng))),
        5 => (*rng.pick(&["memory", "maxmem"]), number(rng)),
        6 => (*rng.pick(&["vcpus", "maxvcpus", "cpu_weight", "cap"]), number(rng)),
        7 => ("cpus", format!("\"{}\"", rng.pick(&cpus))),
        8 => ("cpus", list((0..rng.below(4)).map(|_| format!("'{}'", rng.pick(&cpus))).collect())),
        9 | 10 => ("disk", list((0..rng.below(3)).map(|_| format!("'{}'", disk(rng))).collect())),
        11 => ("vif", list((0..rng.below(3)).map(|_| format!("'{}'", vif(rng))).collect())),
        12 => ("vif", list(vec![format!("'{}'", rate(rng))])),
        13 => (*rng.pick(&["on_crash", "on_reboot", "on_poweroff", "on_watchdog"]), format!("'{}'", rng.pick(&action))),
        14 => (*rng.pick(&["pci", "bootloader", "type", "builder", "vnc", "vfb", "boot", "frobnicate"]), number(rng)),
        15 => (*rng.pick(&["type", "builder"]), format!("'{}'", rng.pick(&["pv", "linux", "hvm", "generic"]))),
        16 => ("# a comment = ", text(rng)),
        _ => ("vif", "[ '' ]".into()),
    };
    let equals = *rng.pick(&["=", " = ", " += ", "= \t"]);
    format!("{key}{equals}{value}{}", rng.pick(&["\n", "\n", "\r\n", ";", " # x\n"]))
}

/// What holds of every configuration that is taken.
fn check(config: &Config, text: &str) {
    assert!(super::check_name(&config.name).is_ok());
    assert!(config.memory >= 1 && config.memory <= config.max_memory && config.max_memory <= super::MAX_MEMORY);
    assert!(config.vcpus >= 1 && config.vcpus <= config.max_vcpus && u64::from(config.max_vcpus) <= super::MAX_VCPUS);
    assert!(config.weight != Some(0) && !config.cmdline.contains('\0') && config.cmdline.len() <= text.len());
    for (n, disk) in config.disks.iter().enumerate() {
        assert!(config.disks.iter().skip(n + 1).all(|other| other.vdev.number() != disk.vdev.number()));
    }
    // What `dom config` shows is read back as the same.
    let shown = config.to_string();
    match parse_all("g.cfg", &shown, &[]) {
        Ok((again, _)) => assert_eq!(again, *config, "{shown}"),
        Err(error) => panic!("what is shown is refused: {error}\n{shown}"),
    }
}

#[test]
fn fuzz_xl_cfg() {
    let fuzzer = Fuzzer {
        name: "fuzz_xl_cfg",
        target: "-p guest-tools",
        cases: 20_000,
        heap: 4 << 20,
        time: Duration::from_secs(2),
    };
    fuzzer.run(|rng| {
        let mut file = match rng.below(5) {
            0 => (*rng.pick(&SAMPLES)).to_owned(),
            _ => "name = 'g'\nkernel = '/k'\nmemory = 64\n".to_owned(),
        };
        for _ in 0..rng.below(7) {
            file += &setting(rng);
        }
        if rng.one_in(40) {
            // The same line very often: effort and memory grow with the file, not with its square.
            let line = setting(rng);
            file += &line.repeat(2000);
        }
        if rng.one_in(3) {
            let mut bytes = file.into_bytes();
            mutate(rng, &mut bytes, &SAMPLES.map(str::as_bytes));
            file = String::from_utf8_lossy(&bytes).into_owned();
        }
        let overrides: Vec<String> = if rng.one_in(5) { vec![setting(rng).trim_end().to_owned()] } else { vec![] };
        match parse_all("g.cfg", &file, &overrides) {
            Ok((config, _)) => {
                check(&config, &(file + &overrides.concat()));
                true
            }
            Err(error) => {
                let lines = file.split('\n').count();
                assert!(error.place.line <= lines, "line {} of {lines}: {error}", error.place.line);
                assert!(!error.what.is_empty() && error.what.len() < file.len() + overrides.concat().len() + 400);
                false
            }
        }
    });
}
