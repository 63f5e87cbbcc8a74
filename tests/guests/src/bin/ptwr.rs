//! Writes to read-only mapped page tables are emulated where the value is a valid entry; the rest faults.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::paging::{KERNEL_RO, KERNEL_RW, P, RW};
use guests::prelude::*;
use pv_abi::mmu::{VMASST_CMD_DISABLE, VMASST_CMD_ENABLE, VMASST_WRITABLE_PAGETABLES};

guests::kernel!(run);

/// An address with an L1 of its own.
const WINDOW: u64 = 0x60_0000_0000;

struct Rig {
    data: Page,
    slot: u64,
    table: Page,
}

impl Rig {
    /// Starts from a known entry, runs `code` with rdi = the slot, and shows outcome and entry.
    fn try_with(&self, name: impl core::fmt::Display, code: &[u8], regs: Gprs) {
        paging::update_va(WINDOW, self.data.ma() | KERNEL_RW).must("reset");
        let out = probe::kernel(code, &Gprs { rdi: self.slot, ..regs });
        obs(f!("{name}"), out);
        if let Outcome::Trap(t) = &out {
            obs(f!("{name}: cr2 - slot"), t.cr2.wrapping_sub(self.slot) as i64);
        }
        let e = guests::mem::read64(self.slot);
        obs(f!("{name}: frame"), if e & paging::FRAME == self.data.ma() { "same" } else { "changed" });
        obs(f!("{name}: flags"), flags_of(e));
        if let Outcome::Done(g) = out {
            obs(f!("{name}: rax"), flags_of(g.rax));
        }
    }
}

fn run() {
    let data = Page::alloc();
    paging::map(WINDOW, data.ma() | KERNEL_RW);
    let rig = Rig { data, slot: paging::slot_va(WINDOW, 1), table: paging::table(WINDOW, 1).unwrap_or(data) };
    let ro = data.ma() | KERNEL_RO;
    let with = |rax: u64| Gprs { rax, ..Gprs::ZERO };
    for assist in [false, true] {
        let cmd = if assist { VMASST_CMD_ENABLE } else { VMASST_CMD_DISABLE };
        call(nr::VM_ASSIST, &[cmd, VMASST_WRITABLE_PAGETABLES]).must("vm_assist");
        rig.try_with(f!("mov, assist {assist}"), code!("mov [rdi], rax"), with(ro));
    }
    rig.try_with("mov 0", code!("mov [rdi], rax"), with(0));
    rig.try_with("mov imm32", code!("mov qword ptr [rdi], 0"), with(0));
    rig.try_with("mov of a bad entry", code!("mov [rdi], rax"), with(rig.table.ma() | KERNEL_RW));
    rig.try_with("mov of a table, read-only", code!("mov [rdi], rax"), with(rig.table.ma() | KERNEL_RO));
    rig.try_with(
        "mov of the hypervisor's frame",
        code!("mov [rdi], rax"),
        with((paging::l4().read(256) & paging::FRAME) | KERNEL_RO),
    );
    rig.try_with("mov byte", code!("mov [rdi], al"), with(P | paging::A));
    rig.try_with("mov dword", code!("mov [rdi], eax"), with(ro & 0xffff_ffff));
    rig.try_with("mov word", code!("mov [rdi], ax"), with(ro & 0xffff));
    rig.try_with("xchg", code!("xchg [rdi], rax"), with(ro));
    rig.try_with("xchg of a bad entry", code!("xchg [rdi], rax"), with(rig.table.ma() | KERNEL_RW));
    rig.try_with("lock andb", code!("lock and byte ptr [rdi], 0xfd"), with(0));
    rig.try_with("lock andb $0xdf", code!("lock and byte ptr [rdi], 0xdf"), with(0));
    rig.try_with("lock btr", code!("lock btr qword ptr [rdi], 1"), with(0));
    rig.try_with("lock btr 5, carry", code!("lock btr qword ptr [rdi], 5", "setc al"), with(0));
    let now = data.ma() | KERNEL_RW | 1 << 52 | paging::US;
    rig.try_with(
        "cmpxchg that fits",
        code!("lock cmpxchg [rdi], rsi", "setz al"),
        Gprs { rax: now, rsi: ro, ..Gprs::ZERO },
    );
    rig.try_with(
        "cmpxchg that does not fit",
        code!("lock cmpxchg [rdi], rsi"),
        Gprs { rax: 0x77, rsi: ro, ..Gprs::ZERO },
    );
    rig.try_with(
        "cmpxchg to a bad entry",
        code!("lock cmpxchg [rdi], rsi"),
        Gprs { rax: now, rsi: rig.table.ma() | KERNEL_RW, ..Gprs::ZERO },
    );
    rig.try_with("movnti", code!("movnti [rdi], rax"), with(ro));
    rig.try_with("or", code!("or qword ptr [rdi], 0x200"), with(0));
    rig.try_with("or of RW into a mapping of a table", code!("or qword ptr [rdi], 0x200"), with(0));
    rig.try_with("stosq", code!("stosq"), with(ro));
    rig.try_with("misaligned mov", code!("mov [rdi + 4], rax"), with(0));
    rig.try_with("mov across the page's end", code!("mov [rdi + 4092], rax"), with(0));
    rig.try_with("sse store", code!("movups [rdi], xmm0"), with(0));
    rig.try_with(
        "addressed through rsp-like base and index",
        code!("xor ecx, ecx", "mov [rdi + rcx*8 + 0], rax"),
        with(ro),
    );
    upper(&rig);
    from_user(&rig);
}

fn upper(rig: &Rig) {
    for level in 2..=4 {
        let slot = paging::slot_va(WINDOW, level);
        let before = guests::mem::read64(slot);
        let out = probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: slot, rax: before, ..Gprs::ZERO });
        obs(f!("mov to an L{level}"), out);
    }
    // a read-only page that is no table: an ordinary fault
    let page = Page::alloc();
    paging::make_ro(page).must("make_ro");
    obs("mov to a read-only data page", probe::kernel(code!("mov [rdi], rax"), &Gprs { rdi: page.va, ..Gprs::ZERO }));
    // pinned but not hooked in: an L1 all the same
    paging::pin(page, 1).must("pin");
    let regs = Gprs { rdi: page.va, rax: rig.data.ma() | P | RW, ..Gprs::ZERO };
    obs("mov to a pinned L1 that is not in use", probe::kernel(code!("mov [rdi], rax"), &regs));
    obs("it reads", flags_of(page.read(0)));
}

fn from_user(rig: &Rig) {
    user::init();
    paging::map(user::CODE_VA + 0x20_0000, rig.table.ma() | KERNEL_RO | paging::US);
    let at = user::CODE_VA + 0x20_0000 + (rig.slot & 0xfff);
    let regs = Gprs { rdi: at, ..Gprs::ZERO };
    obs("user mode writes a table it can read", user::run(code!("mov [rdi], rax"), &regs));
}
