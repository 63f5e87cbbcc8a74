//! Guest-kernel and guest-user mode: both are ring 3; what differs is the page-table base and the active GS base.

use crate::arch::percpu::this_cpu;
use crate::domain::Cx;

/// Changes to the other mode. False when there are no page tables for it; nothing has changed then.
pub fn toggle(cx: &mut Cx) -> bool {
    let kernel = !cx.arch.in_kernel;
    let base = if kernel { cx.arch.tables.kernel_base() } else { cx.arch.tables.user_base() };
    if base.is_none() {
        return false;
    }
    cx.arch.in_kernel = kernel;
    this_cpu().guest_kernel.set(u32::from(kernel));
    #[cfg(target_os = "none")]
    {
        crate::arch::segments::swap_gs();
        cx.arch.tables.load(kernel, false);
    }
    true
}
