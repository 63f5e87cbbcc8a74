//! The list of kernels, and what machine each wants.
use std::path::{Path, PathBuf};
use std::process::Command;

/// One test kernel.
#[derive(Debug)]
pub struct Kernel {
    /// Name of the binary and of its transcript.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// CPUs of the machine.
    pub smp: u32,
    /// More options for the hypervisor.
    pub options: &'static str,
    /// The kernel's command line.
    pub args: &'static str,
    /// Only with `--long`.
    pub long: bool,
    /// The binary, where it is not called like the test.
    pub binary: &'static str,
    /// Instead of a verdict: what Hospes' log must say, in this order. Not for Xen.
    pub ends: &'static [&'static str],
    /// Only with `--only`: it wants a special machine.
    pub named: bool,
    /// Not on Xen.
    pub ours: bool,
    /// One tick of the clock is one instruction.
    pub icount: bool,
    /// Why only Hospes runs it: its verdict counts, and there is no record to compare with. Empty: Xen runs it, too.
    pub hospes: &'static str,
}

impl Kernel {
    /// The file to start.
    pub fn file(&self) -> &'static str {
        if self.binary.is_empty() { self.name } else { self.binary }
    }
}

/// All there are.
pub fn all() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().chain(crate::breaks::BREAKS)
}

const fn kernel(name: &'static str, about: &'static str) -> Kernel {
    Kernel {
        name,
        about,
        smp: 1,
        options: "",
        args: "",
        long: false,
        binary: "",
        ends: &[],
        named: false,
        ours: false,
        icount: false,
        hospes: "",
    }
}

/// A kernel that wants a second vCPU, on a CPU of its own.
const fn two(name: &'static str, about: &'static str) -> Kernel {
    Kernel { options: "dom0_max_vcpus=2", smp: 2, ..kernel(name, about) }
}

/// Every kernel that `run` runs.
pub const KERNELS: &[Kernel] = &[
    Kernel { args: "one two=3", ..kernel("start_of_day", "registers, start_info and mappings at entry") },
    kernel("page_types", "what may be pinned, hooked in and mapped writable"),
    kernel("l4_slots", "the hypervisor's part of every L4"),
    kernel("mmu_update", "commands, codes and done count of mmu_update"),
    kernel("update_va", "addresses, flags and codes of update_va_mapping"),
    kernel("mmuext", "each operation of mmuext_op"),
    kernel("ptwr", "emulated writes to read-only page tables"),
    kernel("traps", "trap frames from kernel and user mode, trap tables, stacks"),
    kernel("syscall", "SYSCALL and SYSENTER of user mode, callback_op"),
    kernel("iret", "the iret hypercall, good and bad frames"),
    kernel("event_frames", "when events are delivered, and their frames"),
    kernel("cpuid", "CPUID leaves and features, XSETBV"),
    kernel("msrs", "emulated MSRs, segment bases, hypercall page"),
    kernel("privileged", "control and debug registers, privileged instructions"),
    kernel("ioports", "IOPL, I/O bitmap, ports that are kept"),
    kernel("segments", "GDT and LDT pages, descriptors, gates, selectors"),
    kernel("sched_op", "every operation of sched_op, polls, watchdogs"),
    kernel("physdev", "interrupts and devices of physdev_op"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        ..kernel("vcpu_op", "every operation of vcpu_op, bad arguments, absent vCPUs")
    },
    Kernel {
        options: "dom0_max_vcpus=2",
        ..kernel("nmi_failsafe", "NMIs to oneself; segments that fail at a vCPU switch")
    },
    kernel("arguments", "every hypercall number with arguments that mean nothing"),
    kernel("arguments_pointers", "every operation with pointers that lead nowhere"),
    kernel("arguments_values", "addresses, frames and numbers out of range"),
    kernel("timers", "clock, timers, runstate"),
    kernel("evtchn", "every operation of event channels"),
    kernel("grants", "grant tables: map, unmap, copy, statuses"),
    kernel("multicall", "results, order and limits of multicall"),
    kernel("memory", "reservations, exchange and maps of memory_op"),
    Kernel { options: "dom0_max_vcpus=2", smp: 2, ..kernel("smp", "a second vCPU: bring-up, IPIs, down and up") },
    kernel("watchdog", "watchdogs of domains that nobody pets"),
    two("vcpu_others", "what one vCPU sets for another that runs, waits or is down"),
    kernel("hostile_fpu_domains", "FPU state of another domain"),
    kernel("child", "a second domain: built, run, paused, destroyed"),
    Kernel { options: "xpti=1", ..kernel("xpti", "guests' page tables without the hypervisor") },
    kernel("ac", "every kind of entry with RFLAGS.AC set"),
    Kernel {
        options: "dom0_max_vcpus=4",
        smp: 4,
        ..kernel("clock", "the clock never goes back, on four vCPUs at once")
    },
    Kernel {
        options: "dom0_max_vcpus=4",
        smp: 2,
        binary: "clock",
        ..kernel("clock_shared", "the same with two vCPUs to a CPU")
    },
    kernel("fpu", "FPU state across everything"),
    kernel("hostile_fetch", "privileged instructions that end where nothing is"),
    kernel("hostile_prefixes", "prefixes before privileged instructions"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        ..kernel("hostile_code_race", "an instruction that changes while it is emulated")
    },
    kernel("hostile_string_io", "string I/O at hostile addresses"),
    kernel("hostile_encodings", "unusual encodings, all registers, all second bytes"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        ..kernel("hostile_iobitmap", "I/O bitmaps at bad places, and one that changes")
    },
    kernel("hostile_debugreg", "breakpoints where the hypervisor trips over them"),
    Kernel {
        hospes: "Xen takes it for its own fault",
        ..kernel("hostile_vm86", "virtual-8086 mode, where an emulator has it in long mode")
    },
    Kernel {
        options: "pv-l1tf=1",
        hospes: "Xen ends the domain",
        ..kernel("hostile_l1tf", "entries that are not present and name RAM")
    },
    kernel("hostile_mov_ss", "what the shadow of MOV SS holds back"),
    kernel("hostile_single_step", "single steps through the hypervisor's work"),
    kernel("hostile_xcr0", "XCR0 and XSAVE images"),
    Kernel { options: "dom0_max_vcpus=2", ..kernel("hostile_fpu_leak", "registers of another vCPU") },
    Kernel { options: "dom0_max_vcpus=4", smp: 2, ..kernel("hostile_fpu_context", "FPU images of a new vCPU") },
    kernel("hostile_iret_selectors", "every selector through iret"),
    kernel("hostile_iret_frames", "iret with every flag and hostile addresses"),
    kernel("hostile_sysret", "SYSCALL whose return address is none"),
    kernel("hostile_msr", "every MSR read and written"),
    kernel("hostile_cpuid", "every leaf of CPUID"),
    kernel("hostile_trap_table", "trap tables without an end, odd entries"),
    kernel("hostile_callbacks", "callbacks where no code can be"),
    kernel("hostile_multicall", "multicalls that write over themselves"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        ..kernel("hostile_multicall_race", "multicalls that change meanwhile")
    },
    kernel("hostile_console", "console_io with lengths that are lies"),
    kernel("hostile_death", "every way a domain dies"),
    kernel("hostile_rights", "what only dom0 may do, tried by a domU"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        ..kernel("hostile_evtchn_race", "channels closed while another sends")
    },
    kernel("hostile_evtchn_bits", "event bitmaps written as no guest should"),
    Kernel { options: "dom0_max_vcpus=4", ..kernel("hostile_vcpu_info", "vcpu_info where other things are") },
    Kernel { options: "dom0_max_vcpus=3", smp: 2, ..kernel("hostile_poll_race", "polls that race with everything") },
    kernel("hostile_timers", "timers at the ends of time"),
    Kernel { options: "dom0_max_vcpus=2", ..kernel("hostile_areas", "runstate and time areas at hostile addresses") },
    Kernel {
        options: "dom0_max_vcpus=4",
        smp: 2,
        ..kernel("hostile_bringup", "vCPUs started while they are filled in")
    },
    kernel("hostile_contexts", "vCPUs that start with hostile registers"),
    Kernel {
        options: "dom0_max_vcpus=2",
        smp: 2,
        hospes: "Xen tells its console of each bad entry, thousands of times",
        ..kernel("hostile_grant_race", "grants that change while they are used")
    },
    Kernel { options: "dom0_max_vcpus=2", smp: 2, ..kernel("hostile_nmi", "NMIs in storms") },
    kernel("hostile_padding", "what comes back beside the answer"),
    Kernel {
        hospes: "Xen 4.17 does not survive prepare_msix of a function without MSI-X",
        ..kernel("hostile_msix", "MSI-X of devices without it")
    },
    Kernel { options: "dom0_max_vcpus=3", smp: 3, ..kernel("hostile_down", "vCPUs that take each other down") },
    kernel("version", "xen_version and vm_assist"),
    kernel("hostile_transitions", "a page used as two things at once"),
    kernel("hostile_rw_update", "tables made writable by mmu_update"),
    kernel("hostile_rw_va", "tables made writable by update_va_mapping"),
    kernel("hostile_rw_grant", "tables written through grants"),
    kernel("hostile_out_pointers", "results written into tables and nowhere"),
    Kernel {
        options: "dom0_max_vcpus=3",
        args: "seconds=20",
        smp: 2,
        ours: true,
        long: true,
        ..kernel("fuzz", "random hypercalls and instructions on two vCPUs")
    },
    kernel("hostile_desc", "descriptor pages that others write, system descriptors"),
    kernel("hostile_ptwr", "bad entries by emulated stores"),
    kernel("hostile_linear", "tables that lead to themselves and each other"),
    kernel("hostile_partial", "long operations stopped and not gone on with"),
    kernel("hostile_counts", "counts driven up"),
    kernel("hostile_bits", "large pages, reserved bits, frames beyond the machine"),
    kernel("hostile_addresses", "pointers into nothing in every memory call"),
    kernel("hostile_m2p", "the machine-to-phys table written and taken"),
    kernel("hostile_slots", "the hypervisor's slots of L4 tables"),
    kernel("hostile_cr3", "page-table bases that are none"),
    kernel("hostile_reservation", "frames given back twice, huge counts and orders"),
    kernel("hostile_exchange", "exchange of frames in use, of others, of nothing"),
    kernel("hostile_zero", "what others left in memory"),
    kernel("hostile_mmio", "dom0 maps the hypervisor, others, LAPIC and IOAPIC"),
    kernel("hostile_domu", "a domU maps what is not its own"),
    kernel("hostile_foreign", "frames of another domain while they change"),
    kernel("hostile_dying_map", "a domain destroyed while its pages are mapped"),
    kernel("hostile_death_pin", "death in the middle of page-table operations"),
    kernel("hostile_death_balloon", "death in the middle of memory operations"),
    kernel("hostile_death_grant", "grants whose owner dies"),
    kernel("hostile_maptrack", "sixteen thousand mappings kept by a domU that dies"),
    kernel("hostile_destroy", "double destroy, limits, use after death"),
    kernel("hostile_balloon", "all memory taken"),
    kernel("hostile_ldt", "LDT pages that are not, and that change"),
    kernel("hostile_shared_areas", "areas the hypervisor writes, on tables"),
    kernel("hostile_lists", "lists that lie in what they change"),
    kernel("hostile_recursion", "trees larger than the memory they lie in"),
    kernel("faults", "each allocation of each operation fails once"),
    Kernel { icount: true, ..kernel("stretch", "the longest time without a preemption point") },
    Kernel { icount: true, ..kernel("wakeup", "how late timers are beside a domain that spins") },
    two("hostile_race_types", "one vCPU pins what another maps writable"),
    two("hostile_race_desc", "one vCPU's GDT is another's data"),
    Kernel {
        hospes: "Xen 4.17 does not always survive it (a BUG in its page types: seen once in some twenty runs)",
        ..two("hostile_race_partial", "two vCPUs at one large tree")
    },
    two("hostile_race_cr3", "a base that another vCPU takes"),
    two("hostile_stale_tlb", "writes through translations that are gone"),
    two("hostile_race_balloon", "two vCPUs give back the same frames"),
    two("hostile_race_list", "lists that change while they are read"),
];

/// The kernel of `bench` and `profile`.
pub const BENCH: Kernel = kernel("bench", "instructions of common operations");

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// Builds the kernels in the workspace at `root` and says where they are.
pub fn build(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "-q", "--release", "--target", "x86_64-unknown-none", "-p", "guests"])
        .current_dir(root)
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err("harness: the test kernels do not build".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |t| root.join(t));
    Ok(target.join("x86_64-unknown-none/release"))
}
