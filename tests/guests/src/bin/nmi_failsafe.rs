//! NMIs that a guest sends itself, and the failsafe callback: a segment that cannot be reloaded when its vCPU gets the
//! CPU back. Two vCPUs share one CPU here, so that a yield is a switch.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guests::prelude::*;
use pv_abi::arch::sel;
use pv_abi::callback::{self, F_MASK_EVENTS, OP_UNREGISTER, TYPE_FAILSAFE, TYPE_NMI};
use pv_abi::shared_info::vcpu_info;
use pv_abi::vcpu::{OP_SEND_NMI, OP_UP};

guests::kernel!(run);

static STOP: AtomicBool = AtomicBool::new(false);
static ROUNDS: AtomicU32 = AtomicU32::new(0);
const DATA: u64 = 0x00cf_f300_0000_ffff;

/// Registers for `vcpu_op(send_nmi, 0)`.
fn send_regs() -> Gprs {
    Gprs { rax: nr::VCPU_OP as u64, rdi: OP_SEND_NMI, rsi: 0, ..Gprs::ZERO }
}

/// What the transcript shows of a trap's frame.
fn show(name: &str, o: Outcome) {
    match o {
        Outcome::Trap(t) => obs(
            name,
            f!("{o} cs {:#x} saved mask {:#x} IF {} mask now {}", t.cs & 0xffff, t.cs >> 32, t.rflags >> 9 & 1, t.mask),
        ),
        Outcome::Done(_) => obs(name, o),
    }
}

/// Leaves the NMI: to the probe's code in kernel mode.
fn iret_to_kernel(code: &[u8], rflags: u64) -> Outcome {
    user::run_from(
        code,
        &Gprs::ZERO,
        &user::Iret {
            flags: 0,
            rip: probe::code_page().va,
            cs: 0xe030,
            rflags,
            rsp: probe::stack_top() - 1024,
            ss: u64::from(sel::FLAT_RING3_DS),
        },
    )
}

fn run() {
    user::init();
    nmis();
    callbacks();
    smp::start(1, other);
    failsafe();
    STOP.store(true, Ordering::SeqCst);
    check("vCPU 1 ends", events::wait_ms(5000, || call(nr::VCPU_OP, &[3, 1, 0]) == Ret(0)));
    obs("NMI to a vCPU that is down", call(nr::VCPU_OP, &[OP_SEND_NMI, 1, 0]));
}

fn nmis() {
    events::quiet();
    show("NMI to oneself", probe::kernel(code!("syscall", "nop", "nop"), &send_regs()));
    // no iret hypercall since: the next one waits
    show("a second one while the first is handled", probe::kernel(code!("syscall", "mov ebx, eax"), &send_regs()));
    show("a third one", probe::kernel(code!("syscall", "mov ebx, eax"), &send_regs()));
    show("a trap meanwhile", probe::kernel(code!("ud2"), &Gprs::ZERO));
    show("iret lets the waiting one in", iret_to_kernel(code!("nop", "ud2"), 0x202));
    show("the three sent were one", iret_to_kernel(code!("nop", "ud2"), 0x202));
    show("NMI with upcalls masked", {
        events::mask().store(1, Ordering::SeqCst);
        probe::kernel(code!("syscall", "nop"), &send_regs())
    });
    show("leave it, masked", iret_to_kernel(code!("nop", "ud2"), 0x2));
    events::mask().store(0, Ordering::SeqCst);
    show("NMI with upcalls open", probe::kernel(code!("syscall", "nop"), &send_regs()));
    events::quiet();
    show("leave it to user mode, another one waiting", {
        call(nr::VCPU_OP, &[OP_SEND_NMI, 0, 0]).must("send_nmi");
        user::run(code!("nop", "nop"), &Gprs::ZERO)
    });
    show("leave that", iret_to_kernel(code!("ud2"), 0x2));
    // an event and an NMI at once
    let port = events::bind_ipi(0);
    events::quiet();
    events::send(port).must("send");
    probe::catch_events(true);
    // The probe itself opens upcalls: before, an interrupt on the way to it would let the event in.
    let regs = Gprs { rbx: events::info(0) + vcpu_info::UPCALL_MASK as u64, ..send_regs() };
    show("NMI while an event waits", probe::kernel(code!("mov byte ptr [rbx], 0", "syscall", "nop"), &regs));
    probe::catch_events(false);
    events::quiet();
    events::close(port).must("close");
    show("leave the NMI", iret_to_kernel(code!("ud2"), 0x2));
    // flags of its trap
    trap::set_flags(2, trap::MASK_EVENTS).must("set_trap_table");
    events::mask().store(0, Ordering::SeqCst);
    show("NMI whose trap masks events", probe::kernel(code!("syscall", "nop"), &send_regs()));
    events::quiet();
    show("leave the last", iret_to_kernel(code!("ud2"), 0x2));
    trap::set_flags(2, 0).must("set_trap_table");
    let port = events::shared(pv_abi::shared_info::ARCH + 0x10);
    obs("nmi_reason", mem::read64(port));
}

fn callbacks() {
    obs("register NMI, non-canonical", trap::register(TYPE_NMI, 0, 0x8000_0000_0000));
    obs("register NMI", trap::register(TYPE_NMI, 0, trap::stub(2)));
    events::quiet();
    events::mask().store(0, Ordering::SeqCst);
    show("NMI by its callback", probe::kernel(code!("syscall", "nop"), &send_regs()));
    events::quiet();
    show("leave it", iret_to_kernel(code!("ud2"), 0x2));
    obs("unregister NMI", {
        let mut r = callback::CallbackUnregister { kind: TYPE_NMI, pad: 0 };
        call_ref(nr::CALLBACK_OP, OP_UNREGISTER, &mut r)
    });
    obs("the handler of NMIs again", trap::set_flags(2, 0));
    obs("up of a running vCPU", call(nr::VCPU_OP, &[OP_UP, 0, 0]));
}

fn other() {
    while !STOP.load(Ordering::SeqCst) {
        ROUNDS.fetch_add(1, Ordering::SeqCst);
        call(nr::SCHED_OP, &[0, 0]);
    }
}

/// Loads selectors, takes their descriptor away, and goes on until there was a switch. All in one probe: the time slice
/// may end anywhere, and a failsafe callback outside of a probe is nobody's.
fn switch_with(name: &str, load: &[u8], sel: u64, gdt: Page, user_mode: bool) {
    call(nr::UPDATE_DESCRIPTOR, &[gdt.ma() + 8, DATA]).must("descriptor");
    let before = ROUNDS.load(Ordering::SeqCst);
    let regs = Gprs {
        rax: sel,
        r12: gdt.ma() + 8,
        r13: ROUNDS.as_ptr() as u64,
        r14: u64::from(before) + 20,
        rbx: 3_000_000,
        ..Gprs::ZERO
    };
    let remove = code!("mov rdi, r12", "xor esi, esi", "mov eax, 10", "syscall");
    let out = if user_mode {
        user::run_after(&[load, remove], code!("mov ecx, 2000000000", "2:", "dec ecx", "jnz 2b"), &regs)
    } else {
        // A yield is a switch only when it would not be too unfair: as many as it takes.
        let yields = code!(
            "2:",
            "xor edi, edi",
            "xor esi, esi",
            "mov eax, 29",
            "syscall",
            "cmp dword ptr [r13], r14d",
            "jae 3f",
            "dec ebx",
            "jnz 2b",
            "3:"
        );
        probe::kernel_parts(&[load, remove, yields], &regs)
    };
    let out = match out {
        Outcome::Trap(t) if t.vector == trap::FAILSAFE => Some(t),
        _ => {
            if ROUNDS.load(Ordering::SeqCst) == before {
                report::fail(f!("{name}: the other vCPU had no turn"));
            }
            None
        }
    };
    match out {
        Some(t) => {
            let w = |i: u64| mem::read64(t.at + 8 * i);
            obs(f!("failsafe for {name}"), f!("ds {:#x} es {:#x} fs {:#x} gs {:#x}", w(2), w(3), w(4), w(5)));
            obs(f!("its cs for {name}"), f!("{:#x}", w(7)));
            obs(f!("its IF, IOPL for {name}"), w(8) >> 9 & 0x19);
            obs(f!("its ss for {name}"), f!("{:#x}", w(10)));
            obs(f!("mask in it for {name}"), t.mask);
            let now = probe::kernel(code!("xor eax, eax", "mov eax, ds", "mov ebx, es", "mov ecx, fs"), &Gprs::ZERO)
                .done("selectors");
            obs(
                f!("selectors in it for {name}"),
                f!("ds {:#x} es {:#x} fs {:#x}", now.rax, now.rbx & 0xffff, now.rcx & 0xffff),
            );
        }
        None => obs(f!("failsafe for {name}"), "none"),
    }
    probe::kernel(code!("xor eax, eax", "mov ds, eax", "mov es, eax", "mov fs, eax"), &Gprs::ZERO)
        .done("segments back");
    events::quiet();
}

fn failsafe() {
    let gdt = Page::alloc();
    gdt.write(1, DATA);
    paging::make_ro(gdt).must("read-only");
    let list = [gdt.mfn()];
    call(nr::SET_GDT, &[list.as_ptr() as u64, 8]).must("set_gdt");
    switch_with("nothing wrong", code!("nop"), 0, gdt, false);
    for flags in [0, F_MASK_EVENTS] {
        trap::register(TYPE_FAILSAFE, flags, trap::failsafe_entry()).must("register");
        events::mask().store(0, Ordering::SeqCst);
        switch_with(if flags == 0 { "ds" } else { "ds, masking" }, code!("mov ds, eax"), 0xb, gdt, false);
        events::mask().store(0, Ordering::SeqCst);
        switch_with(if flags == 0 { "es" } else { "es, masking" }, code!("mov es, eax"), 0xb, gdt, false);
        events::mask().store(0, Ordering::SeqCst);
        switch_with(if flags == 0 { "fs" } else { "fs, masking" }, code!("mov fs, eax"), 0xb, gdt, false);
        events::mask().store(0, Ordering::SeqCst);
        switch_with(
            if flags == 0 { "all three" } else { "all three, masking" },
            code!("mov ds, eax", "mov es, eax", "mov fs, eax"),
            0xb,
            gdt,
            false,
        );
    }
    switch_with("a hypervisor's selector", code!("nop"), 0xe008, gdt, false);
    switch_with("es in user mode", code!("mov es, eax"), 0xb, gdt, true);
    call(nr::SET_GDT, &[0, 0]).must("empty GDT");
}
