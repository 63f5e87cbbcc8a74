//! The configurations of the domains that run, as they are now: what `dom create` was told, and what was attached, set and
//! renamed since. A restart makes the domain from it, and `dom config` shows it.
//!
//! One file a domain in `/run/hospes`, named after its uuid, which stays the same when the domain restarts. They are gone when
//! the machine restarts, as the domains are.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::cfg::Config;
use crate::output::format_uuid;

const DIRECTORY: &str = "/run/hospes";

fn file(directory: &Path, uuid: &[u8; 16]) -> PathBuf {
    directory.join(format!("{}.json", format_uuid(uuid)))
}

/// Held while a file is changed: two changes at a time must not lose one of them.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let made = || {
        std::fs::create_dir_all(directory)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok::<File, std::io::Error>(lock)
    };
    made().with_context(|| format!("{} cannot be locked", path.display()))
}

fn read(path: &Path) -> Result<Option<Config>> {
    match std::fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).with_context(|| format!("{} makes no sense", path.display()))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// In one go: whoever reads sees the old one or the new one.
fn write(path: &Path, config: &Config) -> Result<()> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(config)?)?;
        std::fs::rename(&new, path)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

/// Keeps the configuration of a domain.
pub fn save(uuid: &[u8; 16], config: &Config) -> Result<()> {
    save_in(Path::new(DIRECTORY), uuid, config)
}

/// The configuration of a domain; `None` for one that was not made by these tools.
pub fn load(uuid: &[u8; 16]) -> Result<Option<Config>> {
    read(&file(Path::new(DIRECTORY), uuid))
}

/// Changes the configuration of a domain, if there is one.
pub fn change(uuid: &[u8; 16], change: impl FnOnce(&mut Config)) -> Result<()> {
    change_in(Path::new(DIRECTORY), uuid, change)
}

/// Forgets the configuration of a domain that is gone.
pub fn forget(uuid: &[u8; 16]) -> Result<()> {
    let path = file(Path::new(DIRECTORY), uuid);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

fn save_in(directory: &Path, uuid: &[u8; 16], config: &Config) -> Result<()> {
    let _lock = lock(directory)?;
    write(&file(directory, uuid), &Config { uuid: Some(*uuid), ..config.clone() })
}

fn change_in(directory: &Path, uuid: &[u8; 16], change: impl FnOnce(&mut Config)) -> Result<()> {
    let path = file(directory, uuid);
    if !path.exists() {
        return Ok(());
    }
    let _lock = lock(directory)?;
    if let Some(mut config) = read(&path)? {
        change(&mut config);
        write(&path, &config)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_kept() {
        let directory = std::env::temp_dir().join(format!("dom-stored-{}", std::process::id()));
        let config = Config::least("g");
        let uuid = [7; 16];
        change_in(&directory, &uuid, |_| panic!("there is nothing to change")).unwrap();
        save_in(&directory, &uuid, &config).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let directory = directory.clone();
                std::thread::spawn(move || change_in(&directory, &uuid, |config| config.max_memory += 1).unwrap())
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let now = read(&file(&directory, &uuid)).unwrap().unwrap();
        assert_eq!(now, Config { uuid: Some(uuid), max_memory: config.max_memory + 8, ..config });
        std::fs::write(file(&directory, &uuid), "{").unwrap();
        assert!(read(&file(&directory, &uuid)).unwrap_err().to_string().ends_with("makes no sense"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
