//! Floor 4: the paravirtual CPU a guest sees: its traps, its privileged instructions, its two modes.

pub mod bounce;
pub mod cpuid;
pub mod decode;
pub mod emulate;
pub mod io;
pub mod iret;
pub mod mode;
pub mod msr;
pub mod policy;
pub mod ptwrite;
pub mod registers;
pub mod trap;
