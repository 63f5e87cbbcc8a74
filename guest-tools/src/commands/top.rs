//! `dom top`: what each domain uses, again and again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::console::RawTerminal;
use crate::hypercalls::Hypervisor;
use crate::output::{self, seconds, table};
use crate::stats::{self, Domain, Snapshot, Traffic};
use crate::xs::{Store, timespec};

/// Keys that end it: q, and Ctrl-C, which a raw terminal tells as a byte.
const ENDS: &[u8] = b"qQ\x03";

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Plain text, one table after the other.
    pub batch: bool,
    /// How many tables; no end without it.
    pub iterations: Option<u32>,
    /// Seconds between two.
    pub delay: u32,
    /// A JSON object a line instead of tables.
    pub json: bool,
}

/// A domain between two snapshots.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    id: u16,
    state: &'static str,
    /// Percent of one CPU.
    cpu_percent: f64,
    cpu_time_ns: u64,
    memory_bytes: u64,
    vcpus: u32,
    disk_read_per_s: f64,
    disk_written_per_s: f64,
    network_received_per_s: f64,
    network_sent_per_s: f64,
}

/// All domains between two snapshots.
#[derive(Debug, Serialize)]
struct Table {
    cpus: u32,
    memory_bytes: u64,
    free_memory_bytes: u64,
    domains: Vec<Row>,
}

fn sum(devices: &[(String, Traffic)]) -> Traffic {
    devices.iter().fold(Traffic::default(), |sum, (_, traffic)| sum.and(*traffic))
}

fn row(before: Option<&Domain>, now: &Domain, elapsed: f64) -> Row {
    // A domain or a device that was not there before has used nothing yet; one that has gone takes nothing back.
    let rate = |before: u64, now: u64| {
        if elapsed > 0.0 { now.saturating_sub(before) as f64 / elapsed } else { 0.0 }
    };
    let before = before.unwrap_or(now);
    let (disks, disks_before) = (sum(&now.disks), sum(&before.disks));
    let (networks, networks_before) = (sum(&now.networks), sum(&before.networks));
    Row {
        name: now.name.clone(),
        id: now.id,
        state: now.state,
        cpu_percent: rate(before.cpu_ns, now.cpu_ns) / 10_000_000.0,
        cpu_time_ns: now.cpu_ns,
        memory_bytes: now.memory,
        vcpus: now.vcpus,
        disk_read_per_s: rate(disks_before.read, disks.read),
        disk_written_per_s: rate(disks_before.written, disks.written),
        network_received_per_s: rate(networks_before.read, networks.read),
        network_sent_per_s: rate(networks_before.written, networks.written),
    }
}

fn compare(before: &Snapshot, now: &Snapshot) -> Table {
    let elapsed = now.at.saturating_duration_since(before.at).as_secs_f64();
    let known: BTreeMap<u16, &Domain> = before.domains.iter().map(|domain| (domain.id, domain)).collect();
    let domains = now.domains.iter().map(|domain| row(known.get(&domain.id).copied(), domain, elapsed)).collect();
    Table { cpus: now.cpus, memory_bytes: now.memory, free_memory_bytes: now.free, domains }
}

/// `1.5M`: with a unit that keeps it short.
fn short(value: f64) -> String {
    let mut value = value;
    for unit in ["", "K", "M", "G"] {
        if value < 1000.0 {
            return if unit.is_empty() { format!("{value:.0}") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

fn text(table_of: &Table) -> String {
    let head = format!(
        "{} CPUs, {} MiB of memory, {} MiB free, {} domains",
        table_of.cpus,
        table_of.memory_bytes >> 20,
        table_of.free_memory_bytes >> 20,
        table_of.domains.len()
    );
    let row = |r: &Row| {
        vec![
            r.name.clone(),
            r.id.to_string(),
            r.state.to_owned(),
            format!("{:.1}", r.cpu_percent),
            seconds(r.cpu_time_ns),
            (r.memory_bytes >> 20).to_string(),
            r.vcpus.to_string(),
            short(r.disk_read_per_s),
            short(r.disk_written_per_s),
            short(r.network_received_per_s),
            short(r.network_sent_per_s),
        ]
    };
    let header =
        ["NAME", "ID", "STATE", "CPU(%)", "TIME(s)", "MEM(MiB)", "VCPUS", "READ/s", "WRITE/s", "RECV/s", "SEND/s"];
    let rows = table_of.domains.iter().map(row).collect();
    format!("{head}\n{}", table(&header, &[1, 3, 4, 5, 6, 7, 8, 9, 10], rows))
}

/// `dom top`.
pub fn top(hypervisor: &Hypervisor, store: &mut Store, options: Options) -> Result<()> {
    let plain = options.batch || options.json || !std::io::stdout().is_terminal();
    let delay = Duration::from_secs(options.delay.into());
    let mut screen = if plain { None } else { Some(Screen::enter()?) };
    let mut before = stats::snapshot(hypervisor, store)?;
    let mut shown = 0;
    if let Some(screen) = &mut screen {
        // At once, though there are no rates yet.
        screen.show(&text(&compare(&before, &before)))?;
    }
    while options.iterations.is_none_or(|most| shown < most) {
        match &screen {
            Some(screen) if screen.ends_within(delay)? => break,
            Some(_) => {}
            None => std::thread::sleep(delay),
        }
        let now = stats::snapshot(hypervisor, store)?;
        let table = compare(&before, &now);
        match &mut screen {
            Some(screen) => screen.show(&text(&table))?,
            None if options.json => output::line(&serde_json::to_string(&table)?),
            None => output::line(&text(&table)),
        }
        before = now;
        shown += 1;
    }
    Ok(())
}

/// What a terminal of that size is sent to show what of a text it has room for, and nothing else. A serial line does not know
/// how large the terminal at its end is, and says 0: then it is taken for one of 24 rows and 80 columns.
fn fitted(text: &str, rows: u16, columns: u16) -> String {
    let (rows, columns) = (if rows == 0 { 24 } else { rows }, if columns == 0 { 80 } else { columns });
    let mut shown = String::from("\x1b[H");
    for line in text.lines().take(usize::from(rows.max(2)) - 1) {
        shown.extend(line.chars().take(columns.into()));
        shown.push_str("\x1b[K\r\n");
    }
    shown.push_str("\x1b[J");
    shown
}

/// A terminal that shows one text after the other; as it was before when this is dropped.
struct Screen {
    _raw: Option<RawTerminal>,
}

impl Screen {
    fn enter() -> Result<Self> {
        let raw = RawTerminal::enter()?;
        // The other screen, without a cursor.
        Screen::write("\x1b[?1049h\x1b[?25l")?;
        Ok(Screen { _raw: raw })
    }

    fn write(text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("stdout cannot be written")
    }

    /// Shows what of a text the terminal has room for.
    fn show(&mut self, text: &str) -> Result<()> {
        let (rows, columns) = tcgetwinsize(std::io::stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col));
        Screen::write(&fitted(text, rows, columns))
    }

    /// Waits; true if a key has ended it.
    fn ends_within(&self, limit: Duration) -> Result<bool> {
        let stdin = rustix::stdio::stdin();
        let limit = timespec(limit);
        match poll(&mut [PollFd::from_borrowed_fd(stdin, PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            result => result.context("waiting for a key")?,
        };
        let mut keys = [0; 64];
        let count = rustix::io::read(stdin, &mut keys).unwrap_or(0);
        // A stdin that has ended will never tell a key.
        Ok(count == 0 || keys.get(..count).unwrap_or_default().iter().any(|key| ENDS.contains(key)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell of a failure.
        let _ = Screen::write("\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::example;

    #[test]
    fn what_was_used_between_two_looks() {
        let before = example();
        let mut now = before.clone();
        now.at = before.at + Duration::from_secs(2);
        now.domains[1].cpu_ns += 1_000_000_000;
        now.domains[1].disks[0].1.written += 3 << 20;
        now.domains[1].networks[0].1.read += 2000;
        now.domains.push(Domain { id: 9, name: "new".into(), ..now.domains[1].clone() });
        let shown = text(&compare(&before, &now));
        assert_eq!(
            shown,
            "2 CPUs, 2048 MiB of memory, 1024 MiB free, 3 domains\n\
             NAME      ID  STATE    CPU(%)  TIME(s)  MEM(MiB)  VCPUS  READ/s  WRITE/s  RECV/s  SEND/s\n\
             Domain-0   0  running     0.0     17.2       512      2       0        0       0       0\n\
             web        3  blocked    50.0      2.5        96      1       0     1.5M    1.0K       0\n\
             new        9  blocked     0.0      2.5        96      1       0        0       0       0"
        );
    }

    #[test]
    fn a_device_that_has_gone_takes_nothing_back() {
        let before = example();
        let mut now = before.clone();
        now.at = before.at + Duration::from_secs(1);
        now.domains[1].disks.clear();
        assert_eq!(compare(&before, &now).domains[1].disk_written_per_s, 0.0);
    }

    #[test]
    fn a_screen_shows_what_it_has_room_for() {
        assert_eq!(fitted("abc\nde\nf", 3, 2), "\x1b[Hab\x1b[K\r\nde\x1b[K\r\n\x1b[J");
        let long = format!("{}\n", "x".repeat(100)).repeat(30);
        let serial = fitted(&long, 0, 0);
        assert_eq!((serial.matches("\r\n").count(), serial.matches('x').count()), (23, 23 * 80));
    }

    #[test]
    fn short_numbers() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 1536.0, 5e6, 5e9, 5e15].map(short),
            ["0", "999", "1.0K", "1.5K", "4.8M", "4.7G", "4547.5T"]
        );
    }
}
