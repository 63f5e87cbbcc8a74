//! The hypervisor's command line.

use boot::cmdline::{Amount, Dom0Memory, Level, LogLevels, OPTIONS, Options, Parity, Serial, write_reference};
use proptest::prelude::*;

fn good(cmdline: &str) -> Options {
    let options = Options::parse(cmdline);
    assert!(options.problems.is_empty(), "{cmdline}: {}", options.problems[0]);
    options
}

#[test]
fn nothing_gives_the_defaults() {
    assert_eq!(good(""), Options::default());
    assert_eq!(good(" \t "), Options::default());
    assert_eq!(good("-- anything=1 goes"), Options::default());
}

#[test]
fn a_usual_line() {
    let options = good(
        "com1=115200,8n1 console=com1 dom0_mem=1G,max:1G dom0_max_vcpus=2 loglvl=all guest_loglvl=all/all noreboot sync_console watchdog=force",
    );
    assert_eq!(
        options.com1,
        Some(Serial { baud: Some(115_200), data_bits: 8, parity: Parity::None, stop_bits: 1, port: 0x3f8, irq: 4 })
    );
    assert!(options.console.com1 && !options.console.vga && !options.console.com2);
    assert_eq!(
        options.dom0_mem,
        Dom0Memory { size: Some(Amount::Bytes(1 << 30)), min: None, max: Some(Amount::Bytes(1 << 30)) }
    );
    assert_eq!(options.dom0_max_vcpus, (2, 2));
    assert_eq!(options.loglvl, LogLevels { always: Level::Debug, limited: Level::Debug });
    assert_eq!(options.guest_loglvl, LogLevels { always: Level::Debug, limited: Level::Debug });
    assert!(options.noreboot && options.sync_console && options.watchdog && options.smap && options.smep);
}

#[test]
fn serial_ports() {
    let com = |value: &str| good(&format!("com2={value}")).com2.unwrap();
    assert_eq!(
        com("auto"),
        Serial { baud: None, data_bits: 8, parity: Parity::None, stop_bits: 1, port: 0x2f8, irq: 3 }
    );
    assert_eq!(
        com("9600,7e2,0x3e8,0"),
        Serial { baud: Some(9600), data_bits: 7, parity: Parity::Even, stop_bits: 2, port: 0x3e8, irq: 0 }
    );
    assert_eq!(com("9600,,1000,10").port, 1000);
    for bad in [
        "",
        "=",
        "=fast",
        "=12",
        "=9600,9n1",
        "=9600,8x1",
        "=9600,8n3",
        "=9600,8n",
        "=9600,8n1,0",
        "=9600,8n1,pci",
        "=9600,8n1,0x3f8,16",
        "=9600,8n1,0x3f8,4,5",
    ] {
        assert_eq!(Options::parse(&format!("com1{bad}")).problems.len(), 1, "{bad}");
    }
}

#[test]
fn measures_against_speculation() {
    use boot::cmdline::{ByDomain, SpecCtrl};
    assert_eq!(good("xpti").xpti, ByDomain { dom0: Some(true), domu: Some(true) });
    assert_eq!(good("no-xpti").xpti, ByDomain { dom0: Some(false), domu: Some(false) });
    assert_eq!(good("xpti=dom0=no").xpti, ByDomain { dom0: Some(false), domu: None });
    assert_eq!(good("xpti=dom0=0,domu=1").xpti, ByDomain { dom0: Some(false), domu: Some(true) });
    assert_eq!(good("xpti=no,default").xpti, ByDomain::default());
    assert_eq!(good("pv-l1tf=dom0").pv_l1tf, ByDomain { dom0: Some(true), domu: None });
    assert_eq!(good("no-pv-l1tf").pv_l1tf, ByDomain { dom0: Some(false), domu: Some(false) });
    assert_eq!(good("spec-ctrl=no").spec_ctrl, SpecCtrl { off: true, ..SpecCtrl::default() });
    assert_eq!(good("spec-ctrl=eager-fpu").spec_ctrl, SpecCtrl::default());
    let some = SpecCtrl { off: true, ibrs: Some(true), ssbd: Some(true), md_clear: Some(false), ..SpecCtrl::default() };
    assert_eq!(good("spec-ctrl=no,ibrs=yes,ssbd,no-md-clear").spec_ctrl, some);
    for bad in [
        "xpti=dom1=no",
        "xpti=default=1",
        "xpti=",
        "spec-ctrl",
        "spec-ctrl=retpoline",
        "spec-ctrl=ibrs=maybe",
        "spec-ctrl=no-eager-fpu",
    ] {
        assert_eq!(Options::parse(bad).problems.len(), 1, "{bad}");
    }
}

#[test]
fn memory_of_dom0() {
    const MIB: u64 = 256;
    let pages = |value: &str, available: u64| good(&format!("dom0_mem={value}")).dom0_mem.pages(available);
    assert_eq!(pages("512M", 1024 * MIB), 512 * MIB);
    assert_eq!(pages("524288", 1024 * MIB), 512 * MIB); // KiB without a suffix
    assert_eq!(pages("536870912b", 1024 * MIB), 512 * MIB);
    assert_eq!(pages("0x20000k", 1024 * MIB), 128 * MIB);
    assert_eq!(pages("2G", 1024 * MIB), 1024 * MIB); // never more than there is
    assert_eq!(pages("-256M", 1024 * MIB), 768 * MIB);
    assert_eq!(pages("-2G", 1024 * MIB), 0);
    assert_eq!(pages("-2G,min:64M", 1024 * MIB), 64 * MIB);
    assert_eq!(pages("max:300M", 1024 * MIB), 300 * MIB);
    assert_eq!(pages("min:1000M", 1024 * MIB), 1000 * MIB);
    assert_eq!(pages("400M,min:500M,max:-600M", 1024 * MIB), 424 * MIB);
    assert_eq!(good("").dom0_mem.pages(1024 * MIB), 960 * MIB);
    assert_eq!(good("").dom0_mem.pages(16384 * MIB), (16384 - 128) * MIB);
    for bad in ["", "=", "=12Q", "=lots", "=low:5M", "=max:", "=1G,", "=99999999999T", "=+5M", "=--5M"] {
        assert_eq!(Options::parse(&format!("dom0_mem{bad}")).problems.len(), 1, "{bad}");
    }
}

#[test]
fn other_values() {
    assert_eq!(good("dom0_max_vcpus=2-4").dom0_max_vcpus, (2, 4));
    assert_eq!(good("dom0_max_vcpus=-4").dom0_max_vcpus, (1, 4));
    assert_eq!(good("dom0_max_vcpus=3-").dom0_max_vcpus, (3, u32::MAX));
    assert_eq!(good("maxcpus=3").maxcpus, 3);
    assert_eq!(good("nosmp").maxcpus, 1);
    assert_eq!(good("conring_size=100k").conring_size, 64 << 10);
    assert_eq!(good("loglvl=warning/info").loglvl, LogLevels { always: Level::Warning, limited: Level::Info });
    assert_eq!(good("loglvl=info/error").loglvl, LogLevels { always: Level::Info, limited: Level::Info });
    assert_eq!(good("xen_version=4.20").xen_version, (4, 20));
    assert_eq!(good("console=none").console, boot::cmdline::Consoles { com1: false, com2: false, vga: false });
    assert_eq!(good("console=vga,com2").console, boot::cmdline::Consoles { com1: false, com2: true, vga: true });
    assert!(!good("no-smap").smap && !good("smap=off").smap && good("smap=on").smap && good("smap").smap);
    assert!(
        good("watchdog_timeout=9").watchdog
            && !good("watchdog_timeout=0").watchdog
            && !good("watchdog no-watchdog").watchdog
    );
    // Of two the later counts; a bad one changes nothing.
    assert_eq!(good("maxcpus=3 maxcpus=2").maxcpus, 2);
    assert_eq!(Options::parse("maxcpus=3 maxcpus=none").maxcpus, 3);
}

#[test]
fn nothing_is_ignored_silently() {
    let options = Options::parse(
        "smep=maybe iommu=off no-noreboot no-console no-smap=1 maxcpus=0 dom0_max_vcpus=4-2 xen_version=4 LOGLVL=all",
    );
    let texts: Vec<_> = options.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "option 'smep=maybe' ignored: expected smep=<bool>",
            "unknown option 'iommu=off' ignored",
            "unknown option 'no-noreboot' ignored",
            "unknown option 'no-console' ignored",
            "unknown option 'no-smap=1' ignored",
            "option 'maxcpus=0' ignored: expected maxcpus=<n>",
            "option 'dom0_max_vcpus=4-2' ignored: expected dom0_max_vcpus=<n> | <min>-<max>",
            "option 'xen_version=4' ignored: expected xen_version=<major>.<minor>",
            "unknown option 'LOGLVL=all' ignored",
        ]
    );
    let many = "x ".repeat(20);
    let options = Options::parse(&many);
    assert_eq!((options.problems.len(), options.more_problems), (16, 4));
    assert_eq!(Options::parse(&"y".repeat(500)).problems[0].word.len(), 64);
}

#[test]
fn the_reference_in_the_documentation_is_the_table() {
    let mut text = String::from("# Command-line options of the hypervisor\n\n");
    text.push_str("This page is printed from the table in `boot/src/cmdline/mod.rs`; `HOSPES_BLESS=1 cargo test -p boot` writes it anew.\n\n");
    write_reference(&mut text).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command-line.md");
    if std::env::var_os("HOSPES_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap_or_default() == text,
        "docs/command-line.md is not what the table says"
    );
    assert!(OPTIONS.is_sorted_by_key(|spec| spec.name));
}

proptest! {
    #[test]
    fn any_line_is_read(line in "([a-z0-9_]{1,8}|com1|dom0_mem|console|loglvl|conring_size|-|=|,|:|/| |0x|é){0,30}") {
        let options = Options::parse(&line);
        prop_assert!(options.maxcpus >= 1 && options.dom0_max_vcpus.0 <= options.dom0_max_vcpus.1);
        prop_assert!(options.conring_size.is_power_of_two());
        let _ = options.dom0_mem.pages(12_345);
    }
}
