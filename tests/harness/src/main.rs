//! Runs the PV test kernels in QEMU, on Hospes and on real Xen, and compares what they observe.
//!
//! ```text
//! harness run     [--hypervisor IMAGE] [--xen IMAGE] [--only NAME]... [--jobs N] [--timeout S] [--long] [--no-audit] [--keep DIR]
//!                 [--qemu PATH] [--cpu MODEL] [--append OPTIONS] [--expect TEXT]...
//! harness record  --xen IMAGE [--only NAME]...      writes tests/guests/expected/NAME.txt
//! harness bench   [--hypervisor IMAGE] [--xen IMAGE]
//! harness profile --only ROW [--keep DIR]           where the instructions of a row of the bench go
//! harness mutants [--only NAME]... [--long]         each mutant of tests/mutants must turn its test red
//! harness list
//! ```
//!
//! The images may also come from `HOSPES_IMAGE` and `HOSPES_XEN`. `run` uses every hypervisor it was given: a
//! transcript recorded on real Xen is the standard for Hospes, and running Xen again proves the record still true.
//! `HOSPES_QEMU` is the emulator; transcripts are QEMU 10's, older ones differ in what CPUs may do differently.
//! `--qemu` and `--cpu` choose another machine, `--append` adds options of the hypervisor, and each text of `--expect`
//! must stand in Hospes' log.
mod bench;
mod breaks;
mod kernels;
mod machine;
mod mutants;
mod options;
mod profile;
mod run;
mod transcript;

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = options::parse(std::env::args().skip(1)).and_then(|o| match o.command.as_str() {
        "run" => run::run(&o),
        "record" => run::record(&o),
        "bench" => bench::bench(&o),
        "profile" => profile::profile(&o),
        "mutants" => mutants::mutants(&o),
        "list" => {
            kernels::all().for_each(|k| println!("{:20} {}", k.name, k.about));
            Ok(true)
        }
        other => Err(format!("harness: no command '{other}' (run, record, bench, profile, mutants, list)")),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
    }
}
