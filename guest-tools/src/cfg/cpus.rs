//! Sets of CPUs, as `cpus` in a configuration and `dom vcpu-pin` take them: `0-3,^2`, `all`, `5`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus {
    text: String,
    /// In or out, first, last; the last one that speaks of a CPU counts.
    parts: Vec<(bool, u32, u32)>,
}

/// Which CPUs the vCPUs of a domain may run on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pinning {
    /// Nothing is said.
    #[default]
    None,
    /// The same for all.
    All(Cpus),
    /// From vCPU 0 on; those beyond the end are free.
    Each(Vec<Cpus>),
}

impl Pinning {
    /// What is said of a vCPU.
    pub fn of(&self, vcpu: u32) -> Option<&Cpus> {
        match self {
            Pinning::None => None,
            Pinning::All(cpus) => Some(cpus),
            Pinning::Each(each) => each.get(vcpu as usize),
        }
    }

    /// Says it of one vCPU among `vcpus`.
    pub fn set(&mut self, vcpu: u32, vcpus: u32, cpus: &Cpus) {
        let each =
            (0..vcpus).map(|n| if n == vcpu { cpus.clone() } else { self.of(n).cloned().unwrap_or_else(Cpus::all) });
        *self = Pinning::Each(each.collect());
    }
}

impl Cpus {
    /// All there are.
    pub fn all() -> Self {
        Cpus { text: "all".into(), parts: vec![(true, 0, u32::MAX)] }
    }

    /// Reads a set; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for word in text.split(',').map(str::trim) {
            if word.starts_with("node") || word.starts_with("^node") {
                return Err(format!("not supported: `{word}`; name the node's CPUs"));
            }
            let (keep, range) = word.strip_prefix('^').map_or((true, word), |rest| (false, rest));
            let number = |text: &str| text.trim().parse::<u32>().ok();
            let range = match range.split_once('-') {
                _ if range == "all" => Some((0, u32::MAX)),
                Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
                None => number(range).map(|cpu| (cpu, cpu)),
            };
            match range {
                Some((first, last)) => parts.push((keep, first, last)),
                None => {
                    return Err(format!("`{text}` is no set of CPUs; it must look like 0-3,^2 or all"));
                }
            }
        }
        if parts.first().is_some_and(|(keep, ..)| !keep) {
            return Err(format!("`{text}` only takes CPUs away; write all,{text}"));
        }
        Ok(Cpus { text: text.to_owned(), parts })
    }

    /// Is the CPU in it?
    fn contains(&self, cpu: u32) -> bool {
        self.parts.iter().rev().find(|(_, first, last)| (*first..=*last).contains(&cpu)).is_some_and(|(keep, ..)| *keep)
    }

    /// One bool for each of the machine's CPUs; the error says that none of them is in it.
    pub fn among(&self, cpus: u32) -> Result<Vec<bool>, String> {
        let map: Vec<bool> = (0..cpus).map(|cpu| self.contains(cpu)).collect();
        if !map.contains(&true) {
            return Err(format!(
                "`{self}` names no CPU of this machine, which has CPU 0 to {}",
                cpus.saturating_sub(1)
            ));
        }
        Ok(map)
    }
}

/// `0-2,5`, or `all`.
pub fn ranges(set: &[bool]) -> String {
    if set.iter().all(|&on| on) {
        return "all".into();
    }
    let mut parts = Vec::new();
    let mut cpu = 0;
    while cpu < set.len() {
        let run = set.iter().skip(cpu).take_while(|&&on| on).count();
        match run {
            0 => {}
            1 => parts.push(cpu.to_string()),
            _ => parts.push(format!("{cpu}-{}", cpu + run - 1)),
        }
        cpu += run + 1;
    }
    parts.join(",")
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cpus {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Cpus::parse(&text)
    }
}

impl From<Cpus> for String {
    fn from(cpus: Cpus) -> String {
        cpus.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn among_six(text: &str) -> String {
        Cpus::parse(text).and_then(|cpus| cpus.among(6)).map_or_else(|e| e, |map| ranges(&map))
    }

    #[test]
    fn sets() {
        assert_eq!(among_six("all"), "all");
        assert_eq!(among_six("0-3,^2"), "0-1,3");
        assert_eq!(among_six("all, ^5"), "0-4");
        assert_eq!(among_six("5"), "5");
        assert_eq!(among_six("4-9"), "4-5");
        assert_eq!(among_six("1,3,1"), "1,3");
        assert_eq!(among_six("8"), "`8` names no CPU of this machine, which has CPU 0 to 5");
        assert_eq!(among_six("^2"), "`^2` only takes CPUs away; write all,^2");
        for bad in ["", "x", "3-1", "1-", "-1", "1,,2", "99999999999"] {
            assert_eq!(among_six(bad), format!("`{bad}` is no set of CPUs; it must look like 0-3,^2 or all"));
        }
        assert_eq!(among_six("node:1"), "not supported: `node:1`; name the node's CPUs");
    }

    #[test]
    fn what_is_said_of_each() {
        let mut pinning = Pinning::All(Cpus::parse("0-1").unwrap());
        pinning.set(1, 3, &Cpus::parse("3").unwrap());
        assert_eq!(
            (0..4).map(|n| pinning.of(n).map(ToString::to_string)).collect::<Vec<_>>(),
            [Some("0-1".into()), Some("3".into()), Some("0-1".into()), None]
        );
    }

    #[test]
    fn cpu_ranges() {
        assert_eq!(ranges(&[true, true]), "all");
        assert_eq!(ranges(&[true, true, false, true, false]), "0-1,3");
        assert_eq!(ranges(&[false, false]), "");
        assert_eq!(ranges(&[false, true, true, true]), "1-3");
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(set in proptest::collection::vec(any::<bool>(), 1..20)) {
            prop_assume!(set.contains(&true));
            prop_assert_eq!(Cpus::parse(&ranges(&set)).unwrap().among(set.len() as u32).unwrap(), set);
        }
    }
}
