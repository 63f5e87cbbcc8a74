//! mmu_update, update_va_mapping, mmuext_op.

use super::{Args, Outcome};
use crate::arch::cpumask::CpuMask;
use crate::arch::layout::{is_canonical, is_guest_range, is_hypervisor};
use crate::arch::percpu::CpuId;
use crate::domain::{Cx, DomainRef, slots};
use crate::mm::guest;
use crate::mm::page_type::{Kind, Refused};
use crate::mm::pin;
use crate::mm::pte::Pte;
use crate::mm::unfinished;
use crate::mm::update::{self, Store, Table};
use crate::platform::tlb::{self, Flush};
use core::sync::atomic::Ordering;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, GuestHandle, Mfn, Pfn};
use pv_abi::mmu as m;

/// The domain whose frames are named: the caller's own, device memory, or (for dom0) another's.
enum Frames {
    Own,
    Io,
    Other(DomainRef),
}

impl Frames {
    fn of(cx: &Cx, id: u64) -> Result<Frames, Errno> {
        let id = DomId((id & 0xffff) as u16);
        match id {
            DomId::SELF => Ok(Frames::Own),
            DomId::IO => Ok(Frames::Io),
            id if id == cx.domain().id => Err(Errno::ESRCH),
            DomId::XEN if cx.domain().privileged => Ok(Frames::Io),
            id => {
                let d = slots::find(id).ok_or(Errno::ESRCH)?;
                if cx.domain().privileged { Ok(Frames::Other(d)) } else { Err(Errno::EPERM) }
            }
        }
    }

    fn id(&self, cx: &Cx) -> DomId {
        match self {
            Frames::Own => cx.domain().id,
            Frames::Io => DomId::IO,
            Frames::Other(d) => d.id,
        }
    }
}

fn refused(e: Refused) -> Errno {
    match e {
        Refused::Error(e) => e,
        Refused::Preempted => Errno::EAGAIN,
    }
}

/// mmu_update(list, count, done, foreign domain).
pub fn mmu_update(cx: &mut Cx, a: Args) -> Outcome {
    let list = GuestHandle::<m::MmuUpdate>::new(a.a1());
    let (mut count, resumed) = ((a.a2() & 0xffff_ffff) as u32, a.a2() as u32 & m::UPDATE_PREEMPTED != 0);
    count &= !m::UPDATE_PREEMPTED;
    if !is_guest_range(a.a1(), 0) {
        return Errno::EFAULT.into();
    }
    let done_at = GuestHandle::<u32>::new(a.a3());
    // A continued call goes on counting where it stopped.
    let before = if resumed { guest::copy_from_guest(done_at).unwrap_or(0) } else { 0 };
    let finish = |done: u32, r: Result<(), Errno>| -> Outcome {
        if !done_at.is_null() {
            let _ = guest::copy_to_guest(done_at, &before.wrapping_add(done));
        }
        r.into()
    };
    // The upper half of the word names the owner of the tables; only the caller's own are supported.
    match (a.a4() >> 16 & 0xffff) as u16 {
        0 => {}
        owner if DomId(owner - 1) == cx.domain().id => {}
        owner if slots::find(DomId(owner - 1)).is_none() => return finish(0, Err(Errno::ESRCH)),
        _ => return finish(0, Err(Errno::EPERM)),
    }
    let frames = match Frames::of(cx, a.a4()) {
        Ok(f) => f,
        Err(e) => return finish(0, Err(e)),
    };
    let frames_of = frames.id(cx);
    let mem = &cx.domain().mem;
    if mem.unfinished.any() && unfinished::finish(mem).is_err() {
        return Outcome::Restart(a);
    }
    let mut table: Option<Table> = None;
    for i in 0..count {
        if i != 0 && i % 32 == 0 && cx.should_preempt() {
            return preempted(a, list.offset(u64::from(i)).addr(), count - i, done_at, before.wrapping_add(i));
        }
        let Ok(req) = guest::copy_element_from_guest(list, u64::from(i)) else {
            return finish(i, Err(Errno::EFAULT));
        };
        let result = match req.ptr & 7 {
            cmd @ (m::NORMAL_PT_UPDATE | m::PT_UPDATE_PRESERVE_AD | m::PT_UPDATE_NO_TRANSLATE) => {
                let mfn = Mfn(req.ptr >> 12);
                if table.as_ref().is_none_or(|t| t.mfn() != mfn) {
                    match Table::open(mem, mfn) {
                        Ok(t) => table = Some(t),
                        Err(e) => return finish(i, Err(e)),
                    }
                }
                let store = if cmd == m::PT_UPDATE_PRESERVE_AD { Store::PreserveAd } else { Store::Plain };
                match &table {
                    Some(t) => t.update((req.ptr as usize & 0xfff) / 8, Pte(req.val), frames_of, store),
                    None => Err(Errno::EINVAL.into()),
                }
            }
            m::MACHPHYS_UPDATE => {
                let owner = match &frames {
                    Frames::Other(d) => d,
                    Frames::Own => cx.domain(),
                    Frames::Io => return finish(i, Err(Errno::EINVAL)),
                };
                pin::set_m2p(&owner.mem, Mfn(req.ptr >> 12), Pfn(req.val)).map_err(Refused::Error)
            }
            _ => Err(Errno::ENOSYS.into()),
        };
        match result {
            Ok(()) => {}
            Err(Refused::Preempted) => {
                return preempted(a, list.offset(u64::from(i)).addr(), count - i, done_at, before.wrapping_add(i));
            }
            Err(Refused::Error(e)) => return finish(i, Err(e)),
        }
    }
    finish(count, Ok(()))
}

/// Stops a list operation: the guest calls again with what is left, and the count so far in its own word.
fn preempted(a: Args, at: u64, left: u32, done_at: GuestHandle<u32>, done: u32) -> Outcome {
    if done_at.is_null() || guest::copy_to_guest(done_at, &done).is_err() {
        return Outcome::Restart(a.with(0, at).with(1, u64::from(left)));
    }
    Outcome::Restart(a.with(0, at).with(1, u64::from(left | m::UPDATE_PREEMPTED)))
}

/// update_va_mapping(va, value, flags).
#[inline]
pub fn update_va_mapping(cx: &mut Cx, a: Args) -> Outcome {
    let own = cx.domain().id;
    update_va(cx, a, own)
}

/// update_va_mapping_otherdomain(va, value, flags, domain).
pub fn update_va_mapping_otherdomain(cx: &mut Cx, a: Args) -> Outcome {
    match Frames::of(cx, a.a4()) {
        Ok(f) => {
            let id = f.id(cx);
            update_va(cx, a, id)
        }
        Err(e) => e.into(),
    }
}

#[inline]
fn update_va(cx: &mut Cx, a: Args, frames_of: DomId) -> Outcome {
    let va = a.a1();
    let Some(l4) = cx.arch.tables.kernel_base() else {
        return Errno::EINVAL.into();
    };
    if !is_canonical(va) || is_hypervisor(va) {
        return Errno::EINVAL.into();
    }
    let mem = &cx.domain().mem;
    if mem.unfinished.any() && unfinished::finish(mem).is_err() {
        return Outcome::Restart(a);
    }
    match update::update_va(mem, l4, va, Pte(a.a2()), frames_of) {
        Ok(()) => {}
        Err(Refused::Preempted) => return Outcome::Restart(a),
        Err(Refused::Error(e)) => return e.into(),
    }
    let flags = a.a3();
    let what = match flags & m::UVMF_FLUSHTYPE_MASK {
        m::UVMF_TLB_FLUSH => Flush::All,
        m::UVMF_INVLPG => Flush::Page(va),
        _ => return Outcome::Return(0),
    };
    match flags & !m::UVMF_FLUSHTYPE_MASK {
        0 => tlb::flush_local(what),
        m::UVMF_ALL => tlb::flush_cpus(cx.domain().mem.dirty_cpus.load(), what),
        bitmap => match vcpu_cpus(cx, bitmap) {
            Ok(mask) => tlb::flush_cpus(mask, what),
            Err(e) => return e.into(),
        },
    }
    Outcome::Return(0)
}

/// CPUs on which the vCPUs named by the guest's bitmap at `addr` may hold translations.
fn vcpu_cpus(cx: &Cx, addr: u64) -> Result<CpuMask, Errno> {
    let mut mask = CpuMask::EMPTY;
    let dirty = cx.domain().mem.dirty_cpus.load();
    let n = cx.domain().vcpus().len();
    for word in 0..n.div_ceil(64) {
        let bits: u64 = guest::copy_element_from_guest(GuestHandle::new(addr), word as u64)?;
        for v in cx.domain().vcpus().iter().skip(word * 64).take(64) {
            if bits >> (v.id.0 % 64) & 1 != 0 {
                let cpu = CpuId(v.sched.cpu.load(Ordering::Relaxed));
                if dirty.contains(cpu) {
                    mask = mask.with(cpu);
                }
            }
        }
    }
    Ok(mask)
}

/// Makes `mfn` the kernel base and loads it.
///
/// # Errors
/// `EINVAL`, `EAGAIN` when preempted.
pub fn new_baseptr(cx: &mut Cx, mfn: Mfn) -> Result<(), Errno> {
    let mem = &cx.domain().mem;
    cx.arch.tables.drop_ldt_pages(mem, cx.vcpu.id);
    let old = cx.arch.tables.set_kernel_base(mem, mfn).map_err(refused)?;
    #[cfg(target_os = "none")]
    if cx.arch.in_kernel {
        cx.arch.tables.load(true, true);
    }
    old.give_up(mem);
    Ok(())
}

/// mmuext_op(list, count, done, foreign domain).
pub fn mmuext_op(cx: &mut Cx, a: Args) -> Outcome {
    let list = GuestHandle::<m::MmuextOp>::new(a.a1());
    let (mut count, resumed) = ((a.a2() & 0xffff_ffff) as u32, a.a2() as u32 & m::UPDATE_PREEMPTED != 0);
    count &= !m::UPDATE_PREEMPTED;
    if !is_guest_range(a.a1(), 0) {
        return Errno::EFAULT.into();
    }
    let done_at = GuestHandle::<u32>::new(a.a3());
    let before = if resumed { guest::copy_from_guest(done_at).unwrap_or(0) } else { 0 };
    let finish = |done: u32, r: Result<(), Errno>| -> Outcome {
        if !done_at.is_null() {
            let _ = guest::copy_to_guest(done_at, &before.wrapping_add(done));
        }
        r.into()
    };
    let frames = match Frames::of(cx, a.a4()) {
        Ok(f) => f,
        Err(e) => return finish(0, Err(e)),
    };
    let tables_of = match &frames {
        Frames::Other(d) => d.clone(),
        _ => cx.domain().clone(),
    };
    for i in 0..count {
        if tables_of.mem.unfinished.any() && unfinished::finish(&tables_of.mem).is_err() {
            return preempted(a, list.offset(u64::from(i)).addr(), count - i, done_at, before.wrapping_add(i));
        }
        if i != 0 && cx.should_preempt() {
            return preempted(a, list.offset(u64::from(i)).addr(), count - i, done_at, before.wrapping_add(i));
        }
        let Ok(op) = guest::copy_element_from_guest(list, u64::from(i)) else {
            return finish(i, Err(Errno::EFAULT));
        };
        match extended(cx, &frames, &tables_of, &op) {
            Ok(()) => {}
            Err(Refused::Preempted | Refused::Error(Errno::EAGAIN)) => {
                return preempted(a, list.offset(u64::from(i)).addr(), count - i, done_at, before.wrapping_add(i));
            }
            Err(Refused::Error(e)) => return finish(i, Err(e)),
        }
    }
    finish(count, Ok(()))
}

fn extended(cx: &mut Cx, frames: &Frames, owner: &DomainRef, op: &m::MmuextOp) -> Result<(), Refused> {
    let mfn = Mfn(op.arg1);
    // Device memory has no tables.
    if let Frames::Io = frames {
        return Err(if op.cmd <= m::EXT_UNPIN_TABLE { Errno::EINVAL } else { Errno::EPERM }.into());
    }
    match op.cmd {
        m::EXT_PIN_L1_TABLE => pin::pin(&owner.mem, mfn, Kind::L1),
        m::EXT_PIN_L2_TABLE => pin::pin(&owner.mem, mfn, Kind::L2),
        m::EXT_PIN_L3_TABLE => pin::pin(&owner.mem, mfn, Kind::L3),
        m::EXT_PIN_L4_TABLE => pin::pin(&owner.mem, mfn, Kind::L4),
        m::EXT_UNPIN_TABLE => pin::unpin(&owner.mem, mfn),
        m::EXT_NEW_BASEPTR => match frames {
            Frames::Own => Ok(new_baseptr(cx, mfn)?),
            _ => Err(Errno::EPERM.into()),
        },
        m::EXT_NEW_USER_BASEPTR => match frames {
            Frames::Own => cx.arch.tables.set_user_base(&cx.domain().mem, mfn),
            _ => Err(Errno::EPERM.into()),
        },
        m::EXT_TLB_FLUSH_LOCAL => {
            tlb::flush_local(Flush::All);
            Ok(())
        }
        m::EXT_INVLPG_LOCAL => {
            if is_canonical(op.arg1) && !is_hypervisor(op.arg1) {
                tlb::flush_local(Flush::Page(op.arg1));
            }
            Ok(())
        }
        m::EXT_TLB_FLUSH_MULTI | m::EXT_INVLPG_MULTI => {
            let mask = vcpu_cpus(cx, op.arg2).map_err(|_| Errno::EINVAL)?;
            let what = if op.cmd == m::EXT_INVLPG_MULTI && !is_hypervisor(op.arg1) {
                Flush::Page(op.arg1)
            } else {
                Flush::All
            };
            tlb::flush_cpus(mask, what);
            Ok(())
        }
        m::EXT_TLB_FLUSH_ALL => {
            tlb::flush_cpus(cx.domain().mem.dirty_cpus.load(), Flush::All);
            Ok(())
        }
        m::EXT_INVLPG_ALL => {
            if is_canonical(op.arg1) && !is_hypervisor(op.arg1) {
                tlb::flush_cpus(cx.domain().mem.dirty_cpus.load(), Flush::Page(op.arg1));
            }
            Ok(())
        }
        m::EXT_FLUSH_CACHE | m::EXT_FLUSH_CACHE_GLOBAL => {
            if cx.domain().privileged {
                Ok(())
            } else {
                Err(Errno::EACCES.into())
            }
        }
        m::EXT_SET_LDT => {
            let (base, entries) = (op.arg1, op.arg2);
            if entries > 8192 || (entries != 0 && (base & 0xfff != 0 || !is_canonical(base) || is_hypervisor(base))) {
                return Err(Errno::EINVAL.into());
            }
            let (old, old_entries) = (cx.arch.tables.ldt_base, cx.arch.tables.ldt_entries);
            if old != base || u64::from(old_entries) != entries {
                cx.arch.tables.drop_ldt_pages(&cx.domain().mem, cx.vcpu.id);
                cx.arch.tables.ldt_base = base;
                cx.arch.tables.ldt_entries = entries as u32;
                super::cpu::reload_descriptors(cx);
            }
            Ok(())
        }
        m::EXT_CLEAR_PAGE => Ok(pin::clear_page(&owner.mem, mfn)?),
        m::EXT_COPY_PAGE => Ok(pin::copy_page(&owner.mem, mfn, Mfn(op.arg2))?),
        m::EXT_MARK_SUPER | m::EXT_UNMARK_SUPER => Err(Errno::EOPNOTSUPP.into()),
        _ => Err(Errno::ENOSYS.into()),
    }
}
