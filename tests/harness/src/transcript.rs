//! What a kernel observed, and how it compares with the record.
use crate::machine::{End, Kind, Log};
use std::path::{Path, PathBuf};

/// Where the record of a kernel is.
pub fn golden(root: &Path, name: &str) -> PathBuf {
    root.join("tests/guests/expected").join(format!("{name}.txt"))
}

/// Where the differences that Hospes may show are listed, each with its reason.
pub fn differences(root: &Path, name: &str) -> PathBuf {
    root.join("tests/guests/expected").join(format!("{name}.hospes"))
}

/// The lines that count: observations.
pub fn observations(log: &Log) -> Vec<String> {
    log.lines.iter().filter(|l| l.starts_with("obs: ")).cloned().collect()
}

/// The kernel's verdict; `None` if it gave none.
pub fn verdict(log: &Log) -> Option<&str> {
    log.lines.iter().find_map(|l| l.strip_prefix("VERDICT: "))
}

fn name_of(line: &str) -> &str {
    line.split(" = ").next().unwrap_or(line)
}

/// Replaces lines of the record by those of a difference file: `obs:` lines, each after a `#` line that says why. A line
/// of the record that Hospes does not show stands there behind `- `, one that it shows in addition behind `+ `.
pub fn apply_differences(golden: &mut Vec<String>, text: &str) -> Result<(), String> {
    let mut reason = false;
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        if line.starts_with('#') {
            reason = true;
            continue;
        }
        if !reason {
            return Err(format!("a difference without a reason: {line}"));
        }
        if let Some(gone) = line.strip_prefix("- ") {
            match golden.iter().position(|g| g == gone) {
                Some(i) => drop(golden.remove(i)),
                None => return Err(format!("listed as gone, but not in the record: {gone}")),
            }
            continue;
        }
        if let Some(new) = line.strip_prefix("+ ") {
            if golden.iter().any(|g| name_of(g) == name_of(new)) {
                return Err(format!("listed as new, but in the record: {new}"));
            }
            golden.push(new.to_string());
            continue;
        }
        let old = golden.iter_mut().find(|g| name_of(g) == name_of(line));
        match old {
            Some(g) if g == line => {
                return Err(format!("listed as a difference, but the same: {line}"));
            }
            Some(g) => *g = line.to_string(),
            None => return Err(format!("a difference from nothing: {line}")),
        }
    }
    Ok(())
}

/// What is wrong with a run, line by line; empty = nothing. `recorded`: there is a transcript to compare with.
pub fn judge(root: &Path, name: &str, kind: Kind, audit: bool, recorded: bool, log: &Log) -> Vec<String> {
    let mut wrong = Vec::new();
    match log.end {
        End::Finished => {}
        End::Exited => wrong.push("the machine stopped (triple fault or reset)".into()),
        End::TimedOut if verdict(log).is_some() => wrong.push("no audit followed the verdict".into()),
        End::TimedOut => wrong.push(format!("no verdict after {} s", log.took.as_secs())),
    }
    match verdict(log) {
        Some("pass" | "skip") => {}
        Some(v) => wrong.push(format!("verdict: {v}")),
        None => {}
    }
    wrong.extend(
        log.lines
            .iter()
            .filter(|l| l.starts_with("fail: ") || l.starts_with("error: ") || l.starts_with("trap "))
            .cloned(),
    );
    if verdict(log) != Some("skip") && recorded {
        compare(root, name, kind, log, &mut wrong);
    }
    if kind == Kind::Hospes && audit && !log.lines.iter().any(|l| l.contains("audit: clean")) {
        wrong.push("the audit is not clean:".into());
        wrong.extend(log.lines.iter().filter(|l| l.contains("audit")).take(20).cloned());
    }
    if !wrong.is_empty() && verdict(log).is_none() {
        wrong.push("last lines:".into());
        wrong.extend(log.lines.iter().rev().take(25).rev().map(|l| format!("  {l}")));
    }
    wrong
}

/// What is wrong with a run that was to end with these lines, in this order.
pub fn judge_end(ends: &[&str], log: &Log) -> Vec<String> {
    if verdict(log) == Some("skip") {
        return Vec::new();
    }
    let mut lines = log.lines.iter();
    let missing = ends.iter().find(|text| !lines.any(|l| l.contains(**text)));
    let mut wrong: Vec<String> = missing
        .map(|text| format!("the log does not say '{text}', or not at its place; last lines:"))
        .into_iter()
        .collect();
    if !wrong.is_empty() {
        wrong.extend(log.lines.iter().rev().take(40).rev().map(|l| format!("  {l}")));
    }
    wrong
}

/// What Hospes was to say (`--expect`) and did not.
pub fn missing(kind: Kind, expected: &[String], log: &Log) -> Vec<String> {
    let said = |text: &&String| kind != Kind::Hospes || log.lines.iter().any(|l| l.contains(text.as_str()));
    expected.iter().filter(|t| !said(t)).map(|t| format!("the log does not say '{t}'")).collect()
}

fn compare(root: &Path, name: &str, kind: Kind, log: &Log, wrong: &mut Vec<String>) {
    let mut golden: Vec<String> = match std::fs::read_to_string(golden(root, name)) {
        Ok(t) => t.lines().map(str::to_string).collect(),
        Err(e) => {
            return wrong.push(format!("no transcript to compare with ({e}): harness record makes one"));
        }
    };
    if kind == Kind::Hospes
        && let Ok(t) = std::fs::read_to_string(differences(root, name))
        && let Err(e) = apply_differences(&mut golden, &t)
    {
        wrong.push(e);
    }
    let got = observations(log);
    let mut differing = 0;
    for g in &golden {
        match got.iter().find(|l| name_of(l) == name_of(g)) {
            Some(l) if l == g => continue,
            Some(l) => wrong.push(format!("- {g}\n    + {l}")),
            None => wrong.push(format!("- {g}")),
        }
        differing += 1;
        if differing == 40 {
            return wrong.push("... and more".into());
        }
    }
    wrong.extend(got.iter().filter(|l| !golden.iter().any(|g| name_of(g) == name_of(l))).map(|l| format!("+ {l}")));
    if differing == 0 && kind == Kind::Xen && got.len() == golden.len() && got != golden {
        wrong.push("the same observations in another order".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn log(lines: &[&str], end: End) -> Log {
        Log { lines: lines.iter().map(|s| s.to_string()).collect(), end, took: Duration::from_secs(1) }
    }

    #[test]
    fn a_machine_that_stops_has_failed() {
        let l = log(&["obs: a = 1"], End::Exited);
        assert!(judge(Path::new("/nonexistent"), "x", Kind::Xen, false, true, &l)[0].contains("triple fault"));
    }

    #[test]
    fn differences_need_a_reason() {
        let mut g = vec!["obs: a = 1".to_string()];
        assert!(apply_differences(&mut g, "obs: a = 2").is_err());
        assert!(apply_differences(&mut g, "# why\nobs: b = 2").is_err());
        assert!(apply_differences(&mut g, "# why\nobs: a = 1").is_err());
        apply_differences(&mut g, "# why\nobs: a = 2").expect("a reason is given");
        assert_eq!(g, ["obs: a = 2"]);
    }

    #[test]
    fn what_is_expected_must_be_said() {
        let l = log(&["(HOS) SMEP on, SMAP on"], End::Finished);
        assert!(missing(Kind::Hospes, &["SMAP on".into()], &l).is_empty());
        assert_eq!(missing(Kind::Hospes, &["XPTI on".into()], &l).len(), 1);
        assert!(missing(Kind::Xen, &["XPTI on".into()], &l).is_empty());
    }

    #[test]
    fn last_words_must_come_in_order() {
        let l = log(&["PANIC", "backtrace", "halted"], End::Finished);
        assert!(judge_end(&["PANIC", "halted"], &l).is_empty());
        assert!(!judge_end(&["halted", "PANIC"], &l).is_empty());
        assert!(!judge_end(&["PANIC", "watchdog"], &l).is_empty());
    }

    #[test]
    fn only_observations_count() {
        let l = log(&["(XEN) hello", "obs: a = 1", "fail: b"], End::Finished);
        assert_eq!(observations(&l), ["obs: a = 1"]);
    }
}
