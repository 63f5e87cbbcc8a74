//! One QEMU: a hypervisor, a kernel as its dom0, the serial line.
use crate::kernels::Kernel;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Which hypervisor an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Xen,
    Hospes,
}

impl Kind {
    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Xen => "xen",
            Kind::Hospes => "hospes",
        }
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The verdict line came (and the audit's, where one was waited for).
    Finished,
    /// QEMU ended by itself before: a triple fault, a reset, or it did not start.
    Exited,
    /// The time was up.
    TimedOut,
}

/// What came over the serial line, and how it ended.
#[derive(Debug)]
pub struct Log {
    pub lines: Vec<String>,
    pub end: End,
    pub took: Duration,
}

/// What to start.
pub struct Machine<'a> {
    pub kind: Kind,
    pub image: &'a Path,
    pub binaries: &'a Path,
    pub kernel: &'a Kernel,
    pub audit: bool,
    pub icount: bool,
    pub timeout: Duration,
    /// QEMU, and its model of a CPU.
    pub qemu: &'a Path,
    pub cpu: &'a str,
    /// More options for the hypervisor.
    pub append: &'a str,
}

/// Ends QEMU when the run is over, however that comes.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// The command that starts it; its serial line is QEMU's standard output.
    pub fn command(&self) -> Command {
        let k = self.kernel;
        let module = format!("{} {}", self.binaries.join(k.file()).display(), k.args).trim_end().to_string();
        let mut append = format!("console=com1 com1=115200,8n1 dom0_mem=128M noreboot {} {}", k.options, self.append);
        if self.kind == Kind::Xen {
            // lazy FPU switching is Xen's default on this CPU model, and not what it does on a real one
            append.push_str(" spec-ctrl=eager-fpu");
        }
        let mut c = Command::new(self.qemu);
        // QEMU since 9.0 has an x2APIC, and ends with "Bad icount read" when its timer is set while it counts.
        let cpu = if self.icount { format!("{},-x2apic", self.cpu) } else { self.cpu.to_string() };
        c.args([
            "-cpu",
            &cpu,
            "-m",
            "512",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]);
        c.args(["-smp", &k.smp.to_string()]);
        if self.icount {
            c.args(["-icount", "shift=0,sleep=off"]);
        }
        c.arg("-kernel").arg(self.image).arg("-initrd").arg(module).arg("-append").arg(append);
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        c
    }

    /// Runs it to its verdict.
    pub fn run(&self) -> Result<Log, String> {
        let start = Instant::now();
        let mut qemu = Running(self.command().spawn().map_err(|e| format!("{}: {e}", self.qemu.display()))?);
        let serial = qemu.0.stdout.take().ok_or("no serial line")?;
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(serial);
            let mut bytes = Vec::new();
            while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
                bytes.clear();
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut lines = Vec::new();
        let mut verdict = false;
        let mut said = 0;
        let audited = self.kind == Kind::Hospes && self.audit;
        let end = loop {
            match receive.recv_timeout(self.timeout.saturating_sub(start.elapsed())) {
                Ok(line) => {
                    verdict |= line.starts_with("VERDICT: ");
                    let audit = line.contains("audit: ");
                    if self.kernel.ends.get(said).is_some_and(|t| line.contains(t)) {
                        said += 1;
                    }
                    lines.push(line);
                    if said != 0 && said == self.kernel.ends.len() {
                        break End::Finished;
                    }
                    if verdict && (audit || !audited) {
                        break End::Finished;
                    }
                }
                Err(RecvTimeoutError::Timeout) => break End::TimedOut,
                Err(RecvTimeoutError::Disconnected) => break End::Exited,
            }
        };
        Ok(Log { lines, end, took: start.elapsed() })
    }
}
