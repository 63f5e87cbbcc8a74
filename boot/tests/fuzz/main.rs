//! Fuzzers of everything this crate reads: inputs made from a grammar and damaged, answers checked against what must hold
//! of them, and, where there is one, against a second implementation. How they run: crate `fuzzing`.

#[path = "../common/mod.rs"]
mod common;

mod cmdline;
mod kernel;
mod multiboot;
mod payload;

#[global_allocator]
static ALLOCATOR: fuzzing::Counting = fuzzing::Counting;

/// How these tests are started.
const TARGET: &str = "-p boot --test fuzz";
