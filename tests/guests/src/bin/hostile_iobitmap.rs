//! I/O bitmaps at every bad place, and one that changes while it is asked.
//!
//! Attacks: the bitmap of user mode, which is guest memory: across the end of its page, in the hypervisor, at no address,
//! longer than there are ports, read as a word over its end, and rewritten by another vCPU. Must happen: a port is allowed
//! only by a bit that is there and clear; nothing is read that is not the guest's.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, Ordering};
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::physdev::{OP_SET_IOBITMAP, OP_SET_IOPL, SetIobitmap, SetIopl};

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static MAP: mem::Racy<u64> = mem::Racy::new(0);

fn set(bitmap: u64, nr_ports: u32) -> Ret {
    call_ref(nr::PHYSDEV_OP, OP_SET_IOBITMAP, &mut SetIobitmap { bitmap, nr_ports, pad: 0 })
}

fn flip() {
    let at = mem::read64(MAP.addr());
    while !STOP.load(Ordering::SeqCst) {
        for v in [0u64, u64::MAX] {
            (0..64).for_each(|i| mem::write64(at + 8 * i, v));
        }
        call(nr::SCHED_OP, &[0, 0]);
    }
}

fn run() {
    user::init();
    call_ref(nr::PHYSDEV_OP, OP_SET_IOPL, &mut SetIopl { iopl: 0 }).must("set_iopl");
    let edge = bad::edge();
    (0..64).for_each(|i| mem::write64(edge - 8 * (i + 1), 0));
    for (name, at) in bad::POINTERS {
        for ports in [0u32, 1, 8, 65536, 65537, u32::MAX] {
            obs(f!("map of {ports} ports, {name}"), set(at, ports));
            obs(
                f!("user in 0x80 with it: {ports}, {name}"),
                user::run(code!("in al, dx"), &Gprs { rdx: 0x80, ..Gprs::ZERO }),
            );
        }
    }
    // 16 bytes are there
    obs("a map over the end of its page", set(edge - 16, 65536));
    for (port, code, name) in [
        (0u64, code!("in al, dx"), "in al"),
        (126, code!("in ax, dx"), "in ax"),
        (127, code!("in al, dx"), "in al"),
        (127, code!("in ax, dx"), "in ax"),
        (125, code!("in eax, dx"), "in eax"),
        (128, code!("in al, dx"), "in al"),
        (65535, code!("in al, dx"), "in al"),
        (65535, code!("in ax, dx"), "in ax"),
        (65533, code!("in eax, dx"), "in eax"),
    ] {
        obs(f!("user {name} of port {port}"), user::run(code, &Gprs { rdx: port, ..Gprs::ZERO }));
        obs(f!("kernel {name} of port {port}"), probe::kernel(code, &Gprs { rdx: port, ..Gprs::ZERO }));
    }
    for ports in [0u32, 1, 7, 8, 9, 127, 128] {
        set(edge - 16, ports).must("set_iobitmap");
        let allowed = (0..130u64)
            .filter(|p| {
                user::run(code!("in al, dx"), &Gprs { rdx: 0x1200 + p - 0x1200, ..Gprs::ZERO }).trap("user").vector
                    == trap::SYSCALL
            })
            .count();
        obs(f!("ports allowed by a map of {ports}"), allowed);
    }
    if smp::count() < 2 {
        report::skip("one vCPU only");
    }
    let page = Page::alloc();
    mem::write64(MAP.addr(), page.va);
    set(page.va, 4096).must("set_iobitmap");
    smp::start(1, flip);
    let mut others = 0;
    for _ in 0..3000 {
        let t = user::run(code!("in eax, dx"), &Gprs { rdx: 0x506, ..Gprs::ZERO }).trap("user");
        others += u32::from(!matches!(t.vector, 13 | trap::SYSCALL));
    }
    STOP.store(true, Ordering::SeqCst);
    expect("with a changing map, neither done nor #GP", others, 0);
    check("the other vCPU ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    set(0, 0).must("no map");
    alive();
}
