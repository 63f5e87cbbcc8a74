//! The hypervisor's command-line options: one table, [`OPTIONS`], that parses them and prints their documentation.
//!
//! Names and meanings are those of Xen where Xen has the option. Nothing is ignored silently: a word that is no option, or
//! whose value makes no sense, is kept in [`Options::problems`] for the log, and the option keeps its default.

mod values;

use core::fmt;

use arrayvec::{ArrayString, ArrayVec};

pub use values::{Amount, ByDomain, Consoles, Dom0Memory, Level, LogLevels, Parity, Serial, SpecCtrl};
use values::{boolean, dom0_memory, number, release, size, vcpu_range};

/// Words complained about that are kept; later ones are only counted.
pub const MAX_PROBLEMS: usize = 16;

/// All options with their values. [`Options::default`] gives the defaults, [`Options::parse`] reads a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `console`: where the hypervisor's messages and dom0's console go.
    pub console: Consoles,
    /// `com1`: line settings of the first serial port; `None` where the option was not given.
    pub com1: Option<Serial>,
    /// `com2`.
    pub com2: Option<Serial>,
    /// `dom0_mem`.
    pub dom0_mem: Dom0Memory,
    /// `dom0_max_vcpus`: the least and the most vCPUs of dom0; as many as there are CPUs within these.
    pub dom0_max_vcpus: (u32, u32),
    /// `maxcpus`: CPUs to use at most; 1 with `nosmp`.
    pub maxcpus: u32,
    /// `loglvl`: the hypervisor's own messages.
    pub loglvl: LogLevels,
    /// `guest_loglvl`: messages that guests cause.
    pub guest_loglvl: LogLevels,
    /// `noreboot`: halt after a crash.
    pub noreboot: bool,
    /// `watchdog`: crash with registers when a CPU is stuck.
    pub watchdog: bool,
    /// `watchdog_timeout`, seconds.
    pub watchdog_timeout: u32,
    /// `sync_console`: write out each message before going on.
    pub sync_console: bool,
    /// `smap`: use Supervisor Mode Access Prevention where the CPU has it.
    pub smap: bool,
    /// `smep`: use Supervisor Mode Execution Prevention where the CPU has it.
    pub smep: bool,
    /// `xpti`.
    pub xpti: ByDomain,
    /// `pv-l1tf`.
    pub pv_l1tf: ByDomain,
    /// `spec-ctrl`.
    pub spec_ctrl: SpecCtrl,
    /// `xen_version`: the release reported to guests and tools, major and minor.
    pub xen_version: (u16, u16),
    /// `conring_size`: bytes of the console ring.
    pub conring_size: u64,
    /// Words that were ignored, and why.
    pub problems: ArrayVec<Problem, MAX_PROBLEMS>,
    /// Words that were ignored and did not fit into `problems`.
    pub more_problems: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            console: Consoles { com1: true, com2: false, vga: true },
            com1: None,
            com2: None,
            dom0_mem: Dom0Memory::default(),
            dom0_max_vcpus: (1, u32::MAX),
            maxcpus: u32::MAX,
            loglvl: LogLevels { always: Level::Info, limited: Level::Info },
            guest_loglvl: LogLevels { always: Level::None, limited: Level::Warning },
            noreboot: false,
            watchdog: false,
            watchdog_timeout: 5,
            sync_console: false,
            smap: true,
            smep: true,
            xpti: ByDomain::default(),
            pv_l1tf: ByDomain::default(),
            spec_ctrl: SpecCtrl::default(),
            xen_version: (4, 17),
            conring_size: 16 << 10,
            problems: ArrayVec::new(),
            more_problems: 0,
        }
    }
}

/// A value that makes no sense for its option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadValue;

/// One row of the table.
pub struct OptionSpec {
    /// The word before `=`.
    pub name: &'static str,
    /// What may follow, as in Xen's own documentation.
    pub syntax: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// May be negated as `no-NAME`.
    pub negatable: bool,
    set: fn(&mut Options, Option<&str>) -> Result<(), BadValue>,
}

/// Every option there is.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "com1",
        syntax: "=<baud>|auto[,<data><parity><stop>[,<io-port>[,<irq>]]]",
        default: "left as the firmware set it, port 0x3f8, irq 4",
        help: "Line settings of the first serial port, e.g. `com1=115200,8n1`. `auto` keeps the firmware's speed; irq 0 means polling.",
        negatable: false,
        set: |o, v| Serial::parse(v.ok_or(BadValue)?, 0x3f8, 4).map(|s| o.com1 = Some(s)),
    },
    OptionSpec {
        name: "com2",
        syntax: "=<baud>|auto[,<data><parity><stop>[,<io-port>[,<irq>]]]",
        default: "left as the firmware set it, port 0x2f8, irq 3",
        help: "The same for the second serial port.",
        negatable: false,
        set: |o, v| Serial::parse(v.ok_or(BadValue)?, 0x2f8, 3).map(|s| o.com2 = Some(s)),
    },
    OptionSpec {
        name: "conring_size",
        syntax: "=<size>",
        default: "16k",
        help: "Size of the ring that keeps the hypervisor's messages for `dom dmesg`; rounded down to a power of two.",
        negatable: false,
        set: |o, v| {
            let bytes = size(v)?;
            o.conring_size = if bytes >= 1 << 10 {
                1 << bytes.min(1 << 30).ilog2()
            } else {
                return Err(BadValue);
            };
            Ok(())
        },
    },
    OptionSpec {
        name: "console",
        syntax: "=<com1|com2|vga|none>[,...]",
        default: "com1,vga",
        help: "Where the hypervisor's messages and dom0's console go.",
        negatable: false,
        set: |o, v| Consoles::parse(v.ok_or(BadValue)?).map(|c| o.console = c),
    },
    OptionSpec {
        name: "dom0_max_vcpus",
        syntax: "=<n> | <min>-<max>",
        default: "as many as there are CPUs",
        help: "Number of dom0's vCPUs; as a range (either end may be left out): as many as there are CPUs, within the range.",
        negatable: false,
        set: |o, v| vcpu_range(v.ok_or(BadValue)?).map(|r| o.dom0_max_vcpus = r),
    },
    OptionSpec {
        name: "dom0_mem",
        syntax: "=<size> | min:<size> | max:<size>[,...]",
        default: "all memory but 1/16, at most 128M",
        help: "Memory of dom0. A negative size means all memory but that much; `min:` and `max:` bound the amount. `dom0_mem=1G,max:1G` is usual.",
        negatable: false,
        set: |o, v| dom0_memory(v.ok_or(BadValue)?).map(|m| o.dom0_mem = m),
    },
    OptionSpec {
        name: "guest_loglvl",
        syntax: "=<level>[/<rate-limited level>]",
        default: "none/warning",
        help: "The same as `loglvl` for messages that guests cause.",
        negatable: false,
        set: |o, v| LogLevels::parse(v.ok_or(BadValue)?).map(|l| o.guest_loglvl = l),
    },
    OptionSpec {
        name: "loglvl",
        syntax: "=<level>[/<rate-limited level>]",
        default: "info",
        help: "Which of the hypervisor's own messages are printed: none, error, warning, info, debug or all. Those above the first level and up to the second are printed at a limited rate.",
        negatable: false,
        set: |o, v| LogLevels::parse(v.ok_or(BadValue)?).map(|l| o.loglvl = l),
    },
    OptionSpec {
        name: "maxcpus",
        syntax: "=<n>",
        default: "all",
        help: "Use at most this many CPUs.",
        negatable: false,
        set: |o, v| match number(v)? {
            0 => Err(BadValue),
            n => {
                o.maxcpus = n;
                Ok(())
            }
        },
    },
    OptionSpec {
        name: "noreboot",
        syntax: "[=<bool>]",
        default: "off",
        help: "After a crash of the hypervisor or of dom0, halt instead of rebooting.",
        negatable: false,
        set: |o, v| boolean(v).map(|b| o.noreboot = b),
    },
    OptionSpec {
        name: "nosmp",
        syntax: "",
        default: "off",
        help: "Use one CPU only.",
        negatable: false,
        set: |o, v| {
            if boolean(v)? {
                o.maxcpus = 1;
            }
            Ok(())
        },
    },
    OptionSpec {
        name: "pv-l1tf",
        syntax: "=default|<bool>|dom0=<bool>|domu=<bool>[,...]",
        default: "on for domUs on Intel CPUs that do not say RDCL_NO",
        help: "Refuses entries of guests' page tables that are not present and name RAM (against L1TF). Linux makes none.",
        negatable: true,
        set: |o, v| ByDomain::parse(v).map(|x| o.pv_l1tf = x),
    },
    OptionSpec {
        name: "smap",
        syntax: "=<bool>",
        default: "on",
        help: "Use Supervisor Mode Access Prevention for the hypervisor where the CPU has it.",
        negatable: true,
        set: |o, v| boolean(v).map(|b| o.smap = b),
    },
    OptionSpec {
        name: "smep",
        syntax: "=<bool>",
        default: "on",
        help: "Use Supervisor Mode Execution Prevention for the hypervisor where the CPU has it.",
        negatable: true,
        set: |o, v| boolean(v).map(|b| o.smep = b),
    },
    OptionSpec {
        name: "spec-ctrl",
        syntax: "=<bool> | ibrs=<bool>|ibpb=<bool>|stibp=<bool>|ssbd=<bool>|rsb=<bool>|md-clear=<bool>|eager-fpu[,...]",
        default: "what the CPU needs",
        help: "Measures against speculation, a part of Xen's: `no` switches off all that are not named; a name without a value or with `no-` in front works, too. `ibrs`: ring 0's indirect branches; `ibpb`: a barrier between domains; `stibp`; `ssbd` (off unless asked for); `rsb`: the return stack buffer is filled on entry (by default without SMEP); `md-clear`: VERW before the return to a guest. Nothing is used that the CPU does not offer. The FPU is always switched eagerly.",
        negatable: false,
        set: |o, v| SpecCtrl::parse(v.ok_or(BadValue)?).map(|s| o.spec_ctrl = s),
    },
    OptionSpec {
        name: "sync_console",
        syntax: "[=<bool>]",
        default: "off",
        help: "Write each message out before going on: slow, and nothing is lost in a crash.",
        negatable: true,
        set: |o, v| boolean(v).map(|b| o.sync_console = b),
    },
    OptionSpec {
        name: "watchdog",
        syntax: "[=force|<bool>]",
        default: "off",
        help: "CPUs watch each other: one that is stuck in the hypervisor is made to report where, by NMI. With one CPU there is nobody to watch it.",
        negatable: true,
        set: |o, v| match v {
            Some("force") => {
                o.watchdog = true;
                Ok(())
            }
            v => boolean(v).map(|b| o.watchdog = b),
        },
    },
    OptionSpec {
        name: "watchdog_timeout",
        syntax: "=<seconds>",
        default: "5",
        help: "How long a CPU may be stuck; 0 turns the watchdog off, any other value on.",
        negatable: false,
        set: |o, v| {
            let seconds = number(v)?;
            o.watchdog_timeout = seconds;
            o.watchdog = seconds != 0;
            Ok(())
        },
    },
    OptionSpec {
        name: "xen_version",
        syntax: "=<major>.<minor>",
        default: "4.17",
        help: "The Xen release reported to guests and tools (Hospes' own): the stock tools run only with their own release, so `4.20` is for those of Debian 13.",
        negatable: false,
        set: |o, v| release(v.ok_or(BadValue)?).map(|r| o.xen_version = r),
    },
    OptionSpec {
        name: "xpti",
        syntax: "=default|<bool>|dom0=<bool>|domu=<bool>[,...]",
        default: "on for all domains on Intel CPUs that do not say RDCL_NO",
        help: "Guests run on page tables without the hypervisor (against Meltdown).",
        negatable: true,
        set: |o, v| ByDomain::parse(v).map(|x| o.xpti = x),
    },
];

/// A word of the command line that was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The word, cut to this length.
    pub word: ArrayString<64>,
    /// The option's name and syntax where its value was bad; `None` where there is no such option.
    pub expected: Option<(&'static str, &'static str)>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            None => write!(f, "unknown option '{}' ignored", self.word),
            Some((name, syntax)) => {
                write!(f, "option '{}' ignored: expected {name}{syntax}", self.word)
            }
        }
    }
}

impl Options {
    /// Reads a command line (without file name and placeholder, see [`crate::multiboot::BootInfo::args`]). Of two equal
    /// options the later one counts. A word `--` ends the options, as on Xen.
    pub fn parse(cmdline: &str) -> Self {
        let mut options = Options::default();
        for word in cmdline.split_ascii_whitespace().take_while(|word| *word != "--") {
            options.word(word);
        }
        options
    }

    fn word(&mut self, word: &str) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let find = |name: &str| OPTIONS.iter().find(|spec| spec.name == name);
        let negated = || name.strip_prefix("no-").and_then(find).filter(|spec| spec.negatable && value.is_none());
        let (spec, value) = match (find(name), negated()) {
            (Some(spec), _) => (spec, value),
            (None, Some(spec)) => (spec, Some("no")),
            (None, None) => return self.complain(word, None),
        };
        if (spec.set)(self, value).is_err() {
            self.complain(word, Some((spec.name, spec.syntax)));
        }
    }

    fn complain(&mut self, word: &str, expected: Option<(&'static str, &'static str)>) {
        let mut kept = ArrayString::new();
        for c in word.chars() {
            if kept.try_push(c).is_err() {
                break;
            }
        }
        if self.problems.try_push(Problem { word: kept, expected }).is_err() {
            self.more_problems = self.more_problems.saturating_add(1);
        }
    }
}

/// Prints the reference of all options as Markdown.
pub fn write_reference(out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "| option | default | what it does |\n|---|---|---|")?;
    for spec in OPTIONS {
        let cell = |out: &mut dyn fmt::Write, text: &str| -> fmt::Result {
            text.chars().try_for_each(|c| if c == '|' { out.write_str("\\|") } else { out.write_char(c) })
        };
        write!(out, "| `{}", spec.name)?;
        cell(out, spec.syntax)?;
        write!(out, "` | {} | {}", spec.default, spec.help)?;
        if spec.negatable {
            write!(out, " Also as `no-{}`.", spec.name)?;
        }
        writeln!(out, " |")?;
    }
    writeln!(out)?;
    writeln!(out, "`<size>` is a number with a suffix B, K, M, G or T; without one it is in KiB. `<bool>` is one of")?;
    writeln!(out, "on, yes, true, 1, enable, off, no, false, 0, disable; an option that may stand alone means on.")
}
