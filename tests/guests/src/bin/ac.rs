//! RFLAGS.AC set by the guest at every kind of entry: nothing changes. (With SMAP, AC in ring 0 opens the guest's pages to
//! the hypervisor; hardware clears it at SYSCALL only. Hospes' debug builds stop when an entry leaves it set.)
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;

guests::kernel!(run);

/// The same instructions with AC clear and with AC set. (A word on the stack changes AC: the stack is aligned.)
macro_rules! both {
    ($name:literal, $regs:expr, $($line:literal),+) => {{
        let clear = probe::kernel(code!($($line),+), &$regs);
        let set = probe::kernel(
            code!("pushfq", "or dword ptr [rsp], 0x40000", "popfq", $($line,)+ "pushfq", "and dword ptr [rsp], ~0x40000", "popfq"),
            &$regs,
        );
        same($name, clear, set);
    }};
}

fn same(name: &str, clear: Outcome, set: Outcome) {
    match (clear, set) {
        (Outcome::Done(a), Outcome::Done(b)) => {
            check(f!("{name}: runs alike"), (a.rax, a.rbx, a.rdx) == (b.rax, b.rbx, b.rdx));
        }
        (Outcome::Trap(a), Outcome::Trap(b)) => {
            obs(name, a);
            check(f!("{name}: traps alike"), (a.vector, a.err, a.cr2) == (b.vector, b.err, b.cr2));
            check(f!("{name}: the frame shows AC"), a.rflags & AC == 0 && b.rflags & AC != 0);
            check(f!("{name}: the handler runs without AC"), b.handler_rflags & AC == 0);
        }
        (a, b) => check(f!("{name}: {a} and with AC {b}"), false),
    }
}

const AC: u64 = 1 << 18;

fn run() {
    let zero = Gprs::ZERO;
    let page = Page::alloc();
    both!("a page that is not there", Gprs { rdi: 0x1000, ..zero }, "mov rax, [rdi]");
    both!("the hypervisor's memory", Gprs { rdi: 0xffff_8300_0000_0000, ..zero }, "mov rax, [rdi]");
    both!("undefined", zero, "ud2");
    both!("breakpoint", zero, "int3");
    both!("CPUID behind the prefix", Gprs { rax: 1, ..zero }, ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid");
    both!("a read of EFER", Gprs { rcx: 0xc000_0080, ..zero }, "rdmsr");
    both!("a read of CR0", zero, "mov rax, cr0");
    both!(
        "a version hypercall that writes",
        Gprs { rax: nr::XEN_VERSION as u64, rdi: 1, rsi: page.va, ..zero },
        "syscall"
    );
    both!("one that reads", Gprs { rax: nr::MULTICALL as u64, rdi: page.va, rsi: 0, ..zero }, "syscall");
    both!("one with a bad pointer", Gprs { rax: nr::XEN_VERSION as u64, rdi: 1, rsi: 0x1000, ..zero }, "syscall");
    both!(
        "IRET of this ring",
        zero,
        "mov rcx, rsp",
        "mov ax, ss",
        "push rax",
        "push rcx",
        "pushfq",
        "mov ax, cs",
        "push rax",
        "lea rax, [rip + 5f]",
        "push rax",
        "iretq",
        "5:",
        "xor eax, eax"
    );
    // A write to a page table, which the hypervisor makes for the guest.
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    both!("a write to a page table", Gprs { rdi: table.va, ..zero }, "mov qword ptr [rdi], 0", "xor eax, eax");
}
