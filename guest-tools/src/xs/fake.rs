//! A store for tests: the protocol of the real one over a socket pair, nodes in a map, and a hook that plays the drivers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::Store;
use super::wire::{self, HEADER_SIZE, Header};

/// Nodes by their paths.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// Values.
    pub values: BTreeMap<String, String>,
    /// What set_perms said, with blanks between.
    pub perms: BTreeMap<String, String>,
    conflicts: u32,
    changed: Vec<String>,
}

impl Nodes {
    /// None yet, and so many transactions that others get in the way of.
    pub fn with_conflicts(conflicts: u32) -> Self {
        Nodes { conflicts, ..Nodes::default() }
    }

    /// Writes a node and makes those above it.
    pub fn set(&mut self, path: &str, value: &str) {
        let mut above = String::new();
        for part in path.split('/').skip(1) {
            above = format!("{above}/{part}");
            self.values.entry(above.clone()).or_default();
        }
        self.values.insert(path.to_owned(), value.to_owned());
        self.changed.push(path.to_owned());
    }

    fn remove(&mut self, path: &str) -> bool {
        let below = format!("{path}/");
        let gone: Vec<String> =
            self.values.keys().filter(|key| *key == path || key.starts_with(&below)).cloned().collect();
        for key in &gone {
            self.values.remove(key);
            self.perms.remove(key);
        }
        self.changed.extend(gone.iter().cloned());
        !gone.is_empty()
    }

    fn children(&self, path: &str) -> Option<Vec<u8>> {
        let below = format!("{path}/");
        self.values.contains_key(path).then(|| {
            let names =
                self.values.keys().filter_map(|key| key.strip_prefix(&below)).filter(|name| !name.contains('/'));
            names.flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect()
        })
    }

    /// All paths that contain the text.
    pub fn with(&self, text: &str) -> Vec<&str> {
        self.values.keys().filter(|key| key.contains(text)).map(String::as_str).collect()
    }
}

/// What a driver does when a node was written: it may write others.
pub type Driver = fn(nodes: &mut Nodes, path: &str, value: &str);

/// A connection to a new store with these nodes and this driver, and the nodes, to be looked at.
pub fn store(nodes: Nodes, driver: Driver) -> (Store, Arc<Mutex<Nodes>>) {
    let (client, server) = UnixStream::pair().unwrap();
    let nodes = Arc::new(Mutex::new(nodes));
    let shared = nodes.clone();
    std::thread::spawn(move || serve(server, &shared, driver));
    (Store::over(client), nodes)
}

fn send(socket: &mut UnixStream, kind: u32, request: u32, payload: &[u8]) {
    let header = Header { kind, request, transaction: 0, len: payload.len() as u32 };
    socket.write_all(&[&header.encode()[..], payload].concat()).unwrap();
}

fn serve(mut socket: UnixStream, nodes: &Mutex<Nodes>, driver: Driver) {
    let mut watches: Vec<(String, String)> = Vec::new();
    // What a transaction that fails goes back to; there is one client, hence one transaction at a time.
    let mut before = Nodes::default();
    let mut head = [0; HEADER_SIZE];
    // The client's end of the connection ends this, too.
    while socket.read_exact(&mut head).is_ok() {
        let header = Header::decode(head).unwrap();
        let mut payload = vec![0; header.len as usize];
        socket.read_exact(&mut payload).unwrap();
        let mut nodes = nodes.lock().unwrap();
        let path = wire::strings(&payload).into_iter().next().unwrap_or_default();
        let second = || wire::strings(&payload).get(1).cloned().unwrap_or_default();
        let answer: Result<Vec<u8>, &str> = match header.kind {
            1 => nodes.children(&path).ok_or("ENOENT"),
            2 => nodes.values.get(&path).map(|value| value.clone().into_bytes()).ok_or("ENOENT"),
            4 => {
                watches.push((path.clone(), second()));
                send(&mut socket, wire::WATCH_EVENT, 0, format!("{path}\0{}\0", second()).as_bytes());
                Ok(b"OK\0".to_vec())
            }
            5 => {
                watches.retain(|watch| *watch != (path.clone(), second()));
                Ok(b"OK\0".to_vec())
            }
            6 => {
                before = nodes.clone();
                Ok(b"1\0".to_vec())
            }
            7 if path == "F" => {
                *nodes = before.clone();
                Ok(b"OK\0".to_vec())
            }
            7 if nodes.conflicts > 0 => {
                *nodes = Nodes { conflicts: nodes.conflicts - 1, ..before.clone() };
                Err("EAGAIN")
            }
            7..=9 => Ok(b"OK\0".to_vec()),
            11 => {
                let value = String::from_utf8(payload[path.len() + 1..].to_vec()).unwrap();
                nodes.set(&path, &value);
                driver(&mut nodes, &path, &value);
                Ok(b"OK\0".to_vec())
            }
            12 => {
                let value = nodes.values.get(&path).cloned().unwrap_or_default();
                nodes.set(&path, &value);
                Ok(b"OK\0".to_vec())
            }
            13 => {
                if nodes.remove(&path) {
                    Ok(b"OK\0".to_vec())
                } else {
                    Err("ENOENT")
                }
            }
            14 => {
                let perms = wire::strings(&payload)[1..].join(" ");
                nodes.perms.insert(path.clone(), perms);
                Ok(b"OK\0".to_vec())
            }
            _ => Err("ENOSYS"),
        };
        match answer {
            Ok(payload) => send(&mut socket, header.kind, header.request, &payload),
            Err(name) => send(&mut socket, wire::ERROR, header.request, format!("{name}\0").as_bytes()),
        }
        for changed in std::mem::take(&mut nodes.changed) {
            for (path, token) in &watches {
                if changed == *path || changed.starts_with(&format!("{path}/")) {
                    send(&mut socket, wire::WATCH_EVENT, 0, format!("{changed}\0{token}\0").as_bytes());
                }
            }
        }
    }
}
