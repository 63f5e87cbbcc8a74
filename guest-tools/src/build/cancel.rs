//! Ctrl-C while a domain is being made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether the user wants to stop. From its making to its end the signals that would kill us only set it.
#[derive(Debug)]
pub struct Cancel {
    wanted: Arc<AtomicBool>,
    handlers: Vec<signal_hook::SigId>,
}

impl Cancel {
    /// Catches the signals.
    pub fn on_signals() -> Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let handlers = [SIGINT, SIGTERM, SIGHUP]
            .map(|signal| signal_hook::flag::register(signal, wanted.clone()))
            .into_iter()
            .collect::<std::io::Result<_>>()?;
        Ok(Cancel { wanted, handlers })
    }

    /// An error if a signal has come.
    pub fn check(&self) -> Result<()> {
        if self.wanted.load(Ordering::Relaxed) {
            bail!("interrupted; the domain was not made");
        }
        Ok(())
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}
