//! Other CPUs: starting them, waking them.

use crate::arch::percpu::CpuId;

/// Makes `cpu` look at its pending word: it leaves the guest or its halt.
pub fn kick(cpu: CpuId) {
    #[cfg(target_os = "none")]
    super::lapic::send_ipi(cpu, super::lapic::VECTOR_KICK);
    let _ = cpu;
}

/// Starts the CPUs with these local APIC ids, at most `max` CPUs in all, and returns when they are up. A CPU that does
/// not come stays away, with a line in the log. Boot CPU, once, with the memory allocator and the clock running.
#[cfg(target_os = "none")]
pub fn start_others(apic_ids: impl Iterator<Item = u32>, max: u32) {
    use crate::arch::{ap, layout::MAX_CPUS, percpu};
    let max = max.min(MAX_CPUS as u32);
    let mut parked = 0;
    for apic in apic_ids.filter(|id| *id != percpu::this_cpu().apic_id.get()) {
        if percpu::online() >= max {
            parked += 1;
        } else if let Err(why) = bring_up::start(apic) {
            log::warn!("CPU with APIC id {apic} stays off: {why}");
        }
    }
    if parked != 0 {
        log::info!("{parked} more CPUs stay off (maxcpus, or more than {MAX_CPUS})");
    }
    ap::finish();
    log::info!("{} CPUs up", percpu::online());
}

#[cfg(target_os = "none")]
mod bring_up {
    use crate::arch::percpu::{self, CpuId, pending, this_cpu};
    use crate::arch::{ap, cpu, entry, fpu, paging, spec, tables};
    use crate::mm;
    use crate::platform::{lapic, timer};
    use crate::sync;

    /// How long a CPU may take, ns.
    const PATIENCE: u64 = 1_000_000_000;

    fn wait(ns: u64, done: impl Fn() -> bool) -> bool {
        let end = timer::system_time() + ns;
        while !done() {
            if timer::system_time() >= end {
                return false;
            }
            core::hint::spin_loop();
            sync::serve_requests();
        }
        true
    }

    /// Starts one CPU: INIT, then the start-up message, twice if need be (SDM vol. 3 §8.4.4.1).
    pub fn start(apic: u32) -> Result<(), &'static str> {
        let page = ap::page_number().ok_or("there was no memory below 640 KiB to start it in")?;
        let id = CpuId(percpu::online());
        let stack = tables::create(id, || mm::alloc::page().and_then(|m| m.to_addr()))
            .map_err(|_| "no memory for its stack and tables")?;
        // SAFETY: the CPU before this one has come up, or INIT has stopped it; the stack was made for this CPU just now.
        unsafe { ap::arm(id.0, stack, ap_main) };
        let up = || percpu::online() > id.0;
        lapic::send_init(apic);
        wait(10_000_000, || false);
        for _ in 0..2 {
            lapic::send_sipi(apic, page);
            if wait(PATIENCE / 2, up) {
                return Ok(());
            }
        }
        // Its number goes to the next one: should it come late, it must not find the trampoline.
        lapic::send_init(apic);
        Err("it does not answer")
    }

    /// First Rust code of an application processor, on its own stack.
    extern "C" fn ap_main(id: u32) -> ! {
        cpu::init_control_registers();
        paging::load_root();
        tables::load(CpuId(id));
        spec::init_cpu();
        fpu::init_ap();
        lapic::init_cpu();
        percpu::publish(this_cpu());
        this_cpu().raise(pending::RESCHED);
        // SAFETY: once per CPU, on its own stack block, interrupts off, RESCHED pending.
        unsafe { entry::enter_guest() }
    }
}
