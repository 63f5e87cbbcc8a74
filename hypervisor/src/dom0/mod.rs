//! Floor 6: making the first domain.
//!
//! The loader's first module is the kernel, its second the initial RAM disk. The kernel is unpacked, laid out by the
//! `boot` crate as the tools do it for other domains, its tables are pinned like any guest's, and vCPU 0 is set going.
#![cfg(target_os = "none")]

use crate::arch::layout::sel;
use crate::arch::paging;
use crate::arch::regs::rflags;
use crate::domain::{Domain, DomainRef, LEGACY_VCPUS, Limits, VcpuRef, lifecycle, slots};
use crate::mm::page_type::{Kind, Refused};
use crate::mm::scratch::Scratch;
use crate::mm::{self, m2p, pin, write_domain_page, zero_domain_page};
use boot::builder::{BuildParams, GuestMemory, StartOfDay};
use boot::kernel::KernelImage;
use boot::layout::{DomainPlan, Layout};
use core::fmt;
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, MachineAddr, Mfn, PAGE_SIZE, Pfn, VcpuId};

/// The most a kernel may unpack to.
const KERNEL_LIMIT: usize = 512 << 20;
/// Process-management bits of start_info's flags: the ABI's way to let dom0 drive CPU power states.
const EXTRA_FLAGS: u32 = 0x300;

/// A module the loader left in memory.
#[derive(Clone, Copy)]
pub struct Module<'a> {
    /// First byte's machine address.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
    /// What stands behind its name on the loader's line.
    pub args: &'a str,
}

impl Module<'_> {
    fn bytes(&self) -> &'static [u8] {
        // SAFETY: the loader's module: RAM nobody else uses until `release` gives it away, in the direct map.
        unsafe {
            core::slice::from_raw_parts(
                paging::direct(MachineAddr(self.start)) as *const u8,
                self.end.saturating_sub(self.start) as usize,
            )
        }
    }
}

/// What dom0 gets.
pub struct Plan {
    /// Pages.
    pub pages: u64,
    /// vCPUs.
    pub vcpus: u32,
}

/// Everything that can go wrong, as text.
struct Failure(arrayvec::ArrayString<200>);

impl<E: fmt::Display> From<E> for Failure {
    fn from(e: E) -> Self {
        let mut s = arrayvec::ArrayString::new();
        let _ = fmt::write(&mut s, format_args!("{e}"));
        Failure(s)
    }
}

/// Makes dom0 and lets it run.
///
/// # Errors
/// What is wrong, to be read by a person.
pub fn start(kernel: Module, initrd: Option<Module>, plan: &Plan) -> Result<(), arrayvec::ArrayString<200>> {
    build(kernel, initrd, plan).map_err(|f| f.0)
}

fn build(kernel: Module, initrd: Option<Module>, plan: &Plan) -> Result<(), Failure> {
    let payload = boot::bzimage::locate(kernel.bytes())?;
    let len = payload.unpacked_len();
    if len > KERNEL_LIMIT {
        return Err("the kernel is too large".into());
    }
    log::info!("dom0 kernel: {}, {} KiB unpacked", payload.format().name(), len >> 10);
    let mut unpacked = Scratch::try_new(len).ok_or("no memory to unpack its kernel")?;
    payload.unpack_into(&mut unpacked)?;
    let image = KernelImage::parse(&unpacked)?;
    let ramdisk = initrd.map_or(&[][..], |m| m.bytes());
    let layout = Layout::plan(
        &image,
        &DomainPlan { nr_pages: plan.pages, ramdisk_len: ramdisk.len() as u64, is_dom0: true, cmdline: kernel.args },
    )?;
    check_map(layout.immovable())?;

    let limits = Limits { max_pages: plan.pages, ..Limits::default() };
    let d = Domain::try_new(DomId::DOM0, [0; 16], true, &limits).map_err(Failure::from)?;
    slots::insert(d.clone())?;
    while let Err(e) = d.create_vcpus(plan.vcpus) {
        if e != Errno::EAGAIN {
            return Err(e.into());
        }
    }
    let mut memory = Dom0Memory::try_new(&d, plan.pages)?;
    let start = boot::builder::build(
        &image,
        &layout,
        &mut memory,
        &BuildParams {
            cmdline: kernel.args,
            ramdisk,
            shared_info: d.shared.mfn().to_addr().ok_or("shared_info lies too high")?,
            extra_flags: EXTRA_FLAGS,
            store_evtchn: 0,
            console_evtchn: 0,
            dom0_console: &[0; 0x28],
        },
    )?;
    drop(memory);

    first_vcpu(&d, &start)?;
    log::info!(
        "dom0: {} MiB, {} vCPUs, kernel entry {:#x}, {} MiB free for others",
        plan.pages >> 8,
        plan.vcpus,
        start.entry,
        mm::alloc::free_pages() >> 8
    );
    crate::time::publish_wallclock(&d);
    d.tool_pauses.store(0, Ordering::SeqCst);
    lifecycle::unpause(&d);
    Ok(())
}

/// Linux maps its kernel and first tables where the machine's own map must have RAM.
fn check_map(pfns: core::ops::Range<u64>) -> Result<(), Failure> {
    let (start, end) = (pfns.start * PAGE_SIZE, pfns.end * PAGE_SIZE);
    let mut at = start;
    while at < end {
        let ram = mm::init::memory_map().iter().find(|r| r.kind == 1 && r.start <= at && at < r.end);
        at = ram.ok_or("the machine has no RAM where the kernel wants to lie")?.end;
    }
    Ok(())
}

fn first_vcpu(d: &DomainRef, start: &StartOfDay) -> Result<(), Failure> {
    loop {
        match pin::pin(&d.mem, start.cr3_mfn, Kind::L4) {
            Ok(()) => break,
            Err(Refused::Preempted) => {}
            Err(Refused::Error(e)) => {
                log::error!("dom0's page tables were refused: {e}");
                return Err(e.into());
            }
        }
    }
    for i in 0..LEGACY_VCPUS {
        // Events are masked until the guest unmasks them.
        d.shared.store_u8(i * pv_abi::shared_info::vcpu_info::SIZE + 1, 1);
    }
    let v = VcpuRef::new(d, VcpuId(0)).ok_or("no vCPU")?;
    let mut arch = v.parked.lock().take().ok_or("no vCPU state")?;
    let set = arch.tables.set_kernel_base(&d.mem, start.cr3_mfn);
    let r = &mut arch.regs;
    r.rip = start.entry;
    r.rsp = start.stack_va;
    r.rsi = start.start_info_va;
    r.rflags = rflags::IF | rflags::FIXED;
    r.cs = u64::from(sel::GUEST_CS64);
    r.ss = u64::from(sel::GUEST_DS);
    v.initialised.store(true, Ordering::SeqCst);
    *v.parked.lock() = Some(arch);
    set.map_err(|_| "its page-table base was refused")?.give_up(&d.mem);
    crate::time::publish_to(&v);
    v.down.store(false, Ordering::SeqCst);
    Ok(())
}

/// dom0's memory while it is built: which frame each page has.
struct Dom0Memory<'a> {
    domain: &'a DomainRef,
    /// Frame numbers, eight bytes each.
    frames: Scratch,
}

impl<'a> Dom0Memory<'a> {
    fn try_new(domain: &'a DomainRef, pages: u64) -> Result<Self, Failure> {
        let frames = Scratch::try_new((pages * 8) as usize).ok_or("no memory for its frame list")?;
        let mut m = Dom0Memory { domain, frames };
        let mut pfn = 0;
        let mut order = 9;
        while pfn < pages {
            while order > 0 && pages - pfn < 1 << order {
                order -= 1;
            }
            match domain.mem.allocate(order, u64::MAX) {
                Ok(mfn) => {
                    for i in 0..1u64 << order {
                        m.set(pfn + i, Mfn(mfn.0 + i));
                        m2p::set(Mfn(mfn.0 + i), Pfn(pfn + i));
                    }
                    pfn += 1 << order;
                }
                Err(_) if order > 0 => order -= 1,
                Err(_) => return Err("not enough memory (see dom0_mem=)".into()),
            }
        }
        Ok(m)
    }

    fn set(&mut self, pfn: u64, mfn: Mfn) {
        let at = pfn as usize * 8;
        if let Some(slot) = self.frames.get_mut(at..at + 8) {
            slot.copy_from_slice(&mfn.0.to_le_bytes());
        }
    }
}

impl GuestMemory for Dom0Memory<'_> {
    type Error = Errno;

    fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let at = usize::try_from(pfn.0).ok()?.checked_mul(8)?;
        let b = self.frames.get(at..at + 8)?;
        Some(Mfn(u64::from_le_bytes(b.try_into().ok()?)))
    }

    fn write(&mut self, pfn: Pfn, offset: usize, data: &[u8]) -> Result<(), Errno> {
        let (mut pfn, mut offset, mut data) = (pfn.0 + (offset / 4096) as u64, offset % 4096, data);
        while !data.is_empty() {
            let n = data.len().min(4096 - offset);
            let mfn = self.mfn(Pfn(pfn)).ok_or(Errno::EINVAL)?;
            let (now, later) = data.split_at(n);
            write_domain_page(&self.domain.mem, mfn, offset, now)?;
            (pfn, offset, data) = (pfn + 1, 0, later);
        }
        Ok(())
    }

    fn zero(&mut self, pfn: Pfn, count: u64) -> Result<(), Errno> {
        for p in pfn.0..pfn.0 + count {
            zero_domain_page(&self.domain.mem, self.mfn(Pfn(p)).ok_or(Errno::EINVAL)?)?;
        }
        Ok(())
    }
}
