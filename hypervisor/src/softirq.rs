//! What a CPU works off outside of interrupt handlers: flush requests, due timers, console input.

use crate::arch::percpu::{pending, this_cpu};
use crate::events;
use crate::platform::{console, timer, tlb, watchdog};
use crate::time::timers;
use core::sync::atomic::Ordering;
use pv_abi::event::VIRQ_CONSOLE;

/// Works everything off but what concerns the running vCPU (`RESCHED`, `VCPU`).
pub fn run() {
    let cpu = this_cpu();
    tlb::serve();
    let bits = cpu.pending.fetch_and(!(pending::TIMER | pending::SOFTIRQ), Ordering::AcqRel);
    if bits & pending::TIMER != 0 {
        watchdog::beat(timer::system_time());
        let current = cpu.current.borrow().as_ref().map(|r| r.vcpu.clone());
        timers::run(current.as_ref());
        timers::program(current.is_some());
    }
    if bits & pending::SOFTIRQ != 0 && crate::mm::domain_memory::take_emptied() {
        crate::domain::lifecycle::bury_dead();
    }
    if bits & pending::SOFTIRQ != 0 && console::poll_input() {
        events::send_dom0_virq(VIRQ_CONSOLE);
    }
}
