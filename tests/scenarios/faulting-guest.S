/* The smallest PV guest: its first instruction faults before it has told the hypervisor of any trap handler, which
   is a PV guest's triple fault. Built by domu-together.sh. */
.macro note type
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 9f - 8f, \type
    .asciz "Xen"
8:
.endm
.macro endnote
9:  .balign 4
.endm
    note 1                          /* entry */
    .quad _start
    endnote
    note 3                          /* where the guest-physical address 0 is mapped */
    .quad 0
    endnote
    note 5
    .asciz "xen-3.0"
    endnote
    note 6
    .asciz "faulting"
    endnote
    note 8
    .asciz "generic"
    endnote

    .text
    .globl _start
_start:
    ud2

    .section .note.GNU-stack, "", @progbits
