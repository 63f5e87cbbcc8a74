//! What the hostile kernels share: attempts that must be refused, a second vCPU that disturbs, and trees of page tables.
use crate::hypercall::{call, call_ref};
use crate::mem::{self, Page};
use crate::paging::{self, FRAME, KERNEL_RO, KERNEL_RW, P, TABLE};
use crate::ret::{OK, Ret};
use crate::{console, events, report, smp};
use core::fmt::Display;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use pv_abi::grant::{self, MapGrantRef, SetupTable, UnmapGrantRef};
use pv_abi::hypercall::nr;
use pv_abi::ids::PAGE_SIZE;
use pv_abi::memory::Reservation;
use pv_abi::mmu;
use pv_abi::vcpu;

/// "This domain" in a field of 16 bits.
pub const SELF: u16 = 0x7ff0;
/// An address in the hypervisor's part that no guest may touch.
pub const XEN_VA: u64 = 0xffff_8300_0000_0000;
/// An address that is no address.
pub const NON_CANONICAL: u64 = 0x8000_0000_0000;

/// An attempt that must fail, whatever the error.
pub fn refused(name: impl Display, r: Ret) {
    let verdict = if r.0 < 0 { "refused" } else { "allowed" };
    console::line(format_args!("obs: {name} = {verdict}"));
    if r.0 >= 0 {
        report::fail(format_args!("{name}: allowed ({r})"));
    }
}

/// The hypervisor still answers and the kernel still runs; the last line of each hostile kernel.
pub fn alive() {
    let p = Page::alloc();
    paging::make_ro(p).must("make_ro");
    let pinned =
        paging::pin(p, 1) == OK && paging::make_rw(p).0 < 0 && paging::unpin(p) == OK && paging::make_rw(p) == OK;
    report::check("all is well afterwards", pinned && call(nr::XEN_VERSION, &[0, 0]).0 > 0);
}

/// A frame of the hypervisor's: the table behind slot 256.
pub fn xen_frame() -> u64 {
    (paging::l4().read(256) & FRAME) / PAGE_SIZE
}

/// Frame `mfn` mapped nowhere, taken from a page of the pool whose mapping goes.
pub fn unmapped_page() -> Page {
    let p = Page::alloc();
    paging::update_va(p.va, 0).must("unmap");
    p
}

/// A tree whose top is `level`, read-only and not pinned: each table's first `width` entries lead to the same table below;
/// L1 entries map one page, read-only.
pub fn tree(level: u32, width: usize) -> Page {
    let t = Page::alloc();
    let entry = if level == 1 { Page::alloc().ma() | KERNEL_RO } else { tree(level - 1, width).ma() | TABLE };
    for i in 0..width {
        t.write(if level == 4 { i % 200 } else { i }, entry);
    }
    paging::make_ro(t).must("make_ro");
    t
}

/// A tree of one L2 over `l1s` full L1 tables, each with 512 entries: much work to validate.
pub fn wide_l2(l1s: usize) -> Page {
    let (l2, data) = (Page::alloc(), Page::alloc());
    for i in 0..l1s {
        let l1 = Page::alloc();
        (0..512).for_each(|j| l1.write(j, data.ma() | KERNEL_RO));
        paging::make_ro(l1).must("make_ro");
        l2.write(i, l1.ma() | TABLE);
    }
    paging::make_ro(l2).must("make_ro");
    l2
}

/// Every table of a tree may be mapped writable again: nothing holds it.
pub fn tree_is_free(top: Page, level: u32) -> bool {
    let child = top.read(0);
    paging::make_rw(top) == OK
        && (level == 1 || child & P == 0 || tree_is_free(mem::page_of_mfn((child & FRAME) / PAGE_SIZE), level - 1))
}

/// memory_op.
pub fn memory_op<T>(cmd: u64, arg: &mut T) -> Ret {
    call_ref(nr::MEMORY_OP, cmd, arg)
}

/// A list of extents of this domain's.
pub fn extents(list: &[u64], order: u32) -> Reservation {
    Reservation {
        extent_start: list.as_ptr() as u64,
        nr_extents: list.len() as u64,
        extent_order: order,
        domid: SELF,
        ..Reservation::default()
    }
}

/// The first frame of this domain's grant table, mapped.
pub fn grant_table() -> Page {
    let mut frames = [0u64; 1];
    let mut s =
        [SetupTable { dom: SELF, nr_frames: 1, frame_list: frames.as_mut_ptr() as u64, ..SetupTable::default() }];
    call(nr::GRANT_TABLE_OP, &[grant::OP_SETUP_TABLE, s.as_mut_ptr() as u64, 1]).must("setup_table");
    let p = Page::alloc();
    paging::update_va(p.va, (frames[0] * PAGE_SIZE) | KERNEL_RW).must("map the grant table");
    p
}

/// Entry `gref` lets `dom` use `mfn`.
pub fn grant(table: Page, gref: usize, dom: u16, mfn: u64, flags: u16) {
    table.write(gref, u64::from(flags) | (u64::from(dom) << 16) | (mfn << 32));
}

/// map_grant_ref; handle and status.
pub fn grant_map(dom: u16, gref: u32, flags: u32, host_addr: u64) -> (u32, i16) {
    let mut m = [MapGrantRef { host_addr, flags, gref, dom, status: 99, handle: 0, dev_bus_addr: 0 }];
    call(nr::GRANT_TABLE_OP, &[grant::OP_MAP_GRANT_REF, m.as_mut_ptr() as u64, 1]).must("map_grant_ref");
    (m[0].handle, m[0].status)
}

/// unmap_grant_ref; the status.
pub fn grant_unmap(host_addr: u64, handle: u32) -> i16 {
    let mut u = [UnmapGrantRef { host_addr, dev_bus_addr: 0, handle, status: 99, pad: 0 }];
    call(nr::GRANT_TABLE_OP, &[grant::OP_UNMAP_GRANT_REF, u.as_mut_ptr() as u64, 1]).must("unmap_grant_ref");
    u[0].status
}

/// A status as a result, for [`refused`].
pub fn status(s: i16) -> Ret {
    Ret(s.into())
}

/// Lets the timer fire in `us` microseconds: long operations stop there.
pub fn alarm(us: u64) {
    let mut t = [events::now() + us * 1000, 0];
    call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, smp::cpu() as u64, t.as_mut_ptr() as u64])
        .must("set_singleshot_timer");
}

static JOB: AtomicU64 = AtomicU64::new(0);
static WORKER: AtomicU32 = AtomicU32::new(0);
/// Set while the other vCPU is to go on with what it does over and over.
pub static GO: AtomicU32 = AtomicU32::new(0);

/// Runs `job` on vCPU 1; a machine without one ends the test as skipped.
pub fn other(job: fn()) {
    if WORKER.swap(1, Ordering::SeqCst) == 0 {
        if smp::count() < 2 {
            report::skip("the domain has one vCPU");
        }
        smp::start(1, worker);
    }
    join();
    GO.store(1, Ordering::SeqCst);
    JOB.store(job as *const () as u64, Ordering::SeqCst);
}

/// Lets the other vCPU's job end and waits for that.
pub fn join() {
    GO.store(0, Ordering::SeqCst);
    while JOB.load(Ordering::SeqCst) != 0 {
        yield_cpu();
    }
}

/// Is the other vCPU's job to go on?
pub fn going() -> bool {
    GO.load(Ordering::SeqCst) != 0
}

/// Lets others run.
pub fn yield_cpu() {
    call(nr::SCHED_OP, &[pv_abi::sched::OP_YIELD, 0]);
}

fn worker() {
    loop {
        let job = JOB.load(Ordering::SeqCst);
        if job == 0 {
            yield_cpu();
            continue;
        }
        // SAFETY: `other` stored a `fn()`.
        let job: fn() = unsafe { core::mem::transmute(job as *const ()) };
        job();
        JOB.store(0, Ordering::SeqCst);
    }
}

/// A job for [`other`]: flushes and events for vCPU 0 all the time, so that whatever it does is interrupted.
pub fn noise() {
    let port = events::bind_ipi(0);
    while going() {
        paging::mmuext(mmu::EXT_TLB_FLUSH_ALL, 0, 0);
        events::send(port);
    }
    events::close(port);
}

/// Numbers that look random, the same in each run.
pub struct Dice(pub u64);

impl Dice {
    /// The next, below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
