//! A real kernel, unpacked, laid out and built:
//! `HOSPES_TEST_KERNEL=/boot/vmlinuz cargo test --release -p boot -- --ignored --nocapture`

mod common;

use std::time::Instant;

use boot::kernel::KernelImage;
use boot::layout::DomainPlan;

use common::{check_image, ram};

#[test]
#[ignore = "needs HOSPES_TEST_KERNEL"]
fn a_real_kernel_becomes_a_first_image() {
    let path = std::env::var_os("HOSPES_TEST_KERNEL").expect("HOSPES_TEST_KERNEL names a kernel");
    let file = std::fs::read(&path).expect("the kernel named by HOSPES_TEST_KERNEL is readable");
    let payload = boot::bzimage::locate(&file).unwrap();
    let start = Instant::now();
    let image = payload.unpack(256 << 20).unwrap_or_else(|e| panic!("{e}"));
    eprintln!(
        "{}: {:?}, {} bytes in {:?}, scratch {} KiB",
        path.to_string_lossy(),
        payload.format(),
        image.len(),
        start.elapsed(),
        payload.scratch_bytes() >> 10
    );
    let kernel = KernelImage::parse(&image).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(kernel.notes().guest_os, Some("linux"));
    assert!(kernel.notes().mod_start_pfn);
    for is_dom0 in [false, true] {
        let plan = DomainPlan { nr_pages: 64 << 10, ramdisk_len: 5_000_001, is_dom0, cmdline: "console=hvc0 quiet" };
        let start = Instant::now();
        let (layout, memory, start_of_day) = ram::build(&kernel, &plan);
        eprintln!("laid out and built in {:?}, ends at page {:#x}", start.elapsed(), layout.end.0);
        check_image(&kernel, &plan, &layout, &memory, &start_of_day);
    }
}
