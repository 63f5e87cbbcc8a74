//! What this CPU can do, and the control registers that follow from it.

use super::cr::{self, cr4};
use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The PAT the ABI fixes: WB, WT, UC-, UC, WC, WP, UC, UC (Linux decodes it and never writes it).
pub const PAT: u64 = 0x0000_0501_0007_0406;

/// CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

static GB_PAGES: AtomicBool = AtomicBool::new(false);
static INTEL: AtomicBool = AtomicBool::new(false);
static FSGSBASE: AtomicBool = AtomicBool::new(false);
static HAS_SMAP: AtomicBool = AtomicBool::new(false);
static BASE_CR4: AtomicU64 = AtomicU64::new(0);
static PHYS_BITS: AtomicU64 = AtomicU64::new(36);

/// Whether the CPU maps 1 GiB pages.
pub fn has_1g_pages() -> bool {
    GB_PAGES.load(Ordering::Relaxed)
}

/// Whether SYSENTER works in long mode (Intel and compatible; AMD CPUs have it in legacy mode only).
pub fn is_intel() -> bool {
    INTEL.load(Ordering::Relaxed)
}

/// Width of a physical address, bits.
pub fn phys_bits() -> u32 {
    PHYS_BITS.load(Ordering::Relaxed) as u32
}

/// CR4 without the bits a guest owns.
pub fn base_cr4() -> u64 {
    BASE_CR4.load(Ordering::Relaxed)
}

/// Whether the CPU has FSGSBASE.
pub fn has_fsgsbase() -> bool {
    FSGSBASE.load(Ordering::Relaxed)
}

/// Whether the CPU has SYSCALL, which PV guests cannot do without. (Asked in 64-bit mode: Intel's say no in others.)
pub fn has_syscall() -> bool {
    cpuid(0x8000_0001, 0).edx & 1 << 11 != 0
}

/// Reads CPUID once, on the boot CPU. `smep=`, `xpti=` and `spec-ctrl=` are obeyed here.
///
/// UMIP stays off, as on Xen: SGDT, SIDT, SLDT, STR and SMSW are native for PV guests (`tests/guests`, kernel
/// `privileged`), and with it they would have to be emulated. What they show is the fixed map of `arch::layout`, which is
/// no secret.
pub fn detect(options: &boot::cmdline::Options) {
    let v = cpuid(0, 0);
    // "GenuineIntel", "CentaurHauls", "  Shanghai  ": the vendors whose SYSENTER works in long mode.
    INTEL.store(matches!(v.ebx, 0x756e_6547 | 0x746e_6543 | 0x6853_2020), Ordering::Relaxed);
    let max_ext = cpuid(0x8000_0000, 0).eax;
    GB_PAGES.store(max_ext >= 0x8000_0001 && cpuid(0x8000_0001, 0).edx & 1 << 26 != 0, Ordering::Relaxed);
    if max_ext >= 0x8000_0008 {
        PHYS_BITS.store(u64::from(cpuid(0x8000_0008, 0).eax & 0xff), Ordering::Relaxed);
    }
    let mut cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::MCE;
    if cpuid(1, 0).ecx & 1 << 26 != 0 {
        cr4 |= cr4::OSXSAVE;
    }
    if v.eax >= 7 {
        let l7 = cpuid(7, 0);
        if options.smep && l7.ebx & 1 << 7 != 0 {
            cr4 |= cr4::SMEP;
        }
        FSGSBASE.store(l7.ebx & 1 != 0, Ordering::Relaxed);
        HAS_SMAP.store(l7.ebx & 1 << 20 != 0, Ordering::Relaxed);
    }
    super::spec::init(cr4 & cr4::SMEP != 0, &options.xpti, &options.pv_l1tf, &options.spec_ctrl);
    if !super::spec::policy().xpti() {
        cr4 |= cr4::PGE;
    }
    BASE_CR4.store(cr4, Ordering::Relaxed);
}

/// Sets CR0 and CR4 of this CPU.
pub fn init_control_registers() {
    // SAFETY: CR0: protection, paging, write protection, native FPU errors, TS and EM clear; CR4 as detected.
    unsafe {
        cr::write_cr0(CR0);
        cr::write_cr4(base_cr4());
    }
}

/// Switches SMAP on if the CPU has it, it is wanted (`smap=`) and it works; says what came of it. Boot CPU, on its own
/// stack, with early memory to be had; the sites in the code are to be chosen after it ([`smap_on`]).
pub fn init_smap(wanted: bool) {
    use super::probe::{self, Smap};
    let smep = if base_cr4() & cr4::SMEP != 0 { "on" } else { "off" };
    let smap = match (HAS_SMAP.load(Ordering::Relaxed), wanted) {
        (false, _) => "off (the CPU has none)",
        (true, false) => "off (told so)",
        (true, true) => match probe::smap() {
            Smap::Works => {
                BASE_CR4.fetch_or(cr4::SMAP, Ordering::Relaxed);
                // SAFETY: all accesses to guests' pages are bracketed, see `uaccess`.
                unsafe { cr::write_cr4(base_cr4()) };
                "on"
            }
            Smap::BreaksIret => "off (broken here: it makes IRET in ring 3 fault)",
            Smap::NoEffect => "off (broken here: it protects nothing)",
        },
    };
    log::info!("SMEP {smep}, SMAP {smap}");
}

/// Whether SMAP is in use.
pub fn smap_on() -> bool {
    base_cr4() & cr4::SMAP != 0
}

/// Checks, in debug builds, what every entry from a guest relies on: the control registers are ours, and AC is clear.
#[inline(always)]
pub fn debug_check_entry() {
    if cfg!(debug_assertions) {
        let (cr0, cr4) = (cr::read_cr0(), cr::read_cr4());
        assert!(cr0 & !8 == CR0, "CR0 is {cr0:#x}");
        assert!(cr4 & !GUEST_CR4 == base_cr4(), "CR4 is {cr4:#x}, not {:#x} and what guests own", base_cr4());
        let (cr3, full) = (cr::read_cr3(), super::percpu::this_cpu().full_cr3.get());
        assert!(cr3 == full, "CR3 is {cr3:#x}, not {full:#x}");
        let flags: u64;
        // SAFETY: reads RFLAGS.
        unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
        assert!(!smap_on() || flags & super::regs::rflags::AC == 0, "entered with AC set");
    }
}

/// CR0 but for TS: protection, paging, write protection, alignment checks for ring 3, native FPU errors.
const CR0: u64 = 0x8005_0033;

/// CR4 bits a guest owns: TSD, DE, FSGSBASE. (It owns OSXSAVE too, but that bit is always on in the hardware.)
pub const GUEST_CR4: u64 = cr4::TSD | cr4::DE | cr4::FSGSBASE;

/// Sets CR4 for a guest that wants the bits `owned` (others are ignored; FSGSBASE only where the CPU has it).
pub fn set_guest_cr4(owned: u64) {
    let mut bits = owned & GUEST_CR4;
    if bits & cr4::FSGSBASE != 0 && !has_fsgsbase() {
        bits &= !cr4::FSGSBASE;
    }
    let v = base_cr4() | bits;
    if cr::read_cr4() != v {
        // SAFETY: the base set plus harmless bits.
        unsafe { cr::write_cr4(v) };
    }
}
