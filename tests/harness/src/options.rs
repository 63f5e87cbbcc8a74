//! The command line.
use std::path::PathBuf;
use std::time::Duration;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub command: String,
    pub hospes: Option<PathBuf>,
    pub xen: Option<PathBuf>,
    pub only: Vec<String>,
    pub jobs: usize,
    pub timeout: Duration,
    pub long: bool,
    pub audit: bool,
    pub keep: Option<PathBuf>,
    pub qemu: PathBuf,
    pub cpu: String,
    pub append: String,
    pub expect: Vec<String>,
}

impl Options {
    /// Was `name` asked for?
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == name)
    }
}

/// Reads the arguments; images default to the environment's.
pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let image = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.exists());
    let mut o = Options {
        command: args.next().ok_or("harness: say what to do: run, record, bench, profile, mutants or list")?,
        hospes: image("HOSPES_IMAGE"),
        xen: image("HOSPES_XEN"),
        only: Vec::new(),
        jobs: 2,
        timeout: Duration::from_secs(60),
        long: false,
        audit: true,
        keep: None,
        qemu: std::env::var_os("HOSPES_QEMU").map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from),
        // SMAP is hidden: this QEMU may be one where it does not go with PV kernels, which run in ring 3
        cpu: "max,-smap".into(),
        append: String::new(),
        expect: Vec::new(),
    };
    while let Some(a) = args.next() {
        let mut value = || args.next().ok_or(format!("harness: {a} wants a value"));
        match a.as_str() {
            "--hypervisor" => o.hospes = Some(existing(value()?)?),
            "--xen" => o.xen = Some(existing(value()?)?),
            "--only" => o.only.push(value()?),
            "--jobs" => o.jobs = number(&value()?)?.max(1) as usize,
            "--timeout" => o.timeout = Duration::from_secs(number(&value()?)?),
            "--keep" => o.keep = Some(value()?.into()),
            "--qemu" => o.qemu = existing(value()?)?,
            "--cpu" => o.cpu = value()?,
            "--append" => o.append = value()?,
            "--expect" => o.expect.push(value()?),
            "--long" => o.long = true,
            "--no-audit" => o.audit = false,
            other => return Err(format!("harness: unknown option '{other}'")),
        }
    }
    Ok(o)
}

fn existing(path: String) -> Result<PathBuf, String> {
    let p = PathBuf::from(&path);
    if p.exists() { Ok(p) } else { Err(format!("harness: no file {path}")) }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("harness: '{text}' is not a number"))
}
