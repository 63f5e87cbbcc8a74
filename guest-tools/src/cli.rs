//! The command line: what can be typed. What it does is in [`crate::commands`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Manage the domains of this machine. Wherever a domain is named, its id does as well.
#[derive(Debug, Parser)]
#[command(name = "dom", version, disable_help_subcommand = true)]
pub struct CommandLine {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Everything `dom` does.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    /// Make a domain from a configuration file in the xl.cfg syntax, and start it
    Create {
        /// The configuration
        file: PathBuf,
        /// Show its console at once, from the first line on (Ctrl-] leaves it)
        #[arg(short, long)]
        console: bool,
        /// Leave it paused
        #[arg(short, long, conflicts_with = "console")]
        paused: bool,
        /// Do not stay in the background to do what on_poweroff, on_reboot and on_crash say
        #[arg(short = 'e', long)]
        no_watch: bool,
        /// Settings that replace the file's, such as memory=256
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Start every domain of /etc/hospes/auto/*.cfg that does not run yet, in the order of the files' names
    Autostart {
        /// Another directory
        #[arg(default_value = "/etc/hospes/auto")]
        directory: PathBuf,
    },
    /// Show all domains, or one
    List {
        /// Only this one
        domain: Option<String>,
        /// Show more of each
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show what each domain uses of CPU, memory, disks and networks, again and again (q ends it)
    Top {
        /// Plain text, one table after the other
        #[arg(short, long)]
        batch: bool,
        /// End after so many tables
        #[arg(short = 'n', long, value_name = "COUNT")]
        iterations: Option<u32>,
        /// Seconds between two tables
        #[arg(short, long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
        delay: u32,
    },
    /// Show the same as figures in the OpenMetrics format, for Prometheus and others
    Metrics {
        /// Serve them over HTTP at this address of the loopback interface, such as 127.0.0.1:9090
        #[arg(short, long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Join a domain's console; Ctrl-] leaves it
    Console {
        /// Which
        domain: String,
    },
    /// Ask a domain's kernel to power off
    Shutdown {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        wait: Wait,
    },
    /// Ask a domain's kernel to reboot
    Reboot {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        wait: Wait,
    },
    /// End a domain at once and give back all it has
    Destroy {
        /// Which
        domain: String,
    },
    /// Stop a domain's vCPUs
    Pause {
        /// Which
        domain: String,
    },
    /// Let a paused domain go on
    Unpause {
        /// Which
        domain: String,
    },
    /// Give a domain another name
    Rename {
        /// Which
        domain: String,
        /// The new name
        name: String,
    },
    /// Tell a domain's id
    Domid {
        /// Its name
        domain: String,
    },
    /// Tell a domain's name
    Domname {
        /// Its id
        domain: String,
    },
    /// Show a domain's configuration as it is now, in the xl.cfg syntax
    Config {
        /// Which
        domain: String,
    },
    /// Show for how long all domains, or one, have been running
    Uptime {
        /// Only this one
        domain: Option<String>,
    },
    /// Press a magic SysRq key of a domain's kernel: s syncs its disks, t lists its tasks, h lists the keys
    Sysrq {
        /// Which
        domain: String,
        /// The key
        key: char,
    },
    /// Ask a domain's kernel to give memory back, or to take more, so that it has this much
    MemSet {
        /// Which
        domain: String,
        /// MiB, or a number with K, M or G
        memory: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Set the most memory a domain may have
    MemMax {
        /// Which
        domain: String,
        /// MiB, or a number with K, M or G
        memory: String,
    },
    /// Ask a domain's kernel to use so many of its vCPUs
    VcpuSet {
        /// Which
        domain: String,
        /// How many
        vcpus: u32,
        #[command(flatten)]
        wait: Wait,
    },
    /// Say which CPUs a vCPU may run on, and which of them it prefers
    VcpuPin {
        /// Which domain
        domain: String,
        /// Which vCPU: a number, or all
        vcpu: String,
        /// CPUs it may run on, such as 0-3,^2 or all; - leaves them as they are
        cpus: String,
        /// CPUs it prefers
        soft: Option<String>,
    },
    /// Show the vCPUs of all domains, or of one
    VcpuList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Show or set how domains share the CPUs
    Sched {
        /// Only this one
        domain: Option<String>,
        /// Its share where CPUs are short, beside others of 256
        #[arg(short, long, requires = "domain", value_parser = clap::value_parser!(u16).range(1..))]
        weight: Option<u16>,
        /// The most it may use, in hundredths of a CPU; 0 for no limit
        #[arg(short, long, requires = "domain")]
        cap: Option<u16>,
    },
    /// Give a running domain a disk
    BlockAttach {
        /// Which domain
        domain: String,
        /// The disk, as in a configuration: /srv/a.img,raw,xvdb,w
        #[arg(required = true)]
        disk: Vec<String>,
    },
    /// Take a disk away from a running domain
    BlockDetach {
        /// Which domain
        domain: String,
        /// The disk's name in the guest: xvdb
        vdev: String,
        /// Do not wait for the guest to give it back
        #[arg(short, long)]
        force: bool,
    },
    /// Show the disks of all domains, or of one
    BlockList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Give a running domain a network interface
    NetworkAttach {
        /// Which domain
        domain: String,
        /// The interface, as in a configuration: bridge=xenbr0 mac=00:16:3e:01:02:03
        #[arg(value_name = "KEY=VALUE")]
        network: Vec<String>,
    },
    /// Take a network interface away from a running domain
    NetworkDetach {
        /// Which domain
        domain: String,
        /// The interface's number or its MAC address
        interface: String,
        /// Do not wait for the guest to give it back
        #[arg(short, long)]
        force: bool,
    },
    /// Show the network interfaces of all domains, or of one
    NetworkList {
        /// Only this one's
        domain: Option<String>,
    },
    /// Make a bridge, which domains' networks are plugged into
    BridgeCreate {
        /// Its name
        #[arg(default_value = "xenbr0")]
        name: String,
        /// dom0's own address on it: 10.0.0.1/24
        address: Option<String>,
        /// A network card of dom0's to plug in, too
        #[arg(short, long, value_name = "INTERFACE")]
        port: Vec<String>,
    },
    /// Remove a bridge that nothing is plugged into
    BridgeDelete {
        /// Which
        name: String,
    },
    /// Show the bridges
    BridgeList,
    /// Show the machine and its hypervisor
    Info,
    /// Show the hypervisor's messages
    Dmesg {
        /// Forget them after that
        #[arg(short, long)]
        clear: bool,
    },
    /// Print what a shell needs to complete these commands: source <(dom completion bash)
    Completion {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page (to read it: dom man | man -l -), or write all pages into a directory
    Man {
        /// Where to write dom.1 and a page for each command
        directory: Option<PathBuf>,
    },
    /// Wait for a domain's end (what `dom create` leaves in the background)
    #[command(hide = true)]
    Watch {
        /// Its id
        domain: u16,
    },
    /// What developers of the hypervisor need
    #[command(subcommand)]
    Debug(Debug),
}

/// Some domains.
#[derive(Debug, Args)]
pub struct Which {
    /// Which
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub domains: Vec<String>,
    /// All but domain 0
    #[arg(short, long)]
    pub all: bool,
}

/// Whether to come back only when it has happened.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Come back only when it has happened
    #[arg(short, long)]
    pub wait: bool,
    /// With --wait: for how long, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    pub timeout: u64,
}

/// For developers.
#[derive(Debug, Subcommand)]
pub enum Debug {
    /// Recount every frame and compare (only on Hospes)
    Audit,
}
