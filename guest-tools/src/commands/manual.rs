//! `dom completion` and `dom man`: made from the command line's own definition, so that they cannot say anything else.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::CommandLine;

/// Writes to stdout; a reader that has gone ends it quietly.
fn print(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(e).context("stdout cannot be written")
        }
        _ => Ok(()),
    }
}

/// `dom completion`.
pub fn completion(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "dom", &mut script);
    print(&script)
}

/// What the manual says beyond what the command line's definition knows, in roff.
const MORE: &str = r#"
.SH CONFIGURATION
A domain's configuration has the syntax of xl.cfg. These settings are known:
.BR name ", " uuid ", " kernel ", " ramdisk ", " cmdline ", " root ", " extra ", " memory ", " maxmem ", " vcpus ", "
.BR maxvcpus ", " cpus ", " cpu_weight ", " cap ", " disk ", " vif ", " on_poweroff ", " on_reboot ", " on_crash ", "
.BR on_watchdog ", " type " and " builder .
What is not supported is refused by its name.
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
        writeln!(
            page,
            "{}.",
            escape(&sub.get_about().map(ToString::to_string).unwrap_or_default())
        )?;
        for argument in sub
            .get_arguments()
            .filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help")
        {
            let mut name = match (argument.get_short(), argument.get_long()) {
                (Some(short), Some(long)) => format!("-{short}, --{long}"),
                (None, Some(long)) => format!("--{long}"),
                _ => argument.get_id().as_str().to_uppercase(),
            };
            let takes_value = argument.get_action().takes_values() && argument.get_long().is_some();
            if let Some(value) = argument
                .get_value_names()
                .and_then(|names| names.first())
                .filter(|_| takes_value)
            {
                name.push_str(&format!(" {value}"));
            }
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
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
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
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
            assert!(
                page.lines().any(|line| line.starts_with(&heading)),
                "{heading}"
            );
            assert!(
                sub.get_about().is_some(),
                "{} has no description",
                sub.get_name()
            );
        }
        assert!(page.contains(".SH CONFIGURATION") && !page.contains("watch ID"));
    }

    #[test]
    fn completion_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "dom", &mut script);
            assert!(
                String::from_utf8(script).unwrap().contains("block-attach"),
                "{shell}"
            );
        }
    }
}
