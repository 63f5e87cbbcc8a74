//! `mutants`: each one-line patch removes one check, and the test it names must notice.
use crate::kernels;
use crate::options::Options;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Mutant {
    name: String,
    file: PathBuf,
    /// Kernels of which at least one must fail.
    kernels: Vec<String>,
}

/// Headers of a patch: `# Test: NAME [NAME...]` and `# Removes: what`.
fn read(file: &Path) -> Result<Mutant, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let kernels: Vec<String> =
        text.lines().find_map(|l| l.strip_prefix("# Test: ")).unwrap_or("").split_whitespace().map(str::to_string).collect();
    if kernels.is_empty() || !text.lines().any(|l| l.starts_with("# Removes: ")) {
        return Err(format!("{}: wants the lines '# Test: NAME' and '# Removes: WHAT'", file.display()));
    }
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Mutant { name, file: file.to_path_buf(), kernels })
}

fn run(what: &mut Command) -> Result<(bool, String), String> {
    let out = what.output().map_err(|e| format!("{what:?}: {e}"))?;
    Ok((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)))
}

/// Applies each mutant to a copy of the tree, builds it, runs its test and wants it red.
pub fn mutants(o: &Options) -> Result<bool, String> {
    let root = kernels::root();
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("tests/mutants"))
        .map_err(|e| format!("tests/mutants: {e}"))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "patch"))
        .collect();
    files.sort();
    let mutants: Vec<Mutant> = files.iter().map(|f| read(f)).collect::<Result<Vec<_>, _>>()?.into_iter().filter(|m| o.wants(&m.name)).collect();
    if mutants.is_empty() {
        return Err("harness: no such mutant".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |t| root.join(t));
    let copy = target.join("mutants/tree");
    let (mut red, mut green) = (0, 0);
    for m in &mutants {
        fresh_copy(&root, &copy)?;
        let outcome = try_one(&copy, &target.join("mutants/target"), m, o)?;
        match outcome {
            Ok(test) => {
                red += 1;
                println!("mutant {} ... caught by {test}", m.name);
            }
            Err(why) => {
                green += 1;
                println!("mutant {} ... NOT CAUGHT: {why}", m.name);
            }
        }
    }
    println!("{red} passed, {green} failed, 0 skipped");
    Ok(green == 0)
}

fn fresh_copy(root: &Path, copy: &Path) -> Result<(), String> {
    std::fs::create_dir_all(copy).map_err(|e| format!("{}: {e}", copy.display()))?;
    // only what is under version control or new: no build products
    let list = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git: {e}"))?;
    for name in list.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let (from, to) = (root.join(&name), copy.join(&name));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        // unchanged files keep their time, so that cargo builds only what a mutant touched
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        std::fs::write(&to, bytes).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(())
}

type Caught = Result<String, String>;

fn try_one(copy: &Path, target: &Path, m: &Mutant, o: &Options) -> Result<Caught, String> {
    let (applied, text) = run(Command::new("patch").args(["-p1", "--no-backup-if-mismatch", "-i"]).arg(&m.file).current_dir(copy))?;
    if !applied {
        return Ok(Err(format!("the patch does not apply: {}", text.trim())));
    }
    let (built, text) = run(Command::new("cargo")
        .args(["build", "-q", "--release", "--target", "x86_64-unknown-none", "-p", "hypervisor"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(copy))?;
    if !built {
        return Ok(Err(format!("does not build: {}", text.trim())));
    }
    let image = target.join("x86_64-unknown-none/release/hospes");
    for kernel in &m.kernels {
        let mut test = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
        test.args(["run", "--only", kernel, "--hypervisor"]).arg(&image).env_remove("HOSPES_XEN");
        if !o.audit {
            test.arg("--no-audit");
        }
        let (passed, _) = run(&mut test)?;
        if !passed {
            return Ok(Ok(kernel.clone()));
        }
    }
    Ok(Err(format!("{} stayed green", m.kernels.join(", "))))
}
