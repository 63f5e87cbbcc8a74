//! The coverage page is what the tables say, and the tables are consistent.

use pv_abi::hypercall::{self, Status};
use pv_abi::subops::{self, FAMILIES};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/abi-coverage.md");

#[test]
fn page_is_up_to_date() {
    let mut text = String::new();
    pv_abi::coverage::write(&mut text).unwrap();
    if std::env::var_os("UPDATE_COVERAGE").is_some() {
        std::fs::write(PAGE, &text).unwrap();
        return;
    }
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    if let Some((i, (old, new))) = page.lines().zip(text.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!(
            "docs/abi-coverage.md line {} is\n  {old}\nand should be\n  {new}\nrun UPDATE_COVERAGE=1 cargo test -p pv-abi --test coverage",
            i + 1
        );
    }
    assert_eq!(page, text, "docs/abi-coverage.md: run UPDATE_COVERAGE=1 cargo test -p pv-abi --test coverage");
}

#[test]
fn numbers_rise_and_fit_the_table() {
    assert!(hypercall::LIST.windows(2).all(|w| w[0].number < w[1].number));
    assert!(hypercall::LIST.iter().all(|h| h.number < hypercall::NR_ENTRIES && h.args <= 5));
    for f in FAMILIES {
        let name = hypercall::name(f.hypercall).expect("a family of a hypercall that exists");
        assert!(f.ops.windows(2).all(|w| w[0].number < w[1].number), "{name}: numbers do not rise");
    }
}

#[test]
fn a_hypercall_and_its_operations_agree() {
    for h in hypercall::LIST {
        let Some(ops) = subops::of(h.number) else {
            continue;
        };
        if h.status == Status::Absent {
            assert!(ops.iter().all(|o| o.status == Status::Absent), "{} is absent but has operations", h.name);
        }
    }
}

#[test]
fn names() {
    assert_eq!(hypercall::name(hypercall::nr::DOMCTL), Some("domctl"));
    assert_eq!(hypercall::name(11), None);
    assert_eq!(subops::name(hypercall::nr::DOMCTL, 61), Some("getpageframeinfo3"));
    assert_eq!(subops::name(hypercall::nr::DOMCTL, 6), None);
    assert_eq!(subops::name(hypercall::nr::IRET, 0), None);
}
