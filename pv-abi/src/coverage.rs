//! `docs/abi-coverage.md`, made from the tables of [`crate::hypercall`] and [`crate::subops`].

use crate::hypercall::{self, Status};
use crate::subops::{self, Need, Who};
use core::fmt::{self, Write};

const HEAD: &str = "\
# Coverage of the ABI

Made from the tables in `pv-abi` by `UPDATE_COVERAGE=1 cargo test -p pv-abi --test coverage`; a test compares. Edit the
tables, not this page.

*yes*: as Xen does it, as far as Linux kernels and Xen's tools can tell. *partly*: see the note. *no*: known, and answered with an error
(-ENOSYS unless the note says otherwise). Operations that are not listed are answered with -ENOSYS too.

";

fn status(s: Status) -> &'static str {
    match s {
        Status::Implemented => "yes",
        Status::Partial => "partly",
        Status::Absent => "no",
    }
}

fn who(w: Who) -> &'static str {
    match w {
        Who::Any => "any domain",
        Who::Both => "any; dom0 for others",
        Who::Dom0 => "dom0",
    }
}

fn need(n: Need) -> &'static str {
    match n {
        Need::Boot => "Linux, to boot",
        Need::Linux => "Linux",
        Need::Tools => "tools",
        Need::Nobody => "",
    }
}

/// Writes the page.
pub fn write(out: &mut dyn Write) -> fmt::Result {
    out.write_str(HEAD)?;
    let count = |s| hypercall::LIST.iter().filter(|h| h.status == s).count();
    writeln!(
        out,
        "Of {} hypercalls {} are there, {} partly, {} not.\n",
        hypercall::LIST.len(),
        count(Status::Implemented),
        count(Status::Partial),
        count(Status::Absent)
    )?;
    out.write_str("| nr | hypercall | there | operations there | note |\n|---:|---|---|---|---|\n")?;
    for h in hypercall::LIST {
        write!(out, "| {} | {} | {} | ", h.number, h.name, status(h.status))?;
        if let Some(ops) = subops::of(h.number) {
            let there = ops.iter().filter(|o| o.status != Status::Absent).count();
            write!(out, "[{there} of {}](#{})", ops.len(), h.name)?;
        }
        writeln!(out, " | {} |", h.note)?;
    }
    for f in subops::FAMILIES {
        let name = hypercall::name(f.hypercall).unwrap_or("?");
        write!(
            out,
            "\n## {name}\n\n| op | name | who may | who needs it | there | note |\n|---:|---|---|---|---|---|\n"
        )?;
        for o in f.ops {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                o.number,
                o.name,
                who(o.who),
                need(o.need),
                status(o.status),
                o.note
            )?;
        }
    }
    Ok(())
}
