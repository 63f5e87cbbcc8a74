//! vCPUs that start with registers nobody should start with.
//!
//! Attacks: VCPUOP_initialise with selectors of the hypervisor, of no table, null; flags of ones; a stack and a kernel
//! stack at no address; user mode without user tables; traps without handlers: the first IRETQ into it faults in the
//! hypervisor. Must happen: refused, or the new vCPU runs, or its domain crashes; each in a domain of its own, and the
//! parent goes on.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::arch::{VcpuGuestContext, vgcf};

guests::kernel!(run);

type Spoil = fn(&mut VcpuGuestContext);
const CASES: [(&str, Spoil); 13] = [
    ("nothing wrong", |_| ()),
    ("cs of the hypervisor", |c| c.user_regs.cs = 0xe008),
    ("cs null", |c| c.user_regs.cs = 0),
    ("ss of the hypervisor", |c| c.user_regs.ss = 0xe010),
    ("ss null", |c| c.user_regs.ss = 0),
    ("ds and es out of the table", |c| {
        c.user_regs.ds = 0xfff8;
        c.user_regs.es = 0xe040;
    }),
    ("fs and gs in an LDT", |c| {
        c.user_regs.fs = 0xf;
        c.user_regs.gs = 0xf;
    }),
    ("flags of ones", |c| c.user_regs.rflags = !0x100),
    ("a stack in the hypervisor", |c| c.user_regs.rsp = XEN_VA),
    ("user mode without tables", |c| {
        c.flags &= !vgcf::IN_KERNEL;
        c.user_regs.rip = 0x1000;
    }),
    ("an unmapped rip", |c| c.user_regs.rip = 0x10_0000),
    ("no traps and an unmapped rip", |c| {
        c.trap_ctxt.fill(Default::default());
        c.user_regs.rip = 0x10_0000;
    }),
    ("debug registers of ones", |c| c.debugreg = [u64::MAX; 8]),
];

fn run() {
    for (i, (name, _)) in CASES.iter().enumerate() {
        let c = Child::build(body, Spec { vcpus: 2, ..Spec::default() });
        c.word(0).store(i as u64, SeqCst);
        c.unpause().must("unpause");
        let ended = events::wait_ms(10_000, || {
            child::nap(300);
            !matches!(c.state(), child::State::Built | child::State::Running) || c.word(3).load(SeqCst) != 0
        });
        check(f!("{name}: something comes of it"), ended);
        obs(f!("{name}: initialise"), Ret(c.word(1).load(SeqCst) as i64));
        obs(f!("{name}: up"), Ret(c.word(2).load(SeqCst) as i64));
        obs(f!("{name}: crashed"), c.state() == child::State::Crashed);
        obs(f!("{name}: it ran"), c.word(3).load(SeqCst));
        expect(f!("{name}: destroy"), c.destroy(), OK);
    }
    alive();
}

/// In the child: vCPU 0 starts vCPU 1 and waits.
fn body() {
    use child::inside::word;
    let (_, spoil) = CASES[word(0).load(SeqCst) as usize % CASES.len()];
    let c = smp::context(1, second);
    spoil(c);
    let r = smp::initialise(1, c);
    word(1).store(r.0 as u64, SeqCst);
    if r != OK {
        word(2).store(0, SeqCst);
        word(3).store(9, SeqCst);
        wait();
    }
    word(2).store(smp::up(1).0 as u64, SeqCst);
    events::wait_ms(300, || word(3).load(SeqCst) != 0);
    if word(3).load(SeqCst) == 0 {
        word(3).store(8, SeqCst);
    }
    wait();
}

fn wait() -> ! {
    loop {
        child::nap(1000);
    }
}

fn second() {
    child::inside::word(3).store(1, SeqCst);
}
