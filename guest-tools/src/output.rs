//! How things are shown: aligned tables, JSON, and a few units.

use std::io::Write;

use comfy_table::{CellAlignment, Table};
use pv_abi::domctl::{dominf, shutdown};
use serde::Serialize;

/// Writes a line to stdout. A reader that has gone (`dom list | head -1`) ends the program quietly.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a value as JSON.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table without lines: the first column left-aligned, those named in `right` right-aligned, two blanks between.
pub fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Nanoseconds as seconds with one decimal.
pub fn seconds(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Pages as whole MiB.
pub fn mib(pages: u64) -> u64 {
    pages / 256
}

/// `01234567-89ab-…`.
pub fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// From 32 hexadecimal digits, with or without the four dashes at their places.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    if !(dashes.is_empty() || dashes == [8, 13, 18, 23]) {
        return None;
    }
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// What a domain is doing, from its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(pub u32);

impl State {
    /// Why it has shut down, if it has.
    pub fn shutdown_reason(self) -> Option<u32> {
        (self.0 & dominf::SHUTDOWN != 0).then_some(self.0 >> dominf::SHUTDOWN_SHIFT & dominf::SHUTDOWN_MASK)
    }

    /// Has it crashed?
    pub fn crashed(self) -> bool {
        self.shutdown_reason() == Some(shutdown::CRASH)
    }

    /// xl's six letters: running, blocked, paused, shut down, crashed, dying.
    pub fn letters(self) -> String {
        let shown = [
            ('r', self.0 & dominf::RUNNING != 0),
            ('b', self.0 & dominf::BLOCKED != 0),
            ('p', self.0 & dominf::PAUSED != 0),
            ('s', self.0 & dominf::SHUTDOWN != 0),
            ('c', self.crashed()),
            ('d', self.0 & dominf::DYING != 0),
        ];
        shown.into_iter().map(|(letter, set)| if set { letter } else { '-' }).collect()
    }

    /// The same in one word.
    pub fn word(self) -> &'static str {
        if self.0 & dominf::DYING != 0 {
            return "dying";
        }
        match self.shutdown_reason() {
            Some(shutdown::POWEROFF) => "off",
            Some(shutdown::REBOOT) => "rebooting",
            Some(shutdown::SUSPEND) => "suspended",
            Some(shutdown::CRASH) => "crashed",
            Some(shutdown::WATCHDOG) => "watchdog",
            Some(_) => "shutdown",
            None if self.0 & dominf::PAUSED != 0 => "paused",
            None if self.0 & dominf::RUNNING != 0 => "running",
            None if self.0 & dominf::BLOCKED != 0 => "blocked",
            None => "ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_and_aligned() {
        let rows = vec![
            vec!["Domain-0".into(), "0".into(), "512".into(), "r-----".into()],
            vec!["g".into(), "12".into(), "96".into(), "-b----".into()],
        ];
        assert_eq!(
            table(&["NAME", "ID", "MEM", "STATE"], &[1, 2], rows),
            "NAME      ID  MEM  STATE\nDomain-0   0  512  r-----\ng         12   96  -b----"
        );
    }

    #[test]
    fn states() {
        let reason = |r: u32| State(dominf::SHUTDOWN | r << dominf::SHUTDOWN_SHIFT);
        let shown = |s: State| (s.letters(), s.word());
        assert_eq!(shown(State(dominf::RUNNING)), ("r-----".into(), "running"));
        assert_eq!(shown(State(dominf::BLOCKED)), ("-b----".into(), "blocked"));
        assert_eq!(shown(State(dominf::PAUSED | dominf::BLOCKED)), ("-bp---".into(), "paused"));
        assert_eq!(shown(State(0)), ("------".into(), "ready"));
        assert_eq!(shown(reason(shutdown::POWEROFF)), ("---s--".into(), "off"));
        assert_eq!(shown(reason(shutdown::REBOOT)), ("---s--".into(), "rebooting"));
        assert_eq!(shown(reason(shutdown::CRASH)), ("---sc-".into(), "crashed"));
        assert_eq!(shown(State(dominf::DYING | dominf::SHUTDOWN)), ("---s-d".into(), "dying"));
    }

    #[test]
    fn units() {
        assert_eq!(seconds(0), "0.0");
        assert_eq!(seconds(1_999_999_999), "1.9");
        assert_eq!(seconds(61_000_000_000), "61.0");
        assert_eq!(mib(256 * 96 + 255), 96);
    }

    #[test]
    fn uuids() {
        let uuid: [u8; 16] = std::array::from_fn(|n| n as u8 * 17);
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(format_uuid(&uuid), text);
        assert_eq!(parse_uuid(text), Some(uuid));
        assert_eq!(parse_uuid(&text.replace('-', "")), Some(uuid));
        for bad in [
            "",
            "0011",
            "0011-22334455-6677-8899-aabbccddeeff",
            "0011223344556677889900aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }
}
