//! A domain's console: our terminal, or a pipe, joined to the terminal that xenconsoled offers.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use pv_abi::ids::DomId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::hypercalls::Hypervisor;
use crate::output::State;
use crate::xs::{RELEASE_DOMAIN, Store, timespec};

/// Ctrl-], as with telnet and xl.
const ESCAPE: u8 = 0x1d;
/// What a dead domain said last may still be on its way through the console daemon.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Input is not read further while so much of it waits for the guest.
const MAX_WAITING: usize = 4096;

/// How a look at a console ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The user left it.
    Left,
    /// The domain has ended; how, in a word.
    Domain(&'static str),
}

/// A console that is open, but not looked at yet: nothing the domain prints from here on is lost.
#[derive(Debug)]
pub struct Console {
    tty: File,
    domain: DomId,
}

/// Our terminal in raw mode, for as long as this lives.
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Sets it; `None` if stdin is no terminal.
    pub fn enter() -> Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin).context("the terminal's settings cannot be read")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).context("the terminal cannot be set to raw mode")?;
        Ok(Some(RawTerminal { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nobody left to tell of a failure.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

impl Console {
    /// Opens the terminal `tty` that xenconsoled offers for `domain`.
    pub fn open(tty: &str, domain: DomId) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlags::NOCTTY | OFlags::NONBLOCK).bits() as i32)
            .open(tty)
            .with_context(|| format!("the console's terminal {tty} cannot be opened"))?;
        // Bytes go through as they are.
        if let Ok(mut settings) = tcgetattr(&file) {
            settings.make_raw();
            tcsetattr(&file, OptionalActions::Now, &settings)
                .with_context(|| format!("{tty} cannot be set to raw mode"))?;
        }
        Ok(Console { tty: file, domain })
    }

    /// Joins it with stdin and stdout until the user types Ctrl-] or the domain ends. A stdin that is no terminal may end
    /// before that; the output goes on.
    pub fn attach(mut self, hypervisor: &Hypervisor, store: &mut Store) -> Result<End> {
        store.watch(RELEASE_DOMAIN, "console")?;
        let terminal = RawTerminal::enter()?;
        let end = self.join(hypervisor, store, terminal.is_some());
        drop(terminal);
        store.unwatch(RELEASE_DOMAIN, "console")?;
        end
    }

    fn join(&mut self, hypervisor: &Hypervisor, store: &mut Store, escapes: bool) -> Result<End> {
        let stdin = rustix::stdio::stdin();
        let mut stdin_open = true;
        let mut waiting: Vec<u8> = Vec::new();
        loop {
            while store.pending_event().is_some() {
                if let Some(word) = self.ended(hypervisor)? {
                    while self.readable(Some(LAST_WORDS))? && self.copy_output()? {}
                    return Ok(End::Domain(word));
                }
            }
            let read_stdin = stdin_open && waiting.len() < MAX_WAITING;
            let ready = wait(&self.tty, store.as_fd(), read_stdin.then_some(stdin), !waiting.is_empty())?;
            if ready.tty && !self.copy_output()? {
                // The console daemon has closed it: the domain is gone.
                return Ok(End::Domain(self.ended(hypervisor)?.unwrap_or("gone")));
            }
            if ready.store {
                store.receive_event()?;
            }
            if ready.stdin {
                let mut bytes = [0; 1024];
                let count = match rustix::io::read(stdin, &mut bytes) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                    result => result.context("stdin cannot be read")?,
                };
                stdin_open = count > 0;
                let input = bytes.get(..count).unwrap_or_default();
                match input.iter().position(|&b| escapes && b == ESCAPE) {
                    Some(_) => return Ok(End::Left),
                    None => waiting.extend_from_slice(input),
                }
            }
            if !waiting.is_empty() {
                match self.tty.write(&waiting) {
                    Ok(count) => drop(waiting.drain(..count)),
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(_) => return Ok(End::Domain(self.ended(hypervisor)?.unwrap_or("gone"))),
                }
            }
        }
    }

    /// How the domain has ended, if it has.
    fn ended(&self, hypervisor: &Hypervisor) -> Result<Option<&'static str>> {
        Ok(match hypervisor.domain_info(self.domain)? {
            None => Some("destroyed"),
            Some(info) => State(info.flags).shutdown_reason().map(|_| State(info.flags).word()),
        })
    }

    fn readable(&self, limit: Option<Duration>) -> Result<bool> {
        let limit = limit.map(timespec);
        Ok(poll(&mut [PollFd::new(&self.tty, PollFlags::IN)], limit.as_ref())? > 0)
    }

    /// Copies what is there to stdout; false when there is nobody at the other end any more.
    fn copy_output(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        let count = match self.tty.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        let mut out = std::io::stdout().lock();
        out.write_all(bytes.get(..count).unwrap_or_default())
            .and_then(|()| out.flush())
            .context("stdout cannot be written")?;
        Ok(true)
    }
}

/// What has something for us.
struct Readiness {
    tty: bool,
    store: bool,
    stdin: bool,
}

fn wait(tty: &File, store: BorrowedFd<'_>, stdin: Option<BorrowedFd<'_>>, write: bool) -> Result<Readiness> {
    let tty_events = if write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = vec![PollFd::new(tty, tty_events), PollFd::from_borrowed_fd(store, PollFlags::IN)];
    fds.extend(stdin.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    match poll(&mut fds, None) {
        Err(rustix::io::Errno::INTR) => {
            return Ok(Readiness { tty: false, store: false, stdin: false });
        }
        result => result.context("waiting for the console")?,
    };
    let set = |index: usize| fds.get(index).is_some_and(|fd| fd.revents().intersects(!PollFlags::OUT));
    Ok(Readiness { tty: set(0), store: set(1), stdin: set(2) })
}
