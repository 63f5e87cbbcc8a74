//! Facts about the machine that dom0 asks for.

use crate::arch::percpu::{CpuId, online};
use core::sync::atomic::{AtomicU8, Ordering};

static KEYBOARD: AtomicU8 = AtomicU8::new(0);

/// Reads what the BIOS left in low memory, if a `bios` started the machine. Boot CPU, before dom0 runs.
#[cfg(target_os = "none")]
pub fn init(bios: bool) {
    if !bios {
        return;
    }
    KEYBOARD.store(super::acpi::bios_byte(0x417).unwrap_or(0), Ordering::Relaxed);
}

/// Shift, lock and insert state of the keyboard when the loader started us (BIOS data area, 0x417).
pub fn keyboard_flags() -> u8 {
    KEYBOARD.load(Ordering::Relaxed)
}

/// Local APIC id of a CPU that is online.
pub fn apic_id(cpu: CpuId) -> Option<u32> {
    if cpu.0 >= online() {
        return None;
    }
    #[cfg(target_os = "none")]
    return Some(super::lapic::id_of(cpu));
    #[cfg(not(target_os = "none"))]
    Some(cpu.0)
}

/// Vendor, family, model and stepping of the CPUs.
pub fn cpu_version() -> ([u8; 12], u32, u32, u32) {
    let leaf = |n| {
        // SAFETY: CPUID exists on every 64-bit CPU.
        #[allow(unused_unsafe)]
        unsafe {
            core::arch::x86_64::__cpuid(n)
        }
    };
    let v = leaf(0);
    let mut vendor = [0; 12];
    for (to, from) in vendor.chunks_exact_mut(4).zip([v.ebx, v.edx, v.ecx]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    let (family, model, stepping) = signature(leaf(1).eax);
    (vendor, family, model, stepping)
}

/// Family, model, stepping from CPUID 1's EAX (SDM vol. 2 CPUID).
const fn signature(eax: u32) -> (u32, u32, u32) {
    let (family, model) = (eax >> 8 & 0xf, eax >> 4 & 0xf);
    let extended = if family == 6 || family == 15 { (eax >> 16 & 0xf) << 4 } else { 0 };
    (if family == 15 { family + (eax >> 20 & 0xff) } else { family }, model | extended, eax & 0xf)
}

/// Variable-range MTRR `reg`: first frame, frames, memory type; all 0 while it is off. `None` when there is no such.
pub fn variable_mtrr(reg: u32) -> Option<(u64, u64, u32)> {
    let (base, mask, bits) = read_mtrr(reg)?;
    Some(decode_mtrr(base, mask, bits))
}

#[cfg(target_os = "none")]
fn read_mtrr(reg: u32) -> Option<(u64, u64, u32)> {
    use crate::arch::{cpu, msr};
    // CPUID 1 EDX bit 12: MTRRs exist.
    if cpu::cpuid(1, 0).edx >> 12 & 1 == 0 {
        return None;
    }
    // SAFETY: reading MTRRCAP (0xfe) and, within the count it gives, range registers (0x200 on).
    unsafe {
        if u64::from(reg) >= msr::rdmsr(0xfe) & 0xff {
            return None;
        }
        Some((msr::rdmsr(0x200 + 2 * reg), msr::rdmsr(0x201 + 2 * reg), cpu::phys_bits()))
    }
}

#[cfg(not(target_os = "none"))]
fn read_mtrr(_: u32) -> Option<(u64, u64, u32)> {
    None
}

/// A range from its base and mask register, on a CPU with `bits` physical address bits.
const fn decode_mtrr(base: u64, mask: u64, bits: u32) -> (u64, u64, u32) {
    if mask & 1 << 11 == 0 {
        return (0, 0, 0);
    }
    // The mask's lowest address bit is the size of a contiguous range.
    let address = mask & ((1 << bits) - 1) & !0xfff;
    let size = if address == 0 { 1 << bits } else { address & address.wrapping_neg() };
    (base >> 12 & ((1 << (bits - 12)) - 1), size >> 12, (base & 0xff) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        assert_eq!(signature(0x000a_06a4), (6, 0xaa, 4));
        assert_eq!(signature(0x00a2_0f12), (25, 0x21, 2));
        assert_eq!(signature(0x0000_0f29), (15, 2, 9));
    }

    #[test]
    fn ranges() {
        // 3 GiB to 4 GiB uncached, 40 address bits.
        assert_eq!(decode_mtrr(0xc000_0000, 0xff_c000_0800, 40), (0xc0000, 0x40000, 0));
        assert_eq!(decode_mtrr(0x6, 0xff_8000_0800, 40), (0, 0x80000, 6));
        assert_eq!(decode_mtrr(0x6, 0xff_8000_0000, 40), (0, 0, 0));
    }
}
