//! The watchdog (`watchdog`, `watchdog_timeout=`): a CPU that does not get to its exit path any more brings the machine
//! down with its registers, instead of silence.
//!
//! Each CPU's timer fires a few times in the time allowed, whatever else is due; working that off is its heartbeat. At
//! each beat a CPU looks at its neighbour's. One that is missing for too long is asked by NMI, which comes through where
//! interrupts are off: the stuck CPU itself reports where it is. If even that has no effect, the neighbour reports.
//! A machine with one CPU has nobody to watch it.

use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::{self, CpuId, this_cpu};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Time allowed, ns; 0 = the watchdog is off.
static TIMEOUT: AtomicU64 = AtomicU64::new(0);
/// System time of each CPU's last beat.
static BEAT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// When each CPU was asked by NMI where it is; 0 = it was not.
static ASKED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// How many go on with something long just now ([`Pause`]).
static PAUSED: AtomicU32 = AtomicU32::new(0);

/// What a look at a neighbour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    /// Its beat is missing: ask it.
    Ask,
    /// It was asked, and nothing came of that.
    Lost,
}

fn judge(now: u64, beat: u64, asked: u64, timeout: u64) -> Finding {
    if now.saturating_sub(beat) <= timeout {
        Finding::Fine
    } else if asked == 0 {
        Finding::Ask
    } else if now.saturating_sub(asked) > timeout {
        Finding::Lost
    } else {
        Finding::Fine
    }
}

/// Starts watching: a CPU may be away for `seconds`. All CPUs are up.
pub fn start(seconds: u32, now: u64) {
    for b in &BEAT {
        b.store(now, Ordering::Relaxed);
    }
    match percpu::online() {
        1 => log::warn!("watchdog: this machine has one CPU, so nobody watches it"),
        n => {
            TIMEOUT.store(u64::from(seconds) * 1_000_000_000, Ordering::Release);
            log::info!("watchdog: {n} CPUs watch each other, {seconds} s");
        }
    }
}

/// The deadline of this CPU's timer ([`NEVER`](super::timer::NEVER) = none), with the next beat in view.
#[inline(always)]
pub fn bound(deadline: u64) -> u64 {
    let timeout = TIMEOUT.load(Ordering::Relaxed);
    if timeout == 0 {
        return deadline;
    }
    let last = BEAT.get(this_cpu().id.0 as usize).map_or(0, |b| b.load(Ordering::Relaxed));
    deadline.min(last.saturating_add(timeout / 4))
}

/// This CPU's timer has fired, and it works that off: it lives. Looks after its neighbour.
pub fn beat(now: u64) {
    let timeout = TIMEOUT.load(Ordering::Acquire);
    if timeout == 0 {
        return;
    }
    let me = this_cpu().id.0;
    if let (Some(beat), Some(asked)) = (BEAT.get(me as usize), ASKED.get(me as usize)) {
        beat.store(now, Ordering::Relaxed);
        asked.store(0, Ordering::Relaxed);
    }
    let other = (me + 1) % percpu::online();
    let (Some(beat), Some(asked)) = (BEAT.get(other as usize), ASKED.get(other as usize)) else {
        return;
    };
    if PAUSED.load(Ordering::Acquire) != 0 {
        return;
    }
    match judge(now, beat.load(Ordering::Relaxed), asked.load(Ordering::Relaxed), timeout) {
        Finding::Fine => {}
        Finding::Ask => {
            asked.store(now, Ordering::SeqCst);
            ask(CpuId(other));
        }
        Finding::Lost => lost(CpuId(other), timeout),
    }
}

/// Nanoseconds this CPU has been away for if it was asked and is stuck indeed. In NMI context.
pub fn stuck(now: u64) -> Option<u64> {
    let me = this_cpu().id.0 as usize;
    let away = now.saturating_sub(BEAT.get(me)?.load(Ordering::Relaxed));
    let asked = ASKED.get(me)?.load(Ordering::SeqCst) != 0;
    (asked && away > TIMEOUT.load(Ordering::Relaxed)).then_some(away)
}

/// Nobody is accused while this lives: for what takes long on purpose (the audit).
pub struct Pause(());

/// See [`Pause`].
pub fn pause() -> Pause {
    PAUSED.fetch_add(1, Ordering::AcqRel);
    Pause(())
}

impl Drop for Pause {
    fn drop(&mut self) {
        let now = super::timer::system_time();
        for b in &BEAT {
            b.fetch_max(now, Ordering::Relaxed);
        }
        PAUSED.fetch_sub(1, Ordering::AcqRel);
    }
}

fn ask(cpu: CpuId) {
    #[cfg(target_os = "none")]
    super::lapic::send_nmi(cpu);
    let _ = cpu;
}

#[cold]
fn lost(cpu: CpuId, timeout: u64) {
    panic!("watchdog: CPU {} has been stuck for {} s and takes no NMI", cpu.0, 2 * timeout / 1_000_000_000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_beat_is_asked_for_then_lost() {
        assert_eq!(judge(10, 5, 0, 5), Finding::Fine);
        assert_eq!(judge(11, 5, 0, 5), Finding::Ask);
        assert_eq!(judge(12, 5, 11, 5), Finding::Fine);
        assert_eq!(judge(17, 5, 11, 5), Finding::Lost);
        // A clock that is a little behind on the watching CPU accuses nobody.
        assert_eq!(judge(4, 5, 0, 5), Finding::Fine);
    }
}
