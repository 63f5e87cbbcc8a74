//! `dom`: domains from dom0's command line, on Hospes and on Xen 4.17.
//!
//! From the ground up: [`privcmd`] (the kernel's door; all `unsafe` but that of loop devices is there), [`hypercalls`] (typed
//! operations), [`xs`] (the store), [`cfg`] (configuration files), [`nodes`] (a domain's nodes in the store), [`stored`] (the
//! configurations of those that run), [`devices`] (disks and networks), [`build`] (makes a domain), [`console`],
//! [`lifecycle`] (ends one), [`watcher`] (what comes after that), [`stats`] (what all of them use), [`commands`] and the
//! command line ([`cli`] and this file).
//!
//! Every failure is one line on stderr that says what, where and what to do, and exit status 1; a wrong command line is 2.
#![deny(unsafe_code)]

mod build;
mod cfg;
mod cli;
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
mod progress;
mod stats;
mod stored;
mod watcher;
mod xs;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use pv_abi::ids::DomId;

use cli::{Command, CommandLine, Debug};
use commands::{bridges, create, devices as device_commands, manual, memory, metrics, power, query, scheduling, top};
use hypercalls::Hypervisor;
use xs::Store;

/// Counts what the fuzzers' inputs make the parsers allocate.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: fuzzing::Counting = fuzzing::Counting;

fn main() -> ExitCode {
    // A shell that asks what could come next gets its answer, and that is all.
    manual::complete();
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line, whatever the parts of the message contain.
            eprintln!("dom: {}", format!("{e:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// What needs no hypervisor, or must say something before it looks for one; `None` is all the rest.
fn run_anywhere(line: &CommandLine) -> Option<Result<()>> {
    Some(match &line.command {
        // A configuration's mistakes are told before anything else is looked at, even where there is no hypervisor.
        Command::Create { file, console, paused, no_watch, overrides } => {
            let start = create::Start { console: *console, paused: *paused, watch: !no_watch };
            cfg::load(file, overrides).map_err(Into::into).and_then(|config| create::create(&config, start, line.json))
        }
        Command::Autostart { directory } => create::autostart(directory, line.json),
        Command::Watch { domain } => watcher::run(DomId(*domain)),
        Command::BridgeCreate { name, address, port } => bridges::create(name, address.as_deref(), port),
        Command::BridgeDelete { name } => bridges::delete(name),
        Command::BridgeList => bridges::list(line.json),
        Command::Completion { shell } => manual::completion(*shell),
        Command::Man { directory } => manual::man(directory.as_deref()),
        _ => return None,
    })
}

fn run(line: CommandLine) -> Result<()> {
    if let Some(result) = run_anywhere(&line) {
        return result;
    }
    let json = line.json;
    let hypervisor = &Hypervisor::open()?;
    // What asks the hypervisor only works without a store.
    match line.command {
        Command::Info => return query::info(hypervisor, json),
        Command::Dmesg { clear } => return query::dmesg(hypervisor, clear, json),
        Command::Debug(Debug::Audit) => return query::audit(hypervisor, json),
        _ => {}
    }
    let store = &mut Store::open()?;
    match line.command {
        Command::List { domain, verbose } => query::list(hypervisor, store, domain.as_deref(), verbose, json),
        Command::VcpuList { domain } => query::vcpu_list(hypervisor, store, domain.as_deref(), json),
        Command::Domid { domain } => query::domid(hypervisor, store, &domain, json),
        Command::Domname { domain } => query::domname(hypervisor, store, &domain, json),
        Command::Config { domain } => query::config(hypervisor, store, &domain, json),
        Command::Uptime { domain } => query::uptime(hypervisor, store, domain.as_deref(), json),
        Command::Top { batch, iterations, delay } => {
            top::top(hypervisor, store, top::Options { batch, iterations, delay, json })
        }
        Command::Metrics { listen } => metrics::metrics(hypervisor, store, listen),
        Command::Console { domain } => create::show_console(hypervisor, store, &domain),
        Command::Shutdown { which, wait } => power::ask(hypervisor, store, &which, power::Request::Poweroff, wait),
        Command::Reboot { which, wait } => power::ask(hypervisor, store, &which, power::Request::Reboot, wait),
        Command::Destroy { domain } => power::destroy(hypervisor, store, &domain),
        Command::Pause { domain } => power::pause(hypervisor, store, &domain),
        Command::Unpause { domain } => power::unpause(hypervisor, store, &domain),
        Command::Rename { domain, name } => power::rename(hypervisor, store, &domain, &name),
        Command::Sysrq { domain, key } => power::sysrq(hypervisor, store, &domain, key),
        Command::MemSet { domain, memory, wait } => memory::set(hypervisor, store, &domain, &memory, wait),
        Command::MemMax { domain, memory } => memory::max(hypervisor, store, &domain, &memory),
        Command::VcpuSet { domain, vcpus, wait } => scheduling::vcpu_set(hypervisor, store, &domain, vcpus, wait),
        Command::VcpuPin { domain, vcpu, cpus, soft } => {
            scheduling::vcpu_pin(hypervisor, store, &domain, &vcpu, &cpus, soft.as_deref())
        }
        Command::Sched { domain, weight, cap } => {
            scheduling::sched(hypervisor, store, domain.as_deref(), weight, cap, json)
        }
        Command::BlockAttach { domain, disk } => {
            device_commands::block_attach(hypervisor, store, &domain, &disk.join(","))
        }
        Command::BlockDetach { domain, vdev, force } => {
            device_commands::block_detach(hypervisor, store, &domain, &vdev, force)
        }
        Command::BlockList { domain } => device_commands::block_list(hypervisor, store, domain.as_deref(), json),
        Command::NetworkAttach { domain, network } => {
            device_commands::network_attach(hypervisor, store, &domain, &network.join(","))
        }
        Command::NetworkDetach { domain, interface, force } => {
            device_commands::network_detach(hypervisor, store, &domain, &interface, force)
        }
        Command::NetworkList { domain } => device_commands::network_list(hypervisor, store, domain.as_deref(), json),
        // Done above.
        Command::Info
        | Command::Dmesg { .. }
        | Command::Debug(_)
        | Command::Create { .. }
        | Command::Autostart { .. }
        | Command::Watch { .. }
        | Command::BridgeCreate { .. }
        | Command::BridgeDelete { .. }
        | Command::BridgeList
        | Command::Completion { .. }
        | Command::Man { .. } => Ok(()),
    }
}
