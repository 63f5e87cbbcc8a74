//! `dom`: domains from dom0's command line, on Hospes and on Xen 4.17.
//!
//! From the ground up: [`privcmd`] (the kernel's door; all `unsafe` but that of loop devices is there), [`hypercalls`] (typed operations), [`xs`] (the
//! store), [`cfg`] (configuration files), [`nodes`] (a domain's nodes in the store), [`devices`] (disks and networks),
//! [`build`] (makes a domain), [`console`], [`lifecycle`] (ends one), [`watcher`] (what comes after that), [`commands`] and the command line in this file.
//!
//! Every failure is one line on stderr that says what, where and what to do, and exit status 1; a wrong command line is 2.
#![deny(unsafe_code)]

mod build;
mod cfg;
mod commands;
mod console;
mod devices;
mod find;
mod hypercalls;
mod lifecycle;
mod nodes;
mod output;
#[allow(unsafe_code)]
mod privcmd;
mod watcher;
mod xs;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use pv_abi::ids::DomId;
use serde::Serialize;

use build::Cancel;
use console::{Console, End};
use hypercalls::Hypervisor;
use output::State;
use xs::Store;

/// Manage the domains of this machine. Wherever a domain is named, its id does as well.
#[derive(Debug, Parser)]
#[command(name = "dom", version, disable_help_subcommand = true)]
struct CommandLine {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a domain from a configuration file in the xl.cfg syntax, and start it
    Create {
        /// The configuration
        file: PathBuf,
        /// Show its console at once, from the first line on (Ctrl-] leaves it)
        #[arg(short, long)]
        console: bool,
        /// Leave it paused
        #[arg(short, long, conflicts_with = "console")]
        paused: bool,
        /// Do not stay in the background to do what on_poweroff, on_reboot and on_crash say
        #[arg(short = 'e', long)]
        no_watch: bool,
        /// Settings that replace the file's, such as memory=256
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Show all domains, or one
    List {
        /// Only this one
        domain: Option<String>,
        /// Show more of each
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show the vCPUs of all domains, or of one
    VcpuList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Join a domain's console; Ctrl-] leaves it
    Console {
        /// Which
        domain: String,
    },
    /// End a domain at once and give back all it has
    Destroy {
        /// Which
        domain: String,
    },
    /// Stop a domain's vCPUs
    Pause {
        /// Which
        domain: String,
    },
    /// Let a paused domain go on
    Unpause {
        /// Which
        domain: String,
    },
    /// Ask a domain's kernel to power off
    Shutdown {
        /// Which
        domain: String,
    },
    /// Ask a domain's kernel to reboot
    Reboot {
        /// Which
        domain: String,
    },
    /// Give a running domain a disk
    BlockAttach {
        /// Which domain
        domain: String,
        /// The disk, as in a configuration: /srv/a.img,raw,xvdb,w
        #[arg(required = true)]
        disk: Vec<String>,
    },
    /// Take a disk away from a running domain
    BlockDetach {
        /// Which domain
        domain: String,
        /// The disk's name in the guest: xvdb
        vdev: String,
        /// Do not wait for the guest to give it back
        #[arg(short, long)]
        force: bool,
    },
    /// Show the disks of all domains, or of one
    BlockList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Give a running domain a network interface
    NetworkAttach {
        /// Which domain
        domain: String,
        /// The interface, as in a configuration: bridge=xenbr0 mac=00:16:3e:01:02:03
        #[arg(value_name = "KEY=VALUE")]
        network: Vec<String>,
    },
    /// Take a network interface away from a running domain
    NetworkDetach {
        /// Which domain
        domain: String,
        /// The interface's number or its MAC address
        interface: String,
        /// Do not wait for the guest to give it back
        #[arg(short, long)]
        force: bool,
    },
    /// Show the network interfaces of all domains, or of one
    NetworkList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Make a bridge, which domains' networks are plugged into
    BridgeCreate {
        /// Its name
        #[arg(default_value = "xenbr0")]
        name: String,
        /// dom0's own address on it: 10.0.0.1/24
        address: Option<String>,
        /// A network card of dom0's to plug in, too
        #[arg(short, long, value_name = "INTERFACE")]
        port: Vec<String>,
    },
    /// Remove a bridge that nothing is plugged into
    BridgeDelete {
        /// Which
        name: String,
    },
    /// Show the bridges
    BridgeList,
    /// Show the machine and its hypervisor
    Info,
    /// Show the hypervisor's messages
    Dmesg {
        /// Forget them after that
        #[arg(short, long)]
        clear: bool,
    },
    /// Wait for a domain's end (what `dom create` leaves in the background)
    #[command(hide = true)]
    Watch {
        /// Its id
        domain: u16,
    },
    /// What developers of the hypervisor need
    #[command(subcommand)]
    Debug(Debug),
}

#[derive(Debug, Subcommand)]
enum Debug {
    /// Recount every frame and compare (only on Hospes)
    Audit,
}

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line, whatever the parts of the message contain.
            eprintln!("dom: {}", format!("{e:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> Result<()> {
    let json = line.json;
    match &line.command {
        // A configuration's mistakes are told before anything else is looked at, even where there is no hypervisor.
        Command::Create { file, console, paused, no_watch, overrides } => {
            let options = Start { console: *console, paused: *paused, watch: !no_watch };
            return create(&cfg::load(file, overrides)?, options, json);
        }
        Command::Watch { domain } => return watcher::run(DomId(*domain)),
        Command::BridgeCreate { name, address, port } => return commands::devices::bridge_create(name, address.as_deref(), port),
        Command::BridgeDelete { name } => return commands::devices::bridge_delete(name),
        Command::BridgeList => return commands::devices::bridge_list(json),
        _ => {}
    }
    let hypervisor = Hypervisor::open()?;
    match line.command {
        Command::Create { .. }
        | Command::Watch { .. }
        | Command::BridgeCreate { .. }
        | Command::BridgeDelete { .. }
        | Command::BridgeList => Ok(()),
        Command::BlockAttach { domain, disk } => {
            commands::devices::block_attach(&hypervisor, &mut Store::open()?, &domain, &disk.join(","))
        }
        Command::BlockDetach { domain, vdev, force } => {
            commands::devices::block_detach(&hypervisor, &mut Store::open()?, &domain, &vdev, force)
        }
        Command::BlockList { domain } => {
            commands::devices::block_list(&hypervisor, &mut Store::open()?, domain.as_deref(), json)
        }
        Command::NetworkAttach { domain, network } => {
            commands::devices::network_attach(&hypervisor, &mut Store::open()?, &domain, &network.join(","))
        }
        Command::NetworkDetach { domain, interface, force } => {
            commands::devices::network_detach(&hypervisor, &mut Store::open()?, &domain, &interface, force)
        }
        Command::NetworkList { domain } => {
            commands::devices::network_list(&hypervisor, &mut Store::open()?, domain.as_deref(), json)
        }
        Command::Info => commands::info(&hypervisor, json),
        Command::Dmesg { clear } => commands::dmesg(&hypervisor, clear, json),
        Command::Debug(Debug::Audit) => commands::audit(&hypervisor, json),
        Command::List { domain, verbose } => commands::list(&hypervisor, &mut Store::open()?, domain.as_deref(), verbose, json),
        Command::VcpuList { domain } => commands::vcpu_list(&hypervisor, &mut Store::open()?, domain.as_deref(), json),
        Command::Console { domain } => show_console(&hypervisor, &mut Store::open()?, &domain),
        Command::Destroy { domain } => {
            let mut store = Store::open()?;
            let id = find::domain(&hypervisor, &mut store, &domain)?.domain;
            lifecycle::destroy(&hypervisor, &mut store, DomId(id))
        }
        Command::Pause { domain } => {
            let info = find::domain(&hypervisor, &mut Store::open()?, &domain)?;
            if info.domain == 0 {
                bail!("domain 0 cannot be paused: it is the one this runs in");
            }
            Ok(hypervisor.pause_domain(DomId(info.domain))?)
        }
        Command::Unpause { domain } => {
            let info = find::domain(&hypervisor, &mut Store::open()?, &domain)?;
            if info.flags & pv_abi::domctl::dominf::PAUSED == 0 {
                bail!("domain `{domain}` is not paused");
            }
            Ok(hypervisor.unpause_domain(DomId(info.domain))?)
        }
        Command::Shutdown { domain } => commands::ask_to_end(&hypervisor, &mut Store::open()?, &domain, "poweroff"),
        Command::Reboot { domain } => commands::ask_to_end(&hypervisor, &mut Store::open()?, &domain, "reboot"),
    }
}

/// What `dom create --json` tells.
#[derive(Debug, Serialize)]
struct Created<'a> {
    name: &'a str,
    id: u16,
    tty: &'a str,
}

/// How a new domain starts.
#[derive(Debug, Clone, Copy)]
struct Start {
    console: bool,
    paused: bool,
    watch: bool,
}

fn create(config: &cfg::Config, start: Start, json: bool) -> Result<()> {
    let hypervisor = Hypervisor::open()?;
    let mut store = Store::open()?;
    let cancel = Cancel::on_signals()?;
    let ready = build::create(&hypervisor, &mut store, config, &cancel)?;
    drop(cancel);
    let console = match let_go(&hypervisor, &ready, config, start) {
        Ok(console) => console,
        Err(e) => {
            lifecycle::destroy(&hypervisor, &mut store, ready.domain)?;
            return Err(e);
        }
    };
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

/// Lets a domain that is ready run. The console is opened before that, so that no line of it is lost.
fn let_go(hypervisor: &Hypervisor, ready: &build::Ready, config: &cfg::Config, start: Start) -> Result<Option<Console>> {
    if start.watch {
        watcher::spawn(ready.domain, config)?;
    }
    let console = if start.console { Some(Console::open(&ready.tty, ready.domain)?) } else { None };
    if !start.paused {
        hypervisor.unpause_domain(ready.domain)?;
    }
    Ok(console)
}

fn show_console(hypervisor: &Hypervisor, store: &mut Store, which: &str) -> Result<()> {
    let info = find::domain(hypervisor, store, which)?;
    if info.domain == 0 {
        bail!("domain 0 has no console that could be shown here: it is the one this runs in");
    }
    let tty = store
        .read(&format!("{}/console/tty", nodes::root(DomId(info.domain))))?
        .filter(|tty| !tty.is_empty())
        .with_context(|| format!("domain `{which}` has no console ({}); is xenconsoled running?", State(info.flags).word()))?;
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
