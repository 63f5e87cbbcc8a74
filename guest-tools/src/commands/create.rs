//! `dom create`, `dom autostart` and `dom console`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pv_abi::ids::DomId;
use serde::Serialize;

use crate::build::{self, Cancel, Ready};
use crate::cfg::{self, Config};
use crate::console::{Console, End};
use crate::hypercalls::Hypervisor;
use crate::output::{self, State};
use crate::xs::Store;
use crate::{lifecycle, nodes, watcher};

/// What `dom create --json` tells.
#[derive(Debug, Serialize)]
struct Created<'a> {
    name: &'a str,
    id: u16,
    tty: &'a str,
}

/// How a new domain starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// With its console on our terminal.
    pub console: bool,
    /// Not yet.
    pub paused: bool,
    /// With a watcher.
    pub watch: bool,
}

/// `dom create`.
pub fn create(config: &Config, start: Start, json: bool) -> Result<()> {
    let hypervisor = Hypervisor::open()?;
    let mut store = Store::open()?;
    let (ready, console) = make(&hypervisor, &mut store, config, start)?;
    if let Some(console) = console {
        return end_of_console(console.attach(&hypervisor, &mut store)?, &config.name);
    }
    if json {
        return output::json(&Created { name: &config.name, id: ready.domain.0, tty: &ready.tty });
    }
    let state = if start.paused { "is paused" } else { "runs" };
    output::line(&format!("domain `{}` {state}, id {}", config.name, ready.domain));
    Ok(())
}

/// Makes a domain and lets it run; if one of both fails, nothing of it is left.
fn make(hypervisor: &Hypervisor, store: &mut Store, config: &Config, start: Start) -> Result<(Ready, Option<Console>)> {
    let cancel = Cancel::on_signals()?;
    let ready = build::create(hypervisor, store, config, &cancel)?;
    drop(cancel);
    match let_go(hypervisor, &ready, config, start) {
        Ok(console) => Ok((ready, console)),
        Err(e) => {
            lifecycle::destroy(hypervisor, store, ready.domain)?;
            Err(e)
        }
    }
}

/// Lets a domain that is ready run. The console is opened before that, so that no line of it is lost.
fn let_go(hypervisor: &Hypervisor, ready: &Ready, config: &Config, start: Start) -> Result<Option<Console>> {
    if start.watch {
        watcher::spawn(ready.domain, config)?;
    }
    let console = if start.console { Some(Console::open(&ready.tty, ready.domain)?) } else { None };
    if !start.paused {
        hypervisor.unpause_domain(ready.domain)?;
    }
    Ok(console)
}

/// The configurations in a directory, in the order of their names.
fn configurations(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| {
        format!(
            "the directory {} cannot be read; make it and put configurations or links to them there",
            directory.display()
        )
    })?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cfg"))
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// What `dom autostart` did with a file.
#[derive(Debug, Serialize)]
struct Started {
    file: PathBuf,
    name: Option<String>,
    outcome: &'static str,
    error: Option<String>,
}

/// `dom autostart`: one that cannot be started does not keep the others from it.
pub fn autostart(directory: &Path, json: bool) -> Result<()> {
    let files = configurations(directory)?;
    let hypervisor = Hypervisor::open()?;
    let mut store = Store::open()?;
    let mut all = Vec::new();
    for file in files {
        let (name, result) = start_one(&hypervisor, &mut store, &file);
        let (outcome, error) = match result {
            Ok(outcome) => (outcome, None),
            Err(e) => ("failed", Some(format!("{e:#}").replace('\n', " "))),
        };
        if !json {
            match (&name, &error) {
                (Some(name), None) => output::line(&format!("domain `{name}` {outcome}")),
                (Some(name), Some(error)) => eprintln!("dom: domain `{name}`: {error}"),
                // The error names the file.
                (None, error) => eprintln!("dom: {}", error.as_deref().unwrap_or(outcome)),
            }
        }
        all.push(Started { file, name, outcome, error });
    }
    if json {
        output::json(&all)?;
    }
    match all.iter().filter(|started| started.error.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} domains could not be started (see above)", all.len()),
    }
}

fn start_one(hypervisor: &Hypervisor, store: &mut Store, file: &Path) -> (Option<String>, Result<&'static str>) {
    let config = match cfg::load(file, &[]) {
        Ok(config) => config,
        Err(e) => return (None, Err(e.into())),
    };
    let mut start = || -> Result<&'static str> {
        for other in hypervisor.domains()? {
            if nodes::name(store, DomId(other.domain))?.as_deref() == Some(&config.name) {
                return Ok("runs already");
            }
        }
        make(hypervisor, store, &config, Start { console: false, paused: false, watch: true })?;
        Ok("runs")
    };
    let result = start();
    (Some(config.name), result)
}

/// `dom console`.
pub fn show_console(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<()> {
    let info = super::guest(hypervisor, store, which, "it has no console that could be shown here")?;
    let tty = store
        .read(&format!("{}/console/tty", nodes::root(DomId(info.domain))))?
        .filter(|tty| !tty.is_empty())
        .with_context(|| {
            format!("domain `{which}` has no console ({}); is xenconsoled running?", State(info.flags).word())
        })?;
    let console = Console::open(&tty, DomId(info.domain))?;
    end_of_console(console.attach(hypervisor, store)?, which)
}

/// Tells people, not pipes, why the console ended.
fn end_of_console(end: End, name: &str) -> Result<()> {
    if std::io::stderr().is_terminal() {
        match end {
            End::Left => eprintln!("\n(left the console; `dom console {name}` comes back)"),
            End::Domain(word) => eprintln!("\n(domain `{name}` has ended: {word})"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configurations_in_the_order_of_their_names() {
        let directory = std::env::temp_dir().join(format!("dom-auto-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["20-b.cfg", "10-a.cfg", "note.txt", "old.cfg~"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let names: Vec<_> = configurations(&directory)
            .unwrap()
            .iter()
            .filter_map(|p| p.file_name()?.to_str().map(str::to_owned))
            .collect();
        assert_eq!(names, ["10-a.cfg", "20-b.cfg"]);
        std::fs::remove_dir_all(&directory).unwrap();
        let error = configurations(&directory).unwrap_err().to_string();
        assert!(error.ends_with("cannot be read; make it and put configurations or links to them there"), "{error}");
    }
}
