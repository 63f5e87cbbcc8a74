//! vcpu_op: every operation on vCPUs that run, that were never started and that are absent, with bad arguments.
//! (Running a second vCPU is `smp`'s subject, NMIs are `nmi_failsafe`'s.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::vcpu::*;

guests::kernel!(run);

fn op(cmd: u64, vcpu: u64, arg: u64) -> Ret {
    call(nr::VCPU_OP, &[cmd, vcpu, arg])
}

fn with<T>(cmd: u64, vcpu: u64, mut arg: T) -> Ret {
    op(cmd, vcpu, core::ptr::from_mut(&mut arg) as u64)
}

fn body() {}

fn run() {
    let end = bad::edge() - 8;
    for cmd in [OP_INITIALISE, OP_SET_SINGLESHOT_TIMER, OP_REGISTER_VCPU_INFO, OP_GET_RUNSTATE_INFO] {
        let vcpu = u64::from(cmd == OP_INITIALISE);
        obs(f!("op {cmd} with an argument over the end of its page"), op(cmd, vcpu, end));
    }
    for vcpu in [2u64, 3, 31, 32, 127, 128, 8191, 8192, 0x7fff_ffff, 0xffff_ffff] {
        for cmd in 0..16u64 {
            obs(f!("op {cmd} of vCPU {vcpu}"), op(cmd, vcpu, 0));
        }
    }
    // only 32 bits of the number count
    obs("is_up of 2^32", op(OP_IS_UP, 1 << 32, 0));
    obs("is_up of 2^32 + 1", op(OP_IS_UP, (1 << 32) + 1, 0));
    for (name, at) in bad::POINTERS {
        for cmd in [
            OP_INITIALISE,
            OP_GET_RUNSTATE_INFO,
            OP_REGISTER_RUNSTATE_MEMORY_AREA,
            OP_SET_PERIODIC_TIMER,
            OP_SET_SINGLESHOT_TIMER,
            OP_REGISTER_VCPU_INFO,
            OP_GET_PHYSID,
            OP_REGISTER_VCPU_TIME_MEMORY_AREA,
        ] {
            for vcpu in [0u64, 1] {
                obs(f!("op {cmd} of vCPU {vcpu}, pointer {name}"), op(cmd, vcpu, at));
            }
        }
    }
    for cmd in [14u64, 15, 16, 255, 0x7fff_ffff, 0xffff_ffff, 1 << 32, u64::MAX] {
        obs(f!("op {cmd:#x} of vCPU 0"), op(cmd, 0, 0));
        obs(f!("op {cmd:#x} of vCPU 9"), op(cmd, 9, 0));
    }
    own();
    never_started();
    contexts();
}

/// vCPU 0, which runs this.
fn own() {
    obs("up", op(OP_UP, 0, 0));
    obs("is_up", op(OP_IS_UP, 0, 0));
    obs("initialise", op(OP_INITIALISE, 0, core::ptr::from_mut(smp::context(0, body)) as u64));
    let mut v = [0u64; 2];
    obs("get_physid", op(OP_GET_PHYSID, 0, v.as_mut_ptr() as u64));
    for period_ns in [0u64, 1, 999_999, 1_000_000, 1 << 40, i64::MAX as u64, u64::MAX] {
        obs(f!("periodic {period_ns}"), with(OP_SET_PERIODIC_TIMER, 0, SetPeriodicTimer { period_ns }));
    }
    obs("stop periodic", op(OP_STOP_PERIODIC_TIMER, 0, 0));
    obs("stop periodic again", op(OP_STOP_PERIODIC_TIMER, 0, 0x1000));
    let now = events::now();
    for (name, at) in [
        ("0", 0u64),
        ("1", 1),
        ("now", now),
        ("in a minute", now + 60_000_000_000),
        ("in 2^62", 1 << 62),
        ("i64::MAX", i64::MAX as u64),
        ("2^63", 1 << 63),
        ("-1", u64::MAX),
    ] {
        for flags in [0u32, 1, 2, u32::MAX] {
            obs(
                f!("single shot {name}, flags {flags:#x}"),
                with(OP_SET_SINGLESHOT_TIMER, 0, SetSingleshotTimer { timeout_abs_ns: at, flags, pad: 0 }),
            );
        }
    }
    obs("stop single shot", op(OP_STOP_SINGLESHOT_TIMER, 0, 0));
    obs("stop single shot again", op(OP_STOP_SINGLESHOT_TIMER, 0, 0));
    let page = Page::alloc();
    for (name, addr) in [
        ("NULL", 0u64),
        ("unmapped", 0x10_0000),
        ("unaligned", page.va + 3),
        ("over a page's end", page.va + 4090),
        ("non-canonical", 0x8000_0000_0000),
        ("the hypervisor's", 0xffff_8300_0000_0000),
        ("ending in the hypervisor's", 0xffff_7fff_ffff_fff0),
        ("good", page.va),
    ] {
        obs(f!("runstate area {name}"), with(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, MemoryArea { addr }));
        obs(f!("time area {name}"), with(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, MemoryArea { addr }));
    }
    paging::make_ro(page).must("read-only");
    obs("runstate area read-only", with(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, MemoryArea { addr: page.va }));
    obs("time area read-only", with(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, MemoryArea { addr: page.va }));
    paging::update_va(page.va, 0).must("unmap");
    obs("yield with the areas gone", call(nr::SCHED_OP, &[0, 0]));
    paging::make_rw(page).must("map");
    obs("runstate area off", with(OP_REGISTER_RUNSTATE_MEMORY_AREA, 0, MemoryArea { addr: 0x1000 }));
    obs("time area off", with(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, MemoryArea { addr: 0x1000 }));
    let table = paging::new_table();
    for (name, mfn, offset, rsvd) in [
        ("no frame", 0x7f_ffff_ffffu64, 0u32, 0u32),
        ("unaligned", page.mfn(), 4, 0),
        ("over the end", page.mfn(), 4096 - 32, 0),
        ("behind the end", page.mfn(), 4096, 0),
        ("offset 2^31", page.mfn(), 1 << 31, 0),
        ("MMIO", 0xfee00, 0, 0),
        ("the hypervisor's", 0x100, 0, 0),
    ] {
        obs(f!("vcpu_info: {name}"), with(OP_REGISTER_VCPU_INFO, 0, RegisterVcpuInfo { mfn, offset, rsvd }));
    }
    paging::pin(table, 1).must("pin");
    obs(
        "vcpu_info: a page table",
        with(OP_REGISTER_VCPU_INFO, 0, RegisterVcpuInfo { mfn: table.mfn(), offset: 0, rsvd: 0 }),
    );
    paging::unpin(table).must("unpin");
}

/// vCPU 1, which exists and was never initialised.
fn never_started() {
    for cmd in [OP_IS_UP, OP_UP, OP_DOWN, OP_STOP_PERIODIC_TIMER, OP_STOP_SINGLESHOT_TIMER] {
        obs(f!("op {cmd} before initialise"), op(cmd, 1, 0));
    }
    let mut info = RunstateInfo::default();
    obs("runstate before initialise", op(OP_GET_RUNSTATE_INFO, 1, core::ptr::from_mut(&mut info) as u64));
    obs("its state", info.state);
    obs("its padding", info.pad);
    obs(
        "single shot of another",
        with(OP_SET_SINGLESHOT_TIMER, 1, SetSingleshotTimer { timeout_abs_ns: 1, flags: 0, pad: 0 }),
    );
    obs("periodic of another", with(OP_SET_PERIODIC_TIMER, 1, SetPeriodicTimer { period_ns: 1_000_000_000 }));
    obs("stop periodic of another", op(OP_STOP_PERIODIC_TIMER, 1, 0));
    let page = Page::alloc();
    obs("runstate area of another", with(OP_REGISTER_RUNSTATE_MEMORY_AREA, 1, MemoryArea { addr: page.va }));
    obs("it is written at once", page.read(0));
    obs("time area of another", with(OP_REGISTER_VCPU_TIME_MEMORY_AREA, 1, MemoryArea { addr: page.va + 256 }));
    obs(
        "vcpu_info of another",
        with(OP_REGISTER_VCPU_INFO, 1, RegisterVcpuInfo { mfn: page.mfn(), offset: 512, rsvd: 7 }),
    );
    obs("its first word", page.read(64));
    obs("again", with(OP_REGISTER_VCPU_INFO, 1, RegisterVcpuInfo { mfn: page.mfn(), offset: 1024, rsvd: 0 }));
}

/// Contexts that cannot be.
fn contexts() {
    type Spoil = fn(&mut VcpuGuestContext);
    let good = Page::alloc();
    good.write(1, 0x00cf_f300_0000_ffff);
    let cases: [(&str, Spoil); 17] = [
        ("rip", |c| c.user_regs.rip = 0x8000_0000_0000),
        ("event entry", |c| c.event_callback_eip = 0x8000_0000_0000),
        ("failsafe entry", |c| c.failsafe_callback_eip = 0x8000_0000_0000),
        ("syscall entry", |c| c.syscall_callback_eip = 0x8000_0000_0000),
        ("trap entry", |c| c.trap_ctxt[9].address = 0x8000_0000_0000),
        ("FS base", |c| c.fs_base = 0x8000_0000_0000),
        ("kernel GS base", |c| c.gs_base_kernel = 0x8000_0000_0000),
        ("user GS base", |c| c.gs_base_user = 0x8000_0000_0000),
        ("no page tables", |c| c.ctrlreg[3] = 0),
        ("page tables beyond RAM", |c| c.ctrlreg[3] = 0x7f_ffff_f000),
        ("page tables that are none", |c| c.ctrlreg[3] = Page::at(smp::percpu(0)).ma()),
        ("user page tables that are none", |c| c.ctrlreg[1] = Page::at(smp::percpu(0)).ma() | 1),
        ("too large a GDT", |c| c.gdt_ents = 7169),
        ("a GDT of writable frames", |c| {
            c.gdt_ents = 1;
            c.gdt_frames[0] = Page::at(smp::percpu(0)).mfn();
        }),
        ("an LDT off a page", |c| {
            c.ldt_base = smp::percpu(0) | 8;
            c.ldt_ents = 1;
        }),
        ("too large an LDT", |c| c.ldt_ents = 8193),
        ("an LDT in the hypervisor", |c| {
            c.ldt_base = 0xffff_8300_0000_0000;
            c.ldt_ents = 1;
        }),
    ];
    for (name, spoil) in cases {
        let c = smp::context(1, body);
        spoil(c);
        let r = smp::initialise(1, c);
        obs(f!("context with a bad {name}"), r);
        if r == OK {
            return;
        }
        obs(f!("up after a bad {name}"), op(OP_UP, 1, 0));
    }
}
