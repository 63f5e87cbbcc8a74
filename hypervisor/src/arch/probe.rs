//! Trying SMAP out before it is used.
//!
//! With SMAP, ring 0 reaches pages of ring 3 only while RFLAGS.AC is set. Accesses the CPU makes for ring 3 itself are no
//! business of SMAP's; but some emulators make them with ring 0's rights: in QEMU before 9.1 an IRET *executed in ring 3*
//! reads its stack so, and guest kernels, which run in ring 3, execute it (Linux' `sync_core`). So the boot CPU goes to
//! ring 3 once and executes one.

use super::cr::{self, cr4};
use super::early;
use super::layout::sel;
use super::paging::{self, flag};
use super::tables;
use core::arch::{asm, global_asm};
use pv_abi::ids::PAGE_SIZE;

/// Where the two pages of ring 3 are shown meanwhile: code, then stack.
const CODE: u64 = 0x40_0000;
const STACK: u64 = CODE + PAGE_SIZE;

global_asm!(
    r#"
    .section .text.probe, "ax"
    /* rdi = RIP, rsi = RSP in ring 3; returns the vector that ended the excursion. TSS.rsp0 points to the top of this
     * stack block, where nothing stands yet. */
    .globl probe_ring3, probe_bp, probe_gp, probe_pf
probe_ring3:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + probe_stack], rsp
    push {ss}
    push rsi
    push 2
    push {cs}
    push rdi
    iretq
probe_bp:
    mov eax, 3
    jmp 2f
probe_gp:
    mov eax, 13
    jmp 2f
probe_pf:
    mov eax, 14
2:  mov rsp, [rip + probe_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .section .bss.probe, "aw", @nobits
    .balign 8
probe_stack: .skip 8
"#,
    ss = const sel::GUEST_DS,
    cs = const sel::GUEST_CS64,
);

unsafe extern "C" {
    fn probe_ring3(rip: u64, rsp: u64) -> u64;
    static probe_bp: u8;
    static probe_gp: u8;
    static probe_pf: u8;
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smap {
    /// As the manual has it.
    Works,
    /// Ring 3's own IRET faults: guests could not run.
    BreaksIret,
    /// Ring 0 reads a page of ring 3 all the same, or cannot even with AC set: it protects nothing.
    NoEffect,
}

/// Reads `p` in ring 0, with AC set or clear; `false` when that faulted.
fn readable(p: u64, ac: bool) -> bool {
    let bad: u64;
    // SAFETY: a mapped page; should it not be, the fault resumes at 3 with `bad` still 1. STAC exists where SMAP does.
    unsafe {
        if ac {
            asm!("stac", options(nomem, nostack));
        }
        asm!(
            "mov {bad:e}, 1",
            "2: mov {v}, [{p}]",
            "xor {bad:e}, {bad:e}",
            "3:",
            ".pushsection .extable,\"a\"", ".quad 2b, 3b", ".popsection",
            v = out(reg) _, p = in(reg) p, bad = out(reg) bad, options(nostack, readonly)
        );
        asm!("clac", options(nomem, nostack));
    }
    bad == 0
}

/// Switches SMAP on, on a CPU that has it, and tries it; it is off again at the end. Boot CPU, on its own stack with its
/// tables loaded, while early memory is to be had; interrupts off.
pub fn smap() -> Smap {
    let (code, stack) = (early::page(), early::page());
    // In ring 3: `iretq` with the frame below, whose RIP is the `int3` at 16.
    let top = PAGE_SIZE - 64;
    let frame = [CODE + 16, sel::GUEST_CS64.into(), 2, STACK + top, sel::GUEST_DS.into()];
    // SAFETY: two fresh pages, and a place of the root tables that nobody else uses; both go again below.
    unsafe {
        let bytes = paging::direct(code) as *mut u8;
        bytes.cast::<[u8; 2]>().write([0x48, 0xcf]);
        bytes.add(16).write(0xcc);
        ((paging::direct(stack) + top) as *mut [u64; 5]).write(frame);
        let alloc = || Some(early::page());
        let _ = paging::map(CODE, code.0, PAGE_SIZE, flag::P | flag::US | flag::A, alloc);
        let _ =
            paging::map(STACK, stack.0, PAGE_SIZE, flag::P | flag::RW | flag::US | flag::A | flag::D | flag::NX, alloc);
    }
    let before = cr::read_cr4();
    // SAFETY: the CPU has SMAP; no access to pages of ring 3 is made but those below.
    unsafe { cr::write_cr4(before | cr4::SMAP) };
    let protects = !readable(STACK, false) && readable(STACK, true);
    let gates =
        [(3, (&raw const probe_bp) as u64), (13, (&raw const probe_gp) as u64), (14, (&raw const probe_pf) as u64)];
    // SAFETY: the stubs take the CPU back to `probe_ring3`'s caller; nothing else faults meanwhile.
    let ended_by = unsafe { tables::with_gates(&gates, || probe_ring3(CODE, STACK + top)) };
    // SAFETY: as it was; the excursion's pages go from the root, and nobody else knows them.
    unsafe {
        cr::write_cr4(before);
        paging::clear_root_slot(0);
    }
    match (protects, ended_by) {
        (false, _) => Smap::NoEffect,
        (true, 3) => Smap::Works,
        (true, _) => Smap::BreaksIret,
    }
}
