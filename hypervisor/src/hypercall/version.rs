//! xen_version: what the hypervisor says of itself. The number is the ABI's release the stock tools look for; the name
//! is ours.

use super::{Args, Outcome};
use crate::arch::build_id::build_id;
use crate::domain::Cx;
use crate::mm::guest;
use core::sync::atomic::{AtomicU32, Ordering};
use pv_abi::errno::Errno;
use pv_abi::features as feat;
use pv_abi::ids::GuestHandle;
use pv_abi::version as v;

static REPORTED: AtomicU32 = AtomicU32::new(0x0004_0011);
static CMDLINE: spin::Once<arrayvec::ArrayVec<u8, 1024>> = spin::Once::new();

/// Major << 16 | minor.
pub fn reported() -> u32 {
    REPORTED.load(Ordering::Relaxed)
}

/// Reports another release (boot option).
pub fn set_reported(version: u32) {
    REPORTED.store(version, Ordering::Relaxed);
}

/// Remembers the hypervisor's command line.
pub fn set_command_line(line: &[u8]) {
    CMDLINE.call_once(|| line.iter().copied().take(1023).collect());
}

const EXTRA: &[u8] = concat!(".0-hospes-", env!("CARGO_PKG_VERSION")).as_bytes();
const CAPABILITIES: &[u8] = b"xen-3.0-x86_64 ";
const PAGE: u64 = 4096;

/// XENFEAT bits of submap 0.
pub fn features(dom0: bool) -> u32 {
    let bits = [
        feat::PAE_PGDIR_ABOVE_4GB,
        feat::MMU_PT_UPDATE_PRESERVE_AD,
        feat::HIGHMEM_ASSIST,
        feat::GNTTAB_MAP_AVAIL_BITS,
        feat::MEMORY_OP_VNODE_SUPPORTED,
        feat::DIRECT_MAPPED,
    ];
    bits.iter().fold(if dom0 { 1 << feat::DOM0 } else { 0 }, |m, b| m | 1 << b)
}

/// A fixed-size string: copied with its NUL and zeroes behind.
fn string<const N: usize>(to: u64, s: &[u8]) -> Outcome {
    let mut b = [0u8; N];
    for (d, s) in b.iter_mut().take(N - 1).zip(s) {
        *d = *s;
    }
    match guest::write_bytes(to, &b) {
        Ok(()) => Outcome::Return(0),
        Err(e) => e.into(),
    }
}

/// `{ u32 len; bytes }`: the caller says how much room there is; without an argument it asks how much it takes.
fn tell_build_id(to: u64) -> Result<i64, Errno> {
    let id = build_id();
    if id.is_empty() {
        return Err(Errno::ENODATA);
    }
    if to != 0 {
        let room: u32 = guest::copy_from_guest(GuestHandle::new(to))?;
        if room == 0 {
            return Err(Errno::EINVAL);
        }
        if (room as usize) < id.len() {
            return Err(Errno::ENOBUFS);
        }
        guest::write_bytes(to.wrapping_add(4), id)?;
    }
    Ok(id.len() as i64)
}

/// xen_version(cmd, arg).
pub fn xen_version(cx: &mut Cx, a: Args) -> Outcome {
    let to = a.a2();
    match a.int(0) {
        v::OP_VERSION => Outcome::Return(i64::from(reported())),
        v::OP_EXTRAVERSION => string::<16>(to, EXTRA),
        v::OP_COMPILE_INFO => {
            let mut i = v::CompileInfo::default();
            fn put(d: &mut [u8], s: &[u8]) {
                let n = d.len().saturating_sub(1);
                for (d, s) in d.iter_mut().take(n).zip(s) {
                    *d = *s;
                }
            }
            put(&mut i.compiler, b"rustc");
            put(&mut i.compile_by, b"hospes");
            put(&mut i.compile_domain, b"hospes");
            match guest::copy_to_guest(GuestHandle::new(to), &i) {
                Ok(()) => Outcome::Return(0),
                Err(e) => e.into(),
            }
        }
        v::OP_CAPABILITIES => string::<1024>(to, CAPABILITIES),
        v::OP_CHANGESET => string::<64>(to, b"hospes"),
        v::OP_PLATFORM_PARAMETERS => {
            let start = crate::arch::layout::START;
            match guest::copy_to_guest(GuestHandle::new(to), &start) {
                Ok(()) => Outcome::Return(0),
                Err(e) => e.into(),
            }
        }
        v::OP_GET_FEATURES => {
            let h = GuestHandle::<v::FeatureInfo>::new(to);
            let Ok(mut i) = guest::copy_from_guest(h) else {
                return Errno::EFAULT.into();
            };
            if i.submap_idx != 0 {
                return Errno::EINVAL.into();
            }
            i.submap = features(cx.domain().privileged);
            match guest::copy_to_guest(h, &i) {
                Ok(()) => Outcome::Return(0),
                Err(e) => e.into(),
            }
        }
        v::OP_PAGESIZE => {
            if to == 0 {
                Outcome::Return(PAGE as i64)
            } else {
                Errno::EINVAL.into()
            }
        }
        v::OP_GUEST_HANDLE => {
            let h = *cx.domain().handle.lock();
            match guest::write_bytes(to, &h) {
                Ok(()) => Outcome::Return(0),
                Err(e) => e.into(),
            }
        }
        v::OP_COMMANDLINE => {
            if !cx.domain().privileged {
                return string::<1024>(to, b"<denied>");
            }
            string::<1024>(to, CMDLINE.get().map_or(&[], |c| c))
        }
        v::OP_BUILD_ID => tell_build_id(to).into(),
        _ => Errno::ENOSYS.into(),
    }
}
