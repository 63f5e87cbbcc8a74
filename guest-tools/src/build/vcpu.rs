//! The first vCPU's registers.

use boot::builder::StartOfDay;
use pv_abi::arch::{CpuUserRegs, VcpuGuestContext, sel, vgcf};

/// RFLAGS: interrupts on and the bit that is always set.
const RFLAGS: u64 = 0x202;
/// What FXSAVE shows of an FPU after FNINIT: FCW at byte 0, MXCSR at byte 24.
const FCW: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// A vCPU at the kernel's entry point, in kernel mode, with nothing set up yet.
pub fn first_context(start: &StartOfDay) -> VcpuGuestContext {
    let (cs, ss) = (sel::FLAT_RING3_CS64, sel::FLAT_RING3_DS);
    let mut context = VcpuGuestContext {
        flags: vgcf::IN_KERNEL | vgcf::ONLINE,
        user_regs: CpuUserRegs {
            rip: start.entry,
            rsp: start.stack_va,
            rsi: start.start_info_va,
            rflags: RFLAGS,
            cs,
            ss,
            ..Default::default()
        },
        kernel_ss: ss.into(),
        kernel_sp: start.stack_va,
        ..Default::default()
    };
    context.ctrlreg[3] = start.cr3_mfn.0 << 12;
    context.fpu[..2].copy_from_slice(&FCW.to_le_bytes());
    context.fpu[24..28].copy_from_slice(&MXCSR.to_le_bytes());
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use pv_abi::ids::{Mfn, Pfn};

    #[test]
    fn starts_at_the_entry_point_in_kernel_mode() {
        let start = StartOfDay {
            entry: 0xffff_ffff_8100_0000,
            stack_va: 0x2000,
            start_info_va: 0x3000,
            start_info_mfn: Mfn(1),
            pt_base_pfn: Pfn(5),
            cr3_mfn: Mfn(0x1234),
            xenstore_mfn: None,
            console_mfn: None,
            hypercall_page_mfn: None,
        };
        let context = first_context(&start);
        assert_eq!(context.flags, 0x24);
        assert_eq!(
            (context.user_regs.rip, context.user_regs.rsp, context.user_regs.rsi),
            (start.entry, 0x2000, 0x3000)
        );
        assert_eq!((context.user_regs.cs, context.user_regs.ss, context.user_regs.rflags), (0xe033, 0xe02b, 0x202));
        assert_eq!(context.ctrlreg[3], 0x123_4000);
    }
}
