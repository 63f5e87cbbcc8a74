//! The order of boot.

use crate::arch::percpu::{self, CpuId, CpuLocal, pending, this_cpu};
use crate::arch::{ap, boot_memory, cpu, early, entry, fpu, paging, patch, spec, tables};
use crate::dom0;
use crate::mm;
use crate::platform::{acpi, efi, irq, lapic, machine, rtc, smp, timer, watchdog};
use crate::platform::{console, pic, reset, serial};
use crate::{events, time};
use arrayvec::ArrayVec;
use boot::cmdline::Options;
use boot::multiboot::{BootInfo, NotReadable, PhysRead};
use core::sync::atomic::Ordering;
use pv_abi::ids::MachineAddr;

/// What the loader told. Written once, on the boot CPU, before any other CPU runs.
static BOOT: spin::Once<BootInfo> = spin::Once::new();
/// The options of the command line.
static OPTIONS: spin::Once<Options> = spin::Once::new();

/// What the loader told.
pub fn boot_info() -> &'static BootInfo {
    BOOT.wait()
}

/// The options of the command line.
pub fn options() -> &'static Options {
    OPTIONS.wait()
}

/// Physical memory as the boot page tables show it: the first 4 GiB.
struct LowMemory;

impl PhysRead for LowMemory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), NotReadable> {
        let end = addr.checked_add(buf.len() as u64).ok_or(NotReadable)?;
        if end > 1 << 32 {
            return Err(NotReadable);
        }
        // SAFETY: mapped by the boot tables at the direct map's place; volatile, since firmware or devices may share it.
        unsafe {
            let src = paging::direct(MachineAddr(addr)) as *const u8;
            for (i, b) in buf.iter_mut().enumerate() {
                *b = src.add(i).read_volatile();
            }
        }
        Ok(())
    }
}

/// Says why the machine cannot be used, and stops.
fn give_up(why: impl core::fmt::Display) -> ! {
    log::error!("cannot start: {why}");
    reset::halt()
}

/// First Rust code, on the boot stack: `arch::boot` jumps here with the loader's magic and information.
pub extern "C" fn hospes_start(magic: u32, info: u32) -> ! {
    let local = core::ptr::from_ref(this_cpu()).cast_mut();
    // SAFETY: the boot stack is a stack block whose top is kept for this value; nobody has used it yet.
    unsafe { local.write(CpuLocal::new(CpuId(0))) };
    serial::init(serial::COM1);
    console::init_log(3);

    let boot = BOOT.call_once(|| {
        let mut boot = BootInfo::new();
        if let Err(e) = boot.read(magic, info, &LowMemory) {
            give_up(e);
        }
        boot
    });
    OPTIONS.call_once(|| Options::parse(boot.args()));
    log::info!("Hospes {} started by {}", env!("CARGO_PKG_VERSION"), boot.loader);
    log::info!("command line: {}", boot.args());
    let options = options();
    console::init_log(options.loglvl.always as u8);
    reset::NO_REBOOT.store(options.noreboot, Ordering::Relaxed);
    for p in &options.problems {
        log::warn!("{p}");
    }
    if boot.cut != Default::default() {
        log::warn!("the loader told more than there is room for: {}", boot.cut);
    }
    if let Err(e) = boot.dom0_kernel() {
        give_up(e);
    }

    if !cpu::has_syscall() {
        give_up("this CPU has no SYSCALL instruction");
    }
    cpu::detect(options);
    let mut plan = boot_memory::Plan::new(boot, boot_memory::image()).unwrap_or_else(|e| give_up(e));
    let low = plan.take_largest(1 << 32).unwrap_or_else(|e| give_up(e));
    early::init(low.0, low.1);
    plan.build_root();
    log::info!("{} MiB of RAM in {} pieces", plan.ram_bytes() >> 20, plan.ram.len());

    match plan.real_mode_page() {
        Some(low) => ap::prepare(MachineAddr(low)),
        None => log::warn!("no memory below 640 KiB: the machine stays with one CPU"),
    }

    // The frame table of a large machine needs more than there may be below 4 GiB; and low memory is for devices.
    plan.give(early::finish());
    let large = plan.take_largest(u64::MAX).unwrap_or_else(|e| give_up(e));
    early::init(large.0, large.1);

    // The firmware left the legacy timer running, at a vector that is #DF's.
    pic::disable();
    tables::init_idt();
    let Ok(top) = tables::create(CpuId(0), || Some(early::page())) else { give_up("no memory for the boot CPU") };
    tables::load(CpuId(0));
    // SAFETY: `top` is the free top of the boot CPU's own stack; nothing of the boot stack is used any more.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}", "and rsp, -16", "xor ebp, ebp", "call {next}", "ud2",
            top = in(reg) top, next = sym on_own_stack, in("rdi") &raw const plan, options(noreturn)
        )
    }
}

/// The rest of boot, on the boot CPU's own stack. The boot stack stays as it was: `plan` lies there.
extern "C" fn on_own_stack(plan: &boot_memory::Plan) -> ! {
    percpu::publish(this_cpu());
    cpu::init_smap(options().smap);
    spec::log();
    spec::init_cpu();
    let policy = spec::policy();
    use patch::Feature;
    let features = Feature::Smap.bit(cpu::smap_on())
        | Feature::Xpti.bit(policy.xpti())
        | Feature::Ibrs.bit(policy.ibrs_on_entry)
        | Feature::Rsb.bit(policy.rsb)
        | Feature::Verw.bit(policy.verw);
    // SAFETY: the boot CPU, alone, interrupts off.
    unsafe { patch::apply(features) };
    fpu::init();
    let map: ArrayVec<mm::init::Range, 128> = boot_info()
        .ranges
        .iter()
        .map(|r| mm::init::Range { start: r.base, end: r.end(), kind: r.kind as u32 })
        .collect();
    mm::init::init(&map, &plan.free);
    log::info!("{} MiB free", mm::alloc::free_pages() >> 8);
    lapic::init();
    let bios = boot_info().efi_system_table.is_none();
    if let Some(table) = boot_info().efi_system_table {
        efi::init(table, &boot_info().efi_ranges);
    }
    acpi::init(boot_info().rsdp.map(|r| r.xsdt.map_or((r.rsdt.into(), false), |x| (x, true))), bios);
    if let Err(why) = timer::calibrate() {
        give_up(why);
    }
    irq::init(events::pirq_arrived);
    machine::init(bios);
    if let Some(now) = rtc::wallclock(acpi::tables().fadt.map_or(0, |f| f.century)) {
        time::set_wallclock(now, 0, time::now());
    }
    match irq::claim_isa(serial::COM1_IRQ, console_input) {
        Ok(()) => serial::enable_input(),
        Err(e) => log::warn!("no input from the serial port: its interrupt cannot be had ({e})"),
    }
    smp::start_others(acpi::tables().cpus.iter().map(|c| c.apic_id), options().maxcpus);
    if cfg!(debug_assertions) {
        let rights = paging::audit();
        log::debug!("{} pages mapped, {} executable, none of them writable", rights.mapped, rights.executable);
    }
    start_dom0();
    let options = options();
    if options.watchdog {
        watchdog::start(options.watchdog_timeout, timer::system_time());
    }
    this_cpu().raise(pending::RESCHED);
    // SAFETY: once on this CPU, on its own stack block, interrupts off, RESCHED pending.
    unsafe { entry::enter_guest() }
}

/// The serial port has input: it is fetched outside of the interrupt.
fn console_input() {
    this_cpu().raise(pending::SOFTIRQ);
}

/// Makes dom0 from the loader's modules.
fn start_dom0() {
    let boot = boot_info();
    let kernel = boot.dom0_kernel().unwrap_or_else(|e| give_up(e));
    let module =
        |m: &'static boot::multiboot::Module| dom0::Module { start: m.start, end: m.end, args: boot.module_args(m) };
    // What stays free: for the hypervisor's tables and for the first guests' bookkeeping.
    let available = mm::alloc::free_pages().saturating_sub(RESERVE_PAGES);
    let (least, most) = options().dom0_max_vcpus;
    let vcpus = percpu::online().min(most).max(least).clamp(1, crate::domain::MAX_VCPUS as u32);
    let plan = dom0::Plan { pages: options().dom0_mem.pages(available).min(available), vcpus };
    if let Err(why) = dom0::start(module(kernel), boot.dom0_initrd().map(module), &plan) {
        give_up(why);
    }
}

/// Pages kept from dom0 when it gets all there is: 16 MiB, and room for unpacking its kernel.
const RESERVE_PAGES: u64 = (16 << 20) / 4096 + (96 << 20) / 4096;
