//! Device interrupts: vectors, and the physical interrupts (PIRQs) that are given to domains.
//!
//! Vectors are global: one means the same on every CPU. What a vector does stands in one atomic word ([`hot`]), so that
//! an interrupt of the edge kind (messages, most ISA lines) is handled without a lock. Everything slower is in
//! [`State`], under one lock.
//!
//! A level-triggered line is masked when it fires and let go again when the guest says that it is done
//! (PHYSDEVOP_eoi): the guest may take as long as it likes, and a line that nobody serves stays quiet.

use super::devices;
use super::ioapic::{self, Entry, IoApic, Polarity, Trigger};
use super::msi::{self, Msi};
use super::pci;
use crate::sync::{Guard, Lock, Rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use pv_abi::errno::Errno;
use pv_abi::ids::DomId;
use spin::Once;

/// PIRQ numbers are below this. GSIs have their own number; messages get numbers from the top down.
pub const NR_PIRQS: u32 = 512;
/// GSIs we know.
const NR_GSIS: usize = 256;
/// Vectors of devices. The PIC, should it ever speak, has those below.
const FIRST_VECTOR: u8 = 0x30;
const LAST_VECTOR: u8 = 0xef;
/// Guests may raise this one with INT 0x80 (`arch::tables::init_idt`): the entry code takes it for an exception of the
/// guest's, so no device may have it.
const SYSTEM_CALL: u8 = 0x80;

/// The word of a vector.
mod hot {
    /// Belongs to a guest.
    pub const GUEST: u64 = 1;
    /// Level-triggered: masked when it fires.
    pub const LEVEL: u64 = 1 << 2;
    /// An event channel is bound.
    pub const BOUND: u64 = 1 << 3;
    /// Fired and masked until the guest's EOI.
    pub const IN_SERVICE: u64 = 1 << 4;
    /// Belongs to the hypervisor.
    pub const OWN: u64 = 1 << 5;
    pub const fn of(dom: u16, pirq: u32) -> u64 {
        GUEST | (dom as u64) << 16 | (pirq as u64) << 32
    }
    /// Whose it is, without its state.
    pub const ID: u64 = GUEST | 0xffff_ffff_ffff_0000;
    pub const fn dom(w: u64) -> u16 {
        (w >> 16) as u16
    }
    pub const fn pirq(w: u64) -> u32 {
        (w >> 32) as u32
    }
}

static HOT: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
/// Vector that a PIRQ number had last: where to look first.
static HINT: [AtomicU8; NR_PIRQS as usize] = [const { AtomicU8::new(0) }; NR_PIRQS as usize];
/// What is called for a guest's interrupt.
static SINK: Once<fn(DomId, u32)> = Once::new();
static STRAY: AtomicU32 = AtomicU32::new(0);
static NMIS: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy)]
enum Source {
    Free,
    /// A handler of the hypervisor's.
    Own(fn()),
    Gsi(u32),
    Msi(Msi),
}

#[derive(Clone, Copy)]
struct Gsi {
    trigger: Trigger,
    polarity: Polarity,
    /// PHYSDEVOP_setup_gsi has been called, or the hypervisor uses it.
    set_up: bool,
    /// 0 = none.
    vector: u8,
}

struct State {
    ioapics: ArrayVec<IoApic, 16>,
    gsis: [Gsi; NR_GSIS],
    sources: [Source; 256],
    /// PIRQs mapped to lines the hypervisor itself uses: they exist, but cannot be bound.
    taken: ArrayVec<(DomId, u32, u32), 8>,
    maps: msi::Maps,
}

const fn default_gsi(gsi: usize) -> Gsi {
    // ISA lines are edge-triggered, active high; PCI's are level-triggered, active low.
    let isa = gsi < 16;
    Gsi {
        trigger: if isa { Trigger::Edge } else { Trigger::Level },
        polarity: if isa { Polarity::High } else { Polarity::Low },
        set_up: false,
        vector: 0,
    }
}

static STATE: Lock<State> = Lock::new(
    Rank::Irq,
    State {
        ioapics: ArrayVec::new_const(),
        gsis: {
            let mut g = [default_gsi(0); NR_GSIS];
            let mut i = 0;
            while i < NR_GSIS {
                g[i] = default_gsi(i);
                i += 1;
            }
            g
        },
        sources: [Source::Free; 256],
        taken: ArrayVec::new_const(),
        maps: msi::Maps::new(),
    },
);

/// APIC id that interrupts go to: the boot CPU's.
fn destination() -> u8 {
    #[cfg(target_os = "none")]
    return super::lapic::id_of(crate::arch::percpu::CpuId(0)) as u8;
    #[cfg(not(target_os = "none"))]
    0
}

/// The vector of a domain's PIRQ, and its word.
fn find(dom: DomId, pirq: u32) -> Option<(u8, u64)> {
    let want = hot::of(dom.0, pirq);
    let hint = HINT.get(pirq as usize)?;
    let word = |v: u8| HOT.get(usize::from(v)).map_or(0, |w| w.load(Ordering::Acquire));
    let guess = hint.load(Ordering::Relaxed);
    let v = core::iter::once(guess).chain(FIRST_VECTOR..=LAST_VECTOR).find(|v| word(*v) & hot::ID == want)?;
    hint.store(v, Ordering::Relaxed);
    Some((v, word(v)))
}

impl State {
    fn entry(&self, gsi: u32, masked: bool) -> Entry {
        let g = self.gsis.get(gsi as usize).copied().unwrap_or(default_gsi(gsi as usize));
        Entry { vector: g.vector, destination: destination(), trigger: g.trigger, polarity: g.polarity, masked }
    }

    fn program(&mut self, gsi: u32, masked: bool) {
        let e = self.entry(gsi, masked);
        if let Some((a, pin)) = ioapic::find(&mut self.ioapics, gsi) {
            a.set(pin, e);
        }
    }

    /// Masks the source of `vector` or lets it go.
    fn set_mask(&mut self, vector: u8, masked: bool) {
        match self.sources.get(usize::from(vector)).copied() {
            Some(Source::Gsi(gsi)) => {
                let e = self.entry(gsi, masked);
                if let Some((a, pin)) = ioapic::find(&mut self.ioapics, gsi) {
                    a.set_mask(pin, e, masked);
                }
            }
            Some(Source::Msi(m)) => m.set_mask(&pci::Machine, masked),
            _ => {}
        }
    }

    fn allocate(&mut self, source: Source) -> Result<u8, Errno> {
        for v in (FIRST_VECTOR..=LAST_VECTOR).filter(|v| *v != SYSTEM_CALL) {
            if let Some(s @ Source::Free) = self.sources.get_mut(usize::from(v)) {
                *s = source;
                return Ok(v);
            }
        }
        Err(Errno::ENOSPC)
    }

    fn free(&mut self, vector: u8) {
        if let (Some(s), Some(w)) = (self.sources.get_mut(usize::from(vector)), HOT.get(usize::from(vector))) {
            if let Source::Gsi(gsi) = *s
                && let Some(g) = self.gsis.get_mut(gsi as usize)
            {
                g.vector = 0;
            }
            *s = Source::Free;
            w.store(0, Ordering::Release);
        }
    }

    fn set_word(&self, vector: u8, word: u64) {
        if let Some(w) = HOT.get(usize::from(vector)) {
            w.store(word, Ordering::Release);
        }
    }

    fn taken(&self, dom: DomId, pirq: u32) -> bool {
        self.taken.iter().any(|t| t.0 == dom && t.1 == pirq)
    }

    fn is_mapped(&self, dom: DomId, pirq: u32) -> bool {
        find(dom, pirq).is_some() || self.taken(dom, pirq)
    }

    /// The number for a new PIRQ: the one asked for, or a free one (`fixed` if that is free).
    fn choose(&self, dom: DomId, asked: Option<u32>, fixed: Option<u32>) -> Result<u32, Errno> {
        match asked {
            Some(p) if p >= NR_PIRQS => Err(Errno::EINVAL),
            Some(p) if self.is_mapped(dom, p) => Err(Errno::EEXIST),
            Some(p) => Ok(p),
            None => fixed
                .filter(|p| *p < NR_PIRQS && !self.is_mapped(dom, *p))
                .or_else(|| (NR_GSIS as u32..NR_PIRQS).rev().find(|p| !self.is_mapped(dom, *p)))
                .ok_or(Errno::ENOSPC),
        }
    }
}

/// Takes over the machine's interrupt controllers: IOAPICs are mapped with every line masked.
/// `sink` is called for each interrupt of a guest, with its domain and PIRQ; no locks are held then. Boot CPU, once,
/// after `acpi::init` and `lapic::init`.
#[cfg(target_os = "none")]
pub fn init(sink: fn(DomId, u32)) {
    use super::acpi;
    SINK.call_once(|| sink);
    let mut s = STATE.lock();
    for a in &acpi::tables().ioapics {
        let registers = pv_abi::ids::Mfn(a.address >> 12);
        if crate::mm::device::read_only(registers, registers).is_err() {
            log::error!("no memory to keep the IOAPIC at {:#x} from dom0: it is not used", a.address);
            continue;
        }
        match IoApic::new(a.address, a.gsi_base) {
            Some(io) => {
                let _ = s.ioapics.try_push(io);
            }
            None => log::warn!("IOAPIC at {:#x} does not answer; its interrupts are lost", a.address),
        }
    }
    for o in &acpi::tables().overrides {
        if let Some(g) = s.gsis.get_mut(o.gsi as usize) {
            (g.trigger, g.polarity) = inti_flags(o.flags);
        }
    }
}

/// MPS INTI flags of an ISA interrupt; 0 means as the bus has it.
fn inti_flags(flags: u16) -> (Trigger, Polarity) {
    let trigger = if flags >> 2 & 3 == 3 { Trigger::Level } else { Trigger::Edge };
    let polarity = if flags & 3 == 3 { Polarity::Low } else { Polarity::High };
    (trigger, polarity)
}

/// An interrupt, with interrupts off and no lock held: it came in from a guest or from the idle loop.
#[cfg(target_os = "none")]
pub fn handle(vector: u8) {
    use super::lapic;
    use crate::arch::percpu::{pending, this_cpu};
    match vector {
        lapic::VECTOR_TIMER => {
            super::timer::fired();
            this_cpu().raise(pending::TIMER);
            lapic::eoi();
        }
        lapic::VECTOR_KICK => {
            lapic::eoi();
            super::tlb::serve();
        }
        // Spurious: there is nothing to end.
        lapic::VECTOR_SPURIOUS => {}
        lapic::VECTOR_ERROR => {
            lapic::eoi();
            log::warn!("local APIC error {:#x} on CPU {}", lapic::take_error(), this_cpu().id.0);
        }
        v => device(v, lapic::eoi),
    }
}

/// An interrupt of a device; `end` tells the CPU's APIC.
fn device(vector: u8, end: impl FnOnce()) {
    let Some(word) = HOT.get(usize::from(vector)) else {
        return;
    };
    let mut w = word.load(Ordering::Acquire);
    if w & hot::LEVEL != 0 {
        // Masked before the APIC may take the next one: the line is still asserted.
        let mut s = STATE.lock();
        w = word.load(Ordering::Acquire);
        s.set_mask(vector, true);
        if w & hot::BOUND != 0 {
            word.fetch_or(hot::IN_SERVICE, Ordering::AcqRel);
        }
    }
    end();
    if w & hot::OWN != 0 {
        let own = STATE.lock().sources.get(usize::from(vector)).copied();
        if let Some(Source::Own(handler)) = own {
            handler();
        }
    } else if w & (hot::GUEST | hot::BOUND) == hot::GUEST | hot::BOUND {
        if let Some(sink) = SINK.get() {
            sink(DomId(hot::dom(w)), hot::pirq(w));
        }
    } else if STRAY.fetch_add(1, Ordering::Relaxed) < 10 {
        log::debug!("interrupt {vector:#x} that nobody waits for");
    }
}

/// A non-maskable interrupt of the machine. On its own stack: no locks may be taken, so it is only counted; [`nmis`]
/// tells.
pub fn nmi() {
    NMIS.fetch_add(1, Ordering::Relaxed);
}

/// NMIs so far.
pub fn nmis() -> u32 {
    NMIS.load(Ordering::Relaxed)
}

/// The hypervisor takes ISA interrupt `irq` for itself: `handler` runs at each, with interrupts off and no locks held.
///
/// # Errors
/// `ENODEV` when no IOAPIC has the line, `EBUSY` when a domain has it, `ENOSPC` without a vector.
pub fn claim_isa(irq: u8, handler: fn()) -> Result<(), Errno> {
    let gsi = super::acpi::tables().isa(irq).map_or(u32::from(irq), |o| o.gsi);
    let mut s = STATE.lock();
    ioapic::find(&mut s.ioapics, gsi).ok_or(Errno::ENODEV)?;
    if s.gsis.get(gsi as usize).is_none_or(|g| g.vector != 0) {
        return Err(Errno::EBUSY);
    }
    let vector = s.allocate(Source::Own(handler))?;
    if let Some(g) = s.gsis.get_mut(gsi as usize) {
        g.vector = vector;
        g.set_up = true;
    }
    s.set_word(vector, hot::OWN);
    s.program(gsi, false);
    Ok(())
}

/// Whether `pirq` is mapped for the domain.
pub fn mapped(dom: DomId, pirq: u32) -> bool {
    STATE.lock().is_mapped(dom, pirq)
}

/// Gives line `gsi` to a domain, as PIRQ `asked` or one of our choice. Mapping the same line again gives its PIRQ.
///
/// # Errors
/// `EINVAL` when no IOAPIC has the line or the number is out of range; `EBUSY` when another domain has the line;
/// `EEXIST` when the number is taken; `ENOSPC`.
pub fn map_gsi(dom: DomId, gsi: u32, asked: Option<u32>) -> Result<u32, Errno> {
    let mut s = STATE.lock();
    ioapic::find(&mut s.ioapics, gsi).ok_or(Errno::EINVAL)?;
    let g = *s.gsis.get(gsi as usize).ok_or(Errno::EINVAL)?;
    match s.sources.get(usize::from(g.vector)) {
        Some(Source::Own(_)) => {
            if let Some(t) = s.taken.iter().find(|t| t.0 == dom && t.2 == gsi) {
                return Ok(t.1);
            }
            let pirq = s.choose(dom, asked, Some(gsi))?;
            s.taken.try_push((dom, pirq, gsi)).map_err(|_| Errno::ENOSPC)?;
            return Ok(pirq);
        }
        Some(Source::Gsi(_)) if g.vector != 0 => {
            let w = HOT.get(usize::from(g.vector)).map_or(0, |w| w.load(Ordering::Acquire));
            if hot::dom(w) != dom.0 {
                return Err(Errno::EBUSY);
            }
            return if asked.is_none_or(|a| a == hot::pirq(w)) { Ok(hot::pirq(w)) } else { Err(Errno::EEXIST) };
        }
        _ => {}
    }
    let pirq = s.choose(dom, asked, Some(gsi))?;
    let vector = s.allocate(Source::Gsi(gsi))?;
    if let Some(g) = s.gsis.get_mut(gsi as usize) {
        g.vector = vector;
    }
    s.set_word(vector, hot::of(dom.0, pirq) | if g.trigger == Trigger::Level { hot::LEVEL } else { 0 });
    s.program(gsi, true);
    Ok(pirq)
}

/// Gives a message of a device to a domain, as PIRQ `asked` or one of our choice; it stays masked until it is bound.
///
/// # Errors
/// See [`Msi::set_up`]; `EBUSY` when the message is in use; `EEXIST`, `EINVAL` for the number; `ENOSPC`.
pub fn map_msi(dom: DomId, request: msi::Request, asked: Option<u32>) -> Result<u32, Errno> {
    let mut s = STATE.lock();
    if s.sources.iter().any(|x| matches!(x, Source::Msi(m) if m.is(&request))) {
        return Err(Errno::EBUSY);
    }
    let pirq = s.choose(dom, asked, None)?;
    let m = Msi::set_up(&pci::Machine, &mut s.maps, request)?;
    let vector = s.allocate(Source::Msi(m))?;
    s.set_word(vector, hot::of(dom.0, pirq));
    m.set_message(&pci::Machine, vector, destination());
    Ok(pirq)
}

/// A PIRQ number that is free, for a message.
///
/// # Errors
/// `ENOSPC`.
pub fn free_pirq(dom: DomId) -> Result<u32, Errno> {
    STATE.lock().choose(dom, None, None)
}

/// Takes a PIRQ away, bound or not.
///
/// # Errors
/// `EINVAL` when it is not mapped.
pub fn unmap(dom: DomId, pirq: u32) -> Result<(), Errno> {
    let mut s = STATE.lock();
    if let Some(i) = s.taken.iter().position(|t| t.0 == dom && t.1 == pirq) {
        s.taken.remove(i);
        return Ok(());
    }
    let (vector, _) = find(dom, pirq).ok_or(Errno::EINVAL)?;
    s.set_mask(vector, true);
    s.free(vector);
    Ok(())
}

/// Takes all of a domain's PIRQs away: it dies.
pub fn release(dom: DomId) {
    let mut s = STATE.lock();
    s.taken.retain(|t| t.0 != dom);
    for v in FIRST_VECTOR..=LAST_VECTOR {
        let w = HOT.get(usize::from(v)).map_or(0, |w| w.load(Ordering::Acquire));
        if w & hot::GUEST != 0 && hot::dom(w) == dom.0 {
            s.set_mask(v, true);
            s.free(v);
        }
    }
}

/// An event channel takes the PIRQ: it may fire. (`_share`: whether the domain would share the line with others.)
///
/// # Errors
/// `EINVAL` when it is not mapped; `EBUSY` when it is bound, or the hypervisor uses the line.
pub fn bind(dom: DomId, pirq: u32, _share: bool) -> Result<(), Errno> {
    let mut s = STATE.lock();
    if s.taken(dom, pirq) {
        log::info!("domain {dom} wants interrupt {pirq}, which the hypervisor uses");
        return Err(Errno::EBUSY);
    }
    let (vector, w) = find(dom, pirq).ok_or(Errno::EINVAL)?;
    if w & hot::BOUND != 0 {
        return Err(Errno::EBUSY);
    }
    s.set_word(vector, w | hot::BOUND);
    s.set_mask(vector, false);
    Ok(())
}

/// The PIRQ's event channel is gone: it stays quiet.
pub fn unbind(dom: DomId, pirq: u32) {
    let mut s = STATE.lock();
    if let Some((vector, w)) = find(dom, pirq) {
        s.set_mask(vector, true);
        s.set_word(vector, w & !(hot::BOUND | hot::IN_SERVICE));
    }
}

/// The guest has served the PIRQ.
///
/// # Errors
/// `EINVAL` when it is not bound.
pub fn eoi(dom: DomId, pirq: u32) -> Result<(), Errno> {
    let (vector, w) = find(dom, pirq).filter(|(_, w)| w & hot::BOUND != 0).ok_or(Errno::EINVAL)?;
    if w & hot::IN_SERVICE != 0 {
        let mut s = STATE.lock();
        let word = HOT.get(usize::from(vector)).ok_or(Errno::EINVAL)?;
        // Looked at again under the lock: it may have been unbound meanwhile.
        if word.load(Ordering::Acquire) & (hot::ID | hot::BOUND | hot::IN_SERVICE)
            == hot::of(dom.0, pirq) | hot::BOUND | hot::IN_SERVICE
        {
            word.fetch_and(!hot::IN_SERVICE, Ordering::AcqRel);
            s.set_mask(vector, false);
        }
    }
    Ok(())
}

/// How line `gsi` is wired (PHYSDEVOP_setup_gsi).
///
/// # Errors
/// `EINVAL` when no IOAPIC has the line; `EEXIST` when it was said before.
pub fn setup_gsi(gsi: u32, trigger: Trigger, polarity: Polarity) -> Result<(), Errno> {
    let mut s = STATE.lock();
    ioapic::find(&mut s.ioapics, gsi).ok_or(Errno::EINVAL)?;
    let g = s.gsis.get_mut(gsi as usize).ok_or(Errno::EINVAL)?;
    if g.set_up {
        return Err(Errno::EEXIST);
    }
    (g.set_up, g.trigger, g.polarity) = (true, trigger, polarity);
    let vector = g.vector;
    if vector != 0
        && let Some(w) = HOT.get(usize::from(vector))
    {
        let old = w.load(Ordering::Acquire);
        let level = if trigger == Trigger::Level { hot::LEVEL } else { 0 };
        w.store(old & !hot::LEVEL | level, Ordering::Release);
        s.program(gsi, old & hot::BOUND == 0 || old & hot::IN_SERVICE != 0);
    }
    Ok(())
}

/// Whether the guest must say when it has served the PIRQ: that of a level-triggered line.
pub fn needs_eoi(dom: DomId, pirq: u32) -> bool {
    find(dom, pirq).is_some_and(|(_, w)| w & hot::LEVEL != 0)
}

/// A register of the IOAPIC at machine address `phys`, as dom0 may read it.
pub fn ioapic_register(phys: u64, reg: u32) -> Option<u32> {
    STATE.lock().ioapics.iter().find(|a| a.phys == phys)?.register(reg)
}

/// Puts a function's messages back after the device was reset.
///
/// # Errors
/// `ENODEV` for a device dom0 has not told of.
pub fn restore_msi(f: pci::Function) -> Result<(), Errno> {
    devices::known(f)?;
    let s: Guard<State> = STATE.lock();
    for v in FIRST_VECTOR..=LAST_VECTOR {
        if let Some(Source::Msi(m)) = s.sources.get(usize::from(v))
            && matches!(m, Msi::Plain { function, .. } | Msi::Table { function, .. } if *function == f)
        {
            let bound = HOT.get(usize::from(v)).is_some_and(|w| w.load(Ordering::Acquire) & hot::BOUND != 0);
            m.set_message(&pci::Machine, v, destination());
            m.set_mask(&pci::Machine, !bound);
        }
    }
    Ok(())
}

/// Makes the MSI-X table of a function read-only for dom0.
///
/// # Errors
/// As [`msi::protect_table`].
pub(super) fn protect_table(f: pci::Function) -> Result<(), Errno> {
    let _one_at_a_time = STATE.lock();
    msi::protect_table(&pci::Machine, f)
}

#[cfg(test)]
#[path = "irq_tests.rs"]
mod tests;
