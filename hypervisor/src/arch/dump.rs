//! Registers and backtraces for people.

use super::regs::GuestRegs;
use core::fmt::{self, Display};

/// Prints a register frame over several lines.
pub struct Regs<'a>(pub &'a GuestRegs);

impl Display for Regs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.0;
        writeln!(f, "rip {:#06x}:{:#018x}  rflags {:#x}  entry {:#x} error {:#x}", r.cs, r.rip, r.rflags, r.entry_vector, r.error_code)?;
        writeln!(f, "rsp {:#06x}:{:#018x}", r.ss, r.rsp)?;
        writeln!(f, "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}", r.rsi, r.rdi, r.rbp, r.r8)?;
        writeln!(f, "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}", r.r9, r.r10, r.r11, r.r12)?;
        write!(f, "r13 {:016x}  r14 {:016x}  r15 {:016x}", r.r13, r.r14, r.r15)
    }
}

/// A fault of the hypervisor itself: registers, backtrace, end.
#[cfg(target_os = "none")]
pub fn fatal(regs: &GuestRegs, cr2: u64) -> ! {
    panic!("fault {} in the hypervisor, cr2 {cr2:#x}\n{}\n{}", regs.entry_vector, Regs(regs), Backtrace(regs.rbp, regs.rip))
}

/// Return addresses along the frame pointers from `.0`, starting with the instruction `.1`. Stops at the end of the
/// CPU's stack block.
#[cfg(target_os = "none")]
pub struct Backtrace(pub u64, pub u64);

#[cfg(target_os = "none")]
impl Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::layout::STACK_SIZE;
        let Backtrace(mut rbp, rip) = *self;
        write!(f, "backtrace:\n  {}", super::symbols::Symbol(rip))?;
        // The block this runs on: all stacks of a CPU are in one.
        let block = (&raw const rbp) as u64 & !(STACK_SIZE - 1);
        for _ in 0..32 {
            if rbp & !(STACK_SIZE - 1) != block || rbp % 8 != 0 || rbp >= block + super::percpu::REGS_OFFSET {
                break;
            }
            // SAFETY: inside this CPU's stack block, below the guest frame; a guard page would fault into the
            // exception path, which prints what it has.
            let (next, ret) = unsafe { (*(rbp as *const u64), *((rbp + 8) as *const u64)) };
            if ret == 0 {
                break;
            }
            write!(f, "\n  {}", super::symbols::Symbol(ret))?;
            if next <= rbp {
                break;
            }
            rbp = next;
        }
        Ok(())
    }
}
