//! Output through console_io: dom0's way to the serial line. A child domain's goes to the pages it shares.
use crate::child;
use crate::hypercall::call;
use core::fmt;
use pv_abi::{console::CONSOLEIO_WRITE, hypercall::nr};

/// Collects a line, so that the hypervisor's own messages cannot split it.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Line {
    fn flush(&mut self) {
        if self.used > 0 {
            if child::inside::is() {
                child::inside::log(&self.bytes[..self.used]);
            } else {
                call(
                    nr::CONSOLE_IO,
                    &[
                        CONSOLEIO_WRITE,
                        self.used as u64,
                        self.bytes.as_ptr() as u64,
                    ],
                );
            }
            self.used = 0;
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = b;
            self.used += 1;
        }
        Ok(())
    }
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    let mut out = Line {
        bytes: [0; 256],
        used: 0,
    };
    let _ = fmt::Write::write_fmt(&mut out, format_args!("{text}\n"));
    out.flush();
}
