//! What dom0's tools call: management of domains and the machine. A domU tries it all the same.

use crate::calls::Call;
use crate::world::Worker;
use guests::prelude::*;
use pv_abi::{domctl as d, platform as p, sysctl as s};

fn with(words: &[u64]) -> [u64; 16] {
    let mut u = [0; 16];
    u[..words.len()].copy_from_slice(words);
    u
}

impl Worker {
    /// domctl, sysctl or platform_op.
    pub fn tools(&mut self) -> Call {
        match self.rng.below(8) {
            0 => self.platform_op(),
            1 | 2 => self.sysctl(),
            _ => self.domctl(),
        }
    }

    /// A bitmap of the caller's.
    fn bitmap(&mut self) -> [u64; 2] {
        [self.out(64), self.rng.pick(&[0, 1, 8, 64, 65, 512, u64::from(u32::MAX)])]
    }

    fn domctl(&mut self) -> Call {
        let cmd = match self.rng.below(4) {
            0 => self.rng.below(92) as u32,
            1 => self.rng.pick(&[
                d::OP_CREATEDOMAIN,
                d::OP_MAX_VCPUS,
                d::OP_MAX_MEM,
                d::OP_DESTROYDOMAIN,
                d::OP_DESTROYDOMAIN,
            ]),
            _ => {
                self.rng.pick(&[5, 9, 11, 12, 13, 14, 16, 17, 22, 24, 25, 27, 35, 36, 59, 60, 61, 68, 69, 82, 83, 3, 4])
            }
        };
        // Children have small numbers; dom0 itself may be asked about, not changed in ways it would not survive.
        let harmless =
            matches!(cmd, d::OP_GETDOMAININFO | d::OP_GETVCPUINFO | d::OP_GETPAGEFRAMEINFO3 | d::OP_GETVCPUAFFINITY);
        let domain =
            if harmless { self.domid() } else { self.rng.pick(&[1, 2, 3, 4, 5, 6, 0x7ff0, 0x7ff2, 0x7fff, 0xffff]) };
        let vcpu = if self.rng.one_in(4) { u64::from(self.rng.number32()) } else { self.rng.below(3) };
        let mut u = [0u64; 16];
        match cmd {
            d::OP_CREATEDOMAIN => {
                let flags = if self.rng.one_in(3) { self.rng.next() & 0xffff_ffff } else { 0 };
                u[2] = flags << 32;
                u[3] = self.rng.below(4) << 32;
                u[4] = self.rng.pick(&[0, 1, 127, 4095, 1 << 31]) | self.rng.pick(&[0, 1, 4, 64, 1 << 31]) << 32;
                u[5] = self.rng.pick(&[0, 1, 4, 64, 1 << 31]) | 1 << 32;
            }
            d::OP_MAX_VCPUS => u[0] = self.rng.pick(&[0, 1, 2, 3, 128, 129, u64::from(u32::MAX)]),
            d::OP_MAX_MEM => u[0] = self.rng.pick(&[0, 4, 4096, 1 << 20, u64::MAX]),
            d::OP_SETVCPUCONTEXT | d::OP_GETVCPUCONTEXT => u = with(&[vcpu, 0]),
            d::OP_SETVCPUAFFINITY | d::OP_GETVCPUAFFINITY => {
                let (a, b) = (self.bitmap(), self.bitmap());
                u = with(&[vcpu | self.rng.below(8) << 32, a[0], a[1], b[0], b[1]]);
            }
            d::OP_SETNODEAFFINITY | d::OP_GETNODEAFFINITY => {
                let a = self.bitmap();
                u = with(&a);
            }
            d::OP_GETPAGEFRAMEINFO3 => {
                let at = self.room(64);
                (0..8).for_each(|i| guests::mem::write64(at + i * 8, self.frame()));
                u = with(&[self.count(), at]);
            }
            d::OP_GET_CPU_POLICY | d::OP_SET_CPU_POLICY => {
                let (leaves, msrs) = (self.out(4096), self.out(256));
                let counts = self.count() | self.rng.below(4) << 32;
                u = with(&[counts, leaves, msrs]);
            }
            d::OP_HYPERCALL_INIT => u[0] = self.frame(),
            _ => {
                for w in &mut u {
                    *w = self.word();
                }
            }
        }
        if u[1] == 0 && matches!(cmd, d::OP_SETVCPUCONTEXT | d::OP_GETVCPUCONTEXT) {
            u[1] = self.out(5200);
        }
        let version = if self.rng.one_in(25) { self.rng.number32() } else { d::INTERFACE_VERSION };
        let mut words = [0u64; 18];
        words[0] = u64::from(cmd) | u64::from(version) << 32;
        words[1] = domain;
        words[2..].copy_from_slice(&u);
        let at = self.put(&words);
        Call::new(nr::DOMCTL, u64::from(cmd), [at, 0, 0, 0, 0])
    }

    fn count(&mut self) -> u64 {
        self.rng.pick(&[0, 1, 8, 64, 1024, 1025, u64::from(u32::MAX)])
    }

    fn sysctl(&mut self) -> Call {
        // Debug keys may mean a reset.
        let cmd = match self.rng.below(32) as u32 {
            s::OP_DEBUG_KEYS => s::OP_PHYSINFO,
            c => c,
        };
        let version = if self.rng.one_in(25) { self.rng.number32() } else { s::INTERFACE_VERSION };
        let mut words = [0u64; 17];
        words[0] = u64::from(cmd) | u64::from(version) << 32;
        for w in words.iter_mut().skip(1) {
            *w = self.word();
        }
        match cmd {
            s::OP_READCONSOLE => {
                (words[1], words[2], words[3]) = (self.rng.below(2) << 8, self.out(4096), self.rng.pick(&[0, 16, 4096]))
            }
            s::OP_GETDOMAININFOLIST => {
                (words[1], words[2]) = (self.rng.below(4) | self.rng.below(8) << 32, self.out(1024))
            }
            _ => {}
        }
        let at = self.put(&words);
        Call::new(nr::SYSCTL, u64::from(cmd), [at, 0, 0, 0, 0])
    }

    fn platform_op(&mut self) -> Call {
        // Not to sleep, and no CPUs taken away from the machine.
        let cmd = match self.rng.below(70) as u32 {
            p::OP_ENTER_ACPI_SLEEP | p::OP_CPU_OFFLINE => p::OP_GET_CPUINFO,
            c => c,
        };
        let version = if self.rng.one_in(25) { self.rng.number32() } else { p::INTERFACE_VERSION };
        let mut words = [0u64; 17];
        words[0] = u64::from(cmd) | u64::from(version) << 32;
        for w in words.iter_mut().skip(1) {
            *w = self.word();
        }
        let at = self.put(&words);
        Call::new(nr::PLATFORM_OP, u64::from(cmd), [at, 0, 0, 0, 0])
    }
}
