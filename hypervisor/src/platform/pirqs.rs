//! A domain's side of its physical interrupts: the page that tells it which ones need an EOI.

use super::irq;
use crate::mm::shared_frame::SharedFrame;
use crate::sync::{Lock, Rank};
use pv_abi::errno::Errno;
use pv_abi::ids::{DomId, Mfn};

/// What a domain has of interrupts besides the PIRQs themselves: the page that tells it which ones need an EOI.
pub struct Pirqs {
    page: Lock<Option<EoiPage>>,
}

struct EoiPage {
    frame: SharedFrame,
    /// Version 1 of the interface: an EOI also unmasks the event channel.
    unmasks: bool,
}

impl Pirqs {
    /// No page.
    pub const fn new() -> Self {
        Pirqs { page: Lock::new(Rank::Irq, None) }
    }

    /// The domain registers its page: one bit a PIRQ, set where an EOI is needed.
    ///
    /// # Errors
    /// `EBUSY` when there is one.
    pub fn register(&self, dom: DomId, frame: SharedFrame, unmasks: bool) -> Result<(), Errno> {
        {
            let mut page = self.page.lock();
            if page.is_some() {
                return Err(Errno::EBUSY);
            }
            *page = Some(EoiPage { frame, unmasks });
        }
        for pirq in 0..irq::NR_PIRQS {
            self.refresh(dom, pirq);
        }
        Ok(())
    }

    /// Corrects the page's bit of `pirq`, after it was mapped or its line described.
    pub fn refresh(&self, dom: DomId, pirq: u32) {
        if pirq >= irq::NR_PIRQS {
            return;
        }
        let needed = irq::needs_eoi(dom, pirq);
        if let Some(p) = self.page.lock().as_ref() {
            let (word, bit) = ((pirq / 64 * 8) as usize, 1u64 << (pirq % 64));
            if needed {
                p.frame.fetch_or_u64(word, bit);
            } else {
                p.frame.fetch_and_u64(word, !bit);
            }
        }
    }

    /// Whether an EOI also unmasks the event channel.
    pub fn eoi_unmasks(&self) -> bool {
        self.page.lock().as_ref().is_some_and(|p| p.unmasks)
    }

    /// The registered page, for the audit: it is held writable.
    pub fn page(&self) -> Option<Mfn> {
        self.page.lock().as_ref().map(|p| p.frame.mfn())
    }

    /// Gives the page and all PIRQs of the domain back: it dies.
    pub fn release(&self, dom: DomId) {
        irq::release(dom);
        let page = self.page.lock().take();
        drop(page);
    }
}

impl Default for Pirqs {
    fn default() -> Self {
        Self::new()
    }
}
