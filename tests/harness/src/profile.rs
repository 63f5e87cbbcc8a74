//! `profile`: where the instructions of one row of the bench go.
//!
//! The bench kernel repeats the row for ever; QEMU then logs the address of every instruction it executes for a while.
//! Addresses are counted per round and named by `addr2line`: the function they were compiled into, and the innermost
//! inlined one with its line.
use crate::kernels::{self, Kernel};
use crate::machine::{Kind, Machine};
use crate::options::Options;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long instructions are logged: some 100,000 lines.
const SAMPLE: Duration = Duration::from_millis(400);

/// Waits for the loop's line and returns the address every round executes once.
fn wait_for_loop(serial: impl std::io::Read, deadline: Instant) -> Result<u64, String> {
    for line in BufReader::new(serial).lines().map_while(Result::ok) {
        if let Some((_, at)) = line.split_once("bench: loop at 0x") {
            return u64::from_str_radix(at.trim(), 16).map_err(|e| format!("harness: {line}: {e}"));
        }
        if line.starts_with("VERDICT") || Instant::now() > deadline {
            break;
        }
    }
    Err("harness: the bench has no such row (the names are those that `bench` prints)".into())
}

fn sample(o: &Options, binaries: &Path, kind: Kind, image: &Path, row: &str, log: &Path) -> Result<u64, String> {
    let kernel =
        Kernel { args: Box::leak(format!("only={}", row.replace(',', ",,")).into_boxed_str()), ..kernels::BENCH };
    let machine = Machine {
        kind,
        image,
        binaries,
        kernel: &kernel,
        audit: false,
        icount: true,
        timeout: o.timeout,
        qemu: &o.qemu,
        cpu: &o.cpu,
        append: &o.append,
    };
    let socket = log.with_extension("monitor");
    let _ = std::fs::remove_file(&socket);
    let mut command = machine.command();
    command.arg("-chardev").arg(format!("socket,id=m,path={},server=on,wait=off", socket.display()));
    command.args(["-mon", "chardev=m,mode=readline"]);
    let mut qemu = crate::machine::Running(command.spawn().map_err(|e| format!("qemu-system-x86_64: {e}"))?);
    let serial = qemu.0.stdout.take().ok_or("no serial line")?;
    let round = wait_for_loop(serial, Instant::now() + o.timeout)?;
    let mut monitor = UnixStream::connect(&socket).map_err(|e| format!("{}: {e}", socket.display()))?;
    // The name of the option that ends a block after each instruction changed in QEMU 8.1.
    let mut say = |what: String| writeln!(monitor, "{what}").map_err(|e| format!("harness: QEMU's monitor: {e}"));
    say("stop".into())?;
    say("singlestep on".into())?;
    say("one-insn-per-tb on".into())?;
    say(format!("logfile {}", log.display()))?;
    say("log exec,nochain".into())?;
    say("cont".into())?;
    std::thread::sleep(SAMPLE);
    say("stop".into())?;
    say("log none".into())?;
    say("quit".into())?;
    let _ = qemu.0.wait();
    Ok(round)
}

/// Instructions at each address, and how many rounds they are of. `Trace 0: host [cs_base/pc/flags/cflags] name`.
fn count(log: &Path, round: u64) -> Result<(BTreeMap<u64, u64>, u64), String> {
    let file = std::fs::File::open(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut at = BTreeMap::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let pc =
            line.split_once('[').and_then(|(_, l)| l.split('/').nth(1)).and_then(|pc| u64::from_str_radix(pc, 16).ok());
        if let Some(pc) = pc {
            *at.entry(pc).or_insert(0) += 1;
        }
    }
    match at.get(&round) {
        Some(&n) if n > 10 => Ok((at, n)),
        _ => Err("harness: too few rounds were logged".into()),
    }
}

/// Names of an address: (outermost function, innermost inlined function with file and line).
fn names(image: &Path, addresses: &[u64]) -> Result<HashMap<u64, (String, String)>, String> {
    let mut tool = Command::new("addr2line")
        .args(["-aCfise"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("addr2line: {e}"))?;
    let mut input = tool.stdin.take().ok_or("addr2line: no input")?;
    let text: String = addresses.iter().map(|a| format!("{a:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let out = tool.wait_with_output().map_err(|e| format!("addr2line: {e}"))?;
    let _ = writer.join();
    let text = String::from_utf8_lossy(&out.stdout);
    let mut names = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(a) = lines.next().and_then(|l| u64::from_str_radix(l.trim_start_matches("0x"), 16).ok()) {
        let mut stack = Vec::new();
        while lines.peek().is_some_and(|l| !l.starts_with("0x")) {
            let (function, place) = (lines.next().unwrap_or("?"), lines.next().unwrap_or("?"));
            stack.push((function.to_string(), place.to_string()));
        }
        let outer = stack.last().map_or("?".into(), |(f, _)| f.clone());
        let inner = stack.first().map_or("?".into(), |(f, p)| format!("{f} ({p})"));
        names.insert(a, (outer, inner));
    }
    Ok(names)
}

fn table(title: &str, rows: HashMap<String, u64>, rounds: u64) {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), name.clone()));
    println!("\n{title}");
    for (name, n) in rows.iter().take(60).filter(|(_, n)| n * 10 >= rounds) {
        println!("{:>9.1}  {name}", *n as f64 / rounds as f64);
    }
}

/// Profiles the row named by `--only`.
pub fn profile(o: &Options) -> Result<bool, String> {
    let [row] = o.only.as_slice() else {
        return Err("harness: profile wants one row of the bench: --only 'ROW'".into());
    };
    let image = o.hospes.as_deref().ok_or("harness: give --hypervisor IMAGE or HOSPES_IMAGE")?;
    let binaries = kernels::build(&kernels::root())?;
    let dir =
        o.keep.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("hospes-profile.{}", std::process::id())));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let log = dir.join("exec.log");
    let _ = std::fs::remove_file(&log);
    let result = sample(o, &binaries, Kind::Hospes, image, row, &log).and_then(|round| count(&log, round));
    if o.keep.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let (at, rounds) = result?;
    // The hypervisor's addresses; the rest is the guest's.
    let (own, guest): (Vec<_>, Vec<_>) =
        at.into_iter().partition(|(pc, _)| *pc >> 48 == 0xffff && *pc >> 40 & 0xff == 0x82);
    let names = names(image, &own.iter().map(|(pc, _)| *pc).collect::<Vec<_>>())?;
    let (mut functions, mut lines) = (HashMap::new(), HashMap::new());
    for (pc, n) in &own {
        let (outer, inner) = names.get(pc).cloned().unwrap_or_default();
        *functions.entry(outer).or_insert(0) += n;
        *lines.entry(inner).or_insert(0) += n;
    }
    let sum = |rows: &[(u64, u64)]| rows.iter().map(|(_, n)| n).sum::<u64>() as f64 / rounds as f64;
    println!(
        "{row}: {rounds} rounds, {:.1} instructions each in the hypervisor, {:.1} in the kernel",
        sum(&own),
        sum(&guest)
    );
    table("by function", functions, rounds);
    table("by line, inlined functions apart", lines, rounds);
    if let Some(dir) = &o.keep {
        let text: String = own.iter().map(|(pc, n)| format!("{pc:#x} {:.2}\n", *n as f64 / rounds as f64)).collect();
        std::fs::write(dir.join("addresses"), text).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    Ok(true)
}
