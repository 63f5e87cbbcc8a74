//! Floor 0: instructions. Entry and exit, descriptor tables, MSRs, page-table entries, per-CPU base.

pub mod layout;
pub mod regs;
