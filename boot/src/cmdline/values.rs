//! Values of command-line options.

use super::BadValue;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consoles {
    /// The first serial port.
    pub com1: bool,
    /// The second serial port.
    pub com2: bool,
    /// The screen.
    pub vga: bool,
}

impl Consoles {
    pub(super) fn parse(value: &str) -> Result<Self, BadValue> {
        let mut consoles = Consoles { com1: false, com2: false, vga: false };
        for part in value.split(',') {
            match part {
                "com1" => consoles.com1 = true,
                "com2" => consoles.com2 = true,
                "vga" => consoles.vga = true,
                "none" => consoles = Consoles { com1: false, com2: false, vga: false },
                _ => return Err(BadValue),
            }
        }
        Ok(consoles)
    }
}

/// Parity bit of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// No such bit.
    None,
    /// Odd number of ones.
    Odd,
    /// Even number of ones.
    Even,
    /// Always 1.
    Mark,
    /// Always 0.
    Space,
}

/// A serial port's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// Bits per second; `None` keeps what the firmware set.
    pub baud: Option<u32>,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
    /// First I/O port.
    pub port: u16,
    /// Interrupt line; 0 for polling.
    pub irq: u8,
}

impl Serial {
    pub(super) fn parse(value: &str, port: u16, irq: u8) -> Result<Self, BadValue> {
        if value.is_empty() {
            return Err(BadValue);
        }
        let mut serial = Serial { baud: None, data_bits: 8, parity: Parity::None, stop_bits: 1, port, irq };
        let mut parts = value.split(',');
        match parts.next() {
            None | Some("" | "auto") => {}
            Some(baud) => {
                let baud = baud.parse().ok().filter(|baud| (50..=4_000_000).contains(baud)).ok_or(BadValue)?;
                serial.baud = Some(baud);
            }
        }
        if let Some(line) = parts.next().filter(|part| !part.is_empty()) {
            let [data, parity, stop] = *line.as_bytes() else {
                return Err(BadValue);
            };
            serial.data_bits = matches!(data, b'5'..=b'8').then(|| data - b'0').ok_or(BadValue)?;
            serial.stop_bits = matches!(stop, b'1' | b'2').then(|| stop - b'0').ok_or(BadValue)?;
            serial.parity = match parity {
                b'n' => Parity::None,
                b'o' => Parity::Odd,
                b'e' => Parity::Even,
                b'm' => Parity::Mark,
                b's' => Parity::Space,
                _ => return Err(BadValue),
            };
        }
        if let Some(port) = parts.next().filter(|part| !part.is_empty()) {
            serial.port = u16::try_from(integer(port)?).ok().filter(|p| (1..=0xfff8).contains(p)).ok_or(BadValue)?;
        }
        if let Some(irq) = parts.next().filter(|part| !part.is_empty()) {
            serial.irq = u8::try_from(integer(irq)?).ok().filter(|irq| *irq < 16).ok_or(BadValue)?;
        }
        if parts.next().is_some() { Err(BadValue) } else { Ok(serial) }
    }
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing at all.
    None,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And information.
    Info,
    /// And everything else.
    Debug,
}

/// Which messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevels {
    /// Up to this level: always.
    pub always: Level,
    /// Up to this level, which is not below the other: at a limited rate.
    pub limited: Level,
}

impl LogLevels {
    pub(super) fn parse(value: &str) -> Result<Self, BadValue> {
        let level = |text: &str| match text {
            "none" => Ok(Level::None),
            "error" => Ok(Level::Error),
            "warning" => Ok(Level::Warning),
            "info" => Ok(Level::Info),
            "debug" | "all" => Ok(Level::Debug),
            _ => Err(BadValue),
        };
        let (always, limited) = value.split_once('/').unwrap_or((value, value));
        let always = level(always)?;
        Ok(LogLevels { always, limited: level(limited)?.max(always) })
    }
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// All there is but so many bytes.
    AllBut(u64),
}

impl Amount {
    fn parse(text: &str) -> Result<Self, BadValue> {
        match text.strip_prefix('-') {
            Some(rest) => Ok(Amount::AllBut(bytes(rest)?)),
            None => Ok(Amount::Bytes(bytes(text)?)),
        }
    }

    /// The amount in pages where `available` pages are there.
    pub fn pages(self, available: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes / crate::PAGE_SIZE,
            Amount::AllBut(bytes) => available.saturating_sub(bytes / crate::PAGE_SIZE),
        }
    }
}

/// How much memory dom0 gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dom0Memory {
    /// The amount; by default all but 1/16, of which at most 128 MiB are kept.
    pub size: Option<Amount>,
    /// Not less than this.
    pub min: Option<Amount>,
    /// Not more than this; wins over `min`.
    pub max: Option<Amount>,
}

impl Dom0Memory {
    /// Pages for dom0 where `available` pages are free.
    pub fn pages(&self, available: u64) -> u64 {
        const KEPT: u64 = (128 << 20) / crate::PAGE_SIZE;
        let size = match self.size {
            Some(amount) => amount.pages(available),
            None => available - (available / 16).min(KEPT),
        };
        let min = self.min.map_or(0, |amount| amount.pages(available));
        let max = self.max.map_or(u64::MAX, |amount| amount.pages(available));
        size.max(min).min(max).min(available)
    }
}

pub(super) fn dom0_memory(value: &str) -> Result<Dom0Memory, BadValue> {
    let mut memory = Dom0Memory::default();
    for part in value.split(',') {
        let (place, amount) = match part.split_once(':') {
            Some(("min", amount)) => (&mut memory.min, amount),
            Some(("max", amount)) => (&mut memory.max, amount),
            Some(_) => return Err(BadValue),
            None => (&mut memory.size, part),
        };
        *place = Some(Amount::parse(amount)?);
    }
    Ok(memory)
}

/// `n`, `min-max`, `min-` or `-max`.
pub(super) fn vcpu_range(value: &str) -> Result<(u32, u32), BadValue> {
    let one = |text: &str, default| {
        if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| BadValue) }
    };
    let (min, max) = match value.split_once('-') {
        Some((min, max)) => (one(min, 1)?, one(max, u32::MAX)?),
        None => {
            let n = value.parse().map_err(|_| BadValue)?;
            (n, n)
        }
    };
    if min == 0 || min > max { Err(BadValue) } else { Ok((min, max)) }
}

/// Xen's spellings of yes and no; an option that stands alone means yes.
pub(super) fn boolean(value: Option<&str>) -> Result<bool, BadValue> {
    match value {
        None | Some("on" | "yes" | "true" | "1" | "enable") => Ok(true),
        Some("off" | "no" | "false" | "0" | "disable") => Ok(false),
        _ => Err(BadValue),
    }
}

pub(super) fn number(value: Option<&str>) -> Result<u32, BadValue> {
    u32::try_from(integer(value.ok_or(BadValue)?)?).map_err(|_| BadValue)
}

pub(super) fn size(value: Option<&str>) -> Result<u64, BadValue> {
    bytes(value.ok_or(BadValue)?)
}

pub(super) fn release(value: &str) -> Result<(u16, u16), BadValue> {
    let (major, minor) = value.split_once('.').ok_or(BadValue)?;
    Ok((major.parse().map_err(|_| BadValue)?, minor.parse().map_err(|_| BadValue)?))
}

/// Decimal, or hexadecimal behind `0x`.
fn integer(text: &str) -> Result<u64, BadValue> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // Rust's parser takes a sign; an option's value has none.
    parsed.ok().filter(|_| !text.contains('+')).ok_or(BadValue)
}

/// A number with a suffix; KiB without one.
fn bytes(text: &str) -> Result<u64, BadValue> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'b' | b'B') if !text.starts_with("0x") => (text.get(..text.len() - 1), 0),
        Some(b'k' | b'K') => (text.get(..text.len() - 1), 10),
        Some(b'm' | b'M') => (text.get(..text.len() - 1), 20),
        Some(b'g' | b'G') => (text.get(..text.len() - 1), 30),
        Some(b't' | b'T') => (text.get(..text.len() - 1), 40),
        _ => (Some(text), 10),
    };
    integer(digits.unwrap_or(""))?.checked_mul(1 << shift).ok_or(BadValue)
}

/// `xpti=` and `pv-l1tf=`: for which domains something is done; `None` = as the CPU needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByDomain {
    /// dom0.
    pub dom0: Option<bool>,
    /// All others.
    pub domu: Option<bool>,
}

impl ByDomain {
    pub(super) fn parse(value: Option<&str>) -> Result<Self, BadValue> {
        let mut x = ByDomain::default();
        for word in value.unwrap_or("on").split(',') {
            match named(word) {
                ("dom0", v) => x.dom0 = Some(boolean(v)?),
                ("domu", v) => x.domu = Some(boolean(v)?),
                ("default", None) => x = ByDomain::default(),
                (all, None) => {
                    let on = boolean(Some(all))?;
                    x = ByDomain { dom0: Some(on), domu: Some(on) };
                }
                _ => return Err(BadValue),
            }
        }
        Ok(x)
    }
}

/// `spec-ctrl=`: measures against speculation; `None` = as the CPU needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SpecCtrl {
    /// Nothing but what is named.
    pub off: bool,
    pub ibrs: Option<bool>,
    pub ibpb: Option<bool>,
    pub stibp: Option<bool>,
    pub ssbd: Option<bool>,
    pub rsb: Option<bool>,
    pub md_clear: Option<bool>,
}

impl SpecCtrl {
    pub(super) fn parse(value: &str) -> Result<Self, BadValue> {
        let mut s = SpecCtrl::default();
        for word in value.split(',') {
            if let Ok(on) = boolean(Some(word)) {
                s = SpecCtrl { off: !on, ..SpecCtrl::default() };
                continue;
            }
            let (name, v) = match word.strip_prefix("no-") {
                Some(name) => (name, Some("no")),
                None => named(word),
            };
            let slot = match name {
                "ibrs" => &mut s.ibrs,
                "ibpb" => &mut s.ibpb,
                "stibp" => &mut s.stibp,
                "ssbd" => &mut s.ssbd,
                "rsb" => &mut s.rsb,
                "md-clear" => &mut s.md_clear,
                // It cannot be had otherwise.
                "eager-fpu" if boolean(v)? => continue,
                _ => return Err(BadValue),
            };
            *slot = Some(boolean(v)?);
        }
        Ok(s)
    }
}

/// A word `name=value`, or a name alone.
fn named(word: &str) -> (&str, Option<&str>) {
    word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)))
}
