//! From the loader to Rust: 32-bit entry, long mode, the jump to the linked address.
//!
//! Contract: a multiboot1 or multiboot2 loader enters at `boot_entry` in 32-bit protected mode, paging off, eax = the
//! loader's magic, ebx = its information structure. Until `lretq` below there is no usable return address and no data
//! segment but the loader's. Everything here runs at physical addresses; `SYM - IMAGE` is a symbol's physical address.
//! What is missing in the machine is said on COM1 (0x3f8), and the CPU halts.

use super::layout::{IMAGE, STACK_SIZE};
use super::percpu::REGS_OFFSET;
use core::arch::global_asm;

global_asm!(
    r#"
    .section .boot, "ax"
    .set IMAGE, {image}

    .balign 8
    .globl multiboot1_header
multiboot1_header:
    .set MB1_FLAGS, 0x00010003               /* page-align modules, memory map, address fields */
    .long 0x1badb002
    .long MB1_FLAGS
    .long -(0x1badb002 + MB1_FLAGS)
    .long multiboot1_header_phys
    .long load_phys
    .long data_end_phys
    .long image_end_phys
    .long boot_entry_phys

    .balign 8
    .globl multiboot2_header
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_end - multiboot2_header
    .long 0x100000000 - (0xe85250d6 + (multiboot2_end - multiboot2_header))
    .balign 8
    .word 1, 0                               /* information request: cmdline, modules, mmap, old and new RSDP */
    .long 28
    .long 1, 3, 6, 14, 15
    .balign 8
    .word 2, 0                               /* address: without it GRUB on UEFI loads the symbol table, to address 0 */
    .long 24
    .long multiboot2_header_phys
    .long load_phys
    .long data_end_phys
    .long image_end_phys
    .balign 8
    .word 3, 0                               /* entry address */
    .long 12
    .long boot_entry_phys
    .balign 8
    .word 6, 0                               /* page-align modules */
    .long 8
    .balign 8
    .word 0, 0
    .long 8
multiboot2_end:

    .code32
    .globl boot_entry
boot_entry:
    cli
    cld
    mov esp, offset boot_stack_top - IMAGE
    mov esi, eax                             /* magic */
    mov edi, ebx                             /* information */

    lea ebp, [no_cpuid_msg - IMAGE]
    pushfd
    pop eax
    mov ecx, eax
    xor eax, 0x200000
    push eax
    popfd
    pushfd
    pop eax
    cmp eax, ecx
    je boot_fail

    mov eax, 0x80000000
    cpuid
    lea ebp, [no_lm_msg - IMAGE]
    cmp eax, 0x80000001
    jb boot_fail
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc boot_fail
    lea ebp, [no_nx_msg - IMAGE]
    bt edx, 20
    jnc boot_fail
    /* SYSCALL is looked for later: Intel CPUs report it in 64-bit mode only. */

    /* Boot page tables: the first 4 GiB in 2 MiB pages, at 0 and in the direct map; the first GiB at IMAGE. */
    mov eax, offset boot_pd - IMAGE
    xor ecx, ecx
2:  mov edx, ecx
    shl edx, 21
    or edx, 0x83
    mov [eax + ecx * 8], edx
    mov dword ptr [eax + ecx * 8 + 4], 0
    inc ecx
    cmp ecx, 2048
    jb 2b

    lea eax, [boot_pd - IMAGE + 3]
    mov [boot_pdpt - IMAGE], eax
    add eax, 4096
    mov [boot_pdpt - IMAGE + 8], eax
    add eax, 4096
    mov [boot_pdpt - IMAGE + 16], eax
    add eax, 4096
    mov [boot_pdpt - IMAGE + 24], eax
    lea eax, [boot_pdpt - IMAGE + 3]
    mov [boot_pml4 - IMAGE], eax
    mov [boot_pml4 - IMAGE + 8 * 260], eax
    mov [boot_pml4 - IMAGE + 8 * 262], eax

    .globl enter_long_mode
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset boot_pml4 - IMAGE
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                            /* LME, NXE */
    wrmsr
    mov eax, cr0
    or eax, 0x80010001                       /* PG, WP, PE */
    mov cr0, eax
    lgdt [boot_gdt_ptr - IMAGE]
    push 8
    lea eax, [long_mode - IMAGE]
    push eax
    retf

boot_fail:
    mov dx, 0x3f8 + 5
3:  in al, dx
    test al, 0x20
    jz 3b
    mov al, [ebp]
    test al, al
    jz 4f
    mov dx, 0x3f8
    out dx, al
    inc ebp
    mov dx, 0x3f8 + 5
    jmp 3b
4:  cli
    hlt
    jmp 4b

    .code64
long_mode:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    movabs rax, offset long_mode_high
    jmp rax
long_mode_high:
    lea rsp, [rip + boot_stack_top]
    and rsp, -16
    xor ebp, ebp
    mov edi, edi
    mov esi, esi
    xchg rdi, rsi                            /* rdi = magic, rsi = information */
    call {start}
    ud2

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_ptr:
    .word 23
    .long boot_gdt - IMAGE

no_cpuid_msg:   .asciz "Hospes: this CPU has no CPUID instruction; a 64-bit x86 machine is needed.\r\n"
no_lm_msg:      .asciz "Hospes: this CPU has no long mode; a 64-bit x86 machine is needed.\r\n"
no_nx_msg:      .asciz "Hospes: this CPU has no NX bit (or the firmware hides it); switch it on in the firmware set-up.\r\n"

    .section .bss.boot, "aw", @nobits
    /* A stack block like every CPU's (arch/percpu.rs), so that `this_cpu` works from the first line of Rust on. The
     * linker script aligns it. */
    .balign 4096
    .globl boot_stack
boot_stack: .skip {regs_offset}
boot_stack_top: .skip {block} - {regs_offset}
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
"#,
    image = const IMAGE,
    block = const STACK_SIZE,
    regs_offset = const REGS_OFFSET,
    start = sym crate::start::hospes_start,
);
