//! The other hypercalls, and issuing them: one at a time, or several in a multicall.

use crate::counts;
use crate::guard;
use crate::world::Worker;
use core::sync::atomic::Ordering;
use guests::hypercall::raw;
use guests::mem::write64;
use guests::prelude::*;
use pv_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING};
use pv_abi::{callback, event as e, physdev, sched, vcpu};

/// A hypercall to be made.
#[derive(Clone, Copy)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// The operation in it, for the counters.
    pub op: u64,
    /// Its arguments.
    pub args: [u64; 5],
}

impl Call {
    /// One of the table's.
    pub fn new(number: usize, op: u64, args: [u64; 5]) -> Call {
        Call { number: number as u64, op, args }
    }

    fn changes_handlers(&self) -> bool {
        matches!(self.number as usize, nr::SET_TRAP_TABLE | nr::CALLBACK_OP)
    }
}

impl Worker {
    /// One step.
    pub fn step(&mut self) {
        self.fresh();
        if !self.rng.one_in(4) {
            events::mask().store(0, Ordering::SeqCst);
        }
        match self.rng.below(100) {
            0..=4 => self.build(),
            5..=6 => self.undo(),
            7..=8 => self.refill(),
            9..=12 => self.grant(),
            13..=16 => self.poke(),
            17..=20 => self.scribble(),
            21..=30 => self.code(),
            31..=34 => self.multicall(),
            _ => {
                let c = self.any();
                self.issue(&c);
            }
        }
    }

    /// With `trace=1`: what comes now.
    fn tell(&self, c: &Call) {
        if self.w.trace {
            guests::console::line(f!("fuzz: {}: call {} {:x?}", self.cpu, c.number, c.args));
        }
    }

    fn issue(&mut self, c: &Call) {
        self.dirty |= c.changes_handlers();
        self.tell(c);
        let r = raw(c.number, c.args);
        counts::note(c.number, c.op, r >= 0);
        self.mapped(c);
    }

    fn any(&mut self) -> Call {
        match self.rng.below(40) {
            0..=7 => self.mmu_update(),
            8..=11 => self.update_va(),
            12..=16 => self.mmuext(),
            17..=19 => self.memory_op(),
            20..=23 => self.grant_op(),
            24..=27 => self.event_op(),
            28 | 29 => self.vcpu_op(),
            30 => self.sched_op(),
            31 | 32 => self.physdev_op(),
            33 => self.tools(),
            34 => self.version(),
            35 => self.other_number(),
            _ => self.cpu_state(),
        }
    }

    fn multicall(&mut self) {
        let n = 1 + self.rng.below(6) as usize;
        let mut calls = [Call::new(nr::XEN_VERSION, 0, [0; 5]); 6];
        for c in calls.iter_mut().take(n) {
            let new = self.any();
            // One that leaves the CPU within a list is fine; a list within the list is to be refused.
            self.tell(&new);
            *c = if self.rng.one_in(30) { Call::new(nr::MULTICALL, 0, [0, 1, 0, 0, 0]) } else { new };
        }
        let at = self.room(6 * 64);
        for (i, c) in calls.iter().enumerate().take(n) {
            let e = at + i as u64 * 64;
            write64(e, c.number);
            write64(e + 8, 0);
            (0..5).for_each(|j| write64(e + 16 + j as u64 * 8, c.args[j]));
        }
        // A list that can be read by chance could be any calls.
        let list = if self.rng.one_in(25) {
            self.rng.pick(&[0x1234_5000, 1 << 47, 0xffff_8300_0000_0000, u64::MAX - 62])
        } else {
            at
        };
        self.dirty |= calls.iter().take(n).any(Call::changes_handlers);
        let r = raw(nr::MULTICALL as u64, [list, n as u64, 0, 0, 0]);
        counts::note(nr::MULTICALL as u64, 0, r >= 0);
        if list == at && r >= 0 {
            for (i, c) in calls.iter().enumerate().take(n) {
                counts::note(c.number, c.op, guests::mem::read64(at + i as u64 * 64 + 8) as i64 >= 0);
                self.mapped(c);
            }
        }
    }

    fn event_op(&mut self) -> Call {
        let op = self.rng.below(15);
        let port = if self.rng.one_in(8) { self.rng.number32() } else { self.rng.below(40) as u32 };
        let vcpu = if self.rng.one_in(5) { self.rng.number32() } else { self.rng.below(2) as u32 };
        let (port, vcpu) = (u64::from(port), u64::from(vcpu));
        let dom = if self.rng.one_in(4) { self.domid() } else { 0x7ff0 };
        let words = match op {
            e::OP_BIND_VIRQ => [u64::from(self.rng.below(26) as u32) | vcpu << 32, 0],
            e::OP_BIND_PIRQ => [self.rng.below(40) | self.rng.below(2) << 32, 0],
            e::OP_BIND_VCPU => [port | vcpu << 32, 0],
            e::OP_BIND_IPI => [vcpu, 0],
            e::OP_ALLOC_UNBOUND => [dom | self.domid() << 16, 0],
            e::OP_BIND_INTERDOMAIN | e::OP_STATUS => [dom | port << 32, 0],
            // Away with everything: seldom, or there is never anything.
            e::OP_RESET => [if self.w.dom0 && self.rng.one_in(20) { dom } else { 77 }, 0],
            // A domU speaks to the console daemon through one of its first.
            e::OP_CLOSE if !self.w.dom0 => [port.max(3), 0],
            e::OP_CLOSE | e::OP_SEND | e::OP_UNMASK => [port, 0],
            _ => [self.word(), self.word()],
        };
        let words = [words[0], words[1], 0];
        // Another port or domain than the one chosen could be the console's, or all: nothing is read by chance here, nor what
        // an earlier step left at the scratch's end.
        let arg = match op {
            e::OP_CLOSE | e::OP_RESET if self.rng.one_in(25) => 1 << 47,
            e::OP_CLOSE | e::OP_RESET => self.put_words(&words),
            _ => self.put_loose(&words),
        };
        Call::new(nr::EVENT_CHANNEL_OP, op, [op, arg, 0, 0, 0])
    }

    fn vcpu_op(&mut self) -> Call {
        let op = self.rng.below(16);
        let me = self.cpu as u64;
        let which = match self.rng.below(6) {
            0 => self.rng.number(),
            1 | 2 => self.rng.below(4),
            _ => me,
        };
        let arg = match op {
            vcpu::OP_INITIALISE => {
                // Never the one that could be brought up with it.
                let any = self.rng.number();
                let id = self.rng.pick(&[0, me, 40, any]);
                let ctx = self.bad_context();
                return Call::new(nr::VCPU_OP, op, [op, id, ctx, 0, 0]);
            }
            // Only those that never were set up, or are up.
            vcpu::OP_DOWN => {
                return Call::new(nr::VCPU_OP, op, [op, 33 + self.rng.below(8000), 0, 0, 0]);
            }
            vcpu::OP_SET_PERIODIC_TIMER => {
                let p = if self.rng.one_in(2) { 1_000_000 * (1 + self.rng.below(50)) } else { self.rng.number() };
                self.put(&[p])
            }
            vcpu::OP_SET_SINGLESHOT_TIMER => {
                let t = if self.rng.one_in(2) { events::now() + self.rng.below(3_000_000) } else { self.rng.number() };
                {
                    let flags = self.rng.number();
                    self.put(&[t, flags])
                }
            }
            // Its place moves once; the runtime would not follow. What is refused may be tried.
            vcpu::OP_REGISTER_VCPU_INFO => {
                let bad = self.rng.pick(&[
                    (0u64, 1u64),
                    (u64::MAX, 0),
                    (self.w.kernel_frames[4], 64),
                    (self.w.kernel_frames[2], 0),
                ]);
                let offset = if bad.1 == 1 { self.rng.pick(&[4, 4033, 4096, 0xffff_ffff]) } else { bad.1 };
                self.put(&[bad.0, offset])
            }
            vcpu::OP_REGISTER_RUNSTATE_MEMORY_AREA | vcpu::OP_REGISTER_VCPU_TIME_MEMORY_AREA => {
                let v = self.victim();
                let at = match self.rng.below(4) {
                    0 => self.rng.pick(&crate::words::ADDRESSES),
                    1 => self.w.va[v] + self.rng.below(4096),
                    _ => self.area(),
                };
                self.put(&[at])
            }
            vcpu::OP_GET_RUNSTATE_INFO | vcpu::OP_GET_PHYSID => self.out(64),
            _ => self.word(),
        };
        Call::new(nr::VCPU_OP, op, [op, which, arg, 0, 0])
    }

    /// A context with something wrong.
    fn bad_context(&mut self) -> u64 {
        if self.cpu != 0 || self.rng.one_in(3) {
            return self.bad_pointer();
        }
        let c = guard::sound_context(3);
        match self.rng.below(6) {
            0 => c.ctrlreg[3] = self.frame() << 12 | 1 << 61,
            1 => c.user_regs.rip = 1 << 47,
            2 => c.gdt_ents = 1 + self.rng.number() % 7168,
            3 => c.gs_base_user = 1 << 63,
            4 => c.ldt_ents = 9000,
            _ => c.ldt_base = 1,
        }
        if c.gdt_ents != 0 {
            c.gdt_frames = core::array::from_fn(|_| self.frame());
        }
        core::ptr::from_mut(c) as u64
    }

    fn sched_op(&mut self) -> Call {
        let op = match self.rng.pick(&[0, 0, 1, 3, 3, 4, 5, 7, 8, 9]) {
            // Another vCPU may close the port that wakes this one: the first stays awake and helps.
            sched::OP_BLOCK if self.cpu == 0 && self.w.cpus > 1 => sched::OP_YIELD,
            op => op,
        };
        if op == sched::OP_BLOCK {
            // A bit that is pending already, or masked, would not wake anybody.
            for word in 0..64u64 {
                events::word(events::shared(EVTCHN_MASK) + 8 * word).store(0, Ordering::SeqCst);
                events::word(events::shared(EVTCHN_PENDING) + 8 * word).store(0, Ordering::SeqCst);
            }
            // Something must wake it, not before it sleeps: blocking unmasks.
            events::mask().store(1, Ordering::SeqCst);
            let t = events::now() + 100_000;
            raw(nr::SET_TIMER_OP as u64, [t, 0, 0, 0, 0]);
            let mut b = e::BindVirq { virq: 0, vcpu: self.cpu as u32, port: 0 };
            events::op(e::OP_BIND_VIRQ, &mut b);
        }
        let arg = match op {
            sched::OP_POLL => {
                let ports: [u64; 4] = core::array::from_fn(|_| self.rng.below(40) | self.rng.below(40) << 32);
                let list = self.put(&ports);
                let n = if self.rng.one_in(6) { u64::from(self.rng.number32()) } else { self.rng.below(8) };
                let timeout = events::now() + self.rng.below(200_000);
                // Read by chance, the timeout could be none.
                let at = self.room(24);
                [list, n, timeout].iter().enumerate().for_each(|(i, w)| write64(at + 8 * i as u64, *w));
                if self.rng.one_in(20) { 1 << 47 } else { at }
            }
            sched::OP_REMOTE_SHUTDOWN => {
                let id = 77 + self.rng.below(100);
                self.put(&[id])
            }
            sched::OP_PIN_OVERRIDE => {
                let cpu = self.rng.below(3);
                self.put(&[cpu])
            }
            _ => 0,
        };
        Call::new(nr::SCHED_OP, op, [op, arg, 0, 0, 0])
    }

    fn physdev_op(&mut self) -> Call {
        let op = if self.rng.one_in(3) { self.rng.below(36) } else { self.rng.pick(&[5, 6, 7, 12, 13, 14, 28]) };
        let irq = if self.rng.one_in(5) { self.rng.number() } else { self.rng.below(48) };
        let words = match op {
            physdev::OP_SET_IOPL => [self.rng.below(6), 0, 0, 0],
            physdev::OP_SET_IOBITMAP => {
                [self.out(8192), self.rng.pick(&[0, 1, 1024, 65536, 65537, u64::from(u32::MAX)]), 0, 0]
            }
            physdev::OP_MAP_PIRQ => {
                let kind = self.rng.below(6);
                let pirq = if self.rng.one_in(2) { u64::from(u32::MAX) } else { irq & 0xffff_ffff };
                [
                    self.domid() | kind << 32,
                    irq & 0xffff_ffff | pirq << 32,
                    self.rng.below(1 << 16) | self.rng.below(256) << 32,
                    self.word(),
                ]
            }
            physdev::OP_UNMAP_PIRQ => [self.domid() | irq << 32, 0, 0, 0],
            physdev::OP_PIRQ_EOI_GMFN_V1 | physdev::OP_PIRQ_EOI_GMFN_V2 => [self.frame(), 0, 0, 0],
            _ => [irq, self.word(), self.word(), self.word()],
        };
        let arg = self.put(&words);
        Call::new(nr::PHYSDEV_OP, op, [op, arg, 0, 0, 0])
    }

    fn version(&mut self) -> Call {
        let op = self.rng.below(12);
        let arg = self.out(1100);
        Call::new(nr::XEN_VERSION, op, [op, arg, 0, 0, 0])
    }

    /// Numbers that are nobody's, and old or foreign ones.
    fn other_number(&mut self) -> Call {
        let number = match self.rng.below(4) {
            0 => self.rng.pick(&[11, 16, 27, 31, 34, 37, 38, 39, 40, 41, 42, 43, 44, 48, 49, 55, 63, 64]),
            1 => 1 << 32 | self.rng.below(64),
            2 => self.rng.pick(&[u64::MAX, 1 << 63, 64, 65, 0x1_0000]),
            _ => 50 + self.rng.below(200),
        };
        let args = core::array::from_fn(|_| self.word());
        Call { number, op: args[0], args }
    }

    fn cpu_state(&mut self) -> Call {
        match self.rng.below(14) {
            0 => {
                let table: [u64; 12] = core::array::from_fn(|i| match i % 2 {
                    // { vector u8, flags u8, cs u16, pad u32 }: only vectors that nothing here needs
                    0 => (33 + self.rng.below(90)) | self.rng.next() & 0xffff_ff00,
                    // Nothing may ever be mapped there: INT n would run it.
                    _ if self.rng.one_in(3) => self.rng.pick(&crate::words::ADDRESSES),
                    _ => guard::stub(13),
                });
                let at = self.put(&[table[0], table[1], table[2], table[3], table[4], table[5], 0, 0]);
                // A null table clears everything; `mend` puts it back.
                Call::new(nr::SET_TRAP_TABLE, 0, [at.max(8), 0, 0, 0, 0])
            }
            1 => {
                let frames: [u64; 14] = core::array::from_fn(|_| self.frame());
                let n = self.rng.pick(&[0, 1, 512, 513, 1024, 7168, 7169, u64::from(u32::MAX)]);
                let at = self.put(&frames);
                Call::new(nr::SET_GDT, 0, [at, n, 0, 0, 0])
            }
            2 => Call::new(nr::STACK_SWITCH, 0, [self.rng.number(), self.rng.number(), 0, 0, 0]),
            3 => Call::new(nr::FPU_TASKSWITCH, 0, [self.rng.below(2), 0, 0, 0, 0]),
            4 | 5 => {
                let n = self.rng.below(10);
                let v = if self.rng.one_in(2) { self.rng.number() } else { self.w.va[self.cpu] + self.rng.below(4096) };
                Call::new(nr::SET_DEBUGREG, 0, [n, v, 0, 0, 0])
            }
            6 => Call::new(nr::GET_DEBUGREG, 0, [self.rng.below(10), 0, 0, 0, 0]),
            7 | 8 => {
                let at = self.frame() << 12 | self.rng.below(4096) & if self.rng.one_in(5) { !0 } else { !7 };
                let desc = self.descriptor();
                Call::new(nr::UPDATE_DESCRIPTOR, 0, [at, desc, 0, 0, 0])
            }
            9 => Call::new(
                nr::VM_ASSIST,
                0,
                [self.rng.below(3), self.rng.pick(&[0, 1, 2, 3, 4, 5, 6, 32, 63, 64, u64::MAX]), 0, 0, 0],
            ),
            10 => {
                // Not the base this kernel finds itself with (2), unless it is to be refused.
                let which = self.rng.pick(&[0, 1, 2, 3, 3, 4, u64::MAX]);
                let base = if which == 2 { 1 << 47 } else { self.rng.number() };
                Call::new(nr::SET_SEGMENT_BASE, 0, [which, base, 0, 0, 0])
            }
            11 => {
                let op = self.rng.below(3);
                let kind = self.rng.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 0xffff]);
                let good = guard::stub(13);
                let address = if kind < 3 || kind == 4 || self.rng.one_in(2) { 1 << 47 } else { good };
                let flags = self.rng.below(4);
                // Read by chance, the kind could be the NMI's, whose handler other vCPUs count on.
                let at = self.room(16);
                write64(at, kind | flags << 16);
                write64(at + 8, address);
                let at = if self.rng.one_in(25) { 1 << 47 } else { at };
                let op = if kind < 2 && op == 1 { callback::OP_REGISTER } else { op };
                Call::new(nr::CALLBACK_OP, op, [op, at, 0, 0, 0])
            }
            12 => {
                Call::new(nr::SET_TIMER_OP, 0, [self.rng.pick(&[0, 1, events::now() + 50_000, u64::MAX]), 0, 0, 0, 0])
            }
            _ => {
                let op = self.rng.pick(&[0, 0, 1, 2]);
                let buffer = if op == 0 { self.bad_pointer() } else { self.out(64) };
                Call::new(nr::CONSOLE_IO, op, [op, if op == 0 { 0 } else { self.rng.below(64) }, buffer, 0, 0])
            }
        }
    }

    /// A segment descriptor: usual, forbidden, or anything.
    pub fn descriptor(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.pick(&[0x00af_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0x00cf_9b00_0000_ffff, 0]),
            1 => 0x0000_8c00_0000_0000 | self.rng.next() & 0xffff_ffff | self.rng.below(4) << 45,
            2 => 0x0000_8000_0000_0000 | self.rng.below(32) << 40 | self.rng.next() & 0xff_ffff,
            _ => self.rng.next(),
        }
    }

    /// Writes to a victim as data, or to what stands in its place: read-only tables get here by emulation.
    fn poke(&mut self) {
        let v = self.victim();
        let at = self.w.va[v] + self.rng.below(512) * 8;
        let e = self.entry();
        if self.rng.one_in(3) {
            guests::mem::read64(at);
        } else {
            write64(at, e);
        }
    }

    /// Writes into what another vCPU may be passing to a hypercall just now: words of the kind that may stand there.
    fn scribble(&mut self) {
        let other = self.rng.below(self.w.cpus as u64) as usize;
        for _ in 0..64 {
            let at = self.w.hot[other].load(Ordering::Relaxed);
            if at != 0 {
                let v = self.loose_word();
                write64(at, v);
            }
            core::hint::spin_loop();
        }
    }

    /// After a step: what the next one needs of the vCPU.
    pub fn mend(&mut self) {
        self.w.hot[self.cpu].store(0, Ordering::Relaxed);
        if core::mem::take(&mut self.dirty) {
            guard::install();
        }
        if self.rng.one_in(512) {
            // Whatever the others wait for, they get on.
            let other = self.rng.below(self.w.cpus as u64);
            raw(nr::VCPU_OP as u64, [vcpu::OP_SEND_NMI, other, 0, 0, 0]);
        }
        raw(nr::STACK_SWITCH as u64, [0xe02b, self.w.kernel_stack[self.cpu], 0, 0, 0]);
        if self.rng.one_in(16) {
            raw(nr::SET_DEBUGREG as u64, [7, 0, 0, 0, 0]);
        }
        self.look_at_scratch();
        if self.rng.one_in(256) {
            self.w.look_at_bases();
            // Seldom: it takes as long as many steps.
            if self.rng.one_in(64) {
                self.w.look_at_canaries();
            }
        }
    }

    /// The end: nothing that could disturb a quiet vCPU.
    pub fn settle(&mut self) {
        events::mask().store(1, Ordering::SeqCst);
        raw(nr::SET_DEBUGREG as u64, [7, 0, 0, 0, 0]);
        raw(nr::VCPU_OP as u64, [vcpu::OP_STOP_PERIODIC_TIMER, self.cpu as u64, 0, 0, 0]);
        paging::mmuext(pv_abi::mmu::EXT_NEW_BASEPTR, self.w.kernel_frames[1], 0);
        guard::install();
    }
}
