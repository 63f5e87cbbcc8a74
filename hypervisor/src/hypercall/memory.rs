//! memory_op.
//!
//! Operations on a list of extents return how many were done, whatever stopped them (a bad pointer, a page that is not
//! the domain's, no more memory): the ABI has no errors there. A long list stops between extents and goes on with the
//! number done in the command's upper bits.

use super::{Args, Outcome};
use crate::domain::current::should_preempt;
use crate::domain::{Cx, DomainRef, slots};
use crate::fallible::try_push;
use crate::mm::guest::{copy_element_from_guest, copy_element_to_guest, copy_from_guest, copy_to_guest, write_bytes};
use crate::mm::page_type::Refused;
use crate::mm::{alloc, exchange, init, m2p};
use ::alloc::vec::Vec;
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, GuestHandle, Mfn, PAGE_SHIFT, Pfn};
use pv_abi::memory::*;
use pv_abi::shared_info::ARCH;
use zerocopy::IntoBytes;

/// Largest block a domain without hardware rights may ask for: 2 MiB.
const MAX_GUEST_ORDER: u32 = 9;
/// In the command of a continued decrease: the third argument says how much of the extent is done.
const INSIDE: u64 = 1 << 63;
/// Most entries of a domain's memory map.
const MAX_MAP_ENTRIES: u32 = 128;

/// memory_op(command, argument).
pub fn memory_op(cx: &mut Cx, a: Args) -> Outcome {
    let command = a.a1() & ((1 << CMD_BITS) - 1);
    let start = a.a1() >> CMD_BITS;
    let arg = a.a2();
    match command {
        OP_INCREASE_RESERVATION | OP_DECREASE_RESERVATION | OP_POPULATE_PHYSMAP => {
            reservation(cx, a, command, start, GuestHandle::new(arg))
        }
        OP_EXCHANGE => exchange_op(cx, a, start, GuestHandle::new(arg)),
        OP_MAXIMUM_RAM_PAGE => Outcome::Return(m2p::entries().saturating_sub(1) as i64),
        OP_CURRENT_RESERVATION => of_domain(cx, arg, |d| d.mem.pages() as i64).into(),
        OP_MAXIMUM_RESERVATION => of_domain(cx, arg, |d| i64::try_from(d.mem.max_pages()).unwrap_or(i64::MAX)).into(),
        OP_MAXIMUM_GPFN => of_domain(cx, arg, |d| (d.shared.load_u64(ARCH) as i64).wrapping_sub(1)).into(),
        OP_MACHPHYS_MAPPING => {
            let (v_start, v_end) = m2p::guest_window();
            let max_mfn = (v_end.wrapping_sub(v_start) / 8).wrapping_sub(1);
            copy_to_guest(GuestHandle::new(arg), &MachphysMapping { v_start, v_end, max_mfn }).into()
        }
        OP_MACHPHYS_MFN_LIST => machphys_mfn_list(GuestHandle::new(arg)).into(),
        OP_MEMORY_MAP => memory_map(cx, GuestHandle::new(arg)).into(),
        OP_SET_MEMORY_MAP => set_memory_map(cx, GuestHandle::new(arg)).into(),
        OP_MACHINE_MEMORY_MAP => machine_memory_map(cx, GuestHandle::new(arg)).into(),
        OP_ACQUIRE_RESOURCE => acquire_resource(cx, GuestHandle::new(arg)).into(),
        // A PV domain lays out its own pseudo-physical space.
        OP_ADD_TO_PHYSMAP | OP_ADD_TO_PHYSMAP_BATCH | OP_REMOVE_FROM_PHYSMAP => refused(arg, Errno::EACCES),
        OP_SET_POD_TARGET | OP_GET_POD_TARGET | OP_GET_VNUMAINFO => refused(arg, Errno::EOPNOTSUPP),
        // No page is shared.
        OP_GET_SHARING_FREED_PAGES | OP_GET_SHARING_SHARED_PAGES => Outcome::Return(0),
        // Tools take just this answer for "there is no such thing".
        OP_ACCESS | OP_CLAIM_PAGES | OP_RESERVED_DEVICE_MEMORY_MAP => refused(arg, Errno::ENOSYS),
        _ => Errno::ENOSYS.into(),
    }
}

/// An operation that is not offered: what a caller gets whose argument can be read.
fn refused(arg: u64, why: Errno) -> Outcome {
    copy_from_guest(GuestHandle::<u64>::new(arg)).map_or_else(Outcome::from, |_| why.into())
}

/// The domain named by an operation: one's own, or, for a privileged caller, any.
fn target(cx: &Cx, id: DomId) -> Result<DomainRef, Errno> {
    let me = cx.domain();
    if id == DomId::SELF || id == me.id {
        return Ok(me.clone());
    }
    let d = slots::find(id).ok_or(Errno::ESRCH)?;
    if me.privileged { Ok(d) } else { Err(Errno::EPERM) }
}

fn of_domain(cx: &Cx, arg: u64, f: impl FnOnce(&DomainRef) -> i64) -> Result<i64, Errno> {
    let id: u16 = copy_from_guest(GuestHandle::new(arg))?;
    Ok(f(&target(cx, DomId(id))?))
}

/// The first frame that is too high for a request with these flags.
fn limit(flags: u32) -> u64 {
    match flags & MEMF_ADDRESS_BITS_MASK {
        0 => u64::MAX,
        bits if bits <= PAGE_SHIFT => 0,
        bits => 1u64.checked_shl(bits.saturating_sub(PAGE_SHIFT)).unwrap_or(u64::MAX),
    }
}

/// Which order a caller may ask for at most.
fn max_order(cx: &Cx) -> u32 {
    if cx.domain().privileged { alloc::MAX_ORDER } else { MAX_GUEST_ORDER }
}

fn reservation(cx: &mut Cx, a: Args, command: u64, start: u64, arg: GuestHandle<Reservation>) -> Outcome {
    let none = Outcome::Return(start as i64);
    // (In the way of no extent's number: their count is limited below.)
    let inside = command == OP_DECREASE_RESERVATION && a.a1() & INSIDE != 0;
    let start = if inside { start & !(INSIDE >> CMD_BITS) } else { start };
    let Ok(r) = copy_from_guest(arg) else {
        return none;
    };
    let Ok(d) = target(cx, DomId(r.domid)) else {
        return none;
    };
    if r.extent_order > max_order(cx) || r.nr_extents >= 1 << (63 - CMD_BITS) || start > r.nr_extents {
        return none;
    }
    let list = GuestHandle::<u64>::new(r.extent_start);
    // A large extent may have been stopped in the middle.
    let mut within = if inside { a.a3() } else { 0 };
    for i in start..r.nr_extents {
        if i != start && cx.should_preempt() {
            return Outcome::Restart(a.with(0, command | i << CMD_BITS));
        }
        let done = match command {
            OP_DECREASE_RESERVATION => match decrease(&d, list, i, r.extent_order, core::mem::take(&mut within)) {
                Ok(n) if n >> r.extent_order == 0 => {
                    return Outcome::Restart(a.with(0, command | i << CMD_BITS | INSIDE).with(2, n));
                }
                done => done.map(drop).map_err(Refused::Error),
            },
            OP_POPULATE_PHYSMAP => populate(&d, list, i, &r),
            _ => increase(&d, list, i, &r),
        };
        match done {
            Ok(()) => {}
            Err(Refused::Preempted) => return Outcome::Restart(a.with(0, command | i << CMD_BITS)),
            Err(Refused::Error(_)) => return Outcome::Return(i as i64),
        }
    }
    Outcome::Return(r.nr_extents as i64)
}

/// A block for the page numbers at `list[i]`, whose frame number takes their place.
fn populate(d: &DomainRef, list: GuestHandle<u64>, i: u64, r: &Reservation) -> Result<(), Refused> {
    let pfn: u64 = copy_element_from_guest(list, i)?;
    let mfn = d.mem.allocate_or_stop(r.extent_order, limit(r.flags))?;
    for n in 0..1u64 << r.extent_order {
        m2p::set(Mfn(mfn.0.wrapping_add(n)), Pfn(pfn.wrapping_add(n)));
    }
    Ok(hand_out(d, list, i, mfn, r.extent_order)?)
}

/// A block without page numbers; its frame number goes to `list[i]`, if there is a list.
fn increase(d: &DomainRef, list: GuestHandle<u64>, i: u64, r: &Reservation) -> Result<(), Refused> {
    let mfn = d.mem.allocate_or_stop(r.extent_order, limit(r.flags))?;
    if list.is_null() { Ok(()) } else { Ok(hand_out(d, list, i, mfn, r.extent_order)?) }
}

/// Tells the guest which block it got; a block it cannot be told of goes back.
fn hand_out(d: &DomainRef, list: GuestHandle<u64>, i: u64, mfn: Mfn, order: u32) -> Result<(), Errno> {
    copy_element_to_guest(list, i, &mfn.0).inspect_err(|_| {
        for n in 0..1u64 << order {
            let _ = d.mem.give_back(Mfn(mfn.0.wrapping_add(n)));
        }
    })
}

/// Gives back the pages of an extent, from the `from`th on; returns behind which page it stopped.
fn decrease(d: &DomainRef, list: GuestHandle<u64>, i: u64, order: u32, from: u64) -> Result<u64, Errno> {
    let first: u64 = copy_element_from_guest(list, i)?;
    for n in from..1u64 << order {
        if n != from && n % 16 == 0 && should_preempt() {
            return Ok(n);
        }
        d.mem.give_back(Mfn(first.wrapping_add(n)))?;
    }
    Ok(1 << order)
}

/// Exchange: chunks of as many pages as the larger of the two orders has.
fn exchange_op(cx: &mut Cx, a: Args, start: u64, arg: GuestHandle<Exchange>) -> Outcome {
    let mut x = match copy_from_guest(arg) {
        Ok(x) => x,
        Err(e) => return e.into(),
    };
    let d = match exchange_target(cx, &x, start) {
        Ok(d) => d,
        Err(e) => return e.into(),
    };
    let larger = x.input.extent_order.max(x.output.extent_order);
    let chunks = (x.input.nr_extents << x.input.extent_order) >> larger;
    // Input extents of one chunk: what the count of exchanged extents rises by.
    let per_chunk = 1u64 << larger.saturating_sub(x.input.extent_order);
    for i in start..chunks {
        if i != start && cx.should_preempt() {
            return Outcome::Restart(a.with(0, OP_EXCHANGE | i << CMD_BITS));
        }
        match exchange_chunk(&d, &x, i) {
            Ok(()) => {}
            Err(Refused::Preempted) => {
                return Outcome::Restart(a.with(0, OP_EXCHANGE | i << CMD_BITS));
            }
            Err(Refused::Error(e)) => {
                x.nr_exchanged = i.saturating_mul(per_chunk);
                // A guest that cannot be told the count sees the error alone.
                let _ = copy_to_guest(arg, &x);
                return e.into();
            }
        }
    }
    x.nr_exchanged = x.input.nr_extents;
    copy_to_guest(arg, &x).into()
}

fn exchange_target(cx: &Cx, x: &Exchange, start: u64) -> Result<DomainRef, Errno> {
    let (i, o) = (&x.input, &x.output);
    let highest = max_order(cx);
    if x.nr_exchanged != 0 || i.extent_order > highest || o.extent_order > highest || i.domid != o.domid {
        return Err(Errno::EINVAL);
    }
    let pages = |r: &Reservation| r.nr_extents.checked_mul(1 << r.extent_order).filter(|n| *n < 1 << 40);
    let even = pages(i).is_some() && pages(i) == pages(o);
    let whole = pages(i).is_some_and(|n| n % (1 << i.extent_order.max(o.extent_order)) == 0);
    if !even || !whole || start > i.nr_extents {
        return Err(Errno::EINVAL);
    }
    let d = target(cx, DomId(i.domid))?;
    // Another domain's pages are its own business while it runs.
    if DomainRef::ptr_eq(&d, cx.domain()) { Ok(d) } else { Err(Errno::EINVAL) }
}

fn exchange_chunk(d: &DomainRef, x: &Exchange, chunk: u64) -> Result<(), Refused> {
    let (from, to) = (x.input.extent_order, x.output.extent_order);
    let larger = from.max(to);
    let (ins, outs) = (1u64 << larger.saturating_sub(from), 1u64 << larger.saturating_sub(to));
    let mut old = Vec::new();
    old.try_reserve_exact(1 << larger).map_err(|_| Errno::ENOMEM)?;
    let list = GuestHandle::<u64>::new(x.input.extent_start);
    for j in 0..ins {
        let first: u64 = copy_element_from_guest(list, chunk.saturating_mul(ins).saturating_add(j))?;
        for n in 0..1u64 << from {
            try_push(&mut old, Mfn(first.wrapping_add(n)))?;
        }
    }
    // The page numbers of the new blocks stand where their frame numbers go; read before anything changes.
    let list = GuestHandle::<u64>::new(x.output.extent_start);
    let first_out = chunk.saturating_mul(outs);
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(outs as usize).map_err(|_| Errno::ENOMEM)?;
    for j in 0..outs {
        let pfn: u64 = copy_element_from_guest(list, first_out.saturating_add(j))?;
        try_push(&mut numbers, pfn)?;
    }
    let new = exchange::exchange(&d.mem, &old, outs as usize, to, limit(x.output.flags))?;
    // The page numbers give their places to the frame numbers.
    for (place, mfn) in numbers.iter_mut().zip(new) {
        for n in 0..1u64 << to {
            m2p::set(Mfn(mfn.0.wrapping_add(n)), Pfn(place.wrapping_add(n)));
        }
        *place = mfn.0;
    }
    Ok(write_bytes(list.offset(first_out).addr(), numbers.as_bytes())?)
}

/// Frames of the M2P itself, in blocks of 2 MiB, for tools that map it under `DOMID_XEN`.
fn machphys_mfn_list(arg: GuestHandle<MachphysMfnList>) -> Result<i64, Errno> {
    let mut l = copy_from_guest(arg)?;
    let list = GuestHandle::<u64>::new(l.extent_start);
    let mut n = 0u32;
    while n < l.max_extents {
        let Some(mfn) = m2p::extent(u64::from(n)) else {
            break;
        };
        copy_element_to_guest(list, u64::from(n), &mfn.0)?;
        n = n.saturating_add(1);
    }
    l.nr_extents = n;
    copy_to_guest(arg, &l).map(|()| 0)
}

/// The memory map the toolstack gave the domain.
fn memory_map(cx: &Cx, arg: GuestHandle<MemoryMap>) -> Result<i64, Errno> {
    let mut m = copy_from_guest(arg)?;
    let map = cx.domain().e820.lock();
    // Linux makes a map of its own from this answer only.
    if map.is_empty() {
        return Err(Errno::ENOSYS);
    }
    let n = (m.nr_entries as usize).min(map.len());
    let list = GuestHandle::<E820Entry>::new(m.buffer);
    for (i, e) in map.iter().take(n).enumerate() {
        copy_element_to_guest(list, i as u64, e)?;
    }
    m.nr_entries = n as u32;
    copy_to_guest(arg, &m).map(|()| 0)
}

fn set_memory_map(cx: &Cx, arg: GuestHandle<ForeignMemoryMap>) -> Result<i64, Errno> {
    let f = copy_from_guest(arg)?;
    if !cx.domain().privileged {
        return Err(Errno::EPERM);
    }
    if f.map.nr_entries > MAX_MAP_ENTRIES {
        return Err(Errno::EINVAL);
    }
    let d = target(cx, DomId(f.domid))?;
    let list = GuestHandle::<E820Entry>::new(f.map.buffer);
    let mut map = Vec::new();
    map.try_reserve_exact(f.map.nr_entries as usize).map_err(|_| Errno::ENOMEM)?;
    for i in 0..f.map.nr_entries {
        try_push(&mut map, copy_element_from_guest(list, u64::from(i))?)?;
    }
    *d.e820.lock() = map;
    Ok(0)
}

/// The machine's own map, for the domain that has the machine's devices.
fn machine_memory_map(cx: &Cx, arg: GuestHandle<MemoryMap>) -> Result<i64, Errno> {
    if !cx.domain().privileged {
        return Err(Errno::EPERM);
    }
    let mut m = copy_from_guest(arg)?;
    let map = init::memory_map();
    if (m.nr_entries as usize) < map.len() {
        return Err(Errno::EINVAL);
    }
    let list = GuestHandle::<E820Entry>::new(m.buffer);
    for (i, r) in map.iter().enumerate() {
        let e = E820Entry::new(r.start, r.end.saturating_sub(r.start), r.kind);
        copy_element_to_guest(list, i as u64, &e)?;
    }
    m.nr_entries = map.len() as u32;
    copy_to_guest(arg, &m).map(|()| 0)
}

/// Frames of another domain's grant table, for the toolstack to map.
fn acquire_resource(cx: &Cx, arg: GuestHandle<AcquireResource>) -> Result<i64, Errno> {
    let mut r = copy_from_guest(arg)?;
    if !cx.domain().privileged {
        return Err(Errno::EPERM);
    }
    if r.pad != 0 {
        return Err(Errno::EINVAL);
    }
    let d = target(cx, DomId(r.domid))?;
    match r.kind {
        RESOURCE_GRANT_TABLE if r.id == GRANT_TABLE_SHARED => {}
        RESOURCE_GRANT_TABLE => return Err(Errno::EINVAL),
        _ => return Err(Errno::EOPNOTSUPP),
    }
    let list = GuestHandle::<u64>::new(r.frame_list);
    if list.is_null() {
        if r.nr_frames != 0 {
            return Err(Errno::EINVAL);
        }
        r.nr_frames = d.grants.size().1;
        return copy_to_guest(arg, &r).map(|()| 0);
    }
    let first = u32::try_from(r.frame).map_err(|_| Errno::EINVAL)?;
    let end = first.checked_add(r.nr_frames).ok_or(Errno::EINVAL)?;
    d.grants.grow(d.id, end)?;
    for i in 0..r.nr_frames {
        let mfn = d.grants.frame(first.saturating_add(i)).ok_or(Errno::EINVAL)?;
        copy_element_to_guest(list, u64::from(i), &mfn.0)?;
    }
    Ok(0)
}
