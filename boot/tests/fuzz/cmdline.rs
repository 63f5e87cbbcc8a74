//! The hypervisor's command line.

use std::time::Duration;

use boot::cmdline::{OPTIONS, Options};
use fuzzing::{Fuzzer, Rng};

/// A value: parts that some option takes, put together by chance.
fn value(rng: &mut Rng) -> String {
    const PARTS: [&str; 44] = [
        "0",
        "1",
        "2",
        "9",
        "16",
        "64M",
        "1G",
        "-1G",
        "512",
        "0x3f8",
        "115200",
        "8n1",
        "7e2",
        "auto",
        "com1",
        "com2",
        "vga",
        "none",
        "all",
        "error",
        "warning",
        "info",
        "debug",
        "min:",
        "max:",
        "4.17",
        "4.20",
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "dom0=",
        "domu=",
        "ibrs",
        "ssbd",
        "md-clear=",
        "default",
        "no-",
        "18446744073709551615",
        "99999999999999999999",
        "é",
        "0x",
    ];
    const BETWEEN: [&str; 8] = ["", "", ",", ",", "/", "-", "=", ":"];
    let first = (*rng.pick(&PARTS)).to_owned();
    (0..rng.below(5)).fold(first, |text, _| text + *rng.pick(&BETWEEN) + *rng.pick(&PARTS))
}

fn word(rng: &mut Rng) -> String {
    let name = rng.pick(OPTIONS).name;
    let mut word = match rng.below(5) {
        0 => name.to_owned(),
        1 => format!("no-{name}"),
        _ => format!("{name}={}", value(rng)),
    };
    if rng.one_in(8) && !word.is_empty() {
        // One character is another, or is left out.
        let chars: Vec<char> = word.chars().collect();
        let at = rng.below(chars.len());
        let other = *rng.pick(&['=', ',', '-', ':', '0', 'x', 'é', '\u{1}', '9']);
        let keep = rng.one_in(2);
        word = chars
            .iter()
            .enumerate()
            .filter(|(n, _)| keep || *n != at)
            .map(|(n, c)| if n == at { other } else { *c })
            .collect();
    }
    word
}

/// Values without the list of complaints.
fn values(options: &Options) -> Options {
    let mut values = options.clone();
    values.problems.clear();
    values.more_problems = 0;
    values
}

fn complaints(options: &Options) -> usize {
    options.problems.len() + options.more_problems as usize
}

#[test]
fn fuzz_command_line() {
    let fuzzer = Fuzzer {
        name: "fuzz_command_line",
        target: super::TARGET,
        cases: 30_000,
        heap: 1 << 20,
        time: Duration::from_secs(1),
    };
    fuzzer.run(|rng| {
        let most = if rng.one_in(20) { 60 } else { 6 };
        let words: Vec<String> = (0..1 + rng.below(most)).map(|_| word(rng)).collect();
        let line = words.join(" ");
        let options = Options::parse(&line);
        assert!(
            options.maxcpus >= 1
                && options.dom0_max_vcpus.0 >= 1
                && options.dom0_max_vcpus.0 <= options.dom0_max_vcpus.1,
            "{line}"
        );
        assert!(
            options.conring_size.is_power_of_two() && (1 << 10..=1 << 30).contains(&options.conring_size),
            "{line}"
        );
        let available = rng.number() >> 12;
        assert!(options.dom0_mem.pages(available) <= available, "{line}: more of {available} pages than there are");
        for problem in &options.problems {
            assert!(!problem.to_string().is_empty());
        }
        // No word is dropped silently, and none spoils another: each is complained about if and only if it is when alone.
        let alone: usize = words.iter().map(|w| complaints(&Options::parse(w))).sum();
        assert_eq!(complaints(&options), alone, "{line}");
        // Later words win, so saying it all again changes nothing.
        assert_eq!(values(&Options::parse(&format!("{line} {line}"))), values(&options), "{line}");
        // What is complained about changes nothing.
        let good: Vec<&str> =
            words.iter().map(String::as_str).filter(|w| complaints(&Options::parse(w)) == 0).collect();
        assert_eq!(values(&Options::parse(&good.join(" "))), values(&options), "{line}");
        complaints(&options) == 0
    });
}
