//! `mutants`: each removes one check from a copy of the tree, and the test it names must notice.
//!
//! A mutant is caught when its test is green on the tree as it is and red on the mutant: a failed verdict, a panic, a
//! wrong transcript, or no end. A mutant that does not build, or whose test does not exist, is not caught.
mod format;
mod host;

use crate::kernels;
use crate::options::Options;
use crate::run::{self, Result3};
use format::{Mutant, Test};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The build profile of mutated hypervisors: see Cargo.toml.
const PROFILE: &str = "mutant";

/// How long a test kernel may take on a mutant. The slowest takes some ten seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Green,
    /// Why, in a few words.
    Red(String),
    /// It could not be tried.
    Broken(String),
}

/// The copy that is mutated, and where it is built.
struct Workshop<'a> {
    root: PathBuf,
    copy: PathBuf,
    /// The copy's own: cargo takes packages at the same place of two workspaces for the same, and what was built from a
    /// mutant must never be taken for the tree's.
    target: PathBuf,
    options: &'a Options,
    /// The test kernels, built from the tree as it is.
    kernels: Option<PathBuf>,
}

/// Runs the mutants asked for, by name, or with `--long` all; else those with quick tests, with these.
pub fn mutants(o: &Options) -> Result<bool, String> {
    let root = kernels::root();
    let mut mutants: Vec<Mutant> = all(&root)?.into_iter().filter(|m| o.wants(&m.name)).collect();
    if !o.long && o.only.is_empty() {
        mutants.retain_mut(|m| {
            m.tests.clone_from(&m.quick);
            !m.quick.is_empty()
        });
    }
    if mutants.is_empty() {
        return Err("harness: no such mutant".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |t| root.join(t));
    let mutants_dir = target.join("mutants");
    let mut shop =
        Workshop { copy: mutants_dir.join("tree"), root, target: mutants_dir.join("build"), options: o, kernels: None };
    let tests = || mutants.iter().flat_map(|m| &m.tests);
    if tests().any(|t| matches!(t, Test::Kernel(_))) {
        shop.kernels = Some(kernels::build(&shop.root)?);
    }
    shop.restore()?;
    let mut clean = BTreeMap::new();
    for t in tests() {
        if !clean.contains_key(t) {
            clean.insert(t.clone(), shop.try_test(t)?);
        }
    }
    let (mut caught, mut missed) = (0, 0);
    for m in &mutants {
        let start = Instant::now();
        let wrong = m.tests.iter().find_map(|t| match &clean[t] {
            Outcome::Green => None,
            Outcome::Red(why) => Some(format!("{t} is red without it: {why}")),
            Outcome::Broken(why) => Some(why.clone()),
        });
        let verdicts = match wrong {
            None => shop.try_mutant(m)?,
            Some(why) => vec![Outcome::Broken(why)],
        };
        let took = start.elapsed().as_secs_f32();
        let mut good = true;
        for (test, verdict) in m.tests.iter().zip(&verdicts) {
            match verdict {
                Outcome::Red(how) => println!("mutant {} ... caught by {test}: {how} ({took:.1} s)", m.name),
                Outcome::Green => {
                    good = false;
                    println!(
                        "mutant {} ... NOT CAUGHT: {test} stayed green without {} ({took:.1} s)",
                        m.name, m.removes
                    );
                }
                Outcome::Broken(why) => {
                    good = false;
                    println!("mutant {} ... NOT CAUGHT: {why}", m.name);
                }
            }
        }
        if good { caught += 1 } else { missed += 1 }
    }
    println!("{caught} passed, {missed} failed, 0 skipped");
    Ok(missed == 0)
}

/// Every mutant there is; names are unique.
fn all(root: &Path) -> Result<Vec<Mutant>, String> {
    let dir = root.join("tests/mutants");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "mutants"))
        .collect();
    files.sort();
    let mut all: Vec<Mutant> = Vec::new();
    for file in files {
        for m in format::read(&file)? {
            if all.iter().any(|other| other.name == m.name) {
                return Err(format!("{}: a second mutant {}", file.display(), m.name));
            }
            all.push(m);
        }
    }
    Ok(all)
}

impl Workshop<'_> {
    /// Makes the copy equal to the tree. Unchanged files keep their time, so that cargo builds only what a mutant touched.
    fn restore(&self) -> Result<(), String> {
        self.restore_directory(Path::new(""))
    }

    fn restore_directory(&self, at: &Path) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.root.join(at).display());
        for entry in std::fs::read_dir(self.root.join(at)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            // What `.gitignore` names: products of a build and downloads.
            let text = name.to_string_lossy();
            if at == Path::new("") && (text.starts_with("target") || matches!(&*text, "dist" | ".cache" | ".git")) {
                continue;
            }
            let to = at.join(&name);
            if entry.file_type().map_err(failed)?.is_dir() {
                self.restore_directory(&to)?;
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                self.write(&to, &bytes)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), String> {
        let to = self.copy.join(name);
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let failed = |e: std::io::Error| format!("{}: {e}", to.display());
        std::fs::create_dir_all(to.parent().unwrap_or(&self.copy)).map_err(failed)?;
        std::fs::write(&to, bytes).map_err(failed)
    }

    /// What came of each of its tests, or the one reason why none could be tried.
    fn try_mutant(&self, m: &Mutant) -> Result<Vec<Outcome>, String> {
        let original = match std::fs::read_to_string(self.root.join(&m.file)) {
            Ok(t) => t,
            Err(e) => return Ok(vec![Outcome::Broken(format!("{}: {e}", m.file.display()))]),
        };
        let mutated = match m.apply(&original) {
            Ok(t) => t,
            Err(why) => return Ok(vec![Outcome::Broken(why)]),
        };
        self.write(&m.file, mutated.as_bytes())?;
        let outcomes = m.tests.iter().map(|t| self.try_test(t)).collect();
        self.write(&m.file, original.as_bytes())?;
        outcomes
    }

    /// Builds what the test needs from the copy, and runs it.
    fn try_test(&self, test: &Test) -> Result<Outcome, String> {
        match test {
            Test::Host { package, target, name } => host::try_test(self, package, target.as_deref(), name),
            Test::Kernel(name) => self.try_kernel(name),
        }
    }

    fn cargo(&self) -> Command {
        let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        c.current_dir(&self.copy).env("CARGO_TARGET_DIR", &self.target).env("CARGO_TERM_COLOR", "never");
        c
    }

    fn try_kernel(&self, name: &str) -> Result<Outcome, String> {
        let Some(kernel) = kernels::KERNELS.iter().find(|k| k.name == name) else {
            return Ok(Outcome::Broken(format!("there is no test kernel {name}")));
        };
        let built = self
            .cargo()
            .args(["build", "-q", "--profile", PROFILE, "--target", "x86_64-unknown-none", "-p", "hypervisor"])
            .output()
            .map_err(|e| format!("cargo: {e}"))?;
        if !built.status.success() {
            return Ok(Outcome::Broken(format!("does not build: {}", String::from_utf8_lossy(&built.stderr))));
        }
        let image = self.target.join("x86_64-unknown-none").join(PROFILE).join("hospes");
        let binaries = self.kernels.as_deref().ok_or("the test kernels are not built")?;
        let mut o = self.options.clone();
        (o.long, o.timeout) = (true, LIMIT);
        let (result, text) = run::one(&o, &self.root, binaries, kernel, crate::machine::Kind::Hospes, &image);
        Ok(match result {
            Result3::Passed => Outcome::Green,
            Result3::Failed => Outcome::Red(text.lines().nth(1).unwrap_or("failed").trim().to_string()),
            Result3::Skipped => Outcome::Broken(format!("{name} was skipped")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes a line that a mutant names learns it here, not in the long run.
    #[test]
    fn every_mutant_applies() {
        let root = kernels::root();
        let mutants = all(&root).expect("tests/mutants can be read");
        assert!(!mutants.is_empty());
        let stale: Vec<String> = mutants
            .iter()
            .filter_map(|m| {
                let text = std::fs::read_to_string(root.join(&m.file)).unwrap_or_default();
                m.apply(&text).err().map(|why| format!("{}: {why}", m.name))
            })
            .collect();
        assert!(stale.is_empty(), "{stale:#?}");
    }

    #[test]
    fn every_kernel_a_mutant_names_exists() {
        for m in all(&kernels::root()).expect("tests/mutants can be read") {
            for t in &m.tests {
                if let Test::Kernel(name) = t {
                    assert!(kernels::KERNELS.iter().any(|k| k.name == name), "{}: no kernel {name}", m.name);
                }
            }
        }
    }
}
