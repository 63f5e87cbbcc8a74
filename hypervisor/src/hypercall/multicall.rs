//! multicall: several hypercalls in one entry. A failing entry does not stop the others.

use super::{Args, Outcome, call};
use crate::arch::layout::is_guest_range;
use crate::domain::Cx;
use crate::mm::guest;
use core::mem::offset_of;
use pv_abi::errno::Errno;
use pv_abi::hypercall::nr;
use pv_abi::ids::GuestHandle;
use pv_abi::mmu::MulticallEntry;

/// multicall(list, count).
pub fn multicall(cx: &mut Cx, a: Args) -> Outcome {
    let list = GuestHandle::<MulticallEntry>::new(a.a1());
    let count = a.int(1);
    if !is_guest_range(a.a1(), 0) {
        return Errno::EFAULT.into();
    }
    for i in 0..count {
        let at = list.offset(i);
        let Ok(e) = guest::copy_from_guest(at) else {
            return Errno::EFAULT.into();
        };
        let args = Args([e.args[0], e.args[1], e.args[2], e.args[3], e.args[4]]);
        // Neither a nested multicall nor one that replaces the register frame makes sense here.
        let outcome = if e.op == nr::MULTICALL as u64 || e.op == nr::IRET as u64 {
            Errno::EINVAL.into()
        } else {
            call(cx, e.op, args)
        };
        let result = match outcome {
            Outcome::Return(v) => v,
            Outcome::Deschedule(v) => {
                crate::arch::percpu::this_cpu().raise(crate::arch::percpu::pending::RESCHED);
                v
            }
            Outcome::Restart(args) => {
                // The entry keeps the progress; the multicall goes on with it when it is executed again.
                let mut e = e;
                e.args[..5].copy_from_slice(&args.0);
                if guest::copy_to_guest(at, &e).is_err() {
                    return Errno::EFAULT.into();
                }
                return Outcome::Restart(Args([at.addr(), count - i, a.a3(), a.a4(), a.a5()]));
            }
            other @ (Outcome::Resume | Outcome::CrashDomain(_)) => return other,
        };
        let result_at = GuestHandle::<i64>::new(at.addr().wrapping_add(offset_of!(MulticallEntry, result) as u64));
        if guest::copy_to_guest(result_at, &result).is_err() {
            return Errno::EFAULT.into();
        }
        if i + 1 < count && cx.should_preempt() {
            return Outcome::Restart(Args([list.offset(i + 1).addr(), count - i - 1, a.a3(), a.a4(), a.a5()]));
        }
    }
    Outcome::Return(0)
}
