//! Asks the hypervisor to break (debug builds of Hospes only), in the way the command line names. What counts is what the
//! hypervisor's log says then: the harness waits for that. `domain` breaks the domain only, which every build can do.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use guests::start::start_info;
use pv_abi::hospes::{Break, SYSCTL_BREAK, breaks};
use pv_abi::sysctl::{INTERFACE_VERSION, Sysctl};

guests::kernel!(run);

/// The domain's own crash: a trap, and no handler. On the stack stand four words to be seen.
fn crash() -> ! {
    call(nr::SET_TRAP_TABLE, &[0]).must("forget all handlers");
    // SAFETY: it does not come back.
    unsafe {
        core::arch::asm!(
            "mov rax, 0x1122334455667788",
            "push rax",
            "push rax",
            "push rax",
            "push rax",
            "mov ebx, 0xb0b0",
            "ud2",
            options(noreturn)
        )
    }
}

fn run() {
    let si = start_info();
    let end = si.cmd_line.iter().position(|b| *b == 0).unwrap_or(0);
    let what = match &si.cmd_line[..end] {
        b"panic" => breaks::PANIC,
        b"hang" => breaks::HANG,
        b"stack" => breaks::STACK,
        b"write_text" => breaks::WRITE_TEXT,
        b"write_text_direct" => breaks::WRITE_TEXT_DIRECT,
        b"write_rodata" => breaks::WRITE_RODATA,
        b"run_data" => breaks::RUN_DATA,
        b"run_direct_map" => breaks::RUN_DIRECT_MAP,
        b"run_guest" => breaks::RUN_GUEST,
        b"read_guest" => breaks::READ_GUEST,
        b"wild" => breaks::WILD,
        b"guard_nmi" | b"guard_mc" | b"guard_db" | b"guard_df" => breaks::GUARD,
        b"machine_check" => breaks::MACHINE_CHECK,
        b"domain" => crash(),
        _ => report::error(f!("no such way to break")),
    };
    // A RET, should the hypervisor run it; its own code is mapped executable for this kernel.
    let mut at = {
        probe::load(&[0xc3], &[]);
        probe::code_page().va
    };
    // The pages below the stacks of those exceptions.
    for (name, page) in [(&b"guard_nmi"[..], 0), (b"guard_mc", 5), (b"guard_db", 10), (b"guard_df", 15)] {
        if &si.cmd_line[..end] == name {
            at = page;
        }
    }
    let mut op = Sysctl { cmd: SYSCTL_BREAK, interface_version: INTERFACE_VERSION, u: [0; 16] };
    op.set_payload(&Break { what, pad: 0, at });
    match call(nr::SYSCTL, &[core::ptr::from_mut(&mut op) as u64]) {
        r if r == errno(ENOSYS) || r == errno(EOPNOTSUPP) => report::skip("this hypervisor cannot be asked to break"),
        r => report::fail(f!("it goes on, and says {r}")),
    }
}
