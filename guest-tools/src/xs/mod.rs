//! A client of the store (xenstored): over its socket, or over the kernel's `/dev/xen/xenbus` where that is not there.

#[cfg(test)]
pub mod fake;
mod wire;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use wire::{HEADER_SIZE, Header, Kind};

/// Where xenstored listens.
const SOCKET: &str = "/run/xenstored/socket";
/// The same place by its older name.
const OLD_SOCKET: &str = "/var/run/xenstored/socket";
/// The kernel's own connection, for whoever has no socket.
const DEVICE: &str = "/dev/xen/xenbus";
/// Fired when a domain has shut down or is gone.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";
/// How often a transaction that others got in the way of is tried again.
const TRANSACTION_TRIES: u32 = 50;

/// Why something could not be done in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither socket nor device.
    #[error("the store (xenstored) is not reachable at {SOCKET}: {0}; is xenstored running?")]
    Unreachable(std::io::Error),
    /// The connection broke.
    #[error("the connection to the store (xenstored) broke: {0}")]
    Broken(#[from] std::io::Error),
    /// Not the protocol.
    #[error("the store (xenstored) sent a message that makes no sense")]
    Protocol,
    /// A name or value too long for a message.
    #[error("{0}: too long for the store")]
    TooLong(String),
    /// An error the store answered with, by its name.
    #[error("the store refused {what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// The error's name, such as `EACCES`.
        error: String,
    },
}

impl StoreError {
    fn is(&self, name: &str) -> bool {
        matches!(self, StoreError::Refused { error, .. } if error == name)
    }
}

/// Result of an operation on the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Who may do what with a node; the first entry is its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perms {
    /// Owner: may do everything.
    pub owner: u16,
    /// A domain that may read it.
    pub reader: Option<u16>,
}

/// One change of something watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What changed.
    pub path: String,
    /// What the watch was registered with.
    pub token: String,
}

/// A connection to the store.
#[derive(Debug)]
pub struct Store {
    connection: File,
    next_request: u32,
    transaction: u32,
    events: VecDeque<Event>,
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Store {
    /// Connects.
    pub fn open() -> Result<Self> {
        let socket = UnixStream::connect(SOCKET).or_else(|_| UnixStream::connect(OLD_SOCKET));
        let connection = match socket {
            Ok(socket) => File::from(OwnedFd::from(socket)),
            Err(e) => match OpenOptions::new().read(true).write(true).open(DEVICE) {
                Ok(device) => device,
                Err(_) => return Err(StoreError::Unreachable(e)),
            },
        };
        Ok(Store { connection, next_request: 1, transaction: 0, events: VecDeque::new() })
    }

    /// Over a connection that is there.
    #[cfg(test)]
    pub fn over(socket: UnixStream) -> Self {
        Store {
            connection: File::from(OwnedFd::from(socket)),
            next_request: 1,
            transaction: 0,
            events: VecDeque::new(),
        }
    }

    /// One message from the store.
    fn receive(&mut self) -> Result<(Header, Vec<u8>)> {
        let mut header = [0; HEADER_SIZE];
        self.connection.read_exact(&mut header)?;
        let header = Header::decode(header).ok_or(StoreError::Protocol)?;
        let mut payload = vec![0; header.len as usize];
        self.connection.read_exact(&mut payload)?;
        Ok((header, payload))
    }

    fn keep_event(&mut self, payload: &[u8]) {
        let mut strings = wire::strings(payload).into_iter();
        if let (Some(path), Some(token)) = (strings.next(), strings.next()) {
            self.events.push_back(Event { path, token });
        }
    }

    fn request(&mut self, kind: Kind, what: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let id = self.next_request;
        self.next_request = id.wrapping_add(1);
        let message =
            wire::request(kind, id, self.transaction, parts).ok_or_else(|| StoreError::TooLong(what.to_owned()))?;
        self.connection.write_all(&message)?;
        loop {
            let (header, payload) = self.receive()?;
            match header.kind {
                wire::WATCH_EVENT => self.keep_event(&payload),
                _ if header.request != id => return Err(StoreError::Protocol),
                wire::ERROR => {
                    let error = wire::strings(&payload).into_iter().next().unwrap_or_default();
                    return Err(StoreError::Refused { what: format!("{} {what}", kind.verb()), error });
                }
                answered if answered == kind as u32 => return Ok(payload),
                _ => return Err(StoreError::Protocol),
            }
        }
    }

    fn path_request(&mut self, kind: Kind, path: &str) -> Result<Vec<u8>> {
        self.request(kind, path, &[path.as_bytes(), b"\0"])
    }

    /// A node's value; `None` if there is no such node.
    pub fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.path_request(Kind::Read, path) {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(e) if e.is("ENOENT") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Names of the nodes right below one; none if it does not exist.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>> {
        match self.path_request(Kind::Directory, path) {
            Ok(names) => Ok(wire::strings(&names)),
            Err(e) if e.is("ENOENT") => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Writes a node, and makes it and those above it where they do not exist.
    pub fn write(&mut self, path: &str, value: &str) -> Result<()> {
        self.request(Kind::Write, path, &[path.as_bytes(), b"\0", value.as_bytes()]).map(drop)
    }

    /// Makes a node without a value.
    pub fn mkdir(&mut self, path: &str) -> Result<()> {
        self.path_request(Kind::Mkdir, path).map(drop)
    }

    /// Removes a node and all below it, if it is there.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        match self.path_request(Kind::Rm, path) {
            Err(e) if !e.is("ENOENT") => Err(e),
            _ => Ok(()),
        }
    }

    /// Says who may do what with a node. Nodes made below it later get the same.
    pub fn set_perms(&mut self, path: &str, perms: Perms) -> Result<()> {
        let mut list = format!("n{}\0", perms.owner);
        if let Some(reader) = perms.reader {
            list.push_str(&format!("r{reader}\0"));
        }
        self.request(Kind::SetPerms, path, &[path.as_bytes(), b"\0", list.as_bytes()]).map(drop)
    }

    /// Tells the store of a new domain: its store page and port.
    pub fn introduce(&mut self, domain: u16, mfn: u64, port: u32) -> Result<()> {
        let args = format!("{domain}\0{mfn}\0{port}\0");
        self.request(Kind::Introduce, &format!("domain {domain}"), &[args.as_bytes()]).map(drop)
    }

    /// Tells the store that a domain is gone. No error if the store has found out by itself.
    pub fn release(&mut self, domain: u16) -> Result<()> {
        match self.request(Kind::Release, &format!("domain {domain}"), &[format!("{domain}\0").as_bytes()]) {
            Err(StoreError::Refused { .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Has the store tell of changes at `path` and below. The first event comes at once.
    pub fn watch(&mut self, path: &str, token: &str) -> Result<()> {
        self.request(Kind::Watch, path, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"]).map(drop)
    }

    /// Takes a watch back.
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<()> {
        self.request(Kind::Unwatch, path, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])?;
        self.events.retain(|event| event.token != token);
        Ok(())
    }

    /// An event that has come already.
    pub fn pending_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next event; `None` if there is none until `deadline` (without one: waits for ever).
    pub fn event(&mut self, deadline: Option<Instant>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
            let ready = match poll(&mut [PollFd::new(&self.connection, PollFlags::IN)], timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.map_err(std::io::Error::from)?,
            };
            if ready == 0 {
                return Ok(None);
            }
            self.receive_event()?;
        }
    }

    /// Takes one message that is there, with no request under way: it must be an event.
    pub fn receive_event(&mut self) -> Result<()> {
        let (header, payload) = self.receive()?;
        if header.kind != wire::WATCH_EVENT {
            return Err(StoreError::Protocol);
        }
        self.keep_event(&payload);
        Ok(())
    }

    /// Waits until `path` has a value that is not empty; `None` if it has none within `limit`.
    pub fn wait_for_value(&mut self, path: &str, limit: Duration) -> Result<Option<String>> {
        self.wait_until(path, limit, |value| value.filter(|value| !value.is_empty()))
    }

    /// Waits until `wanted` makes something of the value of `path`; `None` if it does not within `limit`.
    pub fn wait_until<T>(
        &mut self,
        path: &str,
        limit: Duration,
        mut wanted: impl FnMut(Option<String>) -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        self.watch(path, path)?;
        let result = loop {
            let value = self.read(path)?;
            if let Some(found) = wanted(value) {
                break Some(found);
            }
            if self.event(Some(deadline))?.is_none() {
                break None;
            }
        };
        self.unwatch(path, path)?;
        Ok(result)
    }

    /// Does all that `body` does in one go, or nothing. `body` runs again when somebody else changed what it has read.
    pub fn transaction<T, E: From<StoreError>>(
        &mut self,
        mut body: impl FnMut(&mut Store) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut tries = 0;
        loop {
            let id = self.request(Kind::TransactionStart, "a transaction", &[b"\0"])?;
            let id = wire::strings(&id).first().and_then(|id| id.parse().ok()).ok_or(StoreError::Protocol)?;
            self.transaction = id;
            let result = body(self);
            let answer: &[u8] = if result.is_ok() { b"T\0" } else { b"F\0" };
            let ended = self.request(Kind::TransactionEnd, "a transaction", &[answer]);
            self.transaction = 0;
            tries += 1;
            match (result, ended) {
                (Ok(_), Err(e)) if e.is("EAGAIN") && tries < TRANSACTION_TRIES => {}
                (Ok(_), Err(e)) => return Err(e.into()),
                (result, _) => return result,
            }
        }
    }
}

/// For poll.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
