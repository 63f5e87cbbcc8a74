//! SYSCALL at the very end of the lower half: the return address is no address.
//!
//! Attacks: SYSRET to a non-canonical RCX faults in ring 0 with the guest's stack loaded on some CPUs (CVE-2012-0217, the
//! Xen advisory of 2012). Must happen: the hypercall is done or not, and then the guest faults at the address behind its
//! instruction; the hypervisor never executes SYSRET there.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;

guests::kernel!(run);

const TOP: u64 = 0x7fff_ffff_f000;

fn run() {
    user::init();
    let code = Page::alloc();
    paging::map(TOP, code.ma() | paging::KERNEL_RW | paging::US);
    // syscall in the last two bytes
    code.write(511, 0x050f_9090_9090_9090);
    let regs = Gprs { rax: nr::XEN_VERSION as u64, ..Gprs::ZERO };
    let o = probe::go(TOP + 0xffe, probe::stack_top(), &regs);
    show("kernel mode: a hypercall there", o);
    let o = probe::go(TOP + 0xff8, probe::stack_top(), &Gprs { rax: 99, ..Gprs::ZERO });
    show("kernel mode: an unknown one", o);
    let o = probe::go(TOP + 0xffe, probe::stack_top(), &Gprs { rax: nr::SCHED_OP as u64, ..Gprs::ZERO });
    show("kernel mode: a yield", o);
    // the L4 of user mode has the kernel's slot 0; this is slot 255
    let user_l4 = Page::alloc();
    user_l4.write(0, paging::entry(user::CODE_VA, 4));
    user_l4.write(255, paging::entry(TOP, 4));
    paging::make_ro(user_l4).must("read-only");
    paging::pin(user_l4, 4).must("pin");
    paging::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, user_l4.mfn(), 0).must("user tables");
    let o = user::iret(&user::Iret { rip: TOP + 0xffe, rflags: 2, ..user::frame() }, &regs);
    show("user mode: a system call there", o);
    // and back to it
    for flags in [0u64, 0x100] {
        let o = user::iret(&user::Iret { rip: TOP + 0x1000, rflags: 2, flags, ..user::frame() }, &regs);
        show(if flags == 0 { "iret behind it" } else { "iret as from a system call behind it" }, o);
    }
    // an instruction that is emulated, there
    code.write(511, 0xc020_0f90_9090_9090);
    let o = probe::go(TOP + 0xffd, probe::stack_top(), &Gprs::ZERO);
    show("kernel mode: an emulated instruction there", o);
    alive();
}

fn show(name: &str, o: Outcome) {
    match o {
        Outcome::Trap(t) => {
            obs(name, f!("{t} rip {:#x} cs {:#x} rax {:#x}", t.rip, t.cs & 0xffff, t.gprs.rax & 0xffff_0000_0000_0000))
        }
        Outcome::Done(_) => obs(name, "ran"),
    }
}
