//! `bench`: common operations in instructions, side by side.
use crate::kernels::{self, BENCH};
use crate::machine::{Kind, Machine};
use crate::options::Options;
use std::path::Path;

type Rows = Vec<(String, u64)>;

fn measure(o: &Options, binaries: &Path, kind: Kind, image: &Path) -> Result<Rows, String> {
    let machine = Machine {
        kind,
        image,
        binaries,
        kernel: &BENCH,
        audit: false,
        icount: true,
        timeout: o.timeout.max(std::time::Duration::from_secs(300)),
        qemu: &o.qemu,
        cpu: &o.cpu,
        append: &o.append,
    };
    let log = machine.run()?;
    let rows: Rows = log
        .lines
        .iter()
        .filter_map(|l| l.strip_prefix("bench: ")?.split_once(" = "))
        .filter_map(|(n, v)| Some((n.to_string(), v.parse().ok()?)))
        .collect();
    if crate::transcript::verdict(&log) != Some("pass") {
        let tail: Vec<_> = log.lines.iter().rev().take(15).rev().cloned().collect();
        return Err(format!("harness: the bench did not finish on {}:\n{}", kind.name(), tail.join("\n")));
    }
    Ok(rows)
}

/// Measures on each hypervisor given and prints a table.
pub fn bench(o: &Options) -> Result<bool, String> {
    let binaries = kernels::build(&kernels::root())?;
    let mut columns: Vec<(Kind, Rows)> = Vec::new();
    for (kind, image) in [(Kind::Hospes, &o.hospes), (Kind::Xen, &o.xen)] {
        if let Some(image) = image {
            columns.push((kind, measure(o, &binaries, kind, image)?));
        }
    }
    let Some((_, first)) = columns.first() else {
        return Err("harness: no hypervisor: give --hypervisor IMAGE, --xen IMAGE, HOSPES_IMAGE or HOSPES_XEN".into());
    };
    print!("{:34}", "instructions");
    columns.iter().for_each(|(k, _)| print!("{:>12}", k.name()));
    println!("{}", if columns.len() == 2 { "       ratio" } else { "" });
    for (name, _) in first {
        print!("{name:34}");
        let values: Vec<Option<u64>> =
            columns.iter().map(|(_, rows)| rows.iter().find(|(n, _)| n == name).map(|(_, v)| *v)).collect();
        values.iter().for_each(|v| print!("{:>12}", v.map_or("-".into(), |v| v.to_string())));
        if let [Some(a), Some(b)] = values[..] {
            print!("{:>12.2}", a as f64 / b.max(1) as f64);
        }
        println!();
    }
    Ok(true)
}
