//! PIRQs on a pretended IOAPIC. The tables are global, so it is one test.

use super::*;
use core::cell::RefCell;
use std::vec::Vec;

std::thread_local! {
    static GOT: RefCell<Vec<(u16, u32)>> = const { RefCell::new(Vec::new()) };
}

fn got() -> Vec<(u16, u32)> {
    GOT.with(|g| core::mem::take(&mut *g.borrow_mut()))
}

fn rte(gsi: u32) -> u32 {
    ioapic_register(0xfec0_0000, 0x10 + 2 * gsi).unwrap()
}

fn fire(gsi: u32) {
    // The IOAPIC delivers only what is not masked.
    if rte(gsi) & 1 << 16 == 0 {
        device(rte(gsi) as u8, || {});
    }
}

#[test]
fn pirqs() {
    SINK.call_once(|| |dom, pirq| GOT.with(|g| g.borrow_mut().push((dom.0, pirq))));
    STATE.lock().ioapics.push(IoApic::new(0xfec0_0000, 0).unwrap());
    let (d0, d1) = (DomId(0), DomId(1));

    // Lines that are not there, numbers that are not there.
    assert_eq!(map_gsi(d0, 24, None), Err(Errno::EINVAL));
    assert_eq!(map_gsi(d0, 10, Some(NR_PIRQS)), Err(Errno::EINVAL));
    assert_eq!(unmap(d0, 10), Err(Errno::EINVAL));
    assert_eq!(bind(d0, 10, false), Err(Errno::EINVAL));
    assert_eq!(eoi(d0, 10), Err(Errno::EINVAL));
    assert_eq!(setup_gsi(24, Trigger::Level, Polarity::Low), Err(Errno::EINVAL));

    // An edge-triggered line: never masked while bound, no EOI needed.
    assert_eq!(map_gsi(d0, 1, Some(1)), Ok(1));
    assert_eq!(map_gsi(d0, 1, Some(1)), Ok(1), "again is fine");
    assert_eq!(map_gsi(d0, 1, Some(2)), Err(Errno::EEXIST));
    assert_eq!(map_gsi(d1, 1, None), Err(Errno::EBUSY), "one domain a line");
    assert_eq!(rte(1) & 1 << 16, 1 << 16, "quiet until bound");
    assert_eq!(eoi(d0, 1), Err(Errno::EINVAL), "mapped is not bound");
    assert_eq!(bind(d0, 1, true), Ok(()));
    assert_eq!(bind(d0, 1, true), Err(Errno::EBUSY));
    assert!(!needs_eoi(d0, 1));
    fire(1);
    fire(1);
    assert_eq!(got(), [(0, 1), (0, 1)]);

    // A level-triggered line: quiet from its firing to the EOI.
    assert_eq!(map_gsi(d0, 17, None), Ok(17));
    assert_eq!(setup_gsi(17, Trigger::Level, Polarity::High), Ok(()));
    assert_eq!(setup_gsi(17, Trigger::Level, Polarity::High), Err(Errno::EEXIST));
    assert_eq!(rte(17) & 0x1_a000, 0x1_8000);
    assert!(needs_eoi(d0, 17));
    bind(d0, 17, true).unwrap();
    fire(17);
    fire(17);
    assert_eq!(got(), [(0, 17)]);
    eoi(d0, 17).unwrap();
    eoi(d0, 17).unwrap();
    fire(17);
    assert_eq!(got(), [(0, 17)]);
    unbind(d0, 17);
    assert_eq!(eoi(d0, 17), Err(Errno::EINVAL));
    fire(17);
    assert_eq!(got(), []);
    bind(d0, 17, true).unwrap();
    fire(17);
    assert_eq!(got(), [(0, 17)], "an unbound line forgets that it was in service");

    // What the hypervisor uses can be mapped, but not bound.
    std::thread_local! { static OWN: core::cell::Cell<u32> = const { core::cell::Cell::new(0) } }
    claim_isa(4, || OWN.with(|o| o.set(o.get() + 1))).unwrap();
    assert_eq!(claim_isa(4, || {}), Err(Errno::EBUSY));
    fire(4);
    assert_eq!(OWN.with(|o| o.get()), 1);
    assert_eq!(map_gsi(d0, 4, Some(4)), Ok(4));
    assert!(mapped(d0, 4));
    assert_eq!(bind(d0, 4, true), Err(Errno::EBUSY));
    assert_eq!(setup_gsi(4, Trigger::Level, Polarity::Low), Err(Errno::EEXIST));
    assert_eq!(unmap(d0, 4), Ok(()));
    assert_eq!(unmap(d0, 4), Err(Errno::EINVAL));

    // Vectors come back; the last one is not the end of the world.
    assert_eq!(unmap(d0, 1), Ok(()));
    assert!(!mapped(d0, 1));
    assert_eq!(rte(1) & 1 << 16, 1 << 16);
    let mut n = 0;
    let f = |i: u32| pci::Function { segment: 0, bus: (i >> 8) as u8, devfn: i as u8 };
    {
        let mut s = STATE.lock();
        while s.allocate(Source::Msi(Msi::Plain { function: f(n), cap: 0 })).is_ok() {
            n += 1;
        }
    }
    // All but two in use and the one that guests raise themselves.
    assert_eq!(n, u32::from(LAST_VECTOR - FIRST_VECTOR) + 1 - 3);
    assert!(matches!(STATE.lock().sources[usize::from(SYSTEM_CALL)], Source::Free));
    assert_eq!(map_gsi(d0, 1, Some(1)), Err(Errno::ENOSPC));
    assert!(!mapped(d0, 1), "a failure leaves nothing behind");

    // A domain that dies leaves nothing behind either.
    release(d0);
    assert!(!mapped(d0, 17));
    assert_eq!(map_gsi(d1, 17, None), Ok(17));
    assert_eq!(map_msi(d1, msi::Request { function: f(0), entry: 0, table_base: 0 }, None), Err(Errno::EBUSY));
}

#[test]
fn isa_flags() {
    assert_eq!(inti_flags(0), (Trigger::Edge, Polarity::High));
    assert_eq!(inti_flags(0xd), (Trigger::Level, Polarity::High));
    assert_eq!(inti_flags(0xf), (Trigger::Level, Polarity::Low));
    assert_eq!(inti_flags(5), (Trigger::Edge, Polarity::High));
}
