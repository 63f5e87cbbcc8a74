//! console_io with counts and buffers that are lies.
//!
//! Attacks: lengths of 2^32 - 1 and buffers that end in unmapped memory, at no address, in the hypervisor; reads into
//! page tables. Must happen: what can be read is printed, the rest is -EFAULT; nothing of the hypervisor's is printed.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::console::{CONSOLEIO_READ, CONSOLEIO_WRITE};

guests::kernel!(run);

fn run() {
    let edge = bad::edge();
    // spaces and a line end, so that the transcript's lines stay whole
    for i in 1..=64 {
        mem::write64(edge - 8 * i, 0x0a20_2020_2020_2020);
    }
    for count in [1u64, 16, 17, 4096, 1 << 20, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        obs(f!("write {count:#x} bytes over an edge"), call(nr::CONSOLE_IO, &[CONSOLEIO_WRITE, count, edge - 16]));
    }
    for (name, at) in bad::POINTERS {
        for count in [0u64, 1, 0xffff_ffff] {
            obs(f!("write {count:#x} bytes, {name}"), call(nr::CONSOLE_IO, &[CONSOLEIO_WRITE, count, at]));
        }
        obs(f!("read, {name}"), call(nr::CONSOLE_IO, &[CONSOLEIO_READ, 0, at]));
    }
    let table = paging::new_table();
    paging::pin(table, 1).must("pin");
    let r = call(nr::CONSOLE_IO, &[CONSOLEIO_READ, 4096, table.va]);
    check("read into a page table writes nothing", (r == OK || r.0 < 0) && (0..512).all(|i| table.read(i) == 0));
    paging::unpin(table).must("unpin");
    alive();
}
