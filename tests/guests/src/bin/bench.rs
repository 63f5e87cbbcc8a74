//! Common operations in instructions: run under `-icount shift=0`, where rdtsc counts executed instructions.
//! Each row is the cheapest of many rounds, the cost of the measurement itself taken off.
//!
//! `only=ROW` on the command line repeats that row for ever instead, for `harness profile`.
#![cfg_attr(target_os = "none", no_std, no_main)]
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guests::console;
use guests::hypercall::raw;
use guests::paging::{self as pg, DOMID_SELF, KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::grant::*;
use pv_abi::mmu::{MmuUpdate, MulticallEntry};

guests::kernel!(run);

fn tsc() -> u64 {
    // SAFETY: no precondition.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Instructions of the cheapest of 60 rounds of `f`.
fn cheapest(mut f: impl FnMut()) -> u64 {
    (0..60)
        .map(|_| {
            let start = tsc();
            f();
            tsc() - start
        })
        .min()
        .unwrap_or(0)
}

fn row(name: &str, f: impl FnMut()) {
    row_per(name, 1, f)
}

/// Executed once a round of a row that is repeated for ever: who counts it counts the rounds.
#[inline(never)]
extern "C" fn round() {
    // SAFETY: nothing; keeps the function from being merged with another empty one.
    unsafe { asm!("nop") };
}

/// Whether the command line asks for just this row.
fn repeated(name: &str) -> bool {
    let line = &guests::start::start_info().cmd_line;
    let used = line.iter().position(|b| *b == 0).unwrap_or(line.len());
    line[..used].strip_prefix(b"only=") == Some(name.as_bytes())
}

fn row_per(name: &str, per: u64, mut f: impl FnMut()) {
    if repeated(name) {
        console::line(f!("bench: loop at {:#x}", round as *const () as u64));
        loop {
            round();
            f();
        }
    }
    // the clock's steps per instruction, and the cost of an empty round
    let empty = cheapest(|| ());
    let ticks = cheapest(f).saturating_sub(empty);
    console::line(f!("bench: {name} = {}", ticks / per / ticks_per_instruction()));
}

/// The TSC runs at 1 GHz under icount, one tick an instruction with shift 0; anything else is measured here.
fn ticks_per_instruction() -> u64 {
    // SAFETY: a thousand nops.
    let many = cheapest(|| unsafe { asm!(".rept 1000", "nop", ".endr", options(nomem, nostack)) });
    ((many + 500) / 1000).max(1)
}

fn run() {
    calls();
    page_tables();
    multicalls();
    pins();
    traps();
    events_and_time();
    grants();
    user_mode();
}

fn calls() {
    row("null hypercall (xen_version)", || {
        raw(nr::XEN_VERSION as u64, [0; 5]);
    });
    row("unknown hypercall", || {
        raw(63, [0; 5]);
    });
    let top = user::kernel_stack_top();
    row("stack_switch", || {
        raw(nr::STACK_SWITCH as u64, [0xe02b, top, 0, 0, 0]);
    });
    row("set_segment_base FS", || {
        raw(nr::SET_SEGMENT_BASE as u64, [0, 0x1000, 0, 0, 0]);
    });
    row("yield", || {
        raw(nr::SCHED_OP as u64, [0; 5]);
    });
}

fn page_tables() {
    let (window, a, b) = (Page::alloc(), Page::alloc(), Page::alloc());
    let (a, b) = (a.ma() | KERNEL_RW, b.ma() | KERNEL_RW);
    let mut flip = false;
    for (name, flags) in [("update_va_mapping, no flush", 0u64), ("update_va_mapping, invlpg", 2)] {
        row(name, || {
            flip = !flip;
            raw(nr::UPDATE_VA_MAPPING as u64, [window.va, if flip { a } else { b }, flags, 0, 0]);
        });
    }
    let table = pg::new_table();
    pg::pin(table, 1).must("pin");
    for (name, n) in [("mmu_update, one", 1), ("mmu_update, each of 32", 32u64)] {
        // Both lists are made before: the row is the hypercall alone.
        let list = |value: u64| -> [MmuUpdate; 32] {
            core::array::from_fn(|i| MmuUpdate { ptr: table.ma() + 8 * i as u64, val: value })
        };
        let lists = [list(a), list(b)];
        row_per(name, n, || {
            flip = !flip;
            raw(nr::MMU_UPDATE as u64, [lists[usize::from(flip)].as_ptr() as u64, n, 0, DOMID_SELF, 0]);
        });
    }
    let l4 = pg::l4().mfn();
    row("new base pointer", || {
        pg::mmuext(pv_abi::mmu::EXT_NEW_BASEPTR, l4, 0);
    });
    row("TLB flush, local", || {
        pg::mmuext(pv_abi::mmu::EXT_TLB_FLUSH_LOCAL, 0, 0);
    });
    // an emulated PTE write
    let slot = pg::slot_va(window.va, 1);
    row("emulated write to a page table", || {
        flip = !flip;
        // SAFETY: the slot of an own page; the write faults and is emulated.
        unsafe { asm!("mov [{}], {}", in(reg) slot, in(reg) if flip { a } else { b }) };
    });
}

fn multicalls() {
    let mut list = [MulticallEntry { op: nr::XEN_VERSION as u64, ..MulticallEntry::default() }; 32];
    row("multicall of 32 null calls", || {
        raw(nr::MULTICALL as u64, [list.as_mut_ptr() as u64, 32, 0, 0, 0]);
    });
}

fn pins() {
    for (name, full) in [("pin and unpin an empty L1", false), ("pin and unpin a full L1", true)] {
        let (t, data) = (Page::alloc(), Page::alloc());
        if full {
            (0..512).for_each(|i| t.write(i, data.ma() | KERNEL_RO));
        }
        pg::make_ro(t).must("make_ro");
        let mfn = t.mfn();
        row(name, || {
            pg::mmuext(0, mfn, 0);
            pg::mmuext(pv_abi::mmu::EXT_UNPIN_TABLE, mfn, 0);
        });
    }
}

core::arch::global_asm!(
    ".text",
    // a #PF handler that skips `mov al, [rdi]` (2 bytes) and returns by the iret hypercall
    ".globl bench_pf",
    "bench_pf:",
    "pop rcx",
    "pop r11",
    "add rsp, 8",
    "add qword ptr [rsp], 2",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    // an event callback that clears what is pending (of one port) and returns by the iret hypercall
    ".globl bench_event",
    "bench_event:",
    "pop rcx",
    "pop r11",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov rcx, [rip + {info}]",
    "mov byte ptr [rcx], 0",
    "mov qword ptr [rcx + 8], 0",
    "mov rcx, [rip + {word}]",
    "mov qword ptr [rcx], 0",
    "mov eax, 23",
    "syscall",
    info = sym EVENT_INFO,
    word = sym EVENT_WORD,
);

/// For `bench_event`: where the vcpu_info and the port's word of pending bits stand.
static EVENT_INFO: AtomicU64 = AtomicU64::new(0);
static EVENT_WORD: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn bench_pf();
    fn bench_event();
}

fn traps() {
    trap::set(14, 0, pv_abi::arch::sel::FLAT_RING3_CS64, bench_pf as *const () as u64).must("set");
    row("#PF to the kernel and iret", || {
        // SAFETY: faults, and the handler above steps over it.
        unsafe { asm!("mov al, [rdi]", in("rdi") 0x1000u64, out("al") _, out("rcx") _, out("r11") _) };
    });
    trap::set_flags(14, 0).must("set");
    row("rdmsr EFER", || {
        // SAFETY: emulated, reads only.
        unsafe { asm!("rdmsr", in("ecx") 0xc000_0080u32, out("eax") _, out("edx") _) };
    });
    row("mov from CR0", || {
        // SAFETY: emulated, reads only.
        unsafe { asm!("mov {}, cr0", out(reg) _) };
    });
    row("CPUID behind the prefix", || {
        // SAFETY: emulated.
        unsafe {
            asm!("mov {0:r}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "mov rbx, {0:r}", out(reg) _, inout("eax") 0 => _, out("ecx") _, out("edx") _)
        };
    });
}

fn events_and_time() {
    let port = events::bind_ipi(0);
    row("event send, masked upcall", || {
        events::send(port);
        events::port_clear(port);
        events::quiet();
    });
    row("event send, already pending", || {
        events::send(port);
    });
    events::port_clear(port);
    events::quiet();
    EVENT_INFO.store(events::info(0), Ordering::Relaxed);
    EVENT_WORD.store(events::shared(pv_abi::shared_info::EVTCHN_PENDING) + u64::from(port / 64) * 8, Ordering::Relaxed);
    trap::register(pv_abi::callback::TYPE_EVENT, 0, bench_event as *const () as u64).must("register");
    events::mask().store(0, Ordering::SeqCst);
    row("event send, callback and iret", || {
        events::send(port);
    });
    events::mask().store(1, Ordering::SeqCst);
    trap::register_callbacks();
    let mut s = pv_abi::vcpu::SetSingleshotTimer { timeout_abs_ns: events::now() + 50_000_000_000, flags: 0, pad: 0 };
    row("set_singleshot_timer", || {
        s.timeout_abs_ns += 1000;
        call(nr::VCPU_OP, &[pv_abi::vcpu::OP_SET_SINGLESHOT_TIMER, 0, core::ptr::from_mut(&mut s) as u64]);
    });
    call(nr::VCPU_OP, &[pv_abi::vcpu::OP_STOP_SINGLESHOT_TIMER, 0, 0]);
}

fn grants() {
    let mut frame = [0u64; 1];
    let mut setup =
        SetupTable { dom: 0x7ff0, nr_frames: 1, frame_list: frame.as_mut_ptr() as u64, ..SetupTable::default() };
    call(nr::GRANT_TABLE_OP, &[OP_SETUP_TABLE, core::ptr::from_mut(&mut setup) as u64, 1]).must("setup_table");
    let (table, src, dst, window) = (Page::alloc(), Page::alloc(), Page::alloc(), Page::alloc());
    pg::update_va(table.va, (frame[0] * PAGE_SIZE) | KERNEL_RW).must("map the table");
    pg::update_va(window.va, 0).must("unmap");
    table.write(8, u64::from(GTF_PERMIT_ACCESS) | src.mfn() << 32);
    table.write(9, u64::from(GTF_PERMIT_ACCESS) | dst.mfn() << 32);
    row("grant map and unmap", || {
        let mut m = MapGrantRef {
            host_addr: window.va,
            flags: GNTMAP_HOST_MAP,
            gref: 8,
            dom: 0,
            status: 0,
            handle: 0,
            dev_bus_addr: 0,
        };
        raw(nr::GRANT_TABLE_OP as u64, [OP_MAP_GRANT_REF, core::ptr::from_mut(&mut m) as u64, 1, 0, 0]);
        let mut u = UnmapGrantRef { host_addr: window.va, handle: m.handle, ..UnmapGrantRef::default() };
        raw(nr::GRANT_TABLE_OP as u64, [OP_UNMAP_GRANT_REF, core::ptr::from_mut(&mut u) as u64, 1, 0, 0]);
    });
    for (name, len) in [("grant copy, 64 bytes", 64u16), ("grant copy, 4096 bytes", 4096)] {
        let ptr = |reference| CopyPtr { reference, domid: 0, offset: 0, pad: 0 };
        let mut c = Copy {
            source: ptr(8),
            dest: ptr(9),
            len,
            flags: GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF,
            status: 0,
            pad: 0,
        };
        row(name, || {
            raw(nr::GRANT_TABLE_OP as u64, [OP_COPY, core::ptr::from_mut(&mut c) as u64, 1, 0, 0]);
        });
        if c.status != 0 {
            report::fail(f!("grant copy: status {}", c.status));
        }
    }
}

fn user_mode() {
    user::init();
    let ticks = ticks_per_instruction();
    // the probe's own path counts too: a ud2 from kernel mode, for comparison
    let t = cheapest(|| {
        probe::kernel(code!("ud2"), &Gprs::ZERO);
    });
    console::line(f!("bench: probe with #UD from kernel mode = {}", t / ticks));
    let t = cheapest(|| {
        user::run(code!("nop"), &Gprs::ZERO);
    });
    events::mask().store(1, Ordering::SeqCst);
    console::line(f!("bench: probe: iret to user mode and syscall = {}", t / ticks));
}
