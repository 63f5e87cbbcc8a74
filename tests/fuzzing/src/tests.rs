//! The fuzzer notices what it must.

use super::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fuzzer(name: &'static str) -> Fuzzer<'static> {
    Fuzzer { name, target: "-p fuzzing", cases: 200, heap: 1 << 16, time: Duration::from_millis(200) }
}

/// The text of the panic of a run.
fn failure(name: &'static str, case: impl Fn(&mut Rng) -> Accepted) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| fuzzer(name).run(case))).expect_err("it was not noticed");
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()))
        .unwrap_or_default()
}

#[test]
fn what_is_good_passes() {
    fuzzer("good").run(|rng| {
        let mut sample = vec![7; 100];
        mutate(rng, &mut sample, &[b"other sample"]);
        sample.len() < 100
    });
}

#[test]
fn what_no_parser_may_do_is_noticed() {
    assert!(failure("panics", |rng| [true, false][rng.below(3)]).contains("out of bounds"));
    assert!(failure("overflows", |rng| (rng.bits() as u8).checked_add(1).unwrap() == 0).contains("unwrap"));
    assert!(failure("eats", |rng| vec![1u8; rng.below(1 << 17)].len() < 1 << 15).contains("bytes of heap"));
    let slow = |rng: &mut Rng| {
        let begin = cpu_time();
        while rng.0.is_multiple_of(50) && cpu_time() - begin < Duration::from_millis(300) {}
        rng.one_in(2)
    };
    assert!(failure("slow", slow).contains("it took"));
    assert!(failure("never", |_| false).contains("no input was taken"));
    assert!(failure("always", |_| true).contains("no input was refused"));
}

#[test]
fn a_seed_gives_the_same_input_again() {
    let input = |seed| {
        let mut rng = Rng::new(seed);
        let mut sample: Vec<u8> = (0..200).collect();
        mutate(&mut rng, &mut sample, &[&[1, 2, 3]]);
        (sample, rng.number())
    };
    assert!((0..100).all(|seed| input(seed) == input(seed)));
    assert!(input(1) != input(2));
}
