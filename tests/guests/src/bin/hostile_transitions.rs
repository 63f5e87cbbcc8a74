//! Attack: a page is used as two things at once, by each pair of uses one after the other. Must happen: whatever it is
//! first, every other use but reading is refused until the first one ends; then each is allowed again.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::hostile::*;
use guests::paging::{make_ro, make_rw, pin, unpin};
use guests::prelude::*;
use pv_abi::mmu;
use pv_abi::vcpu::{OP_REGISTER_VCPU_INFO, RegisterVcpuInfo};

guests::kernel!(run);

const USES: [&str; 7] = ["writable", "L1", "L2", "L3", "L4", "GDT", "writable by grant"];

fn gdt(frame: u64, entries: u64) -> Ret {
    let list = [frame];
    call(nr::SET_GDT, &[list.as_ptr() as u64, entries])
}

/// Begins use `n` of the page; its handle.
fn begin(n: usize, p: Page, alias: Page) -> (Ret, u32) {
    match n {
        0 => (paging::update_va(alias.va, p.ma() | paging::KERNEL_RW), 0),
        1..=4 => (pin(p, n as u32), 0),
        5 => (gdt(p.mfn(), 512), 0),
        _ => {
            let (handle, s) = grant_map(0, 9, pv_abi::grant::GNTMAP_HOST_MAP, alias.va);
            (status(s), handle)
        }
    }
}

fn end(n: usize, p: Page, alias: Page, handle: u32) {
    let r = match n {
        0 => paging::update_va(alias.va, 0),
        1..=4 => unpin(p),
        5 => gdt(p.mfn(), 0),
        _ => status(grant_unmap(alias.va, handle)),
    };
    expect(f!("end of use as {}", USES[n]), r, OK);
}

fn run() {
    let table = grant_table();
    for (first, first_name) in USES.iter().enumerate() {
        for (second, second_name) in USES.iter().enumerate() {
            let (p, alias, other_alias) = (Page::alloc(), unmapped_page(), unmapped_page());
            grant(table, 9, 0, p.mfn(), pv_abi::grant::GTF_PERMIT_ACCESS);
            make_ro(p).must("make_ro");
            let (r, handle) = begin(first, p, alias);
            expect(f!("{} before {}", first_name, second_name), r, OK);
            let compatible = [0, 6].contains(&first) && [0, 6].contains(&second) || first == 5 && second == 5;
            if !compatible {
                refused(f!("{} while it is {}", second_name, first_name), begin(second, p, other_alias).0);
            }
            if first != 0 && first != 6 {
                refused(f!("mapped writable while it is {}, for {}", first_name, second_name), make_rw(p));
                refused(f!("vcpu_info in it while it is {}, for {}", first_name, second_name), {
                    let mut r = RegisterVcpuInfo { mfn: p.mfn(), offset: 0, rsvd: 0 };
                    call(nr::VCPU_OP, &[OP_REGISTER_VCPU_INFO, 0, core::ptr::from_mut(&mut r) as u64])
                });
                refused(
                    f!("cleared while it is {}, for {}", first_name, second_name),
                    paging::mmuext(mmu::EXT_CLEAR_PAGE, p.mfn(), 0),
                );
                refused(
                    f!("copied to while it is {}, for {}", first_name, second_name),
                    paging::mmuext(mmu::EXT_COPY_PAGE, p.mfn(), table.mfn()),
                );
            }
            if first != 4 {
                for (name, cmd) in [("kernel", mmu::EXT_NEW_BASEPTR), ("user", mmu::EXT_NEW_USER_BASEPTR)] {
                    refused(
                        f!("{name} base while it is {}, for {}", first_name, second_name),
                        paging::mmuext(cmd, p.mfn(), 0),
                    );
                }
            }
            end(first, p, alias, handle);
            // an L4 leaves entries of the hypervisor's behind
            make_rw(p).must("writable");
            p.clear();
            make_ro(p).must("make_ro");
            let (r, handle) = begin(second, p, other_alias);
            expect(f!("{} after {}", second_name, first_name), r, OK);
            end(second, p, other_alias, handle);
            make_rw(p).must("writable again");
        }
    }
    alive();
}
