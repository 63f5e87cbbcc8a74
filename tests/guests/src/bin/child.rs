//! The second domain itself: built, run, paused, destroyed, built again; what it may see and do as an ordinary domU.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::Ordering::SeqCst;
use guests::child::domctl;
use guests::console;
use guests::prelude::*;
use guests::start::start_info;

guests::kernel!(run);

fn run() {
    // the hypervisor's own heap may grow with the first one
    Child::build(body, Spec { vcpus: 2, ..Spec::default() }).destroy();
    child::nap(100_000);
    let before = child::free_pages();
    let c = Child::run(body, Spec { vcpus: 2, pages: 16, room: 8 });
    c.word(0).store(41, SeqCst);
    check("the child answers", c.wait_word(1, 42));
    c.word(2).store(1, SeqCst);
    expect("how the child ended", c.wait(), child::State::Finished);
    expect("destroy", c.destroy(), OK);
    check("all memory is back", child::all_back(before));
    console::line(f!("{} pages before, {} now", before, child::free_pages()));
    pausing();
    trapping();
    debug_registers();
    for _ in 0..3 {
        let c = Child::build(body, Spec::default());
        c.destroy();
    }
    check("all memory is back after three more", child::all_back(before));
}

/// In the child.
fn body() {
    use child::inside::{wait_word, word};
    wait_word(0, 41);
    word(1).store(42, SeqCst);
    wait_word(2, 1);
    check(
        "in the child: page numbers agree",
        mem::pfn_of(Page::at(start_info().pt_base).mfn()) * PAGE_SIZE + mem::VIRT_BASE == start_info().pt_base,
    );
    let t = Page::alloc();
    paging::make_ro(t).must("make_ro");
    expect("in the child: pin an L1", paging::pin(t, 1), OK);
    expect("in the child: map it writable", paging::make_rw(t), errno(EBUSY));
    expect("in the child: unpin it", paging::unpin(t), OK);
    let r = call(nr::CONSOLE_IO, &[0, 1, b"x".as_ptr() as u64]);
    check("in the child: the clock runs", {
        let a = events::now();
        child::nap(100);
        events::now() > a
    });
    obs("in the child: console_io", r);
    let mut op = pv_abi::domctl::Domctl::new(pv_abi::domctl::OP_GETDOMAININFO, 0);
    expect("in the child: domctl", child::domctl(&mut op), errno(EPERM));
}

fn pausing() {
    let c = Child::run(counting, Spec::default());
    check("it counts", c.wait_word(1, 1));
    expect("pause", c.pause(), OK);
    let at = c.word(0).load(SeqCst);
    child::nap(3000);
    check("paused, it does not", c.word(0).load(SeqCst) == at);
    expect("unpause", c.unpause(), OK);
    child::nap(3000);
    check(
        "then it goes on",
        events::wait_ms(5000, || {
            child::nap(100);
            c.word(0).load(SeqCst) != at
        }),
    );
    expect("destroy a running one", c.destroy(), OK);
}

fn counting() {
    child::inside::word(1).store(1, SeqCst);
    loop {
        child::inside::word(0).fetch_add(1, SeqCst);
        call(nr::SCHED_OP, &[0, 0]);
    }
}

fn trapping() {
    let c = Child::run(|| obs("never", mem::read64(0x1234_5000)), Spec::default());
    // its trap handler tells; the lines are not repeated here, for they would fail this test
    check(
        "a child that traps ends in error",
        events::wait_ms(20_000, || {
            child::nap(200);
            c.state() == child::State::Error
        }),
    );
    expect("destroy it", c.destroy(), OK);
    let c = Child::run(
        || {
            // SAFETY: none: the point is to die. No kernel stack is left for the trap.
            unsafe { core::arch::asm!("mov rsp, 0x1000", "push rax", options(noreturn)) }
        },
        Spec::default(),
    );
    check(
        "a child without a stack crashes",
        events::wait_ms(20_000, || {
            child::nap(200);
            c.state() == child::State::Crashed
        }),
    );
    expect("destroy it too", c.destroy(), OK);
}

/// Debug registers of a context: what may not be is left out, in silence.
fn debug_registers() {
    use pv_abi::arch::VcpuGuestContext;
    use pv_abi::domctl::{Domctl, OP_GETVCPUCONTEXT, OP_SETVCPUCONTEXT, Vcpucontext};
    static CONTEXT: mem::Racy<[u64; size_of::<VcpuGuestContext>() / 8]> =
        mem::Racy::new([0; size_of::<VcpuGuestContext>() / 8]);
    let dr = |n: u64| CONTEXT.addr() + core::mem::offset_of!(VcpuGuestContext, debugreg) as u64 + 8 * n;
    let c = Child::build(body, Spec::default());
    let arg = Vcpucontext { vcpu: 0, pad: 0, ctxt: CONTEXT.addr() };
    let get = || domctl(&mut Domctl::with(OP_GETVCPUCONTEXT, c.id, &arg));
    let set = || domctl(&mut Domctl::with(OP_SETVCPUCONTEXT, c.id, &arg));
    for (name, regs) in [
        ("at first", None),
        ("addresses", Some([0x1000u64, 0x2000, 0x7fff_ffff_f000, 0xffff_ffff_8000_0000, 0, 0, 0xffff_0ff0, 0x455])),
        (
            "of the hypervisor",
            Some([0xffff_8300_0000_0000, 0xffff_8000_0000_0000, 0x3000, 0x4000, 0, 0, 0xffff_0ff1, 0x400]),
        ),
        ("no addresses", Some([0x8000_0000_0000, u64::MAX, 1 << 63, 0, 0, 0, 0, 0])),
        ("an I/O breakpoint", Some([0x60, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x2_0001])),
        ("general detect", Some([0x1000, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x2401])),
        ("reserved bits of DR6 and DR7", Some([0x1000, 0, 0, 0, 0, 0, 0xffff_ffff, 0xdc01])),
        ("upper halves", Some([0x1000, 0, 0, 0, 0, 0, 1 << 32 | 0xf, 1 << 32 | 0x401])),
        ("DR4 and DR5", Some([0, 0, 0, 0, 0xffff_0ff5, 0x403, 0xffff_0ff0, 0x400])),
    ] {
        get().must("getvcpucontext");
        if let Some(regs) = regs {
            (0..8).zip(regs).for_each(|(n, v)| mem::write64(dr(n), v));
            obs(f!("debug registers, {name}"), set());
            get().must("getvcpucontext");
        }
        for n in (0..4).chain(6..8) {
            obs(f!("debug registers, {name}: {n}"), Hex(mem::read64(dr(n))));
        }
    }
    expect("destroy", c.destroy(), OK);
}
