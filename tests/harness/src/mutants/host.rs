//! Host tests on a mutant.
use super::{Outcome, Workshop};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one test may take before it counts as one that does not end. The slowest takes a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs exactly the test `name` of `package`.
pub fn try_test(shop: &Workshop<'_>, package: &str, target: Option<&str>, name: &str) -> Result<Outcome, String> {
    let mut test = shop.cargo();
    test.args(["test", "-q", "-p", package]);
    match target {
        // A package that is a program only.
        Some("bins") => test.arg("--bins"),
        Some(t) => test.args(["--test", t]),
        None => test.arg("--lib"),
    };
    let mut build = shop.cargo();
    build.args(test.get_args()).arg("--no-run");
    let built = build.output().map_err(|e| format!("cargo: {e}"))?;
    if !built.status.success() {
        return Ok(Outcome::Broken(format!("does not build: {}", String::from_utf8_lossy(&built.stderr))));
    }
    // A found case must not be stored beside the sources.
    test.args(["--", "--exact", name]).env("PROPTEST_FAILURE_PERSISTENCE", "off");
    let Some((passed, text)) = run_limited(&mut test)? else {
        return Ok(Outcome::Red("it does not end".into()));
    };
    if passed {
        let ran = text.lines().any(|l| l.contains("test result: ok. 1 passed"));
        return Ok(if ran { Outcome::Green } else { Outcome::Broken(format!("there is no test {name} in {package}")) });
    }
    let why = text.lines().skip_while(|l| !l.contains("panicked at")).nth(1).unwrap_or("failed").trim();
    Ok(Outcome::Red(why.chars().take(100).collect()))
}

/// Success and output; `None` when the time was up. The test runs in a process group of its own, all of which ends then.
fn run_limited(test: &mut Command) -> Result<Option<(bool, String)>, String> {
    use std::os::unix::process::CommandExt;
    let child = test
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cargo: {e}"))?;
    let group = child.id();
    let waiter = std::thread::spawn(move || Child::wait_with_output(child));
    let start = Instant::now();
    while !waiter.is_finished() {
        if start.elapsed() > LIMIT {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{group}")]).status();
            let _ = waiter.join();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = waiter.join().map_err(|_| "a waiter panicked")?.map_err(|e| format!("cargo: {e}"))?;
    Ok(Some((
        out.status.success(),
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
    )))
}
