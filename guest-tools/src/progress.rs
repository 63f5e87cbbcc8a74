//! What is being done, for a person who waits: one line on stderr that goes when it is done. Nothing on a pipe.

use std::io::{IsTerminal, Write};

/// Shows the step that is under way, for as long as this lives.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Begins; nothing is shown yet.
    pub fn new() -> Self {
        Progress { shown: std::io::stderr().is_terminal() }
    }

    /// Shows a step instead of the one before.
    pub fn step(&self, what: &str) {
        if self.shown {
            // That it cannot be shown is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{what} ...");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
