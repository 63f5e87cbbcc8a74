//! What each CPU needs before it can take a trap: stack block, GDT page, TSS, SYSCALL stub, and the shared IDT.
//!
//! ```text
//! stack block (256 KiB, aligned)      page  0       guard
//!                                    pages 1–4     IST 1: NMI        page 5 guard
//!                                    pages 6–9     IST 2: #MC        page 10 guard
//!                                    pages 11–14   IST 3: #DB        page 15 guard
//!                                    pages 16–19   IST 4: #DF        pages 20–40 guard
//!                                    pages 41–63   main stack, with GuestRegs and CpuLocal on top
//! ```
//!
//! An IST stack is large enough for the report of a panic. A stack that is used up meets the guard below it: the page
//! fault's own frame has no room either, so it becomes a #DF, which has a stack of its own.

use super::cr;
use super::entry;
use super::layout::{self, LAST_SLOT, STACK_SIZE, STACKS, STUBS, sel};
use super::msr::{self, nr};
use super::paging::{self, flag};
use super::percpu::{CpuId, CpuLocal, LOCAL_OFFSET};
use core::sync::atomic::{AtomicU64, Ordering};
use pv_abi::ids::{MachineAddr, Mfn, PAGE_SIZE};

/// GDT window of a CPU while no vCPU runs: 16 pages at GDTS + cpu * 64 KiB, page 14 present.
const GDTS: u64 = layout::IMAGE + (896 << 20);
const _: () = assert!(STUBS + layout::MAX_CPUS as u64 * PAGE_SIZE <= GDTS && LAST_SLOT < 512);

/// Pages of an IST stack, and from the start of one to the start of the next: a guard is between them.
const IST_PAGES: u64 = 4;
const IST_STEP: u64 = IST_PAGES + 1;
/// Where the main stack begins. (Building dom0's page tables is its deepest use.)
const MAIN_STACK: u64 = 41;
const _: () = assert!(4 * IST_STEP < MAIN_STACK);

/// The stack whose guard page `page` of a stack block is.
pub fn guards(page: u64) -> Option<&'static str> {
    const NAMES: [&str; 5] = ["NMI", "machine-check", "debug", "double-fault", "main"];
    match page {
        p if p < 4 * IST_STEP && p % IST_STEP == 0 => NAMES.get((p / IST_STEP) as usize).copied(),
        p if (4 * IST_STEP..MAIN_STACK).contains(&p) => Some(NAMES[4]),
        _ => None,
    }
}
/// Page of the idle GDT's room that holds the TSS: behind the limit. What lies below the limit is a descriptor to whoever
/// loads its selector: the addresses in a TSS would make some.
const TSS_PAGE: u64 = sel::RESERVED_PAGE as u64 + 1;
const _: () = assert!(sel::GDT_LIMIT as u64 == TSS_PAGE * PAGE_SIZE - 1);

/// Reserved-descriptor page of each CPU (frame number).
static GDT_PAGE: [AtomicU64; layout::MAX_CPUS] = [const { AtomicU64::new(0) }; layout::MAX_CPUS];

/// The frame whose contents are page 14 of every GDT used on `cpu`.
pub fn reserved_page_frame(cpu: CpuId) -> Option<Mfn> {
    let a = GDT_PAGE.get(cpu.0 as usize)?.load(Ordering::Acquire);
    (a != 0).then_some(Mfn(a >> 12))
}

/// Where the stack block of `cpu` starts.
pub const fn stack_block(cpu: CpuId) -> u64 {
    STACKS + cpu.0 as u64 * STACK_SIZE
}

const fn ist_top(block: u64, ist: u64) -> u64 {
    block + (ist + 1) * IST_STEP * PAGE_SIZE
}

/// The tops of the IST stacks in a block.
pub fn ist_tops(block: u64) -> impl Iterator<Item = u64> {
    (0..4).map(move |ist| ist_top(block, ist))
}

/// The SYSCALL stub of `cpu`.
pub const fn stub(cpu: CpuId) -> u64 {
    STUBS + cpu.0 as u64 * PAGE_SIZE
}

/// The page with the TSS of `cpu`, where TR points.
pub const fn tss_page(cpu: CpuId) -> u64 {
    idle_gdt(cpu) + TSS_PAGE * PAGE_SIZE
}

/// The IDT: one page.
pub fn idt() -> u64 {
    (&raw const IDT) as u64
}

/// Where GDTR points on `cpu` while no vCPU runs.
pub const fn idle_gdt(cpu: CpuId) -> u64 {
    GDTS + cpu.0 as u64 * 16 * PAGE_SIZE
}

/// Builds everything of CPU `cpu`. `alloc` gives zeroed pages. Returns the top of its main stack (the guest frame's
/// place is below `CpuLocal`; boot code runs below that).
///
/// # Errors
/// When `alloc` runs out.
pub fn create(cpu: CpuId, mut alloc: impl FnMut() -> Option<MachineAddr>) -> Result<u64, paging::NoTable> {
    let block = stack_block(cpu);
    for page in (0..STACK_SIZE / PAGE_SIZE).filter(|p| guards(*p).is_none()) {
        let frame = alloc().ok_or(paging::NoTable)?;
        // SAFETY: this CPU's stack block is mapped by nobody else.
        unsafe { paging::map(block + page * PAGE_SIZE, frame.0, PAGE_SIZE, flag::DATA, &mut alloc)? };
    }
    let local = (block + LOCAL_OFFSET) as *mut CpuLocal;
    // SAFETY: freshly mapped and aligned (LOCAL_OFFSET is a multiple of 64 from an aligned block).
    unsafe { local.write(CpuLocal::new(cpu)) };

    let gdt = alloc().ok_or(paging::NoTable)?;
    let page = paging::direct(gdt) as *mut u64;
    let tss_frame = alloc().ok_or(paging::NoTable)?;
    let tss_va = tss_page(cpu);
    let set = |selector: u16, value: u64| {
        let index = (usize::from(selector & !7) - sel::RESERVED_PAGE * 4096) / 8;
        // SAFETY: index < 512: within the fresh page, which nobody else sees yet.
        unsafe { page.add(index).write(value) };
    };
    set(sel::HYP_CS, 0x00af_9b00_0000_ffff);
    set(sel::HYP_DS, 0x00cf_9300_0000_ffff);
    set(sel::GUEST_CS32, 0x00cf_fb00_0000_ffff);
    set(sel::GUEST_DS, 0x00cf_f300_0000_ffff);
    set(sel::GUEST_CS64, 0x00af_fb00_0000_ffff);
    let (lo, hi) = system_descriptor(tss_va, 103, 0x89);
    set(sel::TSS, lo);
    set(sel::TSS + 8, hi);
    let tss = paging::direct(tss_frame) as *mut u8;
    // SAFETY: a fresh page of its own.
    unsafe {
        tss.add(4).cast::<u64>().write_unaligned(block + LOCAL_OFFSET);
        for ist in 0..4u64 {
            let top = ist_top(block, ist);
            tss.add(36 + 8 * ist as usize).cast::<u64>().write_unaligned(top);
        }
        // The I/O bitmap is beyond the limit: every port of ring 3 traps.
        tss.add(102).cast::<u16>().write_unaligned(104);
        paging::map(idle_gdt(cpu) + sel::RESERVED_PAGE as u64 * PAGE_SIZE, gdt.0, PAGE_SIZE, flag::DATA, &mut alloc)?;
        paging::map(tss_va, tss_frame.0, PAGE_SIZE, flag::DATA, &mut alloc)?;
    }
    if let Some(slot) = GDT_PAGE.get(cpu.0 as usize) {
        slot.store(gdt.0, Ordering::Release);
    }

    let stub = alloc().ok_or(paging::NoTable)?;
    let stub_va = STUBS + u64::from(cpu.0) * PAGE_SIZE;
    write_stub(stub, 0, stub_va, block + LOCAL_OFFSET, entry::entry_syscall as *const () as u64);
    write_stub(stub, 64, stub_va + 64, block + LOCAL_OFFSET, entry::entry_syscall32 as *const () as u64);
    // SAFETY: this CPU's stub page is mapped by nobody else. It is executable, so nobody writes it any more.
    unsafe {
        paging::map(stub_va, stub.0, PAGE_SIZE, flag::CODE, &mut alloc)?;
        paging::map(paging::direct(stub), stub.0, PAGE_SIZE, flag::RODATA, &mut alloc)?;
    }
    cr::invlpg(paging::direct(stub));
    let exposed = super::xpti::build(cpu, &mut alloc)?;
    // SAFETY: written above.
    let local = unsafe { &*local };
    local.full_cr3.set(paging::root().0 << 12);
    local.exposed_cr3.set(local.full_cr3.get());
    local.exposed_l4.set(exposed.map_or(0, |a| a.0));
    Ok(block + super::percpu::REGS_OFFSET)
}

/// `mov [rip+scratch], rsp; lea rsp, [rip+local]; jmp target`: all within 2 GiB by the layout.
fn write_stub(frame: MachineAddr, offset: u64, va: u64, local: u64, target: u64) {
    let rel = |to: u64, next: u64| (to.wrapping_sub(next) as i64 as i32).to_le_bytes();
    let mut code = [0xccu8; 32];
    code[..3].copy_from_slice(&[0x48, 0x89, 0x25]);
    code[3..7].copy_from_slice(&rel(local + core::mem::offset_of!(CpuLocal, scratch) as u64, va + 7));
    code[7..10].copy_from_slice(&[0x48, 0x8d, 0x25]);
    code[10..14].copy_from_slice(&rel(local, va + 14));
    code[14] = 0xe9;
    code[15..19].copy_from_slice(&rel(target, va + 19));
    // SAFETY: a fresh page nobody executes yet.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), (paging::direct(frame) + offset) as *mut u8, code.len());
    }
}

/// The two words of a 64-bit system descriptor.
pub const fn system_descriptor(base: u64, limit: u32, access: u8) -> (u64, u64) {
    let lo = (limit as u64 & 0xffff)
        | (base & 0xff_ffff) << 16
        | (access as u64) << 40
        | (limit as u64 >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56;
    (lo, base >> 32)
}

#[repr(C, align(4096))]
struct Idt([[u64; 2]; 256]);
static mut IDT: Idt = Idt([[0; 2]; 256]);

/// Fills the IDT. Boot CPU, once.
pub fn init_idt() {
    for v in 0..=255u8 {
        let target = entry::vector_stub(v);
        let ist: u64 = match v {
            2 => 1,
            18 => 2,
            1 => 3,
            8 => 4,
            _ => 0,
        };
        // Guests may raise #BP, #OF and the old system call directly; every other INT n comes as #GP. Their trap table
        // judges all of them.
        let dpl: u64 = if matches!(v, 3 | 4 | 0x80) { 3 } else { 0 };
        // SAFETY: written by the boot CPU before any CPU loads it.
        unsafe { IDT.0[v as usize] = gate(target, ist, dpl) };
    }
}

/// Runs `f` while these vectors go to these addresses (interrupt gates of ring 3, on the stack of TSS.rsp0).
///
/// # Safety
/// Boot CPU, before others run. The addresses bring the CPU back into `f`.
pub unsafe fn with_gates<R>(gates: &[(u8, u64)], f: impl FnOnce() -> R) -> R {
    let idt = (&raw mut IDT).cast::<[u64; 2]>();
    // SAFETY: a vector is below 256; nobody else touches the table.
    let old = unsafe { idt.cast::<[[u64; 2]; 256]>().read() };
    for &(vector, target) in gates {
        // SAFETY: as above.
        unsafe { idt.add(vector.into()).write(gate(target, 0, 3)) };
    }
    let r = f();
    for &(vector, _) in gates {
        // SAFETY: as above.
        unsafe { idt.add(vector.into()).write(old[usize::from(vector)]) };
    }
    r
}

/// The two words of an interrupt gate.
fn gate(target: u64, ist: u64, dpl: u64) -> [u64; 2] {
    let lo = (target & 0xffff)
        | u64::from(sel::HYP_CS) << 16
        | ist << 32
        | (0x8e | dpl << 5) << 40
        | (target >> 16 & 0xffff) << 48;
    [lo, target >> 32]
}

/// Loads this CPU's tables and system-call MSRs. Runs on the CPU itself, on its own stack.
pub fn load(cpu: CpuId) {
    let local = stack_block(cpu) + LOCAL_OFFSET;
    // SAFETY: `create` mapped the tables; the MSR values are the ones the entry code is written for.
    unsafe {
        cr::load_gdt(idle_gdt(cpu));
        core::arch::asm!(
            "mov ss, {ds:x}", "mov ds, {z:x}", "mov es, {z:x}", "mov fs, {z:x}", "mov gs, {z:x}",
            "push {cs}", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:",
            "ltr {tss:x}",
            ds = in(reg) u64::from(sel::HYP_DS), z = in(reg) 0u64, cs = in(reg) u64::from(sel::HYP_CS),
            tss = in(reg) u64::from(sel::TSS), t = out(reg) _,
        );
        cr::load_ldt(0);
        cr::load_idt((&raw const IDT) as u64);
        let stub = STUBS + u64::from(cpu.0) * PAGE_SIZE;
        msr::wrmsr(nr::STAR, u64::from(sel::GUEST_CS32) << 48 | u64::from(sel::HYP_CS) << 32);
        msr::wrmsr(nr::LSTAR, stub);
        msr::wrmsr(nr::CSTAR, stub + 64);
        use super::regs::rflags as f;
        msr::wrmsr(nr::SFMASK, f::TF | f::IF | f::DF | f::IOPL | f::NT | f::RF | f::VM | f::AC);
        const SCE: u64 = 1;
        const AIBRSE: u64 = 1 << 21;
        let efer = if super::spec::policy().auto_ibrs { SCE | AIBRSE } else { SCE };
        msr::wrmsr(nr::EFER, msr::rdmsr(nr::EFER) | efer);
        if super::cpu::is_intel() {
            msr::wrmsr(nr::SYSENTER_CS, u64::from(sel::HYP_CS));
            msr::wrmsr(nr::SYSENTER_ESP, local);
            msr::wrmsr(nr::SYSENTER_EIP, entry::entry_sysenter as *const () as u64);
        }
        msr::wrmsr(nr::PAT, super::cpu::PAT);
    }
}

/// Uses the CPU's own GDT, without an LDT: while no vCPU runs.
pub fn use_idle_gdt(cpu: CpuId) {
    // SAFETY: the CPU's GDT alias is mapped for ever; selector 0 is no LDT.
    unsafe {
        cr::load_ldt(0);
        cr::load_gdt(idle_gdt(cpu));
    }
}

/// Uses the GDT at `base` (a vCPU's window), and the LDT at `ldt` with `entries` entries, described in this CPU's
/// reserved descriptors.
///
/// # Safety
/// `base` is a GDT window whose page 14 shows this CPU's reserved descriptors, `ldt` an LDT window; both stay mapped
/// in every L4 the CPU loads until it uses other ones.
pub unsafe fn use_guest_descriptors(cpu: CpuId, base: u64, ldt: u64, entries: u32) {
    // SAFETY: the caller's. The LDT descriptor is written through the CPU's own alias of the page.
    unsafe {
        cr::load_gdt(base);
        if entries == 0 {
            cr::load_ldt(0);
            return;
        }
        let page = (idle_gdt(cpu) + sel::RESERVED_PAGE as u64 * PAGE_SIZE) as *mut u64;
        let index = (usize::from(sel::LDT) - sel::RESERVED_PAGE * 4096) / 8;
        let (lo, hi) = system_descriptor(ldt, entries * 8 - 1, 0x82);
        page.add(index).write(lo);
        page.add(index + 1).write(hi);
        cr::load_ldt(sel::LDT);
    }
}
