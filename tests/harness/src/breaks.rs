//! Machines that end in a panic, on purpose: `breaks` asks Hospes for it, and these lines must come.
use crate::kernels::Kernel;

const fn breaks(name: &'static str, args: &'static str, about: &'static str, ends: &'static [&'static str]) -> Kernel {
    Kernel {
        name,
        about,
        smp: 1,
        options: "",
        args,
        long: false,
        binary: "breaks",
        ends,
        named: false,
        ours: true,
        icount: false,
        hospes: "",
    }
}

/// All of them. Each ends with the hypervisor's last words, so a report that breaks off is a failure, too.
pub const BREAKS: &[Kernel] = &[
    Kernel {
        smp: 2,
        ..breaks(
            "break_panic",
            "panic",
            "a panic: the whole report, the other CPU stopped",
            &[
                ": asked for by dom0",
                "arch/sabotage.rs",
                "backtrace:",
                "hypercall::sysctl::sysctl",
                "d0v0 runs here; as it entered:",
                "rip 0xe033:",
                "last events, newest first:",
                "hypercall 35 sysctl",
                " was at 0xffff82",
                "halted (noreboot)",
            ],
        )
    },
    Kernel {
        smp: 2,
        options: "watchdog_timeout=2",
        ..breaks(
            "break_hang",
            "hang",
            "a CPU that hangs: the watchdog's NMI",
            &[
                "2 CPUs watch each other, 2 s",
                ": watchdog: stuck for",
                "arch::sabotage::run",
                " was at 0xffff82",
                "halted (noreboot)",
            ],
        )
    },
    breaks(
        "break_stack",
        "stack",
        "the guard page below the main stack",
        &["the main stack is used up", "arch::sabotage::overflow", "halted (noreboot)"],
    ),
    breaks(
        "break_guard_nmi",
        "guard_nmi",
        "the guard page below the stack of NMIs",
        &["the NMI stack is used up", "halted (noreboot)"],
    ),
    breaks(
        "break_guard_mc",
        "guard_mc",
        "that below the stack of machine checks",
        &["the machine-check stack is used up", "halted (noreboot)"],
    ),
    breaks(
        "break_guard_db",
        "guard_db",
        "that below the stack of debug exceptions",
        &["the debug stack is used up", "halted (noreboot)"],
    ),
    breaks(
        "break_guard_df",
        "guard_df",
        "that below the stack of double faults",
        &["the double-fault stack is used up", "halted (noreboot)"],
    ),
    breaks(
        "break_machine_check",
        "machine_check",
        "a machine check is reported before the machine stops",
        &[
            ": machine check",
            "machine-check status 0x",
            "arch::sabotage::run",
            "d0v0 runs here; as it entered:",
            "halted (noreboot)",
        ],
    ),
    breaks(
        "break_write_text",
        "write_text",
        "code is not writable",
        &["page fault in the hypervisor", "error 0x3", "halted (noreboot)"],
    ),
    breaks(
        "break_write_text_direct",
        "write_text_direct",
        "nor through the direct map",
        &["page fault in the hypervisor, 0xffff83", "error 0x3", "halted (noreboot)"],
    ),
    breaks(
        "break_write_rodata",
        "write_rodata",
        "constants are not writable",
        &["page fault in the hypervisor", "error 0x3", "halted (noreboot)"],
    ),
    breaks(
        "break_run_data",
        "run_data",
        "data is not executable",
        &["page fault in the hypervisor", "error 0x11", "halted (noreboot)"],
    ),
    breaks(
        "break_run_direct_map",
        "run_direct_map",
        "nor is the direct map",
        &["page fault in the hypervisor, 0xffff83", "error 0x11", "halted (noreboot)"],
    ),
    breaks(
        "break_run_guest",
        "run_guest",
        "ring 0 does not run the guest's pages (SMEP)",
        &["page fault in the hypervisor, 0xffffffff8", "error 0x11", "halted (noreboot)"],
    ),
    Kernel {
        named: true,
        ..breaks(
            "break_read_guest",
            "read_guest",
            "ring 0 does not read the guest's pages (SMAP)",
            &["SMAP on", "page fault in the hypervisor, 0xffffffff8", "error 0x1", "halted (noreboot)"],
        )
    },
    breaks(
        "break_wild",
        "wild",
        "a wild write",
        &["page fault in the hypervisor, 0xffff8190fffff000", "error 0x0", "halted (noreboot)"],
    ),
    breaks(
        "break_domain",
        "domain",
        "a domain's crash: registers, code, stack",
        &[
            "domain 0 vCPU 0 crashed: a trap or event has no handler",
            "rip 0xe033:0xffffffff8",
            "rbx 000000000000b0b0",
            "gs base ffffffff8",
            "kernel mode",
            "events not pending, masked",
            "<0f> 0b",
            "d0v0 stack +0x00: [1122334455667788, 1122334455667788, 1122334455667788, 1122334455667788]",
            "d0v0's last events, newest first:",
            "  exception 6 (0xffffffff8",
            "  hypercall ",
            "dom0 crashed",
            "halted (noreboot)",
        ],
    ),
];
