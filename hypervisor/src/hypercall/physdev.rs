//! physdev_op: dom0's way to the machine's interrupts and ports.

use super::{Args, Outcome};
use crate::domain::Cx;
use crate::mm::guest;
use pv_abi::errno::Errno;
use pv_abi::ids::{GuestHandle, GuestVirt};
use pv_abi::physdev as p;

/// physdev_op(cmd, arg).
pub fn physdev_op(cx: &mut Cx, a: Args) -> Outcome {
    match a.a1() {
        p::OP_SET_IOPL => {
            let Ok(s) = guest::copy_from_guest(GuestHandle::<p::SetIopl>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            if s.iopl > 3 {
                return Errno::EINVAL.into();
            }
            cx.arch.iopl = s.iopl as u8;
            Outcome::Return(0)
        }
        p::OP_SET_IOBITMAP => {
            let Ok(s) = guest::copy_from_guest(GuestHandle::<p::SetIobitmap>::new(a.a2())) else {
                return Errno::EFAULT.into();
            };
            if s.nr_ports > 65536 {
                return Errno::EINVAL.into();
            }
            cx.arch.iobitmap = (s.nr_ports != 0).then_some((GuestVirt(s.bitmap), s.nr_ports));
            Outcome::Return(0)
        }
        _ => Errno::ENOSYS.into(),
    }
}
