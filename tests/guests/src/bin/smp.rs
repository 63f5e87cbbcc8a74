//! A second vCPU: vcpu_op's codes, bring-up, what it starts with, IPIs, down and up, poll and block across vCPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guests::mem::read64;
use guests::prelude::*;
use guests::smp::{context, initialise, up};
use pv_abi::event::VIRQ_TIMER;
use pv_abi::sched;
use pv_abi::vcpu::*;

guests::kernel!(run);

static STATE: AtomicU32 = AtomicU32::new(0);
static GO: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

fn vcpu_op(cmd: u64, vcpu: u64, arg: u64) -> Ret {
    call(nr::VCPU_OP, &[cmd, vcpu, arg])
}

fn run() {
    codes();
    if smp::count() < 2 {
        report::skip("the domain has one vCPU");
    }
    info();
    initialising();
    running();
    ipis();
    blocking();
    down_and_up();
    fpu();
}

fn codes() {
    for vcpu in [0u64, 1, 2, 31, 32, 4095, 8191, 8192, 1 << 32, u64::MAX] {
        obs(f!("is_up {vcpu:#x}"), vcpu_op(OP_IS_UP, vcpu, 0));
        obs(f!("up {vcpu:#x}, not initialised"), if vcpu == 0 { OK } else { vcpu_op(OP_UP, vcpu, 0) });
        obs(f!("get_runstate_info {vcpu:#x}"), vcpu_op(OP_GET_RUNSTATE_INFO, vcpu, Page::alloc().va));
    }
    for cmd in 14..18u64 {
        obs(f!("op {cmd}"), vcpu_op(cmd, 0, 0));
    }
    obs("initialise, bad pointer", vcpu_op(OP_INITIALISE, 1, 0xffff_8300_0000_0000));
    obs("initialise vcpu 0", vcpu_op(OP_INITIALISE, 0, core::ptr::from_mut(context(1, body)) as u64));
    obs("get_physid", if vcpu_op(OP_GET_PHYSID, 0, Page::alloc().va) == OK { "given" } else { "refused" });
    obs("send_nmi to an absent vcpu", vcpu_op(OP_SEND_NMI, 40, 0));
    obs("stop_periodic of vcpu 1", vcpu_op(OP_STOP_PERIODIC_TIMER, 1, 0));
}

/// register_vcpu_info, on the vCPU that runs and on the one that does not.
fn info() {
    let page = Page::alloc();
    let register = |vcpu: u64, mfn: u64, offset: u32| {
        let mut r = RegisterVcpuInfo { mfn, offset, rsvd: 0 };
        vcpu_op(OP_REGISTER_VCPU_INFO, vcpu, core::ptr::from_mut(&mut r) as u64)
    };
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    obs("offset across the page's end", register(1, page.mfn(), 4096 - 32));
    obs("offset behind the page", register(1, page.mfn(), 4096));
    obs("unaligned offset", register(1, page.mfn(), 4));
    obs("bad frame", register(1, 0xfff_ffff, 0));
    obs("a table's frame", register(1, table.mfn(), 0));
    obs("absent vcpu", register(40, page.mfn(), 0));
    expect("vcpu 1, before it exists", register(1, page.mfn(), 64), OK);
    obs("pending, mask", Hex(page.read(8) & 0xffff));
    obs("selector", Hex(page.read(9)));
    obs("a second time", register(1, page.mfn(), 128));
    events::info_moved(1, page.va + 64);
    obs("the page cannot become a table", {
        let r = paging::make_ro(page);
        let p = paging::pin(page, 1);
        paging::make_rw(page).must("rw");
        if r == OK { p } else { r }
    });
    expect("vcpu 0", register(0, page.mfn(), 0), OK);
    events::info_moved(0, page.va);
    obs("vcpu 0: pending, mask", Hex(page.read(0) & 0xffff));
    obs("vcpu 0: selector", Hex(page.read(1)));
    check("vcpu 0: time is filled", page.read(7) as u32 != 0);
    events::quiet();
}

/// What VCPUOP_initialise refuses.
fn initialising() {
    let try_one = |name: &str, change: &dyn Fn(&mut pv_abi::arch::VcpuGuestContext)| {
        let c = context(1, body);
        change(c);
        obs(f!("initialise with {name}"), initialise(1, c));
    };
    try_one("a bad cr3", &|c| c.ctrlreg[3] = 0xfff_ffff << 12);
    try_one("cr3 of an L1", &|c| c.ctrlreg[3] = paging::table(run as *const () as u64, 1).map_or(0, Page::ma));
    try_one("a writable page as GDT", &|c| {
        c.gdt_ents = 512;
        c.gdt_frames[0] = Page::alloc().mfn();
    });
    try_one("a non-canonical trap address", &|c| c.trap_ctxt[40].address = 0x8000_0000_0000);
    try_one("a non-canonical event callback", &|c| c.event_callback_eip = 0x8000_0000_0000);
    try_one("a non-canonical gs base", &|c| c.gs_base_kernel = 0x8000_0000_0000);
    try_one("a non-canonical rip", &|c| c.user_regs.rip = 0x8000_0000_0000);
    obs("is_up in between", vcpu_op(OP_IS_UP, 1, 0));
}

/// What the second vCPU does; each step waits for GO.
fn body() {
    let flags: u64;
    // SAFETY: reads rflags.
    unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags) };
    SEEN[0].store(flags, Ordering::SeqCst);
    SEEN[1].store(smp::cpu() as u64, Ordering::SeqCst);
    SEEN[2].store(u64::from(events::mask().load(Ordering::SeqCst)), Ordering::SeqCst);
    SEEN[3].store(u64::from(events::pending().load(Ordering::SeqCst)), Ordering::SeqCst);
    SEEN[4].store(call(nr::VCPU_OP, &[OP_IS_UP, 1, 0]).0 as u64, Ordering::SeqCst);
    SEEN[5].store(call(nr::VCPU_OP, &[OP_STOP_PERIODIC_TIMER, 1, 0]).0 as u64, Ordering::SeqCst);
    STATE.store(1, Ordering::SeqCst);
    wait_go(1);
    // events of this vCPU
    events::unmask_upcalls();
    STATE.store(2, Ordering::SeqCst);
    wait_go(2);
    STATE.store(3, Ordering::SeqCst);
    call(nr::SCHED_OP, &[sched::OP_BLOCK, 0]);
    STATE.store(4, Ordering::SeqCst);
    wait_go(3);
    STATE.store(5, Ordering::SeqCst);
    vcpu_op(OP_DOWN, 1, 0);
    // up again resumes here
    STATE.store(6, Ordering::SeqCst);
    wait_go(4);
    // SAFETY: loads this vCPU's own FPU registers.
    unsafe {
        core::arch::asm!("mov rax, 0x2222222222222222", "movq xmm3, rax", "fninit", "fld1", out("rax") _);
    }
    for _ in 0..50 {
        call(nr::SCHED_OP, &[sched::OP_YIELD, 0]);
    }
    let x: u64;
    // SAFETY: reads the register loaded above.
    unsafe { core::arch::asm!("movq {}, xmm3", out(reg) x) };
    SEEN[6].store(x, Ordering::SeqCst);
    STATE.store(7, Ordering::SeqCst);
}

fn wait_go(n: u32) {
    while GO.load(Ordering::SeqCst) < n {
        call(nr::SCHED_OP, &[sched::OP_YIELD, 0]);
    }
}

fn reached(n: u32) -> bool {
    events::wait_ms(5000, || STATE.load(Ordering::SeqCst) >= n)
}

fn running() {
    let c = context(1, body);
    expect("initialise", initialise(1, c), OK);
    obs("initialise again", initialise(1, context(1, body)));
    expect("is_up before up", vcpu_op(OP_IS_UP, 1, 0), Ret(0));
    expect("up", up(1), OK);
    check("it runs", reached(1));
    expect("is_up", vcpu_op(OP_IS_UP, 1, 0), Ret(1));
    obs("up again", up(1));
    obs("initialise while up", initialise(1, context(1, body)));
    obs("its rflags", Hex(SEEN[0].load(Ordering::SeqCst) & !0xd5));
    expect("its number, through GS", SEEN[1].load(Ordering::SeqCst), 1);
    obs("its mask at start", SEEN[2].load(Ordering::SeqCst));
    obs("its pending byte at start", SEEN[3].load(Ordering::SeqCst));
    expect("it sees itself up", SEEN[4].load(Ordering::SeqCst), 1);
    expect("it stops its tick", SEEN[5].load(Ordering::SeqCst), 0);
    let time = events::info(1) + 32;
    check("its clock is filled", read64(time + 24) as u32 != 0);
}

fn ipis() {
    let port = events::bind_ipi(1);
    GO.store(1, Ordering::SeqCst);
    check("it unmasks upcalls", reached(2));
    for i in 1..=20u32 {
        expect(f!("send {i}"), events::send(port), OK);
        if !events::wait_ms(5000, || events::count(port) >= i) {
            report::fail(f!("IPI {i} never arrived"));
            break;
        }
    }
    expect("IPIs taken by vcpu 1", events::count(port), 20);
    expect("upcalls of vcpu 0", events::UPCALLS[0].load(Ordering::SeqCst), 0);
    let virq = events::bind_virq(VIRQ_TIMER, 1);
    let mut s = SetSingleshotTimer { timeout_abs_ns: events::now() + 2_000_000, flags: 0, pad: 0 };
    obs("set vcpu 1's timer from vcpu 0", vcpu_op(OP_SET_SINGLESHOT_TIMER, 1, core::ptr::from_mut(&mut s) as u64));
    let _ = virq;
    GO.store(2, Ordering::SeqCst);
    check("it is about to block", reached(3));
    events::wait_ms(20, || false);
    let mut info = RunstateInfo::default();
    vcpu_op(OP_GET_RUNSTATE_INFO, 1, core::ptr::from_mut(&mut info) as u64).must("runstate");
    expect("its runstate is blocked", info.state, 2);
    expect("wake it", events::send(port), OK);
    check("it woke up", reached(4));
}

fn blocking() {
    // this vCPU polls a port; vcpu 1 is busy yielding
    let port = events::bind_ipi(0);
    let start = events::now();
    let mut p =
        sched::Poll { ports: core::ptr::from_ref(&port) as u64, nr_ports: 1, pad: 0, timeout: start + 5_000_000 };
    expect("poll with a timeout", call_ref(nr::SCHED_OP, sched::OP_POLL, &mut p), OK);
    check("it lasted", events::now() >= start + 5_000_000);
    events::quiet();
}

fn down_and_up() {
    GO.store(3, Ordering::SeqCst);
    check("it goes down", reached(5) && events::wait_ms(5000, || vcpu_op(OP_IS_UP, 1, 0) == Ret(0)));
    // Down is what it is to be; a moment later it is off its CPU, too.
    let mut info = RunstateInfo::default();
    events::wait_ms(5000, || {
        vcpu_op(OP_GET_RUNSTATE_INFO, 1, core::ptr::from_mut(&mut info) as u64).must("runstate");
        info.state == 3
    });
    expect("its runstate is offline", info.state, 3);
    obs("initialise a vCPU that is down", initialise(1, context(1, body)));
    expect("up again", up(1), OK);
    check("it resumes behind the down", reached(6));
}

fn fpu() {
    // SAFETY: this vCPU's own FPU registers.
    unsafe {
        core::arch::asm!("mov rax, 0x1111111111111111", "movq xmm3, rax", out("rax") _);
    }
    GO.store(4, Ordering::SeqCst);
    check("both use the FPU", reached(7));
    let x: u64;
    // SAFETY: reads the register loaded above.
    unsafe { core::arch::asm!("movq {}, xmm3", out(reg) x) };
    expect("xmm3 of vcpu 0", Hex(x), Hex(0x1111_1111_1111_1111));
    expect("xmm3 of vcpu 1", Hex(SEEN[6].load(Ordering::SeqCst)), Hex(0x2222_2222_2222_2222));
    check("vcpu 1 is down at the end", events::wait_ms(5000, || vcpu_op(OP_IS_UP, 1, 0) == Ret(0)));
    obs("send_nmi to a vcpu that is down", vcpu_op(OP_SEND_NMI, 1, 0));
}
