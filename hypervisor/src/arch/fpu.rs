//! x87, SSE and AVX state: saved and restored eagerly at each vCPU switch.
//!
//! Lazy switching leaks registers (and their speculative shadows) between domains; eager switching costs one XSAVE
//! and one XRSTOR a switch.

use crate::fallible::OutOfMemory;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Features of XCR0 a guest may use: x87, SSE, AVX, AVX-512. (PKRU, AMX and supervisor states are hidden.)
const GUEST_FEATURES: u64 = 0b111 | 0b111 << 5;

/// XCR0 while the hypervisor saves and restores; 0 = no XSAVE, use FXSAVE.
static MASK: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU32 = AtomicU32::new(512);

/// The XCR0 bits guests may set; 0 where the CPU has no XSAVE.
pub fn mask() -> u64 {
    MASK.load(Ordering::Relaxed)
}

/// Bytes of a state area.
pub fn area_size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// Finds out what this CPU saves. Boot CPU, after CR4.OSXSAVE is set.
#[cfg(target_os = "none")]
pub fn init() {
    use super::cr::{cr4, read_cr4, write_xcr0};
    if read_cr4() & cr4::OSXSAVE == 0 {
        return;
    }
    let d = super::cpu::cpuid(0xd, 0);
    let mask = (u64::from(d.edx) << 32 | u64::from(d.eax)) & GUEST_FEATURES;
    // AVX-512 comes whole or not at all.
    let mask = if mask >> 5 & 7 == 7 { mask } else { mask & 7 };
    // SAFETY: a legal subset of what CPUID reports.
    unsafe { write_xcr0(mask) };
    MASK.store(mask, Ordering::Relaxed);
    SIZE.store(super::cpu::cpuid(0xd, 0).ebx.max(576), Ordering::Relaxed);
}

/// Sets XCR0 of an application processor.
#[cfg(target_os = "none")]
pub fn init_ap() {
    if mask() != 0 {
        // SAFETY: the boot CPU found it legal; all CPUs of a machine are alike.
        unsafe { super::cr::write_xcr0(mask()) };
    }
}

/// A vCPU's saved FPU state.
pub struct FpuState {
    area: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory owned by the value.
unsafe impl Send for FpuState {}
// SAFETY: as above; writing needs &mut.
unsafe impl Sync for FpuState {}

impl FpuState {
    /// The state after reset, with the ABI's FCW 0x37f and MXCSR 0x1f80.
    pub fn try_new() -> Result<Self, OutOfMemory> {
        let layout = Layout::from_size_align(area_size(), 64).map_err(|_| OutOfMemory)?;
        // SAFETY: the size is at least 512.
        let area = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).ok_or(OutOfMemory)?;
        let mut s = FpuState { area, layout };
        s.reset();
        Ok(s)
    }

    /// Back to the state after reset.
    pub fn reset(&mut self) {
        let b = self.bytes_mut();
        b.fill(0);
        b[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        b[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        if b.len() > 512 {
            b[512] = 3; // XSTATE_BV: x87 and SSE are in the area
        }
    }

    /// The 512 bytes of the FXSAVE image.
    pub fn fxsave(&self) -> &[u8] {
        // SAFETY: the area is at least 512 bytes, initialised, and borrowed with self.
        unsafe { core::slice::from_raw_parts(self.area.as_ptr(), 512) }
    }

    /// Replaces the x87 and SSE part by an FXSAVE image from a guest or a tool; reserved MXCSR bits are cleared, since
    /// restoring them would fault.
    pub fn set_fxsave(&mut self, image: &[u8; 512]) {
        self.reset();
        let b = self.bytes_mut();
        // Byte 464 on is software's; the tail is not loaded by the CPU.
        b[..416].copy_from_slice(&image[..416]);
        let mxcsr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]) & 0xffbf;
        b[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        b[28..32].fill(0);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the area is layout.size() initialised bytes owned by self.
        unsafe { core::slice::from_raw_parts_mut(self.area.as_ptr(), self.layout.size()) }
    }

    /// Saves the CPU's state here.
    #[cfg(target_os = "none")]
    pub fn save(&mut self) {
        let m = mask();
        // SAFETY: the area is large enough and aligned for the features in XCR0 (which holds `mask` here).
        unsafe {
            if m != 0 {
                super::cr::write_xcr0(m);
                core::arch::asm!("xsave64 [{}]", in(reg) self.area.as_ptr(), in("eax") m as u32, in("edx") (m >> 32) as u32, options(nostack));
            } else {
                core::arch::asm!("fxsave64 [{}]", in(reg) self.area.as_ptr(), options(nostack));
            }
        }
    }

    /// Loads the CPU's state from here and sets the guest's XCR0.
    #[cfg(target_os = "none")]
    pub fn restore(&self, xcr0: u64) {
        let m = mask();
        // SAFETY: the area holds what `save` or `reset` wrote (a legal image), and xcr0 was checked to be a legal
        // subset of `mask` when the guest set it.
        unsafe {
            if m != 0 {
                core::arch::asm!("xrstor64 [{}]", in(reg) self.area.as_ptr(), in("eax") m as u32, in("edx") (m >> 32) as u32, options(nostack));
                if xcr0 != m {
                    super::cr::write_xcr0(xcr0);
                }
            } else {
                core::arch::asm!("fxrstor64 [{}]", in(reg) self.area.as_ptr(), options(nostack));
            }
        }
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in try_new.
        unsafe { alloc::alloc::dealloc(self.area.as_ptr(), self.layout) };
    }
}

/// Sets the guest's XCR0; bits outside [`mask`] are ignored, illegal combinations are the caller's to refuse.
#[cfg(target_os = "none")]
pub fn set_guest_xcr0(v: u64) {
    let v = v & mask() | 1;
    if mask() != 0 && (v & 4 == 0 || v & 2 != 0) && (v & 0xe0 == 0 || v & 0xe4 == 0xe4) {
        // SAFETY: a legal combination within what the CPU has.
        unsafe { super::cr::write_xcr0(v) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_bits_of_mxcsr_are_cleared() {
        let mut state = FpuState::try_new().unwrap();
        let mut image = [0x55; 512];
        image[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        state.set_fxsave(&image);
        assert_eq!(state.fxsave()[24..28], 0xffbfu32.to_le_bytes(), "DAZ too: not every CPU has it");
        assert_eq!(state.fxsave()[28..32], [0; 4], "the mask is the CPU's to say");
        assert_eq!(state.fxsave()[160..168], [0x55; 8]);
    }
}
