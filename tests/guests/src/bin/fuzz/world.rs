//! What the steps work with: pages that may become anything, pages nobody may touch, and each vCPU's own scratch.

use crate::words::{ADDRESSES, Rng};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guests::mem::{self, Racy};
use guests::paging::{KERNEL_RW, NX, P, RW, US};
use guests::prelude::*;
use guests::start::MAX_CPUS;
use pv_abi::grant as g;

/// Pages that may become tables, be mapped, granted, given back.
pub const VICTIMS: usize = 48;
/// Pages that are given to nobody.
const CANARIES: usize = 4;
/// Pages of a vCPU's scratch for arguments, enough for all calls of a list; the one behind is not mapped.
const SCRATCH: usize = 24;
/// The first word of each scratch.
const MARK: u64 = 0x6b72_616d_6b72_616d;
/// The longest list of words.
const MOST_WORDS: u64 = 128;
/// Slots of the L4s that the steps may fill.
pub const L4_SLOTS: core::ops::Range<usize> = 300..304;

/// Shared by all vCPUs.
pub struct World {
    /// This domain.
    pub own_id: u16,
    /// Whether it is dom0.
    pub dom0: bool,
    /// Whether to say each step.
    pub trace: bool,
    /// Whether user code may be bytes of chance.
    pub bytes: bool,
    /// vCPUs that work.
    pub cpus: usize,
    /// Addresses of the victims.
    pub va: [u64; VICTIMS],
    /// Machine addresses of the L1 entries of those.
    pub slot: [u64; VICTIMS],
    /// The frame each had last.
    pub mfn: [AtomicU64; VICTIMS],
    canaries: [u64; CANARIES],
    /// The grant table.
    pub grants: u64,
    /// Its frame.
    pub grant_frame: u64,
    /// Each vCPU's scratch.
    scratch: [u64; MAX_CPUS],
    /// The machine addresses of their first pages.
    scratch_at: [u64; MAX_CPUS],
    /// The addresses of the entries that map those.
    scratch_slot: [u64; MAX_CPUS],
    /// Each vCPU's words that others change, and areas the hypervisor writes to when it likes: nothing else ever stands
    /// there, since a change may come late.
    loose: [u64; MAX_CPUS],
    /// A copy of the kernel's L4 for each vCPU to load.
    pub copies: [u64; MAX_CPUS],
    /// The addresses of all L4s that vCPUs run with in kernel mode.
    bases: [u64; MAX_CPUS + 1],
    /// Each vCPU's code and stack page: kernel address.
    pub code: [u64; MAX_CPUS],
    /// Stack for traps from user mode.
    pub kernel_stack: [u64; MAX_CPUS],
    /// The user L4.
    pub user_l4: u64,
    /// Frames of this kernel that only read-only uses may name: its code, its tables.
    pub kernel_frames: [u64; 6],
    /// All frames that were this kernel's at the start, in order.
    own: &'static [u64],
    /// The first frame that is no RAM.
    pub ram_end: u64,
    /// Handles of mapped grants, the last ones.
    pub handles: [AtomicU32; 16],
    /// A word each vCPU passes to a hypercall right now, for others to change; 0 = none.
    pub hot: [AtomicU64; MAX_CPUS],
}

static WORLD: Racy<Option<World>> = Racy::new(None);

impl World {
    /// The one there is.
    pub fn get() -> &'static World {
        // SAFETY: set by `init` before anybody asks, never changed as a whole.
        match unsafe { &*WORLD.get() } {
            Some(w) => w,
            None => report::error(f!("no world yet")),
        }
    }

    /// Whether `mfn` is this kernel's own or shared with it, and none of those that may be lost.
    pub fn mine(&self, mfn: u64) -> bool {
        if mfn == self.grant_frame || mfn == guests::start::start_info().shared_info >> 12 {
            return true;
        }
        if mfn < 0x100 || mfn >= self.ram_end {
            return false;
        }
        // Not by the machine-to-phys table: a page that went with a victim beside it stands there no more, and is still used.
        self.own.binary_search(&mfn).is_ok() && !self.mfn.iter().any(|v| v.load(Ordering::Relaxed) == mfn)
    }

    /// Whether `word` may name memory this kernel needs, whatever it is taken for: a frame, half of one's word, a machine
    /// address, or an address to map something else at.
    fn precious(&self, word: u64) -> bool {
        let low = word & 0xffff_ffff;
        let address = word >= 0xffff_ffff_8000_0000 && !self.va.contains(&(word & !0xfff));
        address || [word, low, word >> 32, word >> 12 & 0xff_ffff_ffff].iter().any(|f| self.mine(*f))
    }

    /// No step fills these slots (0 is user mode's, 1 has the list of frames) of the L4s: whoever did is the hypervisor, or has got at a page it may not change.
    pub fn look_at_bases(&self) {
        for base in self.bases {
            if let Some(slot) = (2..256).find(|i| Page::at(base).read(*i) != 0) {
                report::error(f!("slot {slot} of an L4 holds {:#x}", Page::at(base).read(slot)));
            }
        }
    }

    /// Whether the canaries still hold what they held.
    pub fn canaries_live(&self) -> bool {
        self.canaries.iter().enumerate().all(|(n, va)| (0..512).all(|i| Page::at(*va).read(i) == canary(n, i)))
    }

    /// Ends the test if they do not, with where and what.
    pub fn look_at_canaries(&self) {
        for (n, va) in self.canaries.iter().enumerate() {
            let page = Page::at(*va);
            let wrong = |i: &usize| page.read(*i) != canary(n, *i);
            if let Some(i) = (0..512).find(wrong) {
                let all = (0..512).filter(wrong).count();
                report::error(f!("canary {n}: {all} words, {i} is {:#x} not {:#x}", page.read(i), canary(n, i)));
            }
        }
    }
}

fn canary(page: usize, i: usize) -> u64 {
    Rng::new((page * 512 + i) as u64).next()
}

/// Where vCPU `cpu` has its code in user mode.
pub fn user_code(cpu: usize) -> u64 {
    user::CODE_VA + 0x2000 + cpu as u64 * 0x1000
}

/// Where its stack is.
pub fn user_stack(cpu: usize) -> u64 {
    user::STACK_VA + 0x2000 + cpu as u64 * 0x1000
}

fn own_id() -> u16 {
    // Only for itself may a domain ask, if it is not dom0, which is 0.
    (0..0x400u16)
        .find(|d| {
            let mut q = [g::QuerySize { dom: *d, ..g::QuerySize::default() }];
            call(nr::GRANT_TABLE_OP, &[g::OP_QUERY_SIZE, q.as_mut_ptr() as u64, 1]);
            q[0].status == g::ST_OKAY
        })
        .unwrap_or(0x7ff0)
}

/// Domains of up to 256 MiB.
const OWN_MOST: usize = 0x1_0000;
static OWN: Racy<[u64; OWN_MOST]> = Racy::new([0; OWN_MOST]);

/// All frames of this domain, in order.
fn own_frames() -> &'static [u64] {
    let n = (guests::start::start_info().nr_pages as usize).min(OWN_MOST);
    // SAFETY: before any other vCPU runs.
    let own = unsafe { &mut (&mut *OWN.get())[..n] };
    own.iter_mut().zip(0..).for_each(|(mfn, pfn)| *mfn = mem::mfn_of(pfn));
    own.sort_unstable();
    own
}

/// Makes the world for `cpus` vCPUs.
pub fn init(cpus: usize, trace: bool, bytes: bool) {
    let dom0 = guests::start::start_info().flags & 1 != 0;
    let user = user::init();
    let mut va = [0; VICTIMS];
    let mut slot = [0; VICTIMS];
    let mfn = [const { AtomicU64::new(0) }; VICTIMS];
    for i in 0..VICTIMS {
        let p = Page::alloc();
        (va[i], slot[i]) = (p.va, paging::slot(p.va, 1));
        mfn[i].store(p.mfn(), Ordering::Relaxed);
    }
    // What runs over the last one's end meets nothing.
    paging::update_va(Page::alloc().va, 0).must("unmap behind the victims");
    let canaries = core::array::from_fn(|n| {
        let p = Page::alloc();
        (0..512).for_each(|i| p.write(i, canary(n, i)));
        p.va
    });
    let grants = Page::alloc();
    let mut frames = [0u64; 1];
    let mut s = [g::SetupTable {
        dom: 0x7ff0,
        nr_frames: 1,
        frame_list: frames.as_mut_ptr() as u64,
        ..g::SetupTable::default()
    }];
    call(nr::GRANT_TABLE_OP, &[g::OP_SETUP_TABLE, s.as_mut_ptr() as u64, 1]).must("setup_table");
    paging::update_va(grants.va, (frames[0] * PAGE_SIZE) | KERNEL_RW).must("map the grant table");
    let mut scratch = [0; MAX_CPUS];
    let mut scratch_at = [0; MAX_CPUS];
    let mut scratch_slot = [0; MAX_CPUS];
    let mut loose = [0; MAX_CPUS];
    let mut copies = [0; MAX_CPUS];
    let mut bases = [paging::l4().va; MAX_CPUS + 1];
    let mut code = [0; MAX_CPUS];
    let mut kernel_stack = [0; MAX_CPUS];
    for cpu in 0..cpus {
        let pages: [Page; SCRATCH + 1] = core::array::from_fn(|_| Page::alloc());
        scratch[cpu] = pages[0].va;
        scratch_at[cpu] = pages[0].ma();
        scratch_slot[cpu] = paging::slot_va(pages[0].va, 1);
        pages[0].write(0, MARK);
        paging::update_va(pages[SCRATCH].va, 0).must("unmap behind the scratch");
        loose[cpu] = Page::alloc().va;
        let copy = Page::alloc();
        (0..512).for_each(|i| copy.write(i, paging::l4().read(i)));
        paging::make_ro(copy).must("copy of the L4");
        paging::pin(copy, 4).must("pin the copy");
        copies[cpu] = copy.mfn();
        bases[cpu] = copy.va;
        let (c, st) = (Page::alloc(), Page::alloc());
        paging::map(user_code(cpu), c.ma() | KERNEL_RW | US);
        paging::map(user_stack(cpu), st.ma() | KERNEL_RW | US | NX);
        code[cpu] = c.va;
        Page::alloc();
        kernel_stack[cpu] = Page::alloc().va + PAGE_SIZE;
    }
    let here = own_id as *const () as u64;
    let kernel_frames = [
        Page::at(here).mfn(),
        paging::l4().mfn(),
        paging::table(here, 3).map_or(0, Page::mfn),
        paging::table(here, 2).map_or(0, Page::mfn),
        paging::table(here, 1).map_or(0, Page::mfn),
        Page::at(guests::smp::percpu(0)).mfn(),
    ];
    let ram_end = call(nr::MEMORY_OP, &[pv_abi::memory::OP_MAXIMUM_RAM_PAGE, 0]).0.max(0x1000) as u64;
    // The last part of the table may be devices' below 4 GiB.
    let ram_end = ram_end.min(0xa_0000);
    let world = World {
        own_id: own_id(),
        dom0,
        trace,
        bytes,
        cpus,
        va,
        slot,
        mfn,
        canaries,
        grants: grants.va,
        grant_frame: frames[0],
        scratch,
        scratch_at,
        scratch_slot,
        loose,
        copies,
        bases,
        code,
        kernel_stack,
        user_l4: user.l4.mfn(),
        kernel_frames,
        own: own_frames(),
        ram_end,
        handles: [const { AtomicU32::new(0) }; 16],
        hot: [const { AtomicU64::new(0) }; MAX_CPUS],
    };
    // SAFETY: before any other vCPU runs.
    unsafe { *WORLD.get() = Some(world) };
}

/// Sends every vCPU an NMI: user code that loops ends by it.
pub fn nudge(cpus: usize) {
    for cpu in 1..cpus {
        call(nr::VCPU_OP, &[pv_abi::vcpu::OP_SEND_NMI, cpu as u64, 0]);
    }
}

/// Gives up what a quiet end needs.
pub fn calm_down() {
    events::mask().store(1, Ordering::SeqCst);
    for i in 0..8u64 {
        call(nr::SET_DEBUGREG, &[i, 0]);
    }
}

/// One vCPU's view.
pub struct Worker {
    /// Which.
    pub cpu: usize,
    /// Its numbers.
    pub rng: Rng,
    /// The world.
    pub w: &'static World,
    used: u64,
    end_used: bool,
    /// Its handlers may have changed.
    pub dirty: bool,
}

impl Worker {
    /// Of vCPU `cpu`.
    pub fn new(cpu: usize, rng: Rng) -> Worker {
        Worker { cpu, rng, w: World::get(), used: 0, end_used: false, dirty: false }
    }

    /// Looks whether the scratch still is this vCPU's page, as it left it.
    pub fn look_at_scratch(&self) {
        let va = self.w.scratch[self.cpu];
        let word = mem::read64(va);
        if word != MARK {
            report::error(f!(
                "scratch: {word:#x} {:#x} .. {:#x}, entry {:#x}, was at {:#x}",
                mem::read64(va + 8),
                mem::read64(va + 4088),
                mem::read64(self.w.scratch_slot[self.cpu]),
                self.w.scratch_at[self.cpu]
            ));
        }
    }

    /// Forgets the scratch of the step before.
    pub fn fresh(&mut self) {
        self.used = 8 + self.rng.below(64) * 8;
        self.end_used = false;
    }

    /// `n` bytes of scratch that nothing else of this step has: what one call of a list puts out is no other's
    /// argument. Where there are no more, a step ends by a page fault.
    pub fn room(&mut self, n: u64) -> u64 {
        let at = self.w.scratch[self.cpu] + self.used;
        self.used += n.next_multiple_of(8);
        if at + n > self.scratch_end() - MOST_WORDS * 8 { self.scratch_end() } else { at }
    }

    /// Words in scratch: their address, or now and then one that leads nowhere.
    pub fn put(&mut self, words: &[u64]) -> u64 {
        let at = if self.rng.one_in(40) { self.put_last(words) } else { self.put_words(words) };
        if self.rng.one_in(25) { self.bad_pointer() } else { at }
    }

    /// As [`Worker::put`], for operations that hurt nobody whatever they are given: the address may be off, or a
    /// victim's, and other vCPUs may change the words meanwhile.
    pub fn put_loose(&mut self, words: &[u64]) -> u64 {
        match self.rng.below(30) {
            0 => self.put(words).wrapping_add(self.rng.below(64)),
            1 => self.w.va[self.victim()] + self.rng.below(4096),
            _ => self.put_hot(words, usize::MAX),
        }
    }

    /// As [`Worker::put`], and other vCPUs may change the words meanwhile, but for word `keep`: it says what is lost.
    pub fn put_hot(&mut self, words: &[u64], keep: usize) -> u64 {
        if !self.rng.one_in(3) {
            return self.put(words);
        }
        let at = self.w.loose[self.cpu] + self.rng.below(64) * 8;
        words.iter().zip(0..).for_each(|(w, i)| mem::write64(at + i * 8, *w));
        let i = self.rng.below(words.len() as u64);
        if i as usize != keep {
            self.w.hot[self.cpu].store(at + i * 8, Ordering::Relaxed);
        }
        at
    }

    /// Where the hypervisor may write when it likes; at times over a page's end, where nothing may be written.
    pub fn area(&mut self) -> u64 {
        self.w.loose[self.cpu] + 2048 + self.rng.below(2048)
    }

    /// Words in scratch, and nothing else.
    pub fn put_words(&mut self, words: &[u64]) -> u64 {
        let at = self.room(words.len() as u64 * 8);
        words.iter().zip(0..).for_each(|(w, i)| mem::write64(at + i * 8, *w));
        at
    }

    /// Words at the very end of the scratch: a longer list ends in a fault. Only once in a step; then none at all.
    pub fn put_last(&mut self, words: &[u64]) -> u64 {
        if core::mem::replace(&mut self.end_used, true) {
            return self.scratch_end();
        }
        let at = self.scratch_end() - words.len() as u64 * 8;
        words.iter().zip(0..).for_each(|(w, i)| mem::write64(at + i * 8, *w));
        at
    }

    fn scratch_end(&self) -> u64 {
        self.w.scratch[self.cpu] + SCRATCH as u64 * PAGE_SIZE
    }

    /// Whether an address is in the scratch.
    pub fn in_scratch(&self, at: u64) -> bool {
        at >= self.w.scratch[self.cpu] && at < self.scratch_end() - 64
    }

    /// A pointer for answers of `n` bytes.
    pub fn out(&mut self, n: u64) -> u64 {
        match self.rng.below(20) {
            0 => self.bad_pointer(),
            1 => self.w.va[self.victim()] + self.rng.below(4096),
            _ => self.room(n),
        }
    }

    /// A pointer to nothing that could be taken for arguments.
    pub fn bad_pointer(&mut self) -> u64 {
        match self.rng.below(6) {
            0 => self.scratch_end() - self.rng.below(8),
            // A page table: mapped read-only.
            1 => guests::start::start_info().pt_base + self.rng.below(4096),
            2 => 0x1234_5000 + self.rng.below(4096),
            _ => self.rng.pick(&ADDRESSES),
        }
    }

    /// One of the victims.
    pub fn victim(&mut self) -> usize {
        self.rng.below(VICTIMS as u64) as usize
    }

    /// A frame whose contents may be lost: a victim's, somebody else's, the hypervisor's, or none at all.
    pub fn frame(&mut self) -> u64 {
        let v = self.victim();
        let f = match self.rng.below(16) {
            0 => self.rng.below(self.w.ram_end),
            1 => 0x100 + self.rng.below(0x800),
            2 => self.w.ram_end - 1 - self.rng.below(64),
            3 => self.rng.pick(&[0, 1, u64::MAX, u64::MAX >> 12, 1 << 40, self.w.ram_end, self.w.ram_end + 1, 0xfee00]),
            4 if self.rng.one_in(8) => self.rng.next(),
            _ => return self.w.mfn[v].load(Ordering::Relaxed),
        };
        // What a grant's 32 bits or an entry's 40 leave of it counts too.
        let mine = [f, f & 0xffff_ffff, f & 0xff_ffff_ffff].iter().any(|f| self.w.mine(*f));
        if mine { self.w.mfn[v].load(Ordering::Relaxed) } else { f }
    }

    /// A frame that is not written to: also this kernel's own, or its grant table, where chance could grant anything.
    pub fn any_frame(&mut self) -> u64 {
        match self.rng.below(16) {
            0 | 1 => self.rng.pick(&self.w.kernel_frames),
            2 => self.w.grant_frame,
            _ => self.frame(),
        }
    }

    /// Flags of an entry: usual ones, or any.
    pub fn flags(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => 0,
            1 | 2 => P | US,
            3 | 4 => P | RW | US,
            5 => KERNEL_RW | NX,
            6 => P | RW | US | 1 << self.rng.below(12),
            _ => (self.rng.next() & 0xfff) | self.rng.next() & 0xfff << 52 | u64::from(!self.rng.one_in(4)),
        }
    }

    /// An entry that stands where nobody's code goes through.
    pub fn entry(&mut self) -> u64 {
        let f = self.any_frame();
        let e = self.safe_entry(f);
        // Through a table that got into the live ones, a hypercall's result may come along here.
        if self.w.kernel_frames.contains(&f) || f == self.w.grant_frame { e & !RW } else { e }
    }

    /// An entry for a victim's own address: what stands behind it is read and written.
    pub fn victim_entry(&mut self) -> u64 {
        let f = self.frame();
        self.safe_entry(f)
    }

    fn safe_entry(&mut self, frame: u64) -> u64 {
        let e = frame << 12 & paging::FRAME | self.flags();
        // dom0 may map devices: not to write to them.
        let device = frame >= self.w.ram_end || (0x80..0x100).contains(&frame);
        if self.w.dom0 && device { e & !RW } else { e }
    }

    /// A domain: mostly oneself.
    pub fn domid(&mut self) -> u64 {
        let id = match self.rng.below(8) {
            0..=3 => 0x7ff0,
            4 => self.w.own_id,
            5 => self.rng.pick(&[0x7ff1, 0x7ff2, 0x7ff3, 0x7ff4, 0x7ffe, 0xffff]),
            6 => self.rng.below(5) as u16,
            _ => self.rng.number() as u16,
        };
        u64::from(id)
    }

    /// An argument word of a kind nobody said.
    pub fn word(&mut self) -> u64 {
        let word = match self.rng.below(8) {
            0 => self.frame(),
            1 => return self.out(256),
            2 => self.domid() | u64::from(self.rng.number32()) << 32,
            3 | 4 => u64::from(self.rng.number32()) | u64::from(self.rng.number32()) << 32,
            5 => self.rng.below(8),
            _ => self.rng.number(),
        };
        if self.w.precious(word) { 0 } else { word }
    }

    /// A word for a place where it may be anything, an address to map something at, too.
    pub fn loose_word(&mut self) -> u64 {
        let word = self.word();
        if self.w.precious(word) { self.w.va[self.victim()] } else { word }
    }
}
