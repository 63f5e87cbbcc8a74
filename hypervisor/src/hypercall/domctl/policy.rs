//! D82, D83: the CPU a domain sees, as CPUID leaves.

use super::{Done, payload};
use crate::domain::{CpuidLeaf, DomainRef};
use crate::mm::guest;
use crate::pv::policy::{self, Source};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use pv_abi::cpuid as c;
use pv_abi::domctl as dc;
use pv_abi::errno::Errno;
use pv_abi::ids::GuestHandle;

/// MSRs a policy may speak of: PLATFORM_INFO and ARCH_CAPABILITIES. We show neither.
const MSRS: [u32; policy::MAX_MSRS as usize] = [0xce, 0x10a];

fn allowed(l: &c::Leaf) -> bool {
    match l.leaf {
        0x4 => l.subleaf <= 5,
        0x7 => l.subleaf <= 2,
        0xb => l.subleaf <= 1,
        0xd => l.subleaf <= 62,
        0..=c::POLICY_BASIC_LAST | 0x4000_0000 | 0x4000_0100 | 0x8000_0000..=c::POLICY_EXTENDED_LAST => {
            l.subleaf == c::NO_SUBLEAF
        }
        _ => false,
    }
}

/// D83: replaces the domain's policy. It can only hide: what the machine lacks or a PV domain may not have stays out.
///
/// # Errors
/// `EEXIST` once the domain ran; `E2BIG`; `ERANGE` for a leaf and `EINVAL` for an MSR that no policy has (which one
/// is told in the structure); `ENOMEM`.
pub(super) fn set(d: &DomainRef, op: &mut dc::Domctl) -> Result<Done, Errno> {
    if d.started.load(Ordering::Acquire) {
        return Err(Errno::EEXIST);
    }
    let p = payload::<dc::CpuPolicy>(op)?;
    if p.nr_leaves > policy::MAX_LEAVES || p.nr_msrs > MSRS.len() as u32 {
        return Err(Errno::E2BIG);
    }
    let mut leaves = Vec::new();
    leaves.try_reserve_exact(p.nr_leaves as usize).map_err(|_| Errno::ENOMEM)?;
    for i in 0..p.nr_leaves {
        let l = guest::copy_element_from_guest(GuestHandle::<c::Leaf>::new(p.leaves), u64::from(i))?;
        if !allowed(&l) {
            return Err(Errno::ERANGE);
        }
        // Within what was reserved.
        leaves.push(CpuidLeaf { leaf: l.leaf, subleaf: l.subleaf, regs: [l.a, l.b, l.c, l.d] });
    }
    for i in 0..p.nr_msrs {
        let m = guest::copy_element_from_guest(GuestHandle::<c::MsrEntry>::new(p.msrs), u64::from(i))?;
        if m.flags != 0 || !MSRS.contains(&m.idx) {
            return Err(Errno::EINVAL);
        }
    }
    *d.cpuid.lock() = leaves;
    Ok(Done::Plain)
}

/// D82: what was set or, before that, the default.
///
/// # Errors
/// `ENOBUFS` when the buffer is too small, `EFAULT`.
pub(super) fn get(d: &DomainRef, op: &mut dc::Domctl) -> Result<Done, Errno> {
    let mut p = payload::<dc::CpuPolicy>(op)?;
    let mut n = 0;
    let mut put = |l: c::Leaf| {
        if n >= p.nr_leaves {
            return Err(Errno::ENOBUFS);
        }
        guest::copy_element_to_guest(GuestHandle::<c::Leaf>::new(p.leaves), u64::from(n), &l)?;
        n += 1;
        Ok(())
    };
    // The list is only set before the domain runs; a copy under the lock would need memory as large.
    let count = d.cpuid.lock().len();
    if count == 0 {
        policy::for_each_leaf(Source::Guest, &mut put)?;
    }
    for i in 0..count {
        let Some(l) = d.cpuid.lock().get(i).copied() else {
            break;
        };
        let [a, b, c, d] = l.regs;
        put(c::Leaf { leaf: l.leaf, subleaf: l.subleaf, a, b, c, d })?;
    }
    p.nr_leaves = n;
    p.nr_msrs = 0;
    op.set_payload(&p);
    Ok(Done::Copy)
}
