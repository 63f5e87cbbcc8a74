//! vcpu_info moved to places that are other things as well.
//!
//! Attacks: a page that is given away afterwards, unmapped, made a page table, the page of another vCPU's, of the grant
//! table, shared_info itself: the hypervisor writes there at every event. Must happen: a page that holds a vcpu_info
//! stays a writable page of the domain's: it can be nothing else, and nobody else gets it.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::prelude::*;
use pv_abi::memory::{OP_DECREASE_RESERVATION, Reservation};
use pv_abi::vcpu::{OP_REGISTER_VCPU_INFO, RegisterVcpuInfo};

guests::kernel!(run);

fn register(vcpu: u64, mfn: u64, offset: u32) -> Ret {
    let mut r = RegisterVcpuInfo { mfn, offset, rsvd: 0 };
    call(nr::VCPU_OP, &[OP_REGISTER_VCPU_INFO, vcpu, core::ptr::from_mut(&mut r) as u64])
}

fn run() {
    let shared = mem::read64(guests::start::start_info() as *const _ as u64 + 40) / PAGE_SIZE;
    obs("in shared_info itself", register(1, shared, 64));
    let page = Page::alloc();
    obs("vCPU 1 in a page", register(1, page.mfn(), 0));
    obs("vCPU 2 half over it", register(2, page.mfn(), 32));
    obs("vCPU 2 in the same place", register(2, page.mfn(), 0));
    obs("vCPU 3 twice", f!("{} {}", register(3, page.mfn(), 1024), register(3, page.mfn(), 2048)));
    // the page as other things
    refused("pin it", {
        paging::update_va(page.va, 0).must("unmap");
        paging::pin(page, 1)
    });
    refused("as a GDT", {
        let list = [page.mfn()];
        call(nr::SET_GDT, &[list.as_ptr() as u64, 1])
    });
    paging::make_ro(page).must("read-only");
    let port = events::bind_ipi(1);
    obs("an event into it while it is mapped read-only", events::send(port));
    obs("its pending byte", page.read(0) & 0xff);
    paging::update_va(page.va, 0).must("unmap");
    events::port_clear(port);
    obs("an event into it while it is mapped nowhere", events::send(port));
    // given away
    let list = [page.mfn()];
    let mut r =
        Reservation { extent_start: list.as_ptr() as u64, nr_extents: 1, domid: SELF, ..Reservation::default() };
    obs("give the page away", call_ref(nr::MEMORY_OP, OP_DECREASE_RESERVATION, &mut r));
    events::port_clear(port);
    obs("an event after that", events::send(port));
    // it stays the domain's as long as the hypervisor holds it
    obs("map it again", paging::update_va(page.va, (list[0] * PAGE_SIZE) | paging::KERNEL_RW));
    obs("own vcpu_info moves", register(0, Page::alloc().mfn(), 0));
    call(nr::XEN_VERSION, &[0]);
    alive();
}
