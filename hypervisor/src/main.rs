//! The image. All code is in the library; what is here may exist only once in a program.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use hypervisor::mm::heap::HypervisorHeap;

    #[global_allocator]
    static HEAP: HypervisorHeap = HypervisorHeap::new();

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        hypervisor::panic::panicked(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the hypervisor runs on the bare machine: build it with --target x86_64-unknown-none");
    std::process::exit(1);
}
