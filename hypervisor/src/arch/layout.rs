//! The hypervisor's map of the virtual address space.
//!
//! The ABI reserves L4 slots 256 to 271 (`HYPERVISOR_VIRT_START` in arch-x86/xen-x86_64.h) for the hypervisor; every
//! L4 table a guest uses carries them.
//!
//! | L4 slot | from | what |
//! |---|---|---|
//! | 256 | `0xffff_8000_0000_0000` | machine-to-phys table, read-only for guest kernels (absent while guest user mode runs) |
//! | 257 | `0xffff_8080_0000_0000` | the same table, writable, for the hypervisor |
//! | 258 | `0xffff_8100_0000_0000` | the current domain's window: each vCPU's GDT and LDT (the only slot that differs between domains) |
//! | 259 | `0xffff_8180_0000_0000` | device registers ([`IOREMAP`]) and the heap window ([`HEAP`]) |
//! | 260 | `0xffff_8200_0000_0000` | the hypervisor's image, the CPUs' stacks and their SYSCALL stubs, all within 2 GiB |
//! | 261 | `0xffff_8280_0000_0000` | frame table |
//! | 262–271 | `0xffff_8300_0000_0000` | direct map of all RAM (at most 5 TiB) |

/// Bytes one L4 slot spans.
pub const L4_SLOT: u64 = 1 << 39;
/// First L4 slot of the hypervisor.
pub const FIRST_SLOT: usize = 256;
/// Last L4 slot of the hypervisor.
pub const LAST_SLOT: usize = 271;
/// First address of the hypervisor.
pub const START: u64 = 0xffff_8000_0000_0000;
/// First address behind the hypervisor.
pub const END: u64 = 0xffff_8800_0000_0000;

/// M2P as guests see it.
pub const M2P_RO: u64 = START;
/// M2P, writable.
pub const M2P_RW: u64 = 0xffff_8080_0000_0000;
/// The domain window.
pub const DOMAIN_WINDOW: u64 = 0xffff_8100_0000_0000;
/// Bytes of the domain window a vCPU has: 16 pages GDT, then 16 pages LDT.
pub const DOMAIN_WINDOW_PER_VCPU: u64 = 32 * 4096;
/// Device registers.
pub const IOREMAP: u64 = 0xffff_8180_0000_0000;
/// Small-object heap.
pub const HEAP: u64 = 0xffff_8190_0000_0000;
/// Where the image is linked.
pub const IMAGE: u64 = 0xffff_8200_0000_0000;
/// CPU stacks: [`STACK_SIZE`] each, aligned to their size.
pub const STACKS: u64 = IMAGE + (512 << 20);
/// Bytes of one CPU's stack block: guard pages, four IST stacks and the main stack (see `arch/tables.rs`).
pub const STACK_SIZE: u64 = 256 * 1024;
/// SYSCALL stubs, one page a CPU.
pub const STUBS: u64 = IMAGE + (768 << 20);
/// Frame table.
pub const FRAME_TABLE: u64 = 0xffff_8280_0000_0000;
/// Direct map of RAM.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Bytes the direct map can hold.
pub const DIRECT_MAP_SIZE: u64 = END - DIRECT_MAP;

/// Most CPUs the hypervisor uses; the rest stay parked, with a line in the log.
pub const MAX_CPUS: usize = 64;

/// GDT selectors the ABI fixes (arch-x86/xen-x86_64.h) and our own behind them. The reserved entries start at
/// entry 7168 (page 14 of the GDT window).
#[allow(missing_docs)]
pub mod sel {
    pub const HYP_CS: u16 = 0xe008;
    pub const HYP_DS: u16 = 0xe010;
    pub const GUEST_CS32: u16 = 0xe023;
    pub const GUEST_DS: u16 = 0xe02b;
    pub const GUEST_CS64: u16 = 0xe033;
    pub const TSS: u16 = 0xe040;
    pub const LDT: u16 = 0xe050;
    pub const GDT_LIMIT: u16 = 0xefff;
    /// Index of the window page that holds the reserved descriptors.
    pub const RESERVED_PAGE: usize = 14;
}

const _: () = assert!(END - START == L4_SLOT * (LAST_SLOT - FIRST_SLOT + 1) as u64);
const _: () = assert!(STACKS + STACK_SIZE * MAX_CPUS as u64 <= STUBS);

/// Whether `addr` is canonical with 48-bit linear addresses (the only mode the hypervisor uses).
pub const fn is_canonical(addr: u64) -> bool {
    let top = (addr as i64) >> 47;
    top == 0 || top == -1
}

/// Compares RCX with what it would be if it were canonical, through RAX: *not equal* where it is not. For the exit path,
/// before SYSRET; a host test executes it.
#[cfg(any(target_os = "none", test))]
macro_rules! compare_canonical {
    () => {
        "mov rax, rcx\n shl rax, 16\n sar rax, 16\n cmp rax, rcx"
    };
}
#[cfg(target_os = "none")]
pub(crate) use compare_canonical;

/// Whether `addr` lies in the hypervisor's part.
pub const fn is_hypervisor(addr: u64) -> bool {
    addr >= START && addr < END
}

/// Whether all of `[addr, addr + len)` is canonical and outside the hypervisor: what a guest may name.
///
/// Turned by `END`, the guest's two parts are one range: the upper one first, then the lower one (behind the top of the
/// address space comes its bottom, as for the CPU), then the hole and the hypervisor.
#[inline(always)]
pub const fn is_guest_range(addr: u64, len: u64) -> bool {
    const GUEST: u64 = END.wrapping_neg() + (1 << 47);
    let at = addr.wrapping_sub(END);
    at < GUEST && len <= GUEST - at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses at all edges.
    fn addresses() -> impl Iterator<Item = u64> {
        let edges = [0, 1 << 47, START, END, u64::MAX, 1 << 46, 1 << 48, 1 << 63, 0xffff << 47, M2P_RW, DIRECT_MAP];
        edges
            .into_iter()
            .flat_map(|e: u64| {
                [0u64, 1, 2, 7, 8, 9, 4095, 4096].into_iter().flat_map(move |d| [e.wrapping_add(d), e.wrapping_sub(d)])
            })
            .chain((0..64).flat_map(|n| [1 << n, !(1 << n), (1 << n) - 1]))
    }

    #[test]
    fn canonical_addresses() {
        for a in addresses() {
            // SDM vol. 1 §3.3.7.1: bits 63 to 47 are all the same.
            let upper = a >> 47;
            assert_eq!(is_canonical(a), upper == 0 || upper == 0x1_ffff, "{a:#x}");
        }
    }

    #[test]
    fn the_check_before_sysret_is_the_same() {
        for a in addresses() {
            let same: u8;
            // SAFETY: compares two registers.
            unsafe {
                core::arch::asm!(compare_canonical!(), "sete {}", out(reg_byte) same, in("rcx") a, out("rax") _, options(nomem, nostack));
            }
            assert_eq!(same != 0, is_canonical(a), "{a:#x}");
        }
    }

    /// Byte by byte, with numbers that do not wrap: every byte of the range is canonical and not the hypervisor's.
    #[test]
    fn ranges_of_guests() {
        for a in addresses() {
            for len in [0u64, 1, 2, 8, 9, 4096, 1 << 47, 1 << 48, u64::MAX] {
                let guest = |a: u64| is_canonical(a) && !is_hypervisor(a);
                let (last, none) = (a.wrapping_add(len).wrapping_sub(1), len == 0);
                if is_guest_range(a, len) {
                    assert!(guest(a) && (none || guest(last)), "{a:#x} {len:#x}");
                    // Nothing forbidden lies between: the hole and the hypervisor are one piece, [2^47, END).
                    let holes = none || !(a < 1 << 47 && last >= END) && len <= END.wrapping_neg() + (1 << 47);
                    assert!(holes, "{a:#x} {len:#x}");
                } else if none {
                    assert!(!guest(a), "{a:#x}");
                }
            }
        }
    }
}
