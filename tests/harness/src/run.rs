//! `run` and `record`.
use crate::kernels::{self, KERNELS, Kernel};
use crate::machine::{Kind, Log, Machine};
use crate::options::Options;
use crate::transcript;
use std::path::Path;
use std::sync::Mutex;

/// Every wanted kernel on every hypervisor given; true if all passed.
pub fn run(o: &Options) -> Result<bool, String> {
    let root = kernels::root();
    check_names(o)?;
    let images: Vec<_> = [(Kind::Xen, &o.xen), (Kind::Hospes, &o.hospes)]
        .into_iter()
        .filter_map(|(k, p)| p.as_deref().map(|p| (k, p)))
        .collect();
    if images.is_empty() {
        return Err("harness: no hypervisor: give --hypervisor IMAGE, --xen IMAGE, HOSPES_IMAGE or HOSPES_XEN".into());
    }
    let binaries = kernels::build(&root)?;
    let work: Vec<_> = kernels::all()
        .filter(|k| o.wants(k.name) && !(k.named && o.only.is_empty()))
        .flat_map(|k| images.iter().map(move |(kind, p)| (k, *kind, *p)))
        .collect();
    let queue = Mutex::new(work.into_iter());
    let counts = Mutex::new([0usize; 3]);
    let failures = Mutex::new(String::new());
    std::thread::scope(|s| {
        for _ in 0..o.jobs {
            s.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut q| q.next());
                    let Some((kernel, kind, image)) = next else {
                        break;
                    };
                    let (result, text) = one(o, &root, &binaries, kernel, kind, image);
                    print!("{text}");
                    if result == Result3::Failed
                        && let Ok(mut f) = failures.lock()
                    {
                        f.push_str(&text);
                    }
                    if let Ok(mut c) = counts.lock() {
                        c[result as usize] += 1;
                    }
                }
            });
        }
    });
    let [passed, failed, skipped] = *counts.lock().map_err(|_| "a worker panicked")?;
    // Once more, where whoever looks at the end of a log finds it.
    print!("{}", failures.into_inner().map_err(|_| "a worker panicked")?);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}

fn check_names(o: &Options) -> Result<(), String> {
    match o.only.iter().find(|n| !kernels::all().any(|k| k.name == n.as_str())) {
        Some(n) => Err(format!("harness: no test kernel '{n}' (harness list shows them)")),
        None => Ok(()),
    }
}

/// What came of one run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Result3 {
    Passed,
    Failed,
    Skipped,
}

/// One kernel on one hypervisor; the text says what was wrong, from its second line on.
pub fn one(o: &Options, root: &Path, binaries: &Path, kernel: &Kernel, kind: Kind, image: &Path) -> (Result3, String) {
    let head = format!("test {} ({}) ... ", kernel.name, kind.name());
    if kernel.long && !o.long {
        return (Result3::Skipped, format!("{head}skipped (--long runs it)\n"));
    }
    if (kernel.ours || !kernel.ends.is_empty()) && kind == Kind::Xen {
        return (Result3::Skipped, format!("{head}skipped (is about Hospes)\n"));
    }
    if !kernel.hospes.is_empty() && kind == Kind::Xen {
        return (Result3::Skipped, format!("{head}skipped ({})\n", kernel.hospes));
    }
    let machine = Machine {
        kind,
        image,
        binaries,
        kernel,
        audit: o.audit,
        icount: kernel.icount,
        timeout: o.timeout,
        qemu: &o.qemu,
        cpu: &o.cpu,
        append: &o.append,
    };
    let log = match machine.run() {
        Ok(l) => l,
        Err(e) => return (Result3::Failed, format!("{head}FAILED\n    {e}\n")),
    };
    keep(o, kernel, kind, &log);
    let mut wrong = match kernel.ends {
        [] => transcript::judge(root, kernel.name, kind, o.audit, kernel.hospes.is_empty(), &log),
        ends => transcript::judge_end(ends, &log),
    };
    wrong.extend(transcript::missing(kind, &o.expect, &log));
    if !wrong.is_empty() {
        let text: String = wrong.iter().map(|w| format!("    {w}\n")).collect();
        (Result3::Failed, format!("{head}FAILED ({:.1} s)\n{text}", log.took.as_secs_f32()))
    } else if transcript::verdict(&log) == Some("skip") {
        let why = log.lines.iter().find_map(|l| l.strip_prefix("skip: ")).unwrap_or("no reason given");
        (Result3::Skipped, format!("{head}skipped ({why})\n"))
    } else {
        (Result3::Passed, format!("{head}ok ({:.1} s)\n", log.took.as_secs_f32()))
    }
}

fn keep(o: &Options, kernel: &Kernel, kind: Kind, log: &Log) {
    let Some(dir) = &o.keep else { return };
    let file = dir.join(format!("{}.{}.log", kernel.name, kind.name()));
    if let Err(e) = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, log.lines.join("\n") + "\n")) {
        eprintln!("harness: {}: {e}", file.display());
    }
}

/// Records transcripts on real Xen. A kernel that did not pass there is not recorded; one whose transcript
/// differs between two runs is refused.
pub fn record(o: &Options) -> Result<bool, String> {
    let root = kernels::root();
    check_names(o)?;
    let image = o.xen.as_deref().ok_or("harness: record wants real Xen: --xen IMAGE or HOSPES_XEN")?;
    let binaries = kernels::build(&root)?;
    let mut all = true;
    for kernel in KERNELS.iter().filter(|k| o.wants(k.name) && !k.ours && k.hospes.is_empty()) {
        let machine = Machine {
            kind: Kind::Xen,
            image,
            binaries: &binaries,
            kernel,
            audit: false,
            icount: kernel.icount,
            timeout: o.timeout,
            qemu: &o.qemu,
            cpu: &o.cpu,
            append: &o.append,
        };
        let (log, again) = (machine.run()?, machine.run()?);
        keep(o, kernel, Kind::Xen, &log);
        let obs = transcript::observations(&log);
        let second = transcript::observations(&again);
        let verdict = transcript::verdict(&log);
        if verdict == Some("pass") && obs == second {
            let file = transcript::golden(&root, kernel.name);
            std::fs::write(&file, obs.join("\n") + "\n").map_err(|e| format!("{}: {e}", file.display()))?;
            println!("recorded {} ({} observations)", kernel.name, obs.len());
            continue;
        }
        all = false;
        println!("not recorded: {} (verdict {})", kernel.name, verdict.unwrap_or("none"));
        for l in log.lines.iter().filter(|l| ["fail: ", "error: ", "trap "].iter().any(|p| l.starts_with(p))) {
            println!("    {l}");
        }
        if verdict.is_none() {
            log.lines.iter().rev().take(30).rev().for_each(|l| println!("    {l}"));
        } else {
            for (a, b) in obs.iter().zip(&second).filter(|(a, b)| a != b) {
                println!("    differs between two runs: {a} / {b}");
            }
        }
    }
    Ok(all)
}
