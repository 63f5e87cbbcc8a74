//! Flushing translations, here and on other CPUs.
//!
//! A global clock counts full flushes. Each CPU remembers the clock at its last one; a frame that stops being something
//! remembers the clock then. A CPU can hold a stale translation only if it has not flushed since: `last <= stamp`.

use crate::arch::cpumask::CpuMask;
use crate::arch::layout::MAX_CPUS;
use crate::arch::percpu::{self, pending, this_cpu};
use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// What to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything, global pages too.
    All,
    /// One page.
    Page(u64),
}

static CLOCK: AtomicU64 = AtomicU64::new(1);
static LAST: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Requests of other CPUs: how often a full flush was asked for, and how often it was done.
static ASKED: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static DONE: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// The flush clock now. Never 0.
pub fn clock() -> u64 {
    CLOCK.load(Ordering::SeqCst)
}

/// CPUs that are up.
pub fn online() -> CpuMask {
    match percpu::online() {
        n if n >= 64 => CpuMask::ALL,
        n => CpuMask::from_bits((1 << n) - 1),
    }
}

/// CPUs of `mask` that may hold translations from before `stamp`.
pub fn needs_flush(mask: CpuMask, stamp: u64) -> CpuMask {
    mask.iter().fold(CpuMask::EMPTY, |m, c| {
        let stale = LAST.get(c.0 as usize).is_some_and(|l| l.load(Ordering::SeqCst) <= stamp);
        if stale { m.with(c) } else { m }
    })
}

/// Counts a full flush of this CPU, done by `flush`.
pub fn tick_then(flush: impl FnOnce()) {
    let now = CLOCK.fetch_add(1, Ordering::SeqCst) + 1;
    flush();
    #[cfg(target_os = "none")]
    crate::arch::xpti::outdated();
    if let Some(l) = LAST.get(this_cpu().id.0 as usize) {
        l.store(now, Ordering::SeqCst);
    }
}

/// Flushes this CPU.
pub fn flush_local(what: Flush) {
    match what {
        Flush::All => tick_then(flush_everything),
        Flush::Page(va) => {
            #[cfg(target_os = "none")]
            {
                crate::arch::cr::invlpg(va);
                crate::arch::xpti::outdated();
            }
            let _ = va;
        }
    }
}

fn flush_everything() {
    #[cfg(test)]
    crate::model::tlb::flushed();
    #[cfg(target_os = "none")]
    {
        use crate::arch::cr;
        let c = cr::read_cr4();
        // SAFETY: PGE off and on again: flushes global translations too; nothing else changes. Where it is off for good
        // there are none, and CR3 is reloaded with what it holds.
        unsafe {
            if c & cr::cr4::PGE != 0 {
                cr::write_cr4(c & !cr::cr4::PGE);
                cr::write_cr4(c);
            } else {
                cr::write_cr3(cr::read_cr3());
            }
        }
    }
}

/// Flushes the CPUs of `mask` and waits until all have. (Other CPUs flush everything, whatever was asked.)
pub fn flush_cpus(mask: CpuMask, what: Flush) {
    let me = this_cpu().id;
    let others = mask.and(online()).without(me);
    for c in others.iter() {
        if let Some(a) = ASKED.get(c.0 as usize) {
            a.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(p) = percpu::pending_of(c) {
            p.fetch_or(pending::FLUSH, Ordering::SeqCst);
        }
        super::smp::kick(c);
    }
    if mask.contains(me) {
        flush_local(what);
    }
    for c in others.iter() {
        let (Some(asked), Some(done)) = (ASKED.get(c.0 as usize), DONE.get(c.0 as usize)) else {
            continue;
        };
        let target = asked.load(Ordering::SeqCst);
        while (done.load(Ordering::SeqCst).wrapping_sub(target) as i32) < 0 {
            crate::atomic::spin_loop();
            serve();
        }
    }
}

/// Does what other CPUs asked of this one.
pub fn serve() {
    let local = this_cpu();
    if local.pending.load(Ordering::Relaxed) & pending::FLUSH == 0 {
        return;
    }
    local.pending.fetch_and(!pending::FLUSH, Ordering::SeqCst);
    let i = local.id.0 as usize;
    let (Some(asked), Some(done)) = (ASKED.get(i), DONE.get(i)) else {
        return;
    };
    let target = asked.load(Ordering::SeqCst);
    flush_local(Flush::All);
    done.store(target, Ordering::SeqCst);
}
