//! `dom completion` and `dom man`: made from the command line's own definition, so that they cannot say anything else.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCandidates, CompletionCandidate, Shell};
use clap_mangen::Man;
use pv_abi::ids::DomId;

use crate::cli::CommandLine;
use crate::find;
use crate::hypercalls::Hypervisor;
use crate::xs::Store;

/// Writes to stdout; a reader that has gone ends it quietly.
fn print(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("stdout cannot be written"),
        _ => Ok(()),
    }
}

/// What makes a shell ask `dom` for what could come next: it runs `dom -- dom WORD...` with the shell's name in this variable.
const ASKS: &str = "COMPLETE";
/// Arguments that name domains, by their ids in the command line's definition.
const NAME_DOMAINS: [&str; 2] = ["domain", "domains"];

/// Answers a shell that asks, and ends the program; otherwise does nothing.
pub fn complete() {
    CompleteEnv::with_factory(|| completed(domains)).var(ASKS).complete();
}

/// The command line with what could stand where a domain is named.
fn completed(domains: fn() -> Vec<CompletionCandidate>) -> Command {
    CommandLine::command().mut_subcommands(|sub| {
        sub.mut_args(|argument| match NAME_DOMAINS.contains(&argument.get_id().as_str()) {
            true => argument.add(ArgValueCandidates::new(domains)),
            false => argument,
        })
    })
}

/// The names of the domains there are. Where they cannot be told, none is: whoever presses Tab wants no message.
fn domains() -> Vec<CompletionCandidate> {
    let names = || -> Result<Vec<CompletionCandidate>> {
        let (hypervisor, mut store) = (Hypervisor::open()?, Store::open()?);
        let names = hypervisor.domains()?.into_iter().map(|info| find::name(&mut store, DomId(info.domain)));
        names.map(|name| Ok(CompletionCandidate::new(name?))).collect()
    };
    names().unwrap_or_default()
}

/// The script that makes `shell` ask.
fn registration(shell: Shell) -> Result<Vec<u8>> {
    let shell = shell.to_string();
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell).with_context(|| format!("there is no completion for {shell}"))?;
    completer.write_registration(ASKS, "dom", "dom", "dom", &mut script)?;
    Ok(script)
}

/// `dom completion`.
pub fn completion(shell: Shell) -> Result<()> {
    print(&registration(shell)?)
}

/// What the manual says beyond what the command line's definition knows, in roff.
const MORE: &str = r#"
.SH CONFIGURATION
A domain's configuration has the syntax of xl.cfg. These settings are known:
.BR name ", " uuid ", " kernel ", " ramdisk ", " cmdline ", " root ", " extra ", " memory ", " maxmem ", " vcpus ", "
.BR maxvcpus ", " cpus ", " cpus_soft ", " cpu_weight ", " cap ", " disk ", " vif ", " on_poweroff ", " on_reboot ", " on_crash ", "
.BR on_watchdog ", " type " and " builder .
What is not supported is refused by its name.
After the domain's end,
.BR on_poweroff ", " on_reboot ", " on_crash " and " on_watchdog
say what comes next:
.B destroy
gives back all it has,
.B restart
makes it anew,
.B preserve
leaves it to be looked at, and
.B rename-restart
leaves it under the name NAME-1 (or the next number that is free), without its disks and networks, and makes it anew.
.SH FILES
.TP
.I /etc/hospes/auto/*.cfg
started by
.BR "dom autostart" .
.TP
.I /run/hospes/UUID.json
the configuration of a domain that runs, with what was attached and set since its start.
.TP
.I /var/log/xen/dom-NAME.log
what a domain's watcher did after its end.
.SH EXIT STATUS
0 if it was done, 1 if it failed (one line on stderr says why, and what helps), 2 for a wrong command line.
"#;

/// The whole manual on one page: the program, then each of its commands.
fn page() -> Result<Vec<u8>> {
    let command = command();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let usage = sub.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        writeln!(page, ".SS {}", escape(usage))?;
        writeln!(page, "{}.", escape(&sub.get_about().map(ToString::to_string).unwrap_or_default()))?;
        for argument in sub.get_arguments().filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help") {
            let mut name = match (argument.get_short(), argument.get_long()) {
                (Some(short), Some(long)) => format!("-{short}, --{long}"),
                (None, Some(long)) => format!("--{long}"),
                _ => argument.get_id().as_str().to_uppercase(),
            };
            let takes_value = argument.get_action().takes_values() && argument.get_long().is_some();
            if let Some(value) = argument.get_value_names().and_then(|names| names.first()).filter(|_| takes_value) {
                name.push_str(&format!(" {value}"));
            }
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(page, ".TP\n\\fB{}\\fR\n{}", escape(&name), escape(&help))?;
        }
    }
    page.write_all(MORE.as_bytes())?;
    Ok(page)
}

/// The command line with its usages worked out.
fn command() -> Command {
    let mut command = CommandLine::command();
    command.build();
    command
}

/// For roff: a backslash, a hyphen, and what would be a request at a line's begin.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// `dom man`.
pub fn man(directory: Option<&Path>) -> Result<()> {
    let Some(directory) = directory else {
        return print(&page()?);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(CommandLine::command(), directory))
        .with_context(|| format!("the pages cannot be written to {}", directory.display()))?;
    let path = directory.join("dom.1");
    std::fs::write(&path, page()?).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_page_tells_of_every_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for sub in command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let heading = format!(".SS dom {}", escape(sub.get_name()));
            assert!(page.lines().any(|line| line.starts_with(&heading)), "{heading}");
            assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
        }
        assert!(page.contains(".SH CONFIGURATION") && !page.contains("watch ID"));
    }

    /// What could come next after these words; the domains are those of a test.
    fn next(words: &[&str]) -> Vec<String> {
        let mut command = completed(|| ["Domain-0", "web"].map(CompletionCandidate::new).into());
        let last = words.len() - 1;
        let words = words.iter().map(Into::into).collect();
        let next = clap_complete::engine::complete(&mut command, words, last, None).unwrap();
        next.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn completion_knows_the_commands_and_the_domains() {
        assert_eq!(next(&["dom", "block-a"]), ["block-attach"]);
        assert_eq!(next(&["dom", "pause", "w"]), ["web"]);
        assert!(next(&["dom", "shutdown", "web", ""]).contains(&"Domain-0".to_owned()), "the second of several");
        assert_eq!(next(&["dom", "vcpu-pin", "--json", "D"]), ["Domain-0"]);
        assert!(!next(&["dom", "rename", "web", ""]).contains(&"web".to_owned()), "a new name is no domain's");
        assert!(!next(&["dom", "create", "w"]).contains(&"web".to_owned()), "a file is no domain");
    }

    /// Every argument that names a domain is completed: one with another id would be forgotten.
    #[test]
    fn what_names_a_domain_is_called_so() {
        for sub in command()
            .get_subcommands()
            .filter(|sub| sub.get_about().is_some_and(|about| about.to_string().contains("domain's")))
        {
            let named = sub.get_arguments().any(|argument| NAME_DOMAINS.contains(&argument.get_id().as_str()));
            assert!(named || ["domid", "create", "watch"].contains(&sub.get_name()), "{}", sub.get_name());
        }
    }

    #[test]
    fn each_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            assert!(String::from_utf8(registration(shell).unwrap()).unwrap().contains(ASKS), "{shell}");
        }
    }
}
