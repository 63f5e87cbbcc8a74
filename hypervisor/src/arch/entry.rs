//! Entry to and exit from the hypervisor.
//!
//! # Register contract
//! On every entry from ring 3 the whole guest register set is laid into the [`GuestRegs`] frame at the top of the CPU's
//! stack (directly below `CpuLocal`), and `rsp` points to it while Rust runs above. Rust sees the frame by pointer;
//! everything it changes there reaches the guest at exit. Interrupts are off throughout.
//!
//! * SYSCALL: the CPU's stub ([`super::tables`]) has stored the guest's RSP in `CpuLocal::scratch` and loaded the top
//!   of the stack. FMASK cleared IF, DF, TF, AC, NT.
//! * Interrupts and exceptions from ring 3 arrive on the same place through TSS.rsp0.
//! * None of these clear AC, which a guest sets as it likes: where SMAP is in use, CLAC comes before the first Rust.
//! * NMI, #MC and #DF run on IST stacks. #DB too, but one that comes from ring 3 is moved to the main stack.
//!
//! Where the CPU needs it, an entry loads the hypervisor's page tables (`arch::xpti`: the guest ran without them) and
//! does what keeps ring 3's speculation out of ring 0 (`arch::spec`); an exit takes both back. This file's code stands on
//! pages of its own, which are all of the image that the guest's page tables map.
//!
//! # Exit
//! [`exit_to_guest`] looks at one word of pending work and at the vCPU's event mailbox, and returns by SYSRET if the
//! frame still is what SYSCALL left (and its RIP is canonical: Intel CPUs would fault *in ring 0* otherwise), else by
//! IRETQ. A fault of that IRETQ comes back through [`fault_in_hypervisor`] and becomes a guest exception.

use super::layout::STACK_SIZE;
use super::patch::alternative;
use super::percpu::{CpuLocal, LOCAL_OFFSET, REGS_OFFSET};
use super::regs::GuestRegs;
use core::arch::{global_asm, naked_asm};
use core::mem::{offset_of, size_of};

const REGS: usize = size_of::<GuestRegs>();
const R_VECTOR: usize = offset_of!(GuestRegs, entry_vector);
const R_ERROR: usize = offset_of!(GuestRegs, error_code);
const R_RIP: usize = offset_of!(GuestRegs, rip);
const R_CS: usize = offset_of!(GuestRegs, cs);
const R_RFLAGS: usize = offset_of!(GuestRegs, rflags);
const R_RSP: usize = offset_of!(GuestRegs, rsp);
const R_SS: usize = offset_of!(GuestRegs, ss);
const L_SCRATCH: usize = offset_of!(CpuLocal, scratch);
const L_UPCALL: usize = offset_of!(CpuLocal, upcall);
const L_PENDING: usize = offset_of!(CpuLocal, pending);
const L_GUEST_KERNEL: usize = offset_of!(CpuLocal, guest_kernel);
const L_FULL_CR3: usize = offset_of!(CpuLocal, full_cr3);
const L_EXPOSED_CR3: usize = offset_of!(CpuLocal, exposed_cr3);
const L_SPEC_CTRL: usize = offset_of!(CpuLocal, spec_ctrl);
const L_VERW: usize = offset_of!(CpuLocal, verw);

unsafe extern "C" {
    fn hospes_hypercall(regs: *mut GuestRegs);
    fn hospes_guest_syscall(regs: *mut GuestRegs);
    fn hospes_guest_syscall32(regs: *mut GuestRegs);
    fn hospes_guest_sysenter(regs: *mut GuestRegs);
    fn hospes_exception(regs: *mut GuestRegs, vector: u64, cr2: u64);
    fn hospes_interrupt(vector: u64, from_guest: u64);
    fn hospes_exit_work(regs: *mut GuestRegs);
    fn hospes_iret_fault(regs: *mut GuestRegs, vector: u64, error_code: u64);
    fn hospes_ist(regs: *mut GuestRegs, vector: u64);
    fn hospes_fault(regs: *mut GuestRegs, cr2: u64) -> !;
}

macro_rules! push_gprs {
    () => {
        "push rdi; push rsi; push rdx; push rcx; push rax; push r8; push r9; push r10; push r11
         push rbx; push rbp; push r12; push r13; push r14; push r15"
    };
}
macro_rules! pop_gprs {
    () => {
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; pop r11; pop r10; pop r9; pop r8
         pop rax; pop rcx; pop rdx; pop rsi; pop rdi"
    };
}

/// What an entry from ring 3 does first, when all registers are saved and RSP points to the guest's frame: the hypervisor's
/// page tables, and what keeps ring 3 from steering ring 0's branches. Changes rax, rcx, rdx.
macro_rules! enter {
    () => {
        concat!(
            alternative!(xpti, "mov rax, [rsp + {regs} + {full_cr3}]", "mov cr3, rax"),
            alternative!(ibrs, "mov ecx, 0x48", "mov eax, [rsp + {regs} + {spec_ctrl}]", "xor edx, edx", "wrmsr"),
            fill_rsb!()
        )
    };
}
/// The same where RSP may be anywhere in the CPU's stacks; does not fill the return stack buffer.
macro_rules! enter_anywhere {
    () => {
        concat!(
            alternative!(
                xpti,
                "mov rax, rsp",
                "and rax, {mask}",
                "mov rax, [rax + {local} + {full_cr3}]",
                "mov cr3, rax"
            ),
            alternative!(
                ibrs,
                "mov rax, rsp",
                "and rax, {mask}",
                "mov eax, [rax + {local} + {spec_ctrl}]",
                "mov ecx, 0x48",
                "xor edx, edx",
                "wrmsr"
            )
        )
    };
}
/// Fills the return stack buffer with harmless addresses; changes rcx.
macro_rules! fill_rsb {
    () => {
        alternative!(
            rsb,
            "mov ecx, 16",
            "774: call 775f",
            "776: pause",
            "lfence",
            "jmp 776b",
            "775: call 777f",
            "778: pause",
            "lfence",
            "jmp 778b",
            "777: dec ecx",
            "jnz 774b",
            "add rsp, 256"
        )
    };
}
/// The last thing before the guest's registers are loaded, RSP at its frame: buffers are cleared, the guest's page tables
/// loaded. From here on only the frame may be touched. Changes rax.
macro_rules! leave {
    () => {
        concat!(
            alternative!(verw, "verw word ptr [rsp + {regs} + {verw}]"),
            alternative!(xpti, "mov rax, [rsp + {regs} + {exposed_cr3}]", "mov cr3, rax")
        )
    };
}

/// A frame that says virtual-8086 mode is ring 3's, whatever its CS looks like. No CPU has that mode in long mode (SDM
/// vol. 3, 21.2), but QEMU's IRET lets ring 3 enter it, with any CS: one without an RPL would be taken for ring 0's, and
/// returned to as such. The frame is made one of 64-bit ring-3 code; where that goes on is the guest's own trouble.
macro_rules! mend_vm86 {
    ($ok:literal) => {
        concat!(
            "test dword ptr [rsp + {rflags}], {vm}\n",
            "jz ",
            $ok,
            "f\n",
            "mov qword ptr [rsp + {cs}], {guest_cs}\n",
            "mov qword ptr [rsp + {ss}], {guest_ss}\n",
            "and dword ptr [rsp + {rflags}], {not_vm}\n",
            $ok,
            ":"
        )
    };
}

/// SYSCALL from 64-bit code. The stub left rsp at `CpuLocal`.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
pub extern "C" fn entry_syscall() {
    naked_asm!(
        "push {ss}",
        "push qword ptr [rsp + 8 + {scratch}]",
        "push r11",
        "push {cs}",
        "push rcx",
        "push 0",
        "mov dword ptr [rsp + 4], {syscall}",
        push_gprs!(),
        enter!(),
        "xor ebp, ebp",
        "lea rdi, [rsp]",
        "sub rsp, 8",
        "cmp dword ptr [rdi + {regs} + {guest_kernel}], 0",
        "je 2f",
        "call {hypercall}",
        "add rsp, 8",
        "jmp {exit}",
        "2: call {guest_syscall}",
        "add rsp, 8",
        "jmp {exit}",
        ss = const super::layout::sel::GUEST_DS,
        cs = const super::layout::sel::GUEST_CS64,
        scratch = const L_SCRATCH,
        syscall = const GuestRegs::SYSCALL,
        regs = const REGS,
        guest_kernel = const L_GUEST_KERNEL,
        hypercall = sym hospes_hypercall,
        guest_syscall = sym hospes_guest_syscall,
        exit = sym exit_to_guest,
        full_cr3 = const L_FULL_CR3,
        spec_ctrl = const L_SPEC_CTRL,
    )
}

/// SYSCALL from compatibility-mode code (CSTAR): never a hypercall.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
pub extern "C" fn entry_syscall32() {
    naked_asm!(
        "push {ss}",
        "push qword ptr [rsp + 8 + {scratch}]",
        "push r11",
        "push {cs}",
        "push rcx",
        "push 0",
        push_gprs!(),
        enter!(),
        "xor ebp, ebp",
        "lea rdi, [rsp]",
        "sub rsp, 8",
        "call {guest_syscall}",
        "add rsp, 8",
        "jmp {exit}",
        ss = const super::layout::sel::GUEST_DS,
        cs = const super::layout::sel::GUEST_CS32,
        scratch = const L_SCRATCH,
        guest_syscall = sym hospes_guest_syscall32,
        exit = sym exit_to_guest,
        regs = const REGS,
        full_cr3 = const L_FULL_CR3,
        spec_ctrl = const L_SPEC_CTRL,
    )
}

/// SYSENTER (Intel CPUs): the hardware saves neither RIP nor RSP; MSR SYSENTER_ESP holds `CpuLocal`.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
pub extern "C" fn entry_sysenter() {
    naked_asm!(
        "push {ss}",
        "push 0",
        "pushfq",
        "or qword ptr [rsp], 0x200",
        "push 3",
        "push 0",
        "push 0",
        push_gprs!(),
        enter!(),
        "xor ebp, ebp",
        "push 2",
        "popfq",
        "lea rdi, [rsp]",
        "sub rsp, 8",
        "call {guest_sysenter}",
        "add rsp, 8",
        "jmp {exit}",
        ss = const super::layout::sel::GUEST_DS,
        guest_sysenter = sym hospes_guest_sysenter,
        exit = sym exit_to_guest,
        regs = const REGS,
        full_cr3 = const L_FULL_CR3,
        spec_ctrl = const L_SPEC_CTRL,
    )
}

/// Back to the guest whose frame rsp points to; works off what is pending first.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
pub extern "C" fn exit_to_guest() {
    naked_asm!(
        "2: cmp dword ptr [rsp + {regs} + {pending}], 0",
        "jne 5f",
        "mov rax, [rsp + {regs} + {upcall}]",
        "movzx eax, word ptr [rax]",
        "test al, al",
        "jnz 4f",
        "3:",
        leave!(),
        "cmp dword ptr [rsp + {vector}], {syscall}",
        "jne 6f",
        "mov rcx, [rsp + {rip}]",
        super::layout::compare_canonical!(),
        "jne 6f",
        pop_gprs!(),
        "mov rcx, [rsp + 8]",
        "mov r11, [rsp + 24]",
        "mov rsp, [rsp + 32]",
        "sysretq",
        // An event is pending; deliver it unless the guest masks events.
        "4: test ah, ah",
        "jnz 3b",
        "5: mov rdi, rsp",
        "sub rsp, 8",
        "call {work}",
        "add rsp, 8",
        "jmp 2b",
        "6:",
        pop_gprs!(),
        "add rsp, 8",
        ".globl exit_iretq",
        "exit_iretq: iretq",
        regs = const REGS,
        pending = const L_PENDING,
        upcall = const L_UPCALL,
        vector = const R_VECTOR,
        rip = const R_RIP,
        syscall = const GuestRegs::SYSCALL,
        work = sym hospes_exit_work,
        exposed_cr3 = const L_EXPOSED_CR3,
        verw = const L_VERW,
    )
}
const _: () =
    assert!(R_RIP == R_ERROR + 8 && R_RFLAGS == R_ERROR + 24 && R_RSP == R_ERROR + 32 && R_SS == R_ERROR + 40);

/// First entry of a CPU into the exit path: an empty frame, and whatever is pending makes the scheduler run.
///
/// # Safety
/// To be called once per CPU, on the CPU's own stack block, with interrupts off and RESCHED pending.
#[unsafe(naked)]
pub unsafe extern "C" fn enter_guest() -> ! {
    naked_asm!(
        "mov rax, rsp",
        "and rax, {mask}",
        "lea rsp, [rax + {regs_offset}]",
        "xor ebp, ebp",
        "jmp {exit}",
        mask = const -(STACK_SIZE as i64),
        regs_offset = const REGS_OFFSET,
        exit = sym exit_to_guest,
    )
}

/// Common tail of all vector stubs (except IST ones): error code and vector are pushed.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
extern "C" fn entry_vector() {
    naked_asm!(
        push_gprs!(),
        "cld",
        alternative!(smap, "clac"),
        enter_anywhere!(),
        mend_vm86!("8"),
        "test byte ptr [rsp + {cs}], 3",
        "jz 3f",
        fill_rsb!(),
        "xor ebp, ebp",
        "mov rdi, rsp",
        "mov esi, [rsp + {vector}]",
        "sub rsp, 8",
        "cmp esi, 0x80",
        "je 7f",
        "cmp esi, 32",
        "jae 2f",
        "7: mov rdx, cr2",
        "call {exception}",
        "add rsp, 8",
        "jmp {exit}",
        "2: mov edi, esi",
        "mov esi, 1",
        "call {interrupt}",
        "add rsp, 8",
        "jmp {exit}",
        // From the hypervisor: an interrupt of the idle loop, or a fault.
        "3: mov rbp, rsp",
        "mov edi, [rsp + {vector}]",
        "and rsp, -16",
        "cmp edi, 32",
        "jb 4f",
        "xor esi, esi",
        "call {interrupt}",
        "jmp 5f",
        "4: mov rdi, rbp",
        "call {fault}",
        "test eax, eax",
        "jnz 6f",
        "5: mov rsp, rbp",
        pop_gprs!(),
        "add rsp, 8",
        "iretq",
        // The fault was the exit path's: the guest's frame was rebuilt in its place.
        "6: and rsp, {mask}",
        "lea rsp, [rsp + {regs_offset}]",
        "xor ebp, ebp",
        "jmp {exit}",
        cs = const R_CS,
        rflags = const R_RFLAGS,
        ss = const R_SS,
        vm = const super::regs::rflags::VM as i32,
        not_vm = const !(super::regs::rflags::VM as i32),
        guest_cs = const super::layout::sel::GUEST_CS64,
        guest_ss = const super::layout::sel::GUEST_DS,
        vector = const R_VECTOR,
        exception = sym hospes_exception,
        interrupt = sym hospes_interrupt,
        fault = sym fault_in_hypervisor,
        mask = const -(STACK_SIZE as i64),
        regs_offset = const REGS_OFFSET,
        exit = sym exit_to_guest,
        local = const LOCAL_OFFSET,
        full_cr3 = const L_FULL_CR3,
        spec_ctrl = const L_SPEC_CTRL,
    )
}

/// Common tail of the stubs that run on IST stacks. A #DB of the guest goes on as an ordinary exception on the main
/// stack (single-step and breakpoints are the guest's business); everything else is handled right here.
#[unsafe(naked)]
#[unsafe(link_section = ".text.entry")]
extern "C" fn entry_ist() {
    naked_asm!(
        push_gprs!(),
        "cld",
        alternative!(smap, "clac"),
        // It may have come in the middle of an entry or exit: which tables are loaded is kept in rbx.
        alternative!(xpti, "mov rbx, cr3"),
        enter_anywhere!(),
        mend_vm86!("8"),
        "mov rbp, rsp",
        "mov esi, [rsp + {vector}]",
        "cmp esi, 1",
        "jne 2f",
        "test byte ptr [rsp + {cs}], 3",
        "jz 2f",
        "mov rsi, rsp",
        "mov rdi, rsp",
        "and rdi, {mask}",
        "lea rdi, [rdi + {regs_offset}]",
        "mov rsp, rdi",
        "mov ecx, {words}",
        "rep movsq",
        "xor ebp, ebp",
        "mov rdi, rsp",
        "mov esi, 1",
        "xor edx, edx",
        "sub rsp, 8",
        "call {exception}",
        "add rsp, 8",
        "jmp {exit}",
        "2: mov rdi, rsp",
        "and rsp, -16",
        "call {ist}",
        "mov rsp, rbp",
        alternative!(xpti, "mov cr3, rbx"),
        pop_gprs!(),
        "add rsp, 8",
        "iretq",
        cs = const R_CS,
        rflags = const R_RFLAGS,
        ss = const R_SS,
        vm = const super::regs::rflags::VM as i32,
        not_vm = const !(super::regs::rflags::VM as i32),
        guest_cs = const super::layout::sel::GUEST_CS64,
        guest_ss = const super::layout::sel::GUEST_DS,
        vector = const R_VECTOR,
        mask = const -(STACK_SIZE as i64),
        regs_offset = const REGS_OFFSET,
        words = const REGS / 8,
        exception = sym hospes_exception,
        ist = sym hospes_ist,
        exit = sym exit_to_guest,
        local = const LOCAL_OFFSET,
        full_cr3 = const L_FULL_CR3,
        spec_ctrl = const L_SPEC_CTRL,
    )
}

// One 16-byte stub a vector: error code (where the CPU pushes none), vector, jump.
global_asm!(
    ".section .text.vectors, \"ax\"",
    ".balign 16",
    ".globl vector_stubs",
    "vector_stubs:",
    ".set v, 0",
    ".rept 256",
    ".balign 16",
    ".if (v == 8) || ((v >= 10) && (v <= 14)) || (v == 17) || (v == 21) || (v == 29) || (v == 30)",
    ".else",
    "push 0",
    ".endif",
    "mov dword ptr [rsp + 4], v",
    ".if (v == 1) || (v == 2) || (v == 8) || (v == 18)",
    "jmp {ist}",
    ".else",
    "jmp {common}",
    ".endif",
    ".set v, v + 1",
    ".endr",
    ist = sym entry_ist,
    common = sym entry_vector,
);

/// The pages of the entry and exit code.
pub fn text() -> core::ops::Range<u64> {
    unsafe extern "C" {
        static entry_text_start: u8;
        static entry_text_end: u8;
    }
    (&raw const entry_text_start) as u64..(&raw const entry_text_end) as u64
}

/// Address of the stub of `vector`.
pub fn vector_stub(vector: u8) -> u64 {
    unsafe extern "C" {
        static vector_stubs: u8;
    }
    (&raw const vector_stubs) as u64 + u64::from(vector) * 16
}

/// An exception in ring 0. Returns 0 to resume where the (changed) frame says, 1 to leave through the exit path with
/// the guest frame at its place.
extern "C" fn fault_in_hypervisor(frame: *mut GuestRegs) -> u64 {
    unsafe extern "C" {
        static exit_iretq: u8;
    }
    // SAFETY: the entry code passes the frame it has just built, and nobody else knows of it.
    let f = unsafe { &mut *frame };
    if f.rip == (&raw const exit_iretq) as u64 {
        let mut guest = *f;
        let block = frame as u64 & !(STACK_SIZE - 1);
        let place = (block + REGS_OFFSET) as *mut GuestRegs;
        // The five words IRETQ was to pop are untouched at the top of the stack; the guest's other registers are in
        // the exception's frame, which overlaps the place where the guest's frame has to be rebuilt: hence the copy.
        // SAFETY: `place` is this CPU's guest frame; the words at its end were pushed by the exit path.
        unsafe {
            let old = place.read();
            (guest.rip, guest.cs, guest.rflags, guest.rsp, guest.ss) = (old.rip, old.cs, old.rflags, old.rsp, old.ss);
            let (vector, error) = (u64::from(f.entry_vector), u64::from(f.error_code));
            guest.entry_vector = 0;
            guest.error_code = 0;
            place.write(guest);
            hospes_iret_fault(place, vector, error);
        }
        return 1;
    }
    if let Some(fixup) = super::extable::find(f.rip) {
        f.rip = fixup;
        return 0;
    }
    // SAFETY: the frame just built.
    unsafe { hospes_fault(frame, super::cr::read_cr2()) }
}
const _: () = assert!(LOCAL_OFFSET == REGS_OFFSET + REGS as u64);
