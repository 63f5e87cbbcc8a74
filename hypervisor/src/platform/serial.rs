//! The serial port (crate `uart_16550`).

use crate::sync::{Lock, Rank};
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

static PORT: Lock<Option<Uart16550<PioBackend>>> = Lock::new(Rank::Console, None);

/// Ports of COM1.
pub const COM1: u16 = 0x3f8;
/// Its legacy interrupt.
pub const COM1_IRQ: u8 = 4;

/// Sets up the port at `base` for 115200 8n1, without interrupts.
pub fn init(base: u16) {
    // SAFETY: COM1 is the hypervisor's; guests' accesses to it are not passed on.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(base) }) else {
        return;
    };
    if uart.init(Config { baud_rate: BaudRate::Baud115200, interrupts: IER::empty(), ..Config::default() }).is_ok() {
        *PORT.lock() = Some(uart);
    }
}

/// Lets the port interrupt on input.
pub fn enable_input() {
    if let Some(uart) = PORT.lock().as_mut() {
        uart.enable_interrupts(IER::DATA_READY);
    }
}

/// Writes, with carriage returns added; waits for the port.
pub fn write(bytes: &[u8]) {
    let mut guard = PORT.lock();
    let Some(uart) = guard.as_mut() else { return };
    for &b in bytes {
        if b == b'\n' {
            uart.send_bytes_exact(b"\r");
        }
        uart.send_bytes_exact(&[b]);
    }
}

/// A byte that came in, if one did.
pub fn read() -> Option<u8> {
    PORT.lock().as_mut()?.try_receive_byte().ok()
}

/// Frees the port from whoever held it: for the panic path only.
///
/// # Safety
/// No other CPU goes on running.
pub unsafe fn break_lock() {
    // SAFETY: the caller's.
    unsafe { PORT.force_unlock() };
}

/// Writes without a lock and without `uart_16550`: for the end of a panic only.
pub fn emergency(bytes: &[u8]) {
    use x86_64::instructions::port::Port;
    for &b in bytes {
        // SAFETY: COM1 is the hypervisor's.
        unsafe {
            let mut line_status = Port::<u8>::new(COM1 + 5);
            for _ in 0..100_000 {
                if line_status.read() & 0x20 != 0 {
                    break;
                }
            }
            Port::<u8>::new(COM1).write(b);
        }
    }
}
