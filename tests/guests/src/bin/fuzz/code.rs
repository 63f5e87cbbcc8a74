//! Instructions: privileged ones in kernel mode, stores to page tables that are emulated, and anything in user mode.

use crate::counts;
use crate::world::{Worker, user_code, user_stack};
use core::arch::global_asm;
use core::sync::atomic::Ordering;
use guests::mem::write64;
use guests::prelude::*;
use pv_abi::{event as e, vcpu};

/// Bytes of one piece of code.
struct Code {
    bytes: [u8; 256],
    len: usize,
    full: bool,
}

impl Code {
    fn push(&mut self, bytes: &[u8]) {
        // What comes behind something that found no room could miss it: nothing more then.
        self.full |= self.len + bytes.len() > 250;
        if !self.full {
            self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// mov register, value: 0 rax, 1 rcx, 2 rdx, 3 rbx, 6 rsi, 7 rdi.
    fn set(&mut self, register: u8, value: u64) {
        let mut b = [0x48, 0xb8 + register, 0, 0, 0, 0, 0, 0, 0, 0];
        b[2..].copy_from_slice(&value.to_le_bytes());
        self.push(&b);
    }
}

#[cfg(target_os = "none")]
global_asm!(
    ".text",
    // To user mode: rdi = frame of nine words for the iret hypercall.
    ".globl fuzz_user",
    "fuzz_user:",
    "lea rsp, [rdi]",
    "mov rdi, [rsp + 72]; mov rsi, [rsp + 80]; mov rdx, [rsp + 88]; mov rbx, [rsp + 96]",
    "mov eax, 23",
    "syscall",
    "ud2",
);

unsafe extern "C" {
    fn fuzz_user(frame: u64) -> !;
}

/// Instructions that trap or are emulated, whoever executes them.
const ANYWHERE: [&[u8]; 44] = [
    &[0x0f, 0xa2],                               // cpuid
    &[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2], // forced cpuid
    &[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0x31], // the prefix before something else
    &[0x0f, 0x31],                               // rdtsc
    &[0x0f, 0x01, 0xf9],                         // rdtscp
    &[0x0f, 0x33],                               // rdpmc
    &[0x0f, 0x32],                               // rdmsr
    &[0x0f, 0x06],                               // clts
    &[0x0f, 0x08],                               // invd
    &[0x0f, 0x09],                               // wbinvd
    &[0x0f, 0x01, 0xd0],                         // xgetbv
    &[0x0f, 0x01, 0xf8],                         // swapgs
    &[0x0f, 0x01, 0xca],                         // clac
    &[0x0f, 0x01, 0xc8],                         // monitor
    &[0x0f, 0x01, 0xc9],                         // mwait
    &[0x0f, 0x01, 0xd9],                         // vmmcall
    &[0x0f, 0x01, 0xc1],                         // vmcall
    &[0x0f, 0x01, 0x3e],                         // invlpg [rsi]
    &[0x0f, 0x01, 0x16],                         // lgdt [rsi]
    &[0x0f, 0x01, 0x1e],                         // lidt [rsi]
    &[0x0f, 0x00, 0xd0],                         // lldt ax
    &[0x0f, 0x00, 0xd8],                         // ltr ax
    &[0x0f, 0x01, 0x26],                         // smsw [rsi]
    &[0x0f, 0x01, 0x36],                         // lmsw [rsi]
    &[0x0f, 0x02, 0xd0],                         // lar
    &[0x0f, 0x03, 0xd0],                         // lsl
    &[0x0f, 0x00, 0xe0],                         // verr ax
    &[0xf4],                                     // hlt
    &[0xfa],                                     // cli
    &[0xfb],                                     // sti
    &[0x8e, 0xd8],                               // mov ds, ax
    &[0x8e, 0xc0],                               // mov es, ax
    &[0x8e, 0xe0],                               // mov fs, ax
    &[0x9c, 0x58],                               // pushf, pop rax
    &[0xdb, 0xe3],                               // fninit
    &[0x9b, 0xd9, 0xe8],                         // fwait, fld1
    &[0x0f, 0xae, 0x06],                         // fxsave [rsi]
    &[0x48, 0x0f, 0x07],                         // sysretq
    &[0x0f, 0x07],                               // sysret
    &[0x0f, 0x34],                               // sysenter
    &[0xe4, 0x80],                               // in al, 0x80
    &[0xec],                                     // in al, dx
    &[0xed],                                     // in eax, dx
    &[0x66, 0xed],                               // in ax, dx
];

/// Stores that are emulated on page tables, to [rdi], of rax, rcx or a number.
const STORES: [&[u8]; 24] = [
    &[0x48, 0x89, 0x07],
    &[0x89, 0x07],
    &[0x66, 0x89, 0x07],
    &[0x88, 0x07],
    &[0x48, 0x87, 0x07],
    &[0x86, 0x07],
    &[0xf0, 0x80, 0x27, 0xfd],
    &[0xf0, 0x48, 0x81, 0x27, 0xff, 0xff, 0xff, 0x7f],
    &[0x48, 0x83, 0x0f, 0x40],
    &[0xf0, 0x48, 0x0f, 0xb1, 0x0f],
    &[0xf0, 0x0f, 0xb0, 0x0f],
    &[0xf0, 0x48, 0x0f, 0xba, 0x37, 0x01],
    &[0x48, 0x0f, 0xba, 0x2f, 0x3f],
    BTR,
    &[0x48, 0x0f, 0xc1, 0x07],
    &[0x48, 0x0f, 0xc3, 0x07],
    &[0xc6, 0x07, 0x25],
    &[0x48, 0xc7, 0x07, 0x65, 0x10, 0x00, 0x00],
    &[0x48, 0xab],
    &[0xaa],
    &[0xf3, 0x48, 0xab],
    &[0x48, 0xa5],
    &[0x48, 0x31, 0x07],
    &[0x48, 0x0f, 0xc7, 0x0f],
];

/// lock btr [rdi], rcx
const BTR: &[u8] = &[0xf0, 0x48, 0x0f, 0xb3, 0x0f];

impl Worker {
    /// A piece of code, in kernel mode or in user mode.
    pub fn code(&mut self) {
        let user = self.rng.one_in(2);
        let mut c = Code { bytes: [0x90; 256], len: 0, full: false };
        if !user && self.rng.one_in(2) {
            self.stores(&mut c);
        } else {
            for _ in 0..1 + self.rng.below(4) {
                self.instruction(&mut c, user);
            }
        }
        counts::note_code(user);
        if self.w.trace {
            guests::console::line(f!("fuzz: {}: code, user {user}: {:02x?}", self.cpu, &c.bytes[..c.len]));
        }
        if user { self.in_user_mode(&mut c) } else { self.in_kernel_mode(&mut c) }
    }

    fn stores(&mut self, c: &mut Code) {
        for _ in 0..1 + self.rng.below(4) {
            let v = self.victim();
            let at = self.w.va[v] + self.rng.below(512) * 8 + if self.rng.one_in(5) { self.rng.below(8) } else { 0 };
            let (value, seen) = (self.entry(), self.entry());
            c.set(7, at);
            c.set(6, self.w.va[self.cpu]);
            c.set(0, value);
            // A counter for REP, or the other operand.
            c.set(1, if self.rng.one_in(2) { self.rng.below(4) } else { seen });
            let store = self.rng.pick(&STORES);
            // Without REP a large counter does nothing.
            if store[0] == 0xf3 {
                c.set(1, self.rng.below(4));
            }
            // A bit's number in a register reaches far: it would clear a bit anywhere in this kernel.
            if store == BTR {
                c.set(1, self.rng.below(64));
            }
            c.push(store);
        }
    }

    fn instruction(&mut self, c: &mut Code, user: bool) {
        let scratch = self.room(512);
        c.set(6, scratch);
        c.set(2, self.rng.number());
        c.set(0, self.rng.number());
        let msr = self.msr();
        c.set(1, msr);
        match self.rng.below(14) {
            0 => {
                // wrmsr, never to the base this kernel finds itself with.
                let v = match msr {
                    0xc000_0101 if !user => 1 << 47,
                    0x4000_0000 => self.frame() << 12 | self.rng.below(2),
                    _ => self.rng.number(),
                };
                c.set(0, v & 0xffff_ffff);
                c.set(2, v >> 32);
                c.push(&[0x0f, 0x30]);
            }
            1 => {
                // mov to and from control registers; base pointers only such as this kernel runs with.
                let n = self.rng.pick(&[0, 2, 3, 4, 8]) as u8;
                let v = match n {
                    3 => self.base() << 12,
                    0 => 0x8005_0033 ^ if self.rng.one_in(2) { 8 } else { 1 << self.rng.below(32) },
                    _ => self.rng.number(),
                };
                c.set(0, v);
                if n == 8 {
                    c.push(&[0x44, 0x0f, 0x22, 0xc0]);
                } else {
                    let write = if self.rng.one_in(2) { 0x22 } else { 0x20 };
                    c.push(&[0x0f, write, 0xc0 | n << 3]);
                }
            }
            2 => {
                let n = self.rng.below(8) as u8;
                let write = if self.rng.one_in(2) { 0x23 } else { 0x21 };
                c.push(&[0x0f, write, 0xc0 | n << 3]);
            }
            3 => {
                c.set(1, self.rng.below(2));
                c.set(0, self.rng.below(256));
                c.set(2, 0);
                c.push(&[0x0f, 0x01, 0xd1]);
            }
            4 | 5 => self.port(c),
            6 => c.push(&[0xcd, self.rng.next() as u8]),
            7 if user => c.push(&[0x0f, 0x05]),
            8 => {
                // A far jump through memory, a call gate or nothing.
                write64(scratch, self.rng.next() & 0xffff_ffff | self.rng.below(0x1_0000) << 32);
                if user {
                    c.push(&[0xff, 0x2e]);
                }
            }
            9 if user && self.w.bytes => {
                for _ in 0..self.rng.below(24) {
                    c.push(&[self.rng.next() as u8]);
                }
            }
            _ => {
                let i = self.rng.pick(&ANYWHERE);
                c.push(i);
            }
        }
    }

    fn msr(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.pick(&[
                0x10,
                0x1b,
                0x8b,
                0xce,
                0x1a0,
                0x277,
                0x174,
                0x48,
                0x49,
                0x10a,
                0x4000_0000,
                0x179,
                0x400,
                0x401,
            ]),
            1 => 0xc000_0080 + self.rng.below(8),
            2 => 0xc000_0100 + self.rng.below(4),
            _ => self.rng.number() & 0xffff_ffff,
        }
    }

    /// IN, OUT, INS and OUTS. dom0's reach the machine: only ports that change nothing there.
    fn port(&mut self, c: &mut Code) {
        let port = if self.w.dom0 {
            self.rng.pick(&[
                0x80u64, 0x20, 0x21, 0x40, 0x43, 0x61, 0x70, 0x71, 0x3f8, 0x3f9, 0xcf8, 0xcfc, 0x1f, 0x3f, 0x3f7,
            ])
        } else {
            self.rng.below(0x1_0000)
        };
        c.set(2, port);
        c.set(1, self.rng.below(3));
        c.set(7, self.w.va[self.cpu] + self.rng.below(4096));
        let harmless = !self.w.dom0 || port == 0x80;
        let op = if harmless {
            self.rng.pick(&[0x6cu8, 0x6d, 0x6e, 0x6f, 0xec, 0xed, 0xee, 0xef])
        } else {
            self.rng.pick(&[0x6c, 0x6d, 0xec, 0xed])
        };
        if self.rng.one_in(3) {
            c.push(&[0xf3]);
        }
        if self.rng.one_in(3) {
            c.push(&[0x66]);
        }
        c.push(&[op]);
    }

    fn load(&mut self, c: &Code, ending: &[u8]) {
        let at = self.w.code[self.cpu] as *mut u8;
        for (i, b) in c.bytes[..c.len].iter().chain(ending).enumerate() {
            // SAFETY: this vCPU's own code page, which nothing runs from now.
            unsafe { at.add(i).write_volatile(*b) };
        }
    }

    fn in_kernel_mode(&mut self, c: &mut Code) {
        self.load(c, &[0xc3]);
        let f = self.w.code[self.cpu];
        // SAFETY: code that returns or traps; the guard around the step keeps what the compiler wants kept.
        unsafe {
            core::arch::asm!("push rbx", "push rbp", "call {f}", "pop rbp", "pop rbx", "cld", f = in(reg) f,
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
                out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                out("xmm0") _, out("xmm1") _);
        }
    }

    fn in_user_mode(&mut self, c: &mut Code) {
        self.load(c, &[0x0f, 0x0b]);
        // Something ends a loop: the timer, or another vCPU's NMI.
        let mut b = e::BindVirq { virq: e::VIRQ_TIMER, vcpu: self.cpu as u32, port: 0 };
        events::op(e::OP_BIND_VIRQ, &mut b);
        let mut t = vcpu::SetSingleshotTimer { timeout_abs_ns: events::now() + 500_000, flags: 0, pad: 0 };
        call(nr::VCPU_OP, &[vcpu::OP_SET_SINGLESHOT_TIMER, self.cpu as u64, (&raw mut t) as u64]);
        raw_stack_switch(self.w.kernel_stack[self.cpu]);
        // Without a user base a vCPU that goes to user mode is at its end, and a list read by chance may have taken it away.
        if paging::mmuext(pv_abi::mmu::EXT_NEW_USER_BASEPTR, self.w.user_l4, 0) != OK {
            return;
        }
        let odd = self.rng.one_in(8);
        let cs = if odd { self.rng.number() & 0xffff } else { self.rng.pick(&[0xe033, 0xe033, 0xe033, 0xe023]) };
        let rip = if odd && self.rng.one_in(2) { self.rng.number() } else { user_code(self.cpu) };
        let rflags = 0x202 | if self.rng.one_in(4) { self.rng.next() & 0x3f_7fd5 } else { 0 };
        let rsp = if self.rng.one_in(10) { self.rng.number() } else { user_stack(self.cpu) + 4096 };
        let ss = if odd { self.rng.number() & 0xffff } else { 0xe02b };
        let flags = if self.rng.one_in(8) { self.rng.number() } else { 0 };
        // Below it stands the frame of an NMI on the way.
        let at = self.room(13 * 8 + 256) + 256;
        let words = [
            0,
            0x202,
            rip,
            flags,
            rip,
            cs | 3,
            rflags,
            rsp,
            ss,
            user_stack(self.cpu),
            user_stack(self.cpu) + 512,
            0x80,
            0,
        ];
        for (i, w) in words.iter().enumerate() {
            write64(at + i as u64 * 8, *w);
        }
        // No event on this way: its frame would go where the words are. The iret unmasks.
        events::mask().store(1, Ordering::SeqCst);
        // SAFETY: leaves this stack for good; a trap leads back to the step's start.
        unsafe { fuzz_user(at) }
    }
}

fn raw_stack_switch(sp: u64) {
    user::stack_switch(sp);
}
