//! What a domain may have of the CPUs: its weight against others, and its cap.
//!
//! A cap is a budget: so much CPU time a period, for all vCPUs of the domain together, on whatever CPUs. Time that was
//! used beyond the budget (a vCPU is stopped by a timer, a little late, and several may run at once) is owed, so over
//! any longer time the cap holds exactly. Time that was not used (because others ran) is kept for one period.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Weight at which virtual time runs like real time.
pub const DEFAULT_WEIGHT: u32 = 256;
/// How often a capped domain's budget is renewed, ns.
pub const PERIOD: u64 = 10_000_000;

/// A domain's share of the machine.
pub struct Share {
    /// Weight of each of its vCPUs, 1 to 65535.
    weight: AtomicU32,
    /// Cap in percent of one CPU; 0 = none.
    cap: AtomicU32,
    /// CPU time left in this period, ns; below 0 it is owed.
    budget: AtomicI64,
    /// System time at which the budget is renewed.
    renewed_at: AtomicU64,
}

/// The budget is used up; there is more at this system time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp(pub u64);

impl Share {
    /// The default: weight 256, no cap.
    pub const fn new() -> Self {
        Share {
            weight: AtomicU32::new(DEFAULT_WEIGHT),
            cap: AtomicU32::new(0),
            budget: AtomicI64::new(0),
            renewed_at: AtomicU64::new(0),
        }
    }

    /// The weight.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Changes it; 0 is taken for 1.
    pub fn set_weight(&self, w: u32) {
        self.weight.store(w.max(1), Ordering::Relaxed);
    }

    /// The cap in percent of one CPU; 0 = none.
    #[inline]
    pub fn cap(&self) -> u32 {
        self.cap.load(Ordering::Relaxed)
    }

    /// Changes it, from the next period on.
    pub fn set_cap(&self, percent: u32) {
        self.budget.store(0, Ordering::Relaxed);
        self.cap.store(percent, Ordering::Relaxed);
    }

    /// How far virtual time goes in `ran` ns of CPU time.
    #[inline]
    pub fn virtual_time(&self, ran: u64) -> u64 {
        ran.saturating_mul(u64::from(DEFAULT_WEIGHT)) / u64::from(self.weight().max(1))
    }

    /// CPU time that may be used now, ns; `u64::MAX` without a cap.
    ///
    /// # Errors
    /// [`UsedUp`].
    #[inline]
    pub fn left(&self, now: u64) -> Result<u64, UsedUp> {
        match self.cap() {
            0 => Ok(u64::MAX),
            cap => self.left_of(cap, now),
        }
    }

    fn left_of(&self, cap: u32, now: u64) -> Result<u64, UsedUp> {
        let mut at = self.renewed_at.load(Ordering::Relaxed);
        if now >= at {
            let periods = (now - at) / PERIOD + 1;
            let next = at.saturating_add(periods.saturating_mul(PERIOD));
            match self.renewed_at.compare_exchange(at, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    let quota = i64::try_from(u64::from(cap).saturating_mul(PERIOD) / 100).unwrap_or(i64::MAX);
                    let more = quota.saturating_mul(i64::try_from(periods).unwrap_or(i64::MAX));
                    let renew = |b: i64| Some(b.saturating_add(more).min(quota.saturating_mul(2)));
                    let _ = self.budget.fetch_update(Ordering::AcqRel, Ordering::Relaxed, renew);
                    at = next;
                }
                Err(other) => at = other,
            }
        }
        match u64::try_from(self.budget.load(Ordering::Acquire)) {
            Ok(left) if left != 0 => Ok(left),
            _ => Err(UsedUp(at)),
        }
    }

    /// Takes used CPU time off the budget.
    #[inline]
    pub fn spend(&self, ran: u64) {
        if self.cap() != 0 {
            self.budget.fetch_sub(i64::try_from(ran).unwrap_or(i64::MAX >> 1), Ordering::AcqRel);
        }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_renewed_once_a_period_and_debts_are_kept() {
        let s = Share::new();
        assert_eq!(s.left(5), Ok(u64::MAX), "no cap");
        s.set_cap(30);
        assert_eq!(s.left(0), Ok(3_000_000));
        s.spend(2_000_000);
        assert_eq!(s.left(1), Ok(1_000_000));
        s.spend(2_500_000);
        assert_eq!(s.left(2), Err(UsedUp(PERIOD)));
        assert_eq!(s.left(PERIOD), Ok(1_500_000), "what was used too much is missing now");
        assert_eq!(s.left(9 * PERIOD), Ok(6_000_000), "what was not used is kept for a period, no longer");
        s.set_cap(0);
        assert_eq!(s.left(9 * PERIOD), Ok(u64::MAX));
    }
}
