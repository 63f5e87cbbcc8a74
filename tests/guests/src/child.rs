//! A second domain, built by a test kernel as a toolstack builds one: createdomain, max_vcpus, max_mem,
//! populate_physmap, foreign mappings, page tables, pin, setvcpucontext, unpause.
//!
//! It runs a function of the same binary: the image is copied to the same addresses (with fresh .bss), so the whole
//! runtime works there too. Child and parent share [`SHARED_PAGES`] pages of the child's: words for results and
//! signals, and the child's transcript, which the parent prints.
use crate::hypercall::{call, call_ref};
use crate::mem::{self, Page, Racy, VIRT_BASE};
use crate::paging::{self, KERNEL_RO, KERNEL_RW, P, TABLE};
use crate::ret::Ret;
use crate::{console, events, report, smp, start, trap};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::arch::vgcf;
use pv_abi::domctl::{self as dc, Domctl};
use pv_abi::hypercall::nr;
use pv_abi::ids::PAGE_SIZE;
use pv_abi::memory::{OP_POPULATE_PHYSMAP, Reservation};
use pv_abi::mmu::{self, MmuUpdate, MmuextOp};
use pv_abi::start_info::StartInfo;

/// Pages child and parent share.
pub const SHARED_PAGES: u64 = 4;
/// Words for the test's own use.
pub const WORDS: usize = 480;
/// Children there may be at a time.
const SLOTS: usize = 2;
/// Most pages a child is built with.
const MAX_PAGES: usize = 4096;
/// First page number of the image, as the linker script has it.
const FIRST_PFN: u64 = 0x100;
/// Where the parent looks at children's pages: one page to look through, then the shared areas.
const WINDOW: u64 = 0x2000_0000_0000;

/// Words of the shared area's first page.
const STATE: usize = 0;
const FAILURES: usize = 1;
const LOG_USED: usize = 2;
const FIRST_WORD: usize = 32;
const LOG_SIZE: u64 = (SHARED_PAGES - 1) * PAGE_SIZE;

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not begun.
    Built,
    /// It runs.
    Running,
    /// Its body returned.
    Finished,
    /// It could not go on (a trap nobody asked for, a panic).
    Error,
    /// The hypervisor stopped it.
    Crashed,
    /// It took too long.
    Stuck,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Built => "built",
            State::Running => "running",
            State::Finished => "finished",
            State::Error => "error",
            State::Crashed => "crashed",
            State::Stuck => "stuck",
        })
    }
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// vCPUs it may start.
    pub vcpus: u32,
    /// Pages mapped writable behind the image.
    pub pages: u64,
    /// Pages it may have more than it is built with.
    pub room: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Spec { vcpus: 1, pages: 0, room: 0 }
    }
}

/// A domain built here.
#[derive(Debug)]
pub struct Child {
    /// Its domain id.
    pub id: u16,
    slot: usize,
    /// Page numbers of its parts.
    parts: Parts,
}

/// Page numbers of a child's parts.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// start_info.
    pub info: u64,
    /// The shared area.
    pub shared: u64,
    /// The pages asked for.
    pub extra: u64,
    /// How many those are.
    pub extra_pages: u64,
    /// Page tables: L4, L3, L2, then the L1s.
    pub tables: u64,
    /// Behind the last page.
    pub end: u64,
}

static FRAMES: Racy<[[u64; MAX_PAGES]; SLOTS]> = Racy::new([[0; MAX_PAGES]; SLOTS]);
static USED: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// In a child: where its shared area is; 0 in a parent.
static INSIDE: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
unsafe extern "C" {
    static image_start: u8;
    static bss_start: u8;
    static image_end: u8;
}
/// On the host nothing runs, but everything links.
#[cfg(not(target_os = "none"))]
#[expect(non_upper_case_globals, reason = "the linker script's names")]
mod symbols {
    pub static image_start: u8 = 0;
    pub static bss_start: u8 = 0;
    pub static image_end: u8 = 0;
}
#[cfg(not(target_os = "none"))]
use symbols::*;

/// Where the kernel's image ends.
pub(crate) fn end_of_image() -> u64 {
    (&raw const image_end) as u64
}

/// domctl.
pub fn domctl(op: &mut Domctl) -> Ret {
    call(nr::DOMCTL, &[core::ptr::from_mut(op) as u64])
}

/// Sleeps for some microseconds of guest time, so that others get the CPU.
pub fn nap(us: u64) {
    let mut poll = pv_abi::sched::Poll { timeout: events::now() + us * 1000, ..Default::default() };
    call_ref(nr::SCHED_OP, pv_abi::sched::OP_POLL, &mut poll);
}

/// One mmu_update with frames of domain `dom`.
pub fn foreign_update(ptr: u64, val: u64, dom: u16) -> Ret {
    let list = [MmuUpdate { ptr, val }];
    let mut done = 0u32;
    call(nr::MMU_UPDATE, &[list.as_ptr() as u64, 1, core::ptr::from_mut(&mut done) as u64, u64::from(dom)])
}

/// Maps frame `mfn` of domain `dom` at `va`, which has an L1.
pub fn foreign_map(va: u64, mfn: u64, flags: u64, dom: u16) -> Ret {
    let r = foreign_update(paging::slot(va, 1), (mfn * PAGE_SIZE) | flags, dom);
    paging::mmuext(mmu::EXT_INVLPG_LOCAL, va, 0);
    r
}

/// One mmuext_op on the tables of domain `dom`.
pub fn foreign_mmuext(cmd: u32, arg1: u64, dom: u16) -> Ret {
    let op = MmuextOp { cmd, pad: 0, arg1, arg2: 0 };
    call(nr::MMUEXT_OP, &[core::ptr::from_ref(&op) as u64, 1, 0, u64::from(dom)])
}

/// The page the parent looks through.
fn window() -> Page {
    Page::at(WINDOW)
}

/// Runs `f` on frame `mfn` of domain `dom`.
pub fn look<R>(dom: u16, mfn: u64, f: impl FnOnce(Page) -> R) -> R {
    foreign_map(WINDOW, mfn, KERNEL_RW, dom).must("map a page of the child");
    let r = f(window());
    paging::update_va(WINDOW, 0).must("unmap a page of the child");
    r
}

impl Child {
    /// Builds a domain that will run `body`; it is paused.
    pub fn build(body: fn(), spec: Spec) -> Child {
        for page in 0..=SLOTS as u64 * SHARED_PAGES {
            if paging::table(WINDOW + page * PAGE_SIZE, 1).is_none() {
                paging::map(WINDOW + page * PAGE_SIZE, 0);
            }
        }
        let Some(slot) = USED.iter().position(|u| u.swap(1, Ordering::SeqCst) == 0) else {
            report::error(format_args!("too many children"));
        };
        let parts = Parts::plan(spec.pages);
        let child = Child { id: create(&spec, parts.end - FIRST_PFN), slot, parts };
        child.populate();
        child.fill();
        child.make_tables();
        foreign_mmuext(mmu::EXT_PIN_L4_TABLE, child.mfn(parts.tables), child.id).must("pin the child's L4");
        child.set_context(body);
        for i in 0..SHARED_PAGES {
            foreign_map(child.shared_va() + i * PAGE_SIZE, child.mfn(parts.shared + i), KERNEL_RW, child.id)
                .must("map the shared pages");
        }
        child
    }

    /// Builds and starts it.
    pub fn run(body: fn(), spec: Spec) -> Child {
        let c = Child::build(body, spec);
        c.unpause().must("unpause");
        c
    }

    /// The frame it was given for page `pfn`.
    pub fn mfn(&self, pfn: u64) -> u64 {
        // SAFETY: one vCPU builds children.
        let frames = unsafe { &*FRAMES.get() };
        frames[self.slot][(pfn - FIRST_PFN) as usize % MAX_PAGES]
    }

    /// Page numbers of its parts.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    fn shared_va(&self) -> u64 {
        WINDOW + (1 + self.slot as u64 * SHARED_PAGES) * PAGE_SIZE
    }

    fn shared(&self, i: usize) -> &'static AtomicU64 {
        events::word(self.shared_va() + 8 * i as u64)
    }

    /// Word `i` (below [`WORDS`]), which both sides may read and write.
    pub fn word(&self, i: usize) -> &'static AtomicU64 {
        self.shared(FIRST_WORD + i % WORDS)
    }

    fn populate(&self) {
        let n = self.parts.end - FIRST_PFN;
        // SAFETY: as in `mfn`.
        let list = unsafe { &mut (&mut *FRAMES.get())[self.slot] };
        for (i, f) in list.iter_mut().enumerate() {
            *f = FIRST_PFN + i as u64;
        }
        let mut r =
            Reservation { extent_start: list.as_ptr() as u64, nr_extents: n, domid: self.id, ..Reservation::default() };
        let got = call_ref(nr::MEMORY_OP, OP_POPULATE_PHYSMAP, &mut r);
        if got != Ret(n as i64) {
            report::error(format_args!("populate_physmap of {n} pages: {got}"));
        }
    }

    /// The image, start_info, and the list of frames.
    fn fill(&self) {
        let copy_end = (&raw const bss_start) as u64;
        let mut va = (&raw const image_start) as u64;
        while va < copy_end {
            let n = ((copy_end - va) / 8).min(512) as usize;
            look(self.id, self.mfn((va - VIRT_BASE) / PAGE_SIZE), |p| {
                (0..n).for_each(|i| p.write(i, mem::read64(va + 8 * i as u64)))
            });
            va += PAGE_SIZE;
        }
        // And .bss, which a hypervisor need not have cleared; the pool's pages are left for tests that look at them.
        let mut va = copy_end;
        while va < end_of_image() {
            let next = (va / PAGE_SIZE + 1) * PAGE_SIZE;
            if !mem::pool().contains(&va) {
                look(self.id, self.mfn((va - VIRT_BASE) / PAGE_SIZE), |p| {
                    (va % PAGE_SIZE / 8..512).for_each(|i| p.write(i as usize, 0))
                });
            }
            va = next;
        }
        let p = &self.parts;
        let mut info = StartInfo::default();
        info.magic[..14].copy_from_slice(b"xen-3.0-x86_64");
        info.nr_pages = p.end;
        info.shared_info = self.info().map_or(0, |i| i.shared_info_frame * PAGE_SIZE);
        info.pt_base = VIRT_BASE + p.tables * PAGE_SIZE;
        info.nr_pt_frames = p.end - p.tables;
        info.mfn_list = VIRT_BASE + (p.info + 1) * PAGE_SIZE;
        look(self.id, self.mfn(p.info), |to| {
            // SAFETY: a mapped page; the structure is smaller.
            unsafe { (to.va as *mut StartInfo).write_volatile(info) }
        });
        for page in p.info + 1..p.shared {
            let first = (page - p.info - 1) * 512;
            look(self.id, self.mfn(page), |to| {
                for i in 0..512 {
                    let pfn = first + i;
                    to.write(i as usize, if (FIRST_PFN..p.end).contains(&pfn) { self.mfn(pfn) } else { u64::MAX });
                }
            });
        }
    }

    fn make_tables(&self) {
        let p = &self.parts;
        let (l4, l3, l2) = (p.tables, p.tables + 1, p.tables + 2);
        let entry = |pfn: u64| (self.mfn(pfn) * PAGE_SIZE) | TABLE;
        look(self.id, self.mfn(l4), |t| t.write(paging::index(VIRT_BASE, 4), entry(l3)));
        look(self.id, self.mfn(l3), |t| t.write(paging::index(VIRT_BASE, 3), entry(l2)));
        let l1s = p.end - l2 - 1;
        look(self.id, self.mfn(l2), |t| (0..l1s).for_each(|i| t.write(i as usize, entry(l2 + 1 + i))));
        for n in 0..l1s {
            look(self.id, self.mfn(l2 + 1 + n), |t| {
                for i in 0..512 {
                    let pfn = n * 512 + i;
                    if (FIRST_PFN..p.end).contains(&pfn) {
                        let flags = if pfn >= p.tables { KERNEL_RO } else { KERNEL_RW };
                        t.write(i as usize, (self.mfn(pfn) * PAGE_SIZE) | flags);
                    }
                }
            });
        }
    }

    fn set_context(&self, body: fn()) {
        let c = smp::context(0, body);
        c.flags = vgcf::IN_KERNEL | vgcf::ONLINE;
        c.user_regs.rip = child_main as *const () as u64;
        c.user_regs.rdi = body as *const () as u64;
        c.user_regs.rsi = VIRT_BASE + self.parts.info * PAGE_SIZE;
        c.user_regs.rdx = VIRT_BASE + self.parts.shared * PAGE_SIZE;
        c.ctrlreg[3] = self.mfn(self.parts.tables) << 12;
        let arg = dc::Vcpucontext { vcpu: 0, pad: 0, ctxt: core::ptr::from_mut(c) as u64 };
        domctl(&mut Domctl::with(dc::OP_SETVCPUCONTEXT, self.id, &arg)).must("setvcpucontext");
    }

    /// What the hypervisor says about it; `None` when it is gone.
    pub fn info(&self) -> Option<dc::Getdomaininfo> {
        info_of(self.id)
    }

    /// unpausedomain.
    pub fn unpause(&self) -> Ret {
        domctl(&mut Domctl::new(dc::OP_UNPAUSEDOMAIN, self.id))
    }

    /// pausedomain: no vCPU of it runs any more.
    pub fn pause(&self) -> Ret {
        domctl(&mut Domctl::new(dc::OP_PAUSEDOMAIN, self.id))
    }

    /// max_mem, in pages.
    pub fn max_mem(&self, pages: u64) -> Ret {
        domctl(&mut Domctl::with(dc::OP_MAX_MEM, self.id, &dc::MaxMem { max_memkb: pages * 4 }))
    }

    /// How far it is, as its shared words and the hypervisor say.
    pub fn state(&self) -> State {
        match self.shared(STATE).load(Ordering::SeqCst) {
            2 => State::Finished,
            3 => State::Error,
            n => {
                match self.info() {
                    Some(i) if i.flags & (dc::dominf::SHUTDOWN | dc::dominf::DYING) == 0 => {
                        if n == 0 {
                            State::Built
                        } else {
                            State::Running
                        }
                    }
                    // It may have ended between the two looks.
                    _ => match self.shared(STATE).load(Ordering::SeqCst) {
                        2 => State::Finished,
                        3 => State::Error,
                        _ => State::Crashed,
                    },
                }
            }
        }
    }

    /// Waits until it ends, at most 30 s; its transcript is printed.
    pub fn wait(&self) -> State {
        let end = events::now() + 30_000_000_000;
        let mut printed = 0;
        let state = loop {
            let s = self.state();
            printed = self.print_log(printed);
            match s {
                State::Built | State::Running if events::now() < end => nap(500),
                State::Built | State::Running => break State::Stuck,
                s => break s,
            }
        };
        self.print_log(printed);
        let failures = self.shared(FAILURES).load(Ordering::SeqCst);
        if failures != 0 {
            report::fail(format_args!("{failures} checks in the child"));
        }
        state
    }

    /// Waits until word `i` is `value`; false when the child ends or nothing comes for 30 s.
    pub fn wait_word(&self, i: usize, value: u64) -> bool {
        let end = events::now() + 30_000_000_000;
        while self.word(i).load(Ordering::SeqCst) != value {
            if events::now() > end || !matches!(self.state(), State::Built | State::Running) {
                return self.word(i).load(Ordering::SeqCst) == value;
            }
            nap(200);
        }
        true
    }

    /// Prints whole lines of its transcript from byte `from`; gives where it stopped.
    fn print_log(&self, from: u64) -> u64 {
        let used = self.shared(LOG_USED).load(Ordering::SeqCst).min(LOG_SIZE);
        let base = self.shared_va() + PAGE_SIZE;
        let (mut printed, mut line, mut len) = (from, [0u8; 256], 0);
        for at in from..used {
            // SAFETY: mapped shared memory; the child is done with bytes below `used`.
            let b = unsafe { ((base + at) as *const u8).read_volatile() };
            if b == b'\n' {
                console::line(format_args!("{}", core::str::from_utf8(&line[..len]).unwrap_or("?")));
                len = 0;
                printed = at + 1;
            } else if len < line.len() {
                line[len] = b;
                len += 1;
            }
        }
        printed
    }

    /// Takes the parent's mappings of it away.
    pub fn unshare(&self) {
        for i in 0..SHARED_PAGES {
            paging::update_va(self.shared_va() + i * PAGE_SIZE, 0).must("unmap the shared pages");
        }
    }

    /// destroydomain, without touching what is mapped.
    pub fn destroy_only(&self) -> Ret {
        domctl(&mut Domctl::new(dc::OP_DESTROYDOMAIN, self.id))
    }

    /// Unmaps and destroys it; waits until its id is free.
    pub fn destroy(self) -> Ret {
        self.unshare();
        let r = self.destroy_only();
        let gone = events::wait_ms(10_000, || {
            nap(100);
            self.info().is_none()
        });
        if !gone {
            report::fail(format_args!("a destroyed domain does not go away"));
        }
        self.forget();
        r
    }

    /// The slot may be used again; for tests that destroy in their own way.
    pub fn forget(self) {
        USED[self.slot].store(0, Ordering::SeqCst);
    }
}

impl Parts {
    fn plan(extra_pages: u64) -> Parts {
        let info = (end_of_image() - VIRT_BASE).div_ceil(PAGE_SIZE);
        // Tables and the list of frames are counted generously: both are small.
        let most = info + 1 + SHARED_PAGES + extra_pages + 32;
        let shared = info + 1 + most.div_ceil(512);
        let extra = shared + SHARED_PAGES;
        let tables = extra + extra_pages;
        let end = tables + 3 + (tables + 16).div_ceil(512);
        if end - FIRST_PFN > MAX_PAGES as u64 {
            report::error(format_args!("a child of {end} pages is too large"));
        }
        Parts { info, shared, extra, extra_pages, tables, end }
    }
}

fn create(spec: &Spec, pages: u64) -> u16 {
    let c = dc::Createdomain {
        max_vcpus: spec.vcpus,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        ..Default::default()
    };
    let mut op = Domctl::with(dc::OP_CREATEDOMAIN, 0, &c);
    domctl(&mut op).must("createdomain");
    let id = op.domain;
    domctl(&mut Domctl::with(dc::OP_MAX_VCPUS, id, &dc::MaxVcpus { max: spec.vcpus })).must("max_vcpus");
    domctl(&mut Domctl::with(dc::OP_MAX_MEM, id, &dc::MaxMem { max_memkb: (pages + spec.room) * 4 })).must("max_mem");
    id
}

/// What the hypervisor says about domain `id`; `None` when there is none.
pub fn info_of(id: u16) -> Option<dc::Getdomaininfo> {
    let mut op = Domctl::new(dc::OP_GETDOMAININFO, id);
    if domctl(&mut op).0 < 0 || op.domain != id {
        return None;
    }
    op.payload()
}

/// Pages nobody uses, as sysctl physinfo tells.
pub fn free_pages() -> u64 {
    let mut op = pv_abi::sysctl::Sysctl {
        cmd: pv_abi::sysctl::OP_PHYSINFO,
        interface_version: pv_abi::sysctl::INTERFACE_VERSION,
        ..Default::default()
    };
    call(nr::SYSCTL, &[core::ptr::from_mut(&mut op) as u64]).must("physinfo");
    let p: Option<pv_abi::sysctl::Physinfo> = op.payload();
    p.map_or(0, |p| p.free_pages + p.scrub_pages)
}

/// Whether as many pages are free as `before`, at the latest in two seconds: a hypervisor may take its time.
pub fn all_back(before: u64) -> bool {
    events::wait_ms(2000, || {
        nap(1000);
        free_pages() >= before
    })
}

extern "C" fn child_main(body: u64, info: u64, shared: u64) -> ! {
    start::set_start_info(info);
    INSIDE.store(shared, Ordering::SeqCst);
    smp::init_first();
    trap::init();
    events::init();
    events::word(shared + 8 * STATE as u64).store(1, Ordering::SeqCst);
    // SAFETY: the parent passes a `fn()` of this same image.
    let body: fn() = unsafe { core::mem::transmute(body as *const ()) };
    body();
    report::finish()
}

/// What the code of a child calls.
pub mod inside {
    use super::*;

    /// Is this a child?
    pub fn is() -> bool {
        INSIDE.load(Ordering::Relaxed) != 0
    }

    /// Word `i` (below [`WORDS`]) of the shared area.
    pub fn word(i: usize) -> &'static AtomicU64 {
        events::word(INSIDE.load(Ordering::Relaxed) + 8 * (FIRST_WORD + i % WORDS) as u64)
    }

    /// Waits until the parent sets word `i` to `value`.
    pub fn wait_word(i: usize, value: u64) {
        while word(i).load(Ordering::SeqCst) != value {
            nap(200);
        }
    }

    /// The first of the pages the parent asked for: page number; they are mapped at [`VIRT_BASE`] + PFN * 4 KiB.
    pub fn extra_pfn() -> u64 {
        (INSIDE.load(Ordering::Relaxed) - VIRT_BASE) / PAGE_SIZE + SHARED_PAGES
    }

    /// Appends to the transcript; what does not fit is lost.
    pub(crate) fn log(bytes: &[u8]) {
        let base = INSIDE.load(Ordering::Relaxed);
        let used = events::word(base + 8 * LOG_USED as u64);
        let at = used.load(Ordering::SeqCst);
        if at + bytes.len() as u64 > LOG_SIZE {
            return;
        }
        for (i, b) in bytes.iter().enumerate() {
            // SAFETY: within the shared area, which is mapped.
            unsafe { ((base + PAGE_SIZE + at + i as u64) as *mut u8).write_volatile(*b) };
        }
        used.store(at + bytes.len() as u64, Ordering::SeqCst);
    }

    /// The child ends.
    pub(crate) fn end(failures: u32, error: bool) -> ! {
        let base = INSIDE.load(Ordering::Relaxed);
        events::word(base + 8 * FAILURES as u64).store(u64::from(failures), Ordering::SeqCst);
        events::word(base + 8 * STATE as u64).store(if error { 3 } else { 2 }, Ordering::SeqCst);
        report::shutdown(0)
    }
}

const _: () = assert!(P == 1 && FIRST_WORD + WORDS <= 512);
