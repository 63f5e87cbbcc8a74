//! Privileged instructions of guests, found at a #GP or behind the forced-emulation prefix.

use super::decode::Bytes;
use super::{cpuid, decode, io, msr, trap};
use crate::arch::layout::is_guest_range;
use crate::arch::regs::{GuestRegs, rflags as f};
use crate::domain::Cx;
use crate::domain::capture::CR0;
use crate::mm::guest;

/// Up to 15 bytes at RIP, as far as they are mapped.
pub fn fetch(cx: &Cx) -> Bytes {
    let mut buf = [0u8; 15];
    let rip = cx.regs.rip;
    if guest::read_bytes(rip, &mut buf).is_ok() {
        return Bytes::new(&buf);
    }
    // The tail may lie on a page that is not there.
    let n = ((4096 - (rip & 0xfff)) as usize).min(15);
    let Some(part) = buf.get_mut(..n) else {
        return Bytes::default();
    };
    match guest::read_bytes(rip, part) {
        Ok(()) => Bytes::new(part),
        Err(_) => Bytes::default(),
    }
}

/// General register `n` (0 = rax … 15).
pub fn gpr(r: &GuestRegs, n: u8) -> u64 {
    match n & 15 {
        0 => r.rax,
        1 => r.rcx,
        2 => r.rdx,
        3 => r.rbx,
        4 => r.rsp,
        5 => r.rbp,
        6 => r.rsi,
        7 => r.rdi,
        8 => r.r8,
        9 => r.r9,
        10 => r.r10,
        11 => r.r11,
        12 => r.r12,
        13 => r.r13,
        14 => r.r14,
        _ => r.r15,
    }
}

/// Sets general register `n`.
pub fn set_gpr(r: &mut GuestRegs, n: u8, v: u64) {
    let slot = match n & 15 {
        0 => &mut r.rax,
        1 => &mut r.rcx,
        2 => &mut r.rdx,
        3 => &mut r.rbx,
        4 => &mut r.rsp,
        5 => &mut r.rbp,
        6 => &mut r.rsi,
        7 => &mut r.rdi,
        8 => &mut r.r8,
        9 => &mut r.r9,
        10 => &mut r.r10,
        11 => &mut r.r11,
        12 => &mut r.r12,
        13 => &mut r.r13,
        14 => &mut r.r14,
        _ => &mut r.r15,
    };
    *slot = v;
}

/// Register `n` of `size` bytes: without REX, byte registers 4 to 7 are AH, CH, DH, BH.
pub fn gpr_sized(r: &GuestRegs, n: u8, size: usize, rex: u8) -> u64 {
    match size {
        1 if rex == 0 && (4..8).contains(&n) => gpr(r, n - 4) >> 8 & 0xff,
        8 => gpr(r, n),
        s => gpr(r, n) & ((1 << (s * 8)) - 1),
    }
}

/// Sets register `n` of `size` bytes as the CPU does: 32-bit results clear the upper half.
pub fn set_gpr_sized(r: &mut GuestRegs, n: u8, size: usize, rex: u8, v: u64) {
    match size {
        1 if rex == 0 && (4..8).contains(&n) => {
            let old = gpr(r, n - 4);
            set_gpr(r, n - 4, old & !0xff00 | (v & 0xff) << 8);
        }
        1 => {
            let old = gpr(r, n);
            set_gpr(r, n, old & !0xff | v & 0xff);
        }
        2 => {
            let old = gpr(r, n);
            set_gpr(r, n, old & !0xffff | v & 0xffff);
        }
        4 => set_gpr(r, n, v & 0xffff_ffff),
        _ => set_gpr(r, n, v),
    }
}

fn advance(cx: &mut Cx, len: usize) -> bool {
    cx.regs.rip = cx.regs.rip.wrapping_add(len as u64);
    cx.regs.rflags &= !f::RF;
    cx.regs.force_iret();
    step(cx)
}

/// There is no such instruction.
fn undefined(cx: &mut Cx) -> bool {
    trap::inject(cx, trap::vector::UD, 0).is_ok()
}

/// An instruction was done for a guest that steps through its code: the CPU's trap behind it is ours to raise, too.
/// False when the guest cannot take it.
pub(super) fn step(cx: &mut Cx) -> bool {
    if cx.regs.rflags & f::TF == 0 {
        return true;
    }
    cx.arch.debugreg[6] |= DR6_STEP;
    trap::inject(cx, trap::vector::DB, 0).is_ok()
}

/// DR6: a single step.
const DR6_STEP: u64 = 1 << 14;

/// `ud2; .ascii "xen"; cpuid`: what kernels use where they want the hypervisor's view of CPUID.
pub fn forced(cx: &mut Cx) -> bool {
    const PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];
    let mut buf = [0u8; 7];
    let rip = cx.regs.rip;
    let (prefix, rest) = buf.split_at_mut(PREFIX.len());
    if guest::read_bytes(rip, prefix).is_err() {
        // Looked for, and not to be read: the guest's fault, at the page that is missing.
        return trap::access_fault(cx, (rip | 0xfff).wrapping_add(1), false).is_ok();
    }
    if *prefix != PREFIX
        || guest::read_bytes(rip.wrapping_add(PREFIX.len() as u64), rest).is_err()
        || *rest != [0x0f, 0xa2]
    {
        return false;
    }
    cpuid::emulate(cx);
    advance(cx, 7)
}

/// The instruction at RIP raised #GP(0); true when it was done for the guest.
pub fn privileged(cx: &mut Cx) -> bool {
    use decode::Privileged as P;
    let long = cx.regs.cs & 0xffff == u64::from(crate::arch::layout::sel::GUEST_CS64) || !compat(cx);
    let b = fetch(cx);
    let Some((instruction, p, len)) = decode::privileged(&b, long) else {
        return false;
    };
    // What user code may do, too, as far as it has the right.
    match instruction {
        P::Port(access) => {
            return io::emulate(cx, &access, &p, len, long).is_some_and(|len| len == 0 || advance(cx, len));
        }
        // Nothing, for whoever has the I/O privilege level. (The guest masks events in its vcpu_info.)
        P::Cli | P::Sti => return io::has_iopl(cx) && advance(cx, len),
        P::Undefined => return undefined(cx),
        P::Cpuid => {
            cpuid::emulate(cx);
            return advance(cx, len);
        }
        _ => {}
    }
    if !cx.arch.in_kernel {
        return false;
    }
    let done = match instruction {
        // RDTSC and RDTSCP trap where the guest set CR4.TSD; its kernel may still use them.
        P::Rdtsc | P::Rdtscp => {
            let t = crate::platform::timer::tsc_now();
            cx.regs.rax = t & 0xffff_ffff;
            cx.regs.rdx = t >> 32;
            if instruction == P::Rdtscp {
                cx.regs.rcx = cx.arch.tsc_aux & 0xffff_ffff;
            }
            true
        }
        P::Xsetbv => xsetbv(cx),
        P::Clts => {
            set_ts(cx, false);
            true
        }
        P::Wbinvd => true,
        P::FromControl { number, register } => read_cr(cx, number).map(|v| set_gpr(cx.regs, register, v)).is_some(),
        P::ToControl { number, register } => {
            let v = gpr(cx.regs, register);
            write_cr(cx, number, v)
        }
        P::FromDebug { number, register } => {
            let v = crate::hypercall::cpu::read_debugreg(cx, u64::from(number));
            v.map(|v| set_gpr(cx.regs, register, v)).is_ok()
        }
        P::ToDebug { number, register } => {
            let v = gpr(cx.regs, register);
            crate::hypercall::cpu::write_debugreg(cx, u64::from(number), v).is_ok()
        }
        P::Wrmsr => {
            let v = cx.regs.rdx << 32 | cx.regs.rax & 0xffff_ffff;
            msr::write(cx, cx.regs.rcx as u32, v)
        }
        P::Rdmsr => match msr::read(cx, cx.regs.rcx as u32) {
            Some(v) => {
                cx.regs.rax = v & 0xffff_ffff;
                cx.regs.rdx = v >> 32;
                true
            }
            None => false,
        },
        P::Port(_) | P::Cli | P::Sti | P::Undefined | P::Cpuid => false,
    };
    done && advance(cx, len)
}

/// Whether the guest's code segment is a 32-bit one.
fn compat(cx: &Cx) -> bool {
    let cs = cx.regs.cs & 0xffff;
    cs == u64::from(crate::arch::layout::sel::GUEST_CS32) || cs == 0x23
}

/// Sets the virtual CR0.TS.
pub fn set_ts(cx: &mut Cx, on: bool) {
    cx.arch.ts = on;
    #[cfg(target_os = "none")]
    crate::arch::cr::set_ts(on);
}

fn read_cr(cx: &Cx, n: u8) -> Option<u64> {
    Some(match n {
        0 => CR0 | u64::from(cx.arch.ts) << 3,
        2 => cx.shared().info.cr2(),
        3 => cx.arch.tables.kernel_base()?.0 << 12,
        4 => 0x660 | cx.arch.cr4,
        _ => return None,
    })
}

fn write_cr(cx: &mut Cx, n: u8, v: u64) -> bool {
    match n {
        0 => {
            // Only TS may change.
            if (v ^ CR0) & !8 != 0 {
                return false;
            }
            set_ts(cx, v & 8 != 0);
            true
        }
        2 => {
            cx.shared().info.set_cr2(v);
            true
        }
        3 => crate::hypercall::mmu::new_baseptr(cx, pv_abi::ids::Mfn(v >> 12)).is_ok(),
        4 => {
            // TSD, DE, FSGSBASE and OSXSAVE are the guest's; what else it writes is dropped.
            const OSXSAVE: u64 = 1 << 18;
            const OWNED: u64 = 1 << 2 | 1 << 3 | 1 << 16 | OSXSAVE;
            cx.arch.cr4 = v & OWNED;
            #[cfg(target_os = "none")]
            crate::arch::cpu::set_guest_cr4(cx.arch.cr4);
            true
        }
        _ => false,
    }
}

fn xsetbv(cx: &mut Cx) -> bool {
    let v = cx.regs.rdx << 32 | cx.regs.rax & 0xffff_ffff;
    if cx.regs.rcx as u32 != 0 || !legal_xcr0(v, crate::arch::fpu::mask()) {
        return false;
    }
    cx.arch.xcr0 = v;
    #[cfg(target_os = "none")]
    crate::arch::fpu::set_guest_xcr0(v);
    true
}

/// Whether `v` may be in XCR0 where the hardware allows `mask` (SDM vol. 1 §13.3).
pub fn legal_xcr0(v: u64, mask: u64) -> bool {
    v & 1 != 0 && v & !mask == 0 && (v & 4 == 0 || v & 2 != 0) && (v & 0xe0 == 0 || v & 0xe4 == 0xe4)
}

/// Whether a guest may put a breakpoint at `addr`: it may watch all that is its own, up to the last byte.
pub fn is_guest_address(addr: u64) -> bool {
    is_guest_range(addr, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xcr0_rules() {
        assert!(legal_xcr0(1, 7) && legal_xcr0(3, 7) && legal_xcr0(7, 7));
        assert!(!legal_xcr0(0, 7) && !legal_xcr0(5, 7) && !legal_xcr0(0x17, 7) && !legal_xcr0(0x67, 0xe7));
        assert!(legal_xcr0(0xe7, 0xe7));
    }

    #[test]
    fn registers_by_size() {
        let mut r = GuestRegs { rax: 0x1122_3344_5566_7788, ..GuestRegs::default() };
        assert_eq!(gpr_sized(&r, 4, 1, 0), 0x77);
        assert_eq!(gpr_sized(&r, 0, 2, 0), 0x7788);
        set_gpr_sized(&mut r, 0, 4, 0, 0xffff_ffff_0000_0001);
        assert_eq!(r.rax, 1);
        set_gpr_sized(&mut r, 4, 1, 0, 0xab);
        assert_eq!(r.rax, 0xab01);
    }
}
