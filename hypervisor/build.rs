//! Hands the linker script to the image's link; host builds need none.
fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=hospes.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{dir}/hospes.ld");
        println!("cargo:rustc-link-arg-bins=--build-id=sha1");
    }
}
