//! Registers and backtraces for people.

use super::regs::GuestRegs;
use core::fmt::{self, Display};

/// Prints a register frame over several lines.
pub struct Regs<'a>(pub &'a GuestRegs);

impl Display for Regs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.0;
        writeln!(
            f,
            "rip {:#06x}:{:#018x}  rflags {:#x}  entry {:#x} error {:#x}",
            r.cs, r.rip, r.rflags, r.entry_vector, r.error_code
        )?;
        writeln!(f, "rsp {:#06x}:{:#018x}", r.ss, r.rsp)?;
        writeln!(f, "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}", r.rsi, r.rdi, r.rbp, r.r8)?;
        writeln!(f, "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}", r.r9, r.r10, r.r11, r.r12)?;
        write!(f, "r13 {:016x}  r14 {:016x}  r15 {:016x}", r.r13, r.r14, r.r15)
    }
}

/// Prints this CPU's data selectors and bases over two lines: those of the vCPU that runs, since the hypervisor has none.
pub struct Segments;

#[cfg(target_os = "none")]
impl Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::segments::{ds, es, fs, fs_base, gs, gs_base, gs_base_inactive};
        writeln!(f, "ds {:#06x}  es {:#06x}  fs {:#06x}  gs {:#06x}", ds(), es(), fs(), gs())?;
        write!(
            f,
            "fs base {:016x}  gs base {:016x}  inactive gs base {:016x}",
            fs_base(),
            gs_base(),
            gs_base_inactive()
        )
    }
}

#[cfg(not(target_os = "none"))]
impl Display for Segments {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Bytes of code around an instruction, as far as they can be read; the instruction's first byte stands in `<>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code(pub [Option<u8>; 32]);

impl Code {
    /// Bytes shown before the instruction.
    pub const BEFORE: usize = 12;
}

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            match (b, i == Self::BEFORE) {
                (Some(b), true) => write!(f, "{gap}<{b:02x}>")?,
                (Some(b), false) => write!(f, "{gap}{b:02x}")?,
                (None, true) => write!(f, "{gap}<??>")?,
                (None, false) => write!(f, "{gap}??")?,
            }
        }
        Ok(())
    }
}

/// Which stack of this CPU ends at the guard page that `va` lies in, if it lies in one.
#[cfg(target_os = "none")]
pub fn guard_page(va: u64) -> Option<&'static str> {
    let block = super::tables::stack_block(super::percpu::this_cpu().id);
    super::tables::guards(va.checked_sub(block)? / 4096)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_marks_the_instruction_and_what_is_missing() {
        let mut code = Code([Some(0x90); 32]);
        code.0[Code::BEFORE] = Some(0x0f);
        code.0[31] = None;
        let text = std::format!("{code}");
        assert!(text.starts_with("90 90") && text.contains(" 90 <0f> 90 ") && text.ends_with("90 ??"), "{text}");
        assert!(std::format!("{}", Code::default()).contains("<??>"));
    }
}
