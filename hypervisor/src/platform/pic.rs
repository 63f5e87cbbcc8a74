//! The two legacy interrupt controllers (8259A): switched off. Interrupts come through the IOAPICs.

use x86_64::instructions::port::Port;

/// Vectors of the two controllers, 16 in all, in case one still reports a spurious interrupt (IRQ 7 or 15): away from
/// the CPU's exceptions, where the firmware has put them.
pub const FIRST_VECTOR: u8 = 0x20;

/// Moves the controllers' vectors out of the exceptions' way and masks all their lines. Boot CPU, before interrupts are
/// ever opened.
pub fn disable() {
    let (mut command0, mut data0) = (Port::<u8>::new(0x20), Port::<u8>::new(0x21));
    let (mut command1, mut data1) = (Port::<u8>::new(0xa0), Port::<u8>::new(0xa1));
    // SAFETY: the controllers' ports, which no guest reaches; the sequence is the data sheet's ICW1 to ICW4.
    unsafe {
        data0.write(0xff);
        data1.write(0xff);
        command0.write(0x11);
        command1.write(0x11);
        data0.write(FIRST_VECTOR);
        data1.write(FIRST_VECTOR + 8);
        data0.write(4);
        data1.write(2);
        data0.write(1);
        data1.write(1);
        data0.write(0xff);
        data1.write(0xff);
    }
}
