//! FPU images in the context of a new vCPU.
//!
//! Attacks: VCPUOP_initialise with an FXSAVE image whose MXCSR has reserved bits, whose tag word and control word are
//! nonsense, whose reserved fields are full: loading it by the hypervisor would fault there. Must happen: the vCPU comes up
//! with a legal state, or is refused.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU64, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::arch::vgcf;

guests::kernel!(run);

static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

#[repr(C, align(64))]
struct Area([u64; 64]);
static AREA: mem::Racy<Area> = mem::Racy::new(Area([0; 64]));

fn body() {
    // SAFETY: 512 aligned bytes; back to a state that Rust code expects.
    unsafe { core::arch::asm!("fxsave64 [{0}]", "fninit", in(reg) AREA.addr()) };
    SEEN[1].store(mem::read64(AREA.addr()) & 0xffff, Ordering::SeqCst);
    SEEN[2].store(mem::read64(AREA.addr() + 160), Ordering::SeqCst);
    SEEN[0].fetch_add(1, Ordering::SeqCst);
}

fn run() {
    let vcpus = smp::count();
    let images: [(&str, fn(&mut [u8; 512])); 3] = [
        ("of ones", |f| f.fill(0xff)),
        ("with a bad MXCSR", |f| f[24..28].copy_from_slice(&0xffff_0000u32.to_le_bytes())),
        ("with a register and garbage behind", |f| {
            f[160..168].fill(0x77);
            f[416..512].fill(0xee);
        }),
    ];
    for (i, (name, make)) in images.into_iter().enumerate() {
        let cpu = i + 1;
        if cpu >= vcpus {
            report::error(f!("too few vCPUs"));
        }
        let c = smp::context(cpu, body);
        c.flags |= vgcf::I387_VALID;
        c.fpu[0] = 0x7f;
        c.fpu[1] = 0x03;
        c.fpu[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        make(&mut c.fpu);
        let r = smp::initialise(cpu, c);
        obs(f!("initialise with an image {name}"), r);
        if r == OK {
            smp::up(cpu).must("up");
            check(f!("it runs, {name}"), events::wait_ms(5000, || SEEN[0].load(Ordering::SeqCst) > i as u64));
            obs(f!("its FCW, {name}"), Hex(SEEN[1].load(Ordering::SeqCst)));
            obs(f!("its xmm0, {name}"), Hex(SEEN[2].load(Ordering::SeqCst)));
        }
    }
    alive();
}
