//! xen_version and vm_assist.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::version::*;

guests::kernel!(run);

fn run() {
    let page = Page::alloc();
    let op = |cmd: u64, arg: u64| call(nr::XEN_VERSION, &[cmd, arg]);
    expect("version", Hex(op(OP_VERSION, 0).0 as u64), Hex(0x4_0011));
    let text = |p: &Page| {
        let mut n = 0;
        while n < 4096 && p.read(n / 8).to_le_bytes()[n % 8] != 0 {
            n += 1;
        }
        n
    };
    obs("extraversion", op(OP_EXTRAVERSION, page.va));
    check("extraversion is a short string", text(&page) < 16);
    page.clear();
    obs("compile_info", op(OP_COMPILE_INFO, page.va));
    page.clear();
    obs("capabilities", op(OP_CAPABILITIES, page.va));
    // "xen-3.0-x86_64 ..."
    expect("capabilities begin", Hex(page.read(0)), Hex(u64::from_le_bytes(*b"xen-3.0-")));
    page.clear();
    obs("changeset", op(OP_CHANGESET, page.va));
    page.clear();
    obs("platform_parameters", op(OP_PLATFORM_PARAMETERS, page.va));
    expect("virt_start", Hex(page.read(0)), Hex(0xffff_8000_0000_0000));
    for sub in [0u32, 1, 2, 3, u32::MAX] {
        let mut f = FeatureInfo { submap_idx: sub, submap: 0 };
        obs(f!("features {sub}"), call_ref(nr::XEN_VERSION, OP_GET_FEATURES, &mut f));
        obs(f!("features {sub}: submap"), Hex(f.submap.into()));
    }
    obs("pagesize", op(OP_PAGESIZE, 0));
    page.clear();
    obs("guest_handle", op(OP_GUEST_HANDLE, page.va));
    page.clear();
    obs("commandline", if op(OP_COMMANDLINE, page.va).0 >= 0 { "given" } else { "refused" });
    let build_id = op(OP_BUILD_ID, 0).0;
    obs("build_id, size asked", if build_id > 0 { "a length" } else { "none" });
    for cmd in 0..14u64 {
        if cmd == OP_BUILD_ID {
            continue;
        }
        obs(f!("op {cmd}, bad pointer"), op(cmd, 0xffff_8300_0000_0000));
        obs(f!("op {cmd}, null pointer"), op(cmd, 0));
    }
    for (name, cmd) in [("enable", 0u64), ("disable", 1), ("2", 2)] {
        for kind in [0u64, 1, 2, 3, 4, 5, 6, 31, 32, 33, 63, 64, u64::MAX] {
            obs(f!("vm_assist {name} {kind}"), call(nr::VM_ASSIST, &[cmd, kind]));
        }
    }
}
