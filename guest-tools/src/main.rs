//! `dom`.
fn main() {}
