//! What only the first domain may do, tried by another.
//!
//! Attacks: a domU calls the management interfaces, dom0's hypercalls and operations on other domains, with arguments
//! that would work for dom0. Must happen: -EPERM (or the answer on the record, which is never success); the domains it
//! names do not change.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::subops;

guests::kernel!(run);

fn run() {
    let c = Child::run(body, Spec::default());
    expect("how the child ended", c.wait(), child::State::Finished);
    expect("destroy", c.destroy(), OK);
    alive();
}

fn body() {
    let arg = Page::alloc();
    for (n, version) in
        [(nr::DOMCTL, 0x15u32), (nr::SYSCTL, 0x15), (nr::PLATFORM_OP, 0x0300_0001), (nr::MCA, 0x01ec_c003)]
    {
        for family in subops::FAMILIES.iter().filter(|f| f.hypercall == n) {
            let mut allowed = 0u32;
            for op in family.ops {
                for domain in [0u16, 1, 0x7ff0] {
                    arg.clear();
                    arg.write(0, u64::from(op.number) | u64::from(version) << 32);
                    arg.write(1, u64::from(domain));
                    let r = call(n, &[arg.va]);
                    if r.0 >= 0 {
                        allowed += 1;
                        report::fail(f!("{n}.{} for {domain:#x}: {r}", op.number));
                    }
                }
            }
            expect(f!("operations of {n} that a domU may do"), allowed, 0);
        }
    }
    for family in
        subops::FAMILIES.iter().filter(|f| !matches!(f.hypercall, nr::DOMCTL | nr::SYSCTL | nr::PLATFORM_OP | nr::MCA))
    {
        for op in family.ops.iter().filter(|o| o.who == subops::Who::Dom0) {
            arg.clear();
            let r = if family.hypercall == nr::CONSOLE_IO {
                call(family.hypercall, &[u64::from(op.number), 8, arg.va])
            } else {
                call(family.hypercall, &[u64::from(op.number), arg.va, 1])
            };
            obs(f!("{}.{} {}", family.hypercall, op.number, op.name), r);
        }
    }
    // other domains, and the machine's memory
    let page = Page::alloc();
    for dom in [0u64, 0x7ff1, 0x7ff2] {
        let u = pv_abi::mmu::MmuUpdate { ptr: paging::slot(page.va, 1), val: 0x100 << 12 | paging::KERNEL_RO };
        refused(
            f!("map a frame of domain {dom:#x}"),
            call(nr::MMU_UPDATE, &[core::ptr::from_ref(&u) as u64, 1, 0, dom]),
        );
        refused(
            f!("update_va_mapping_otherdomain {dom:#x}"),
            call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, &[page.va, 0x100 << 12 | paging::KERNEL_RO, 0, dom]),
        );
        let e = pv_abi::mmu::MmuextOp { cmd: 3, pad: 0, arg1: 0x100, arg2: 0 };
        refused(
            f!("pin a frame of domain {dom:#x}"),
            call(nr::MMUEXT_OP, &[core::ptr::from_ref(&e) as u64, 1, 0, dom]),
        );
    }
    for (name, frame) in [
        ("the VGA memory", 0xb8u64),
        ("the BIOS", 0xf0),
        ("the APIC", 0xfee00),
        ("the IOAPIC", 0xfec00),
        ("beyond RAM", 0x10_0000),
    ] {
        refused(f!("map {name}"), paging::update_va(page.va, frame << 12 | paging::KERNEL_RW));
    }
    for port in [0x80u64, 0x60, 0x70, 0xcf8, 0x3f8, 0x20] {
        obs(
            f!("in from port {port:#x}"),
            probe::kernel(code!("xor eax, eax", "in al, dx"), &Gprs { rdx: port, ..Gprs::ZERO }).rax(),
        );
    }
    obs("set_iopl", call_ref(nr::PHYSDEV_OP, pv_abi::physdev::OP_SET_IOPL, &mut pv_abi::physdev::SetIopl { iopl: 1 }));
    for port in [0x80u64, 0x60, 0xcf8, 0x3f8, 0x20, 0x1230] {
        obs(
            f!("then in from port {port:#x}"),
            probe::kernel(code!("xor eax, eax", "in al, dx"), &Gprs { rdx: port, ..Gprs::ZERO }).rax(),
        );
    }
    let mut v = pv_abi::event::BindVirq { virq: pv_abi::event::VIRQ_CONSOLE, vcpu: 0, port: 0 };
    obs("bind dom0's console interrupt", events::op(pv_abi::event::OP_BIND_VIRQ, &mut v));
    let mut u = pv_abi::event::AllocUnbound { dom: 0, remote_dom: 0x7ff0, port: 0 };
    obs("a channel in dom0", events::op(pv_abi::event::OP_ALLOC_UNBOUND, &mut u));
    let mut s = pv_abi::event::Status { dom: 0, port: 1, ..Default::default() };
    obs("status of dom0's channel", events::op(pv_abi::event::OP_STATUS, &mut s));
    let mut r = pv_abi::event::Reset { dom: 0 };
    obs("reset dom0's channels", events::op(pv_abi::event::OP_RESET, &mut r));
}
