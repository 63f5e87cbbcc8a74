//! grant_table_op: a list of elements, each with a status of its own.
//!
//! The result of the hypercall is 0 whatever the elements' statuses say; an error is for a list that cannot be read.
//! A long list stops between elements and goes on behind those done: pointer and count are the progress.

use super::{Args, Outcome};
use crate::arch::layout::is_guest_range;
use crate::domain::{Cx, DomainRef, slots};
use crate::grants::{self, Unmapped};
use crate::mm::guest::{copy_element_from_guest, copy_element_to_guest, copy_from_guest, copy_to_guest};
use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use pv_abi::grant::*;
use pv_abi::ids::{DomId, GuestHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Unmapped elements between two flushes.
const BATCH: usize = 32;

/// grant_table_op(cmd, list, count).
pub fn grant_table_op(cx: &mut Cx, a: Args) -> Outcome {
    let (cmd, list, count) = (a.a1() as u32, a.a2(), a.a3() as u32);
    // The upper bits are for continuations of an operation that is not offered.
    if count > i32::MAX as u32 || cmd > CMD_MASK {
        return Errno::EINVAL.into();
    }
    // A list is a guest's, however short it is.
    if is_list(u64::from(cmd)) && !is_guest_range(list, 0) {
        return Errno::EFAULT.into();
    }
    match u64::from(cmd) {
        OP_MAP_GRANT_REF => each(cx, a, list, count, |cx, op: &mut MapGrantRef| {
            let l4 = cx.arch.tables.kernel_base();
            op.status = match grants::map(cx.domain(), l4, op) {
                Ok((handle, mfn)) => {
                    op.handle = handle;
                    op.dev_bus_addr = mfn.0 << 12;
                    ST_OKAY
                }
                Err(status) => status,
            };
            Ok(())
        }),
        OP_UNMAP_GRANT_REF => unmap(cx, a, list, count),
        OP_SETUP_TABLE if count != 1 => Errno::EINVAL.into(),
        OP_SETUP_TABLE => setup_table(cx, GuestHandle::new(list)).into(),
        OP_COPY => each(cx, a, list, count, |cx, op: &mut Copy| {
            op.status = grants::copy(cx.domain(), op).err().unwrap_or(ST_OKAY);
            Ok(())
        }),
        OP_QUERY_SIZE if count != 1 => Errno::EINVAL.into(),
        OP_QUERY_SIZE => each(cx, a, list, count, |cx, op: &mut QuerySize| {
            op.status = match target(cx, op.dom) {
                Ok(d) => {
                    (op.nr_frames, op.max_nr_frames) = d.grants.size();
                    ST_OKAY
                }
                Err(status) => status,
            };
            Ok(())
        }),
        // Pages are not given away (nobody has used that since netfront stopped flipping): each is refused.
        OP_TRANSFER => each(cx, a, list, count, |_, op: &mut Transfer| {
            op.status = ST_GENERAL_ERROR;
            Ok(())
        }),
        OP_SET_VERSION => set_version(GuestHandle::new(list)).into(),
        OP_GET_VERSION => get_version(cx, GuestHandle::new(list)).into(),
        OP_GET_STATUS_FRAMES if count != 1 => Errno::EINVAL.into(),
        OP_UNMAP_AND_REPLACE | OP_GET_STATUS_FRAMES | OP_SWAP_GRANT_REF | OP_CACHE_FLUSH => {
            // Not offered; a list that is none is told first, as elsewhere.
            each(cx, a, list, count.min(1), |_, _: &mut u64| Err(Errno::EOPNOTSUPP))
        }
        _ => Errno::ENOSYS.into(),
    }
}

/// The bits of a command that say which.
const CMD_MASK: u32 = 0xfff;

/// Whether the operation takes a list of elements.
fn is_list(cmd: u64) -> bool {
    matches!(
        cmd,
        OP_MAP_GRANT_REF | OP_UNMAP_GRANT_REF | OP_TRANSFER | OP_COPY | OP_UNMAP_AND_REPLACE | OP_SWAP_GRANT_REF
    )
}

/// Arguments to go on behind the first `done` elements of size `size`.
fn behind(a: Args, done: u32, size: usize) -> Outcome {
    let list = a.a2().wrapping_add(u64::from(done).wrapping_mul(size as u64));
    Outcome::Restart(a.with(1, list).with(2, u64::from((a.a3() as u32).saturating_sub(done))))
}

/// Copies each element in, lets `f` work on it, and copies it back.
fn each<T>(
    cx: &mut Cx,
    a: Args,
    list: u64,
    count: u32,
    mut f: impl FnMut(&mut Cx, &mut T) -> Result<(), Errno>,
) -> Outcome
where
    T: FromBytes + IntoBytes + Immutable,
{
    let list = GuestHandle::<T>::new(list);
    for i in 0..count {
        if i != 0 && cx.should_preempt() {
            return behind(a, i, size_of::<T>());
        }
        let done = copy_element_from_guest(list, u64::from(i)).and_then(|mut op| {
            f(cx, &mut op)?;
            copy_element_to_guest(list, u64::from(i), &op)
        });
        if let Err(e) = done {
            return e.into();
        }
    }
    Outcome::Return(0)
}

fn unmap(cx: &mut Cx, a: Args, list: u64, count: u32) -> Outcome {
    let list = GuestHandle::<UnmapGrantRef>::new(list);
    let mut first = 0;
    while first < count {
        if first != 0 && cx.should_preempt() {
            return behind(a, first, size_of::<UnmapGrantRef>());
        }
        let (n, result) = unmap_batch(cx, list, first, count);
        first = first.saturating_add(n);
        if let Err(e) = result {
            return e.into();
        }
    }
    Outcome::Return(0)
}

/// Elements from `first` on, at most [`BATCH`]: unmap, flush, tell the granters.
fn unmap_batch(cx: &mut Cx, list: GuestHandle<UnmapGrantRef>, first: u32, count: u32) -> (u32, Result<(), Errno>) {
    let l4 = cx.arch.tables.kernel_base();
    let mut down: ArrayVec<Unmapped, BATCH> = ArrayVec::new();
    let mut result = Ok(());
    let mut n = 0;
    while n < BATCH as u32 && first.saturating_add(n) < count {
        let i = u64::from(first.saturating_add(n));
        n = n.saturating_add(1);
        let one = copy_element_from_guest(list, i).and_then(|mut op| {
            op.status = match grants::unmap(cx.domain(), l4, &op) {
                Ok(u) => {
                    // Room for BATCH of them, and there are no more.
                    let _ = down.try_push(u);
                    ST_OKAY
                }
                Err(status) => status,
            };
            copy_element_to_guest(list, i, &op)
        });
        if one.is_err() {
            result = one;
            break;
        }
    }
    if !down.is_empty() {
        grants::flush(cx.domain());
    }
    for u in down {
        grants::finish(cx.domain(), u);
    }
    (n, result)
}

/// The domain an operation names: one's own, or, for a privileged caller, any.
fn target(cx: &Cx, dom: u16) -> Result<DomainRef, i16> {
    let me = cx.domain();
    if DomId(dom) == DomId::SELF || DomId(dom) == me.id {
        return Ok(me.clone());
    }
    let d = slots::find(DomId(dom)).ok_or(ST_BAD_DOMAIN)?;
    if me.privileged { Ok(d) } else { Err(ST_PERMISSION_DENIED) }
}

fn setup_table(cx: &Cx, arg: GuestHandle<SetupTable>) -> Result<i64, Errno> {
    let mut op = copy_from_guest(arg)?;
    op.status = match target(cx, op.dom) {
        Ok(d) if d.grants.grow(d.id, op.nr_frames).is_ok() => {
            let list = GuestHandle::<u64>::new(op.frame_list);
            let listed = (0..op.nr_frames).try_for_each(|i| {
                let mfn = d.grants.frame(i).ok_or(Errno::EINVAL)?;
                copy_element_to_guest(list, u64::from(i), &mfn.0)
            });
            if listed.is_ok() { ST_OKAY } else { ST_BAD_VIRT_ADDR }
        }
        Ok(_) => ST_GENERAL_ERROR,
        Err(status) => status,
    };
    copy_to_guest(arg, &op)?;
    Ok(0)
}

/// Version 1 is what there is.
fn set_version(arg: GuestHandle<SetVersion>) -> Result<i64, Errno> {
    let op = copy_from_guest(arg)?;
    match op.version {
        1 => copy_to_guest(arg, &op).map(|()| 0),
        2 => Err(Errno::ENOSYS),
        _ => Err(Errno::EINVAL),
    }
}

fn get_version(cx: &Cx, arg: GuestHandle<GetVersion>) -> Result<i64, Errno> {
    let mut op = copy_from_guest(arg)?;
    target(cx, op.dom).map_err(|s| if s == ST_BAD_DOMAIN { Errno::ESRCH } else { Errno::EPERM })?;
    op.version = 1;
    copy_to_guest(arg, &op).map(|()| 0)
}
