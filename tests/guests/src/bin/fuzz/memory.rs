//! Page tables, reservations and grants: what changes frames.

use crate::calls::Call;
use crate::counts;
use crate::world::{L4_SLOTS, VICTIMS, Worker};
use core::sync::atomic::Ordering;
use guests::mem::{read64, write64};
use guests::paging::{KERNEL_RO, KERNEL_RW};
use guests::prelude::*;
use pv_abi::grant as g;
use pv_abi::memory as m;
use pv_abi::mmu;

impl Worker {
    /// Where an update goes: into a victim, a victim's own entry, a free slot of an L4, or somewhere that must be refused.
    fn place(&mut self) -> (u64, u64) {
        match self.rng.below(10) {
            0..=4 => {
                let mfn = if self.rng.one_in(12) { self.frame() } else { self.victim_frame() };
                let index = self.index();
                (mfn << 12 | index << 3, self.entry())
            }
            5 | 6 => {
                let v = self.victim();
                (self.w.slot[v], self.victim_entry())
            }
            7 => {
                let l4 = if self.rng.one_in(2) { self.w.kernel_frames[1] } else { self.w.copies[self.cpu] };
                let slot = L4_SLOTS.start as u64 + self.rng.below(L4_SLOTS.len() as u64);
                (l4 << 12 | slot << 3, self.entry())
            }
            8 => {
                let slot = 256 + self.rng.below(16);
                (self.w.kernel_frames[1] << 12 | slot << 3, self.entry())
            }
            _ => (self.rng.number() & !0xf_ffff_f000 | self.frame() << 12, self.entry()),
        }
    }

    fn victim_frame(&mut self) -> u64 {
        let v = self.victim();
        self.w.mfn[v].load(Ordering::Relaxed)
    }

    fn index(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.below(512),
            1 => self.rng.pick(&[0, 255, 256, 257, 258, 260, 271, 272, 511]),
            _ => self.rng.below(4),
        }
    }

    /// mmu_update.
    pub fn mmu_update(&mut self) -> Call {
        let most = if self.rng.one_in(10) { 60 } else { 5 };
        let n = 1 + self.rng.below(most);
        let mut words = [0u64; 128];
        for i in 0..n as usize {
            let (ptr, val) = self.place();
            let cmd = match self.rng.below(10) {
                0 => mmu::PT_UPDATE_PRESERVE_AD,
                1 => mmu::PT_UPDATE_NO_TRANSLATE,
                2 if self.rng.one_in(4) => self.rng.below(8),
                _ => mmu::NORMAL_PT_UPDATE,
            };
            // MACHPHYS renumbers a page: only victims', the kernel finds its tables through that table.
            (words[2 * i], words[2 * i + 1]) = if self.rng.one_in(12) || cmd == mmu::MACHPHYS_UPDATE {
                let f = self.frame();
                (f << 12 | mmu::MACHPHYS_UPDATE, self.rng.number())
            } else {
                (ptr & !7 | cmd, val)
            };
        }
        let list = self.put(&words[..2 * n as usize]);
        let done = self.out(8);
        let count = if self.rng.one_in(30) { self.rng.number() & 0xff } else { n };
        let domain = if self.rng.one_in(8) { self.domid() | self.domid() << 16 } else { 0x7ff0 };
        // More than was written is whatever stands behind it: numbers this kernel may not survive.
        let count = count.min(n);
        Call::new(nr::MMU_UPDATE, 0, [list, count, done, domain, 0])
    }

    /// update_va_mapping.
    pub fn update_va(&mut self) -> Call {
        let (va, val) = match self.rng.below(8) {
            0 => (self.rng.pick(&crate::words::ADDRESSES[5..21]), self.entry()),
            1 => (0x1_0000_0000 * (2 + self.rng.below(120)), self.entry()),
            _ => {
                let v = self.victim();
                (self.w.va[v] + if self.rng.one_in(8) { self.rng.below(4096) } else { 0 }, self.victim_entry())
            }
        };
        let flags = match self.rng.below(5) {
            0 => 0,
            1 => self.rng.below(8),
            2 => self.out(8) & !7 | self.rng.below(4),
            _ => mmu::UVMF_INVLPG,
        };
        if self.rng.one_in(10) {
            let d = self.domid();
            return Call::new(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, 0, [va, val, flags, d, 0]);
        }
        Call::new(nr::UPDATE_VA_MAPPING, 0, [va, val, flags, 0, 0])
    }

    /// mmuext_op.
    pub fn mmuext(&mut self) -> Call {
        let n = 1 + self.rng.below(3);
        let mut words = [0u64; 9];
        let mut last = 0;
        for i in 0..n as usize {
            let cmd = match self.rng.below(3) {
                0 => self.rng.below(22),
                _ => self.rng.below(5),
            };
            last = cmd;
            let (a, b) = match cmd as u32 {
                mmu::EXT_NEW_BASEPTR => (self.base(), 0),
                mmu::EXT_INVLPG_LOCAL | mmu::EXT_INVLPG_MULTI | mmu::EXT_INVLPG_ALL => {
                    (self.rng.number(), self.out(16))
                }
                mmu::EXT_TLB_FLUSH_MULTI => (0, self.out(16)),
                mmu::EXT_SET_LDT => {
                    let v = self.victim();
                    let base = if self.rng.one_in(3) { self.rng.number() } else { self.w.va[v] };
                    (base, self.rng.pick(&[0, 1, 512, 513, 8191, 8192, 8193, u64::MAX]))
                }
                // Frame 0 would be no base at all.
                mmu::EXT_NEW_USER_BASEPTR if self.rng.one_in(2) => (self.w.user_l4, 0),
                mmu::EXT_NEW_USER_BASEPTR => (self.frame().max(1), 0),
                mmu::EXT_COPY_PAGE => (self.frame(), self.any_frame()),
                mmu::EXT_PIN_L1_TABLE..=mmu::EXT_PIN_L4_TABLE => (self.any_frame(), 0),
                _ => (self.frame(), self.word()),
            };
            (words[3 * i], words[3 * i + 1], words[3 * i + 2]) = (cmd, a, b);
        }
        let list = self.put(&words[..3 * n as usize]);
        let done = self.out(8);
        let domain = if self.rng.one_in(10) { self.domid() } else { 0x7ff0 };
        Call::new(nr::MMUEXT_OP, last, [list, n, done, domain, 0])
    }

    /// A base this kernel can go on with, or one that must be refused.
    pub fn base(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.w.kernel_frames[1],
            1 => self.w.copies[self.cpu],
            2 => self.rng.pick(&[0, u64::MAX, 1 << 40, self.w.ram_end + 5]),
            // Never a frame of chance: it could have become this domain's, and a table.
            _ => self.rng.pick(&[self.w.kernel_frames[0], self.w.kernel_frames[4], self.w.grant_frame, 0x100]),
        }
    }

    /// A chain of tables out of victims: what random entries alone would rarely make.
    pub fn build(&mut self) {
        let level = 1 + self.rng.below(4) as u32;
        let mut v = self.victim();
        let mut below = self.victim_frame() << 12 | KERNEL_RW;
        for l in 1..=level {
            let mfn = self.w.mfn[v].load(Ordering::Relaxed);
            if paging::update_va(self.w.va[v], mfn << 12 | KERNEL_RW) != OK {
                return;
            }
            for _ in 0..1 + self.rng.below(3) {
                let index = self.index();
                Page::at(self.w.va[v]).write(index as usize, below);
            }
            if self.rng.one_in(6) {
                let (index, e) = (self.index(), self.entry());
                Page::at(self.w.va[v]).write(index as usize, e);
            }
            paging::update_va(self.w.va[v], mfn << 12 | KERNEL_RO);
            if l == level || self.rng.one_in(3) {
                let cmd = mmu::EXT_PIN_L1_TABLE + l - 1;
                let r = paging::mmuext(cmd, mfn, 0);
                counts::note(nr::MMUEXT_OP as u64, u64::from(cmd), r == OK);
            }
            below = mfn << 12 | paging::TABLE;
            v = (v + 1) % VICTIMS;
        }
        // Into the live tables, and out again some other time.
        if level == 3 && self.rng.one_in(2) {
            let slot = L4_SLOTS.start as u64 + self.rng.below(L4_SLOTS.len() as u64);
            paging::mmu_update(self.w.kernel_frames[1] << 12 | slot << 3, below);
        }
    }

    /// Makes some victims plain data again, so that not all are stuck in old uses.
    pub fn undo(&mut self) {
        for _ in 0..8 {
            let v = self.victim();
            let mfn = self.w.mfn[v].load(Ordering::Relaxed);
            paging::mmuext(mmu::EXT_UNPIN_TABLE, mfn, 0);
            paging::update_va(self.w.va[v], mfn << 12 | KERNEL_RW);
        }
        for slot in L4_SLOTS {
            if self.rng.one_in(2) {
                paging::mmu_update(self.w.kernel_frames[1] << 12 | (slot as u64) << 3, 0);
                paging::mmu_update(self.w.copies[self.cpu] << 12 | (slot as u64) << 3, 0);
            }
        }
    }

    /// A new page in the place of a victim that was given away.
    pub fn refill(&mut self) {
        let v = self.victim();
        let mut pfn = Page::at(self.w.va[v]).pfn();
        let mut r = m::Reservation {
            extent_start: (&raw mut pfn) as u64,
            nr_extents: 1,
            domid: 0x7ff0,
            ..m::Reservation::default()
        };
        let op = if self.rng.one_in(4) { m::OP_INCREASE_RESERVATION } else { m::OP_POPULATE_PHYSMAP };
        let got = call(nr::MEMORY_OP, &[op, (&raw mut r) as u64]);
        counts::note(nr::MEMORY_OP as u64, op, got.0 == 1);
        if got.0 == 1 {
            let old = self.w.mfn[v].swap(pfn, Ordering::Relaxed);
            paging::update_va(self.w.va[v], pfn << 12 | KERNEL_RW);
            // The old one, if it still is this domain's, goes: the domain would grow to its limit.
            let mut list = old;
            r.extent_start = (&raw mut list) as u64;
            let gone = call(nr::MEMORY_OP, &[m::OP_DECREASE_RESERVATION, (&raw mut r) as u64]);
            counts::note(nr::MEMORY_OP as u64, m::OP_DECREASE_RESERVATION, gone.0 == 1);
        }
    }

    /// memory_op.
    pub fn memory_op(&mut self) -> Call {
        let op = if self.rng.one_in(4) { self.rng.below(64) } else { self.rng.pick(&[0, 1, 6, 9, 10, 11, 12, 28]) };
        let domain = self.domid();
        let order = if self.rng.one_in(4) { self.rng.number() as u32 } else { self.rng.below(3) as u32 };
        let n = self.rng.below(4);
        let list: [u64; 4] = core::array::from_fn(|_| self.frame());
        let arg = match op {
            m::OP_INCREASE_RESERVATION | m::OP_DECREASE_RESERVATION | m::OP_POPULATE_PHYSMAP => {
                let at = self.put(&list);
                // The domain must not eat up all there is: order and count stay small where it takes.
                let order = if op == m::OP_DECREASE_RESERVATION { order } else { order & 1 };
                let flags = if self.rng.one_in(3) { self.rng.number32() } else { 0 };
                self.put(&[at, n, u64::from(order) | u64::from(flags) << 32, domain])
            }
            m::OP_EXCHANGE => {
                let (i, o) = (self.put(&list), self.put(&list));
                let (oi, oo) = self.rng.pick(&[(0, 0), (0, 1), (1, 0), (0, 2), (2, 2), (0, 31), (40, 0)]);
                let ni = 1u64 << self.rng.below(3);
                let no = if self.rng.one_in(4) { n } else { ni << oi >> oo };
                let bits = if self.rng.one_in(3) { self.rng.below(64) } else { 0 };
                let done = if self.rng.one_in(20) { 1 } else { 0 };
                self.put(&[i, ni, oi, domain, o, no, oo | bits << 32, domain, done])
            }
            m::OP_MEMORY_MAP | m::OP_MACHINE_MEMORY_MAP => {
                let at = self.out(2560);
                let entries = self.rng.pick(&[0, 1, 128, 1000, u64::from(u32::MAX)]);
                self.put(&[entries, at])
            }
            m::OP_SET_MEMORY_MAP => {
                let at = self.out(2560);
                let entries = self.rng.pick(&[0, 1, 128, 129, u64::from(u32::MAX)]);
                self.put(&[domain, entries, at])
            }
            m::OP_MACHPHYS_MFN_LIST => {
                let at = self.out(256);
                self.put(&[self.w.own_id.into(), at, 0])
            }
            m::OP_ACQUIRE_RESOURCE => {
                let at = if self.rng.one_in(3) { 0 } else { self.out(64) };
                let (kind, frames) = (self.rng.below(3), self.rng.pick(&[0, 1, 4, 65, u64::from(u32::MAX)]));
                let first = if self.rng.one_in(3) { self.rng.number() } else { 0 };
                self.put(&[domain | kind << 16, frames, first, at])
            }
            m::OP_CURRENT_RESERVATION | m::OP_MAXIMUM_RESERVATION | m::OP_MAXIMUM_GPFN => self.put(&[domain]),
            _ => {
                let words: [u64; 6] = core::array::from_fn(|_| self.word());
                self.put(&words)
            }
        };
        let start = if self.rng.one_in(10) { self.rng.number() << m::CMD_BITS } else { 0 };
        Call::new(nr::MEMORY_OP, op, [op | start, arg, 0, 0, 0])
    }

    /// Changes an entry of the grant table: anything, also while it is in use.
    pub fn grant(&mut self) {
        let gref = 8 + self.rng.below(24);
        let flags =
            if self.rng.one_in(5) { self.rng.next() & 0xffff } else { self.rng.pick(&[0, 1, 1, 1, 5, 2, 9, 0x19]) };
        let to = if self.rng.one_in(6) { self.domid() } else { u64::from(self.w.own_id) };
        let frame = self.frame();
        write64(self.w.grants + gref * 8, flags | to << 16 | frame << 32);
    }

    /// grant_table_op.
    pub fn grant_op(&mut self) -> Call {
        let op = if self.rng.one_in(5) {
            self.rng.below(14)
        } else {
            self.rng.pick(&[g::OP_MAP_GRANT_REF, g::OP_UNMAP_GRANT_REF, g::OP_COPY])
        };
        let own = if self.rng.one_in(6) { self.domid() } else { u64::from(self.w.own_id) };
        let gref = if self.rng.one_in(12) { self.rng.number() & 0xffff_ffff } else { 8 + self.rng.below(24) };
        let v = self.victim();
        let host = match self.rng.below(8) {
            0 => self.rng.number(),
            1 | 2 => self.w.slot[v],
            _ => self.w.va[v],
        };
        let count = if self.rng.one_in(12) { self.rng.pick(&[0, 2, 3, 1 << 31, u64::from(u32::MAX)]) } else { 1 };
        // More elements than one are not there: the list ends where the scratch does.
        // One word in each says where something is mapped or written: nobody changes that, and no other list is read.
        let put =
            |w: &mut Worker, words: &[u64], keep| if count > 1 { w.put_last(words) } else { w.put_hot(words, keep) };
        let at = match op {
            g::OP_MAP_GRANT_REF => {
                let flags = if self.rng.one_in(4) {
                    self.rng.below(1 << 20)
                } else {
                    self.rng.pick(&[2, 6, 0x12, 0x16, 1, 3, 10])
                };
                put(self, &[host, flags | gref << 32, own, 0, 0], 0)
            }
            g::OP_UNMAP_GRANT_REF => {
                let handle = self.w.handles[self.rng.below(16) as usize].load(Ordering::Relaxed);
                let handle = if self.rng.one_in(8) { self.rng.number32() } else { handle };
                let bus = if self.rng.one_in(3) { self.rng.number() } else { 0 };
                put(self, &[host, bus, u64::from(handle)], 0)
            }
            g::OP_COPY => {
                let ptr = |w: &mut Worker| {
                    let by_ref = w.rng.one_in(2);
                    let what = if by_ref { 8 + w.rng.below(24) } else { w.frame() };
                    let dom = if by_ref && !w.rng.one_in(6) { u64::from(w.w.own_id) } else { w.domid() };
                    let offset = if w.rng.one_in(4) { w.rng.next() & 0xffff } else { w.rng.below(4096) };
                    (by_ref, what, dom | offset << 16)
                };
                let (s, d) = (ptr(self), ptr(self));
                let len = if self.rng.one_in(4) { self.rng.next() & 0xffff } else { self.rng.below(512) };
                let flags = u64::from(s.0) | u64::from(d.0) << 1;
                put(self, &[s.1, s.2, d.1, d.2, len | flags << 16], 2)
            }
            g::OP_SETUP_TABLE => {
                let list = self.out(512);
                let n = self.rng.pick(&[0, 1, 2, 64, 65, u64::from(u32::MAX)]);
                put(self, &[own | n << 32, 0, list], 2)
            }
            _ => {
                let words: [u64; 6] = core::array::from_fn(|_| self.word());
                put(self, &words, usize::MAX)
            }
        };
        Call::new(nr::GRANT_TABLE_OP, op, [op, at, count, 0, 0])
    }

    /// Remembers the handle a map gave.
    pub fn mapped(&mut self, c: &Call) {
        if c.number == nr::GRANT_TABLE_OP as u64 && c.args[0] == g::OP_MAP_GRANT_REF && self.in_scratch(c.args[1]) {
            // { host_addr, flags, ref, domid, status, handle, bus address }
            let w = read64(c.args[1] + 16);
            if (w >> 16) as i16 == g::ST_OKAY {
                let slot = self.rng.below(16) as usize;
                let old = self.w.handles[slot].swap((w >> 32) as u32, Ordering::Relaxed);
                let _ = old;
            }
        }
    }
}
