//! The battery-backed clock (MC146818 in CMOS), read once at boot: it is UTC, as on any server.

/// What the clock's registers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Seconds, minutes, hours, day of month, month, year, century (0 if there is none).
    pub fields: [u8; 7],
    /// Status register B: bit 2 = binary (else BCD), bit 1 = 24-hour (else bit 7 of hours is PM).
    pub status_b: u8,
}

impl Registers {
    /// Unix time, if the registers hold a date.
    pub fn unix(&self) -> Option<u64> {
        let binary = self.status_b & 4 != 0;
        let value = |raw: u8| -> Option<u64> {
            if binary {
                return Some(raw.into());
            }
            let (tens, ones) = (raw >> 4, raw & 15);
            (tens < 10 && ones < 10).then(|| u64::from(tens) * 10 + u64::from(ones))
        };
        let [s, m, h, day, month, year, century] = self.fields;
        let (s, m, day, month, year) = (value(s)?, value(m)?, value(day)?, value(month)?, value(year)?);
        let pm = self.status_b & 2 == 0 && h & 0x80 != 0;
        let mut hour = value(if self.status_b & 2 == 0 { h & 0x7f } else { h })?;
        if self.status_b & 2 == 0 {
            hour = hour % 12 + if pm { 12 } else { 0 };
        }
        let century = value(century).filter(|c| (19..=30).contains(c));
        let year = match century {
            Some(c) => c * 100 + year,
            None if year < 70 => 2000 + year,
            None => 1900 + year,
        };
        if s > 59 || m > 59 || hour > 23 || !(1970..).contains(&year) {
            return None;
        }
        Some(days(year, month, day)? * 86_400 + hour * 3600 + m * 60 + s)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let length = *LENGTHS.get(usize::try_from(month.checked_sub(1)?).ok()?)? + u64::from(month == 2 && leap(year));
    if day == 0 || day > length {
        return None;
    }
    let leaps_before = |y: u64| (y - 1) / 4 - (y - 1) / 100 + (y - 1) / 400;
    let mut n = (year - 1970) * 365 + leaps_before(year) - leaps_before(1970);
    for (i, l) in LENGTHS.iter().enumerate().take((month - 1) as usize) {
        n += l + u64::from(i == 1 && leap(year));
    }
    Some(n + day - 1)
}

/// Unix time in seconds; `None` (with a line in the log) when the clock holds no date. Boot CPU, before dom0 runs: the
/// index port is shared with it afterwards. `century` is the register the FADT names, 0 if none.
#[cfg(target_os = "none")]
pub fn wallclock(century: u8) -> Option<u64> {
    use x86_64::instructions::port::Port;
    let cmos = |index: u8| -> u8 {
        // SAFETY: reading CMOS registers changes nothing; NMI stays enabled (bit 7 clear).
        unsafe {
            Port::<u8>::new(0x70).write(index);
            Port::<u8>::new(0x71).read()
        }
    };
    let read = || {
        // An update in progress takes at most 2 ms (SR A bit 7).
        let mut patience = 100_000;
        while cmos(0x0a) & 0x80 != 0 && patience > 0 {
            patience -= 1;
        }
        let c = if century == 0 { 0 } else { cmos(century & 0x7f) };
        Registers { fields: [cmos(0), cmos(2), cmos(4), cmos(7), cmos(8), cmos(9), c], status_b: cmos(0x0b) }
    };
    // Two equal readings: no update came in between.
    let mut now = read();
    for _ in 0..10 {
        let again = read();
        if again == now {
            break;
        }
        now = again;
    }
    let t = now.unix();
    if t.is_none() {
        log::warn!("the real-time clock holds no valid date; dom0 should set the time");
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // 2026-11-24 13:45:07 UTC, BCD, 24 hours.
        let r = Registers { fields: [0x07, 0x45, 0x13, 0x24, 0x11, 0x26, 0x20], status_b: 2 };
        assert_eq!(r.unix(), Some(1_795_527_907));
        // The same in binary with 12 hours (bit 7 = PM), no century.
        let r = Registers { fields: [7, 45, 0x81, 24, 11, 26, 0], status_b: 4 };
        assert_eq!(r.unix(), Some(1_795_527_907));
        // Midnight is 12 AM.
        let r = Registers { fields: [0, 0, 12, 1, 1, 70, 19], status_b: 4 };
        assert_eq!(r.unix(), Some(0));
        // Leap days.
        let r = Registers { fields: [0, 0, 0, 0x29, 0x02, 0x24, 0x20], status_b: 2 };
        assert_eq!(r.unix(), Some(1_709_164_800));
        for bad in [[0, 0, 0, 0x29, 2, 0x23, 0x20], [0x61, 0, 0, 1, 1, 0, 0x20], [0; 7], [0xff; 7]] {
            assert_eq!(Registers { fields: bad, status_b: 2 }.unix(), None, "{bad:x?}");
        }
    }
}
