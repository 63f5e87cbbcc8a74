//! console_io: printing through the hypervisor, and dom0's input.

use super::{Args, Outcome};
use crate::domain::Cx;
use crate::mm::guest;
use crate::platform::console;
use pv_abi::console::{CONSOLEIO_READ, CONSOLEIO_WRITE};
use pv_abi::errno::Errno;

/// Bytes handled between two looks at what else there is to do.
const CHUNK: usize = 128;

/// console_io(cmd, count, buffer).
pub fn console_io(cx: &mut Cx, a: Args) -> Outcome {
    let count = (a.a2() & 0xffff_ffff) as usize;
    if !cx.domain().privileged {
        return Errno::EPERM.into();
    }
    match a.int(0) {
        CONSOLEIO_WRITE => {
            let mut buf = [0u8; CHUNK];
            let mut done = 0usize;
            while done < count {
                let n = (count - done).min(CHUNK);
                let Some(part) = buf.get_mut(..n) else { break };
                if guest::read_bytes(a.a3().wrapping_add(done as u64), part).is_err() {
                    return Errno::EFAULT.into();
                }
                console::write(part);
                done += n;
                if done < count && cx.should_preempt() {
                    return Outcome::Restart(
                        a.with(1, (count - done) as u64).with(2, a.a3().wrapping_add(done as u64)),
                    );
                }
            }
            Outcome::Return(0)
        }
        CONSOLEIO_READ => {
            let mut buf = [0u8; CHUNK];
            let n = count.min(CHUNK);
            let Some(part) = buf.get_mut(..n) else {
                return Outcome::Return(0);
            };
            let got = console::take_input(part);
            if got == 0 {
                return Outcome::Return(0);
            }
            match guest::write_bytes(a.a3(), buf.get(..got).unwrap_or(&[])) {
                Ok(()) => Outcome::Return(got as i64),
                Err(e) => e.into(),
            }
        }
        _ => Errno::ENOSYS.into(),
    }
}
