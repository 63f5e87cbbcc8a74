//! Round trips through bytes, and the offsets that matter most, spelled a second time as plain numbers in the bytes
//! themselves (the compile-time assertions compare fields with what this crate says; these compare with the ABI).

use pv_abi::domctl::{self, Createdomain, Domctl, Getdomaininfo, MaxMem, Vcpucontext};
use pv_abi::errno::Errno;
use pv_abi::ids::{GuestHandle, MachineAddr, Mfn};
use pv_abi::{arch, cpuid, grant, memory, mmu, platform, shared_info, start_info, sysctl, xenstore};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

#[test]
fn sizes_the_abi_names() {
    assert_eq!(size_of::<arch::VcpuGuestContext>(), 0x1430);
    assert_eq!(size_of::<shared_info::SharedInfo>(), 0xc40);
    assert_eq!(size_of::<start_info::StartInfo>(), 0x490);
    assert_eq!(size_of::<Domctl>(), 144);
    assert_eq!(size_of::<sysctl::Sysctl>(), 136);
    assert_eq!(size_of::<platform::PlatformOp>(), 136);
    assert_eq!(size_of::<Getdomaininfo>(), 112);
    assert_eq!(size_of::<sysctl::Physinfo>(), 112);
    assert_eq!(size_of::<mmu::MmuextOp>(), 24);
    assert_eq!(size_of::<memory::Reservation>(), 32);
    assert_eq!(size_of::<grant::MapGrantRef>(), 32);
    assert_eq!(size_of::<xenstore::DomainInterface>(), 2076);
    assert_eq!(size_of::<memory::E820Entry>(), 20);
}

#[test]
fn a_domctl_is_the_bytes_the_tools_send() {
    let mut op = Domctl::new(domctl::OP_CREATEDOMAIN, 7);
    op.set_payload(&Createdomain {
        handle: *b"0123456789abcdef",
        max_vcpus: 3,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        ..Default::default()
    });
    let b = op.as_bytes();
    assert_eq!(u32_at(b, 0), 1);
    assert_eq!(u32_at(b, 4), 0x15);
    assert_eq!(&b[8..10], &[7, 0]);
    assert_eq!(&b[16 + 4..16 + 20], b"0123456789abcdef");
    assert_eq!(u32_at(b, 16 + 28), 3);
    assert_eq!(u32_at(b, 16 + 32), 1023);
    assert_eq!(u32_at(b, 16 + 36), u32::MAX);
    let back = Domctl::read_from_bytes(b).unwrap();
    assert_eq!(back.payload::<Createdomain>().unwrap().max_grant_frames, -1);
}

#[test]
fn payloads_overlay_each_other() {
    let mut op = Domctl::new(domctl::OP_MAX_MEM, 1);
    op.set_payload(&Vcpucontext { vcpu: 0xffff_ffff, pad: 0xffff_ffff, ctxt: 0x1234 });
    op.set_payload(&MaxMem { max_memkb: 5 });
    assert_eq!(op.payload::<MaxMem>().unwrap().max_memkb, 5);
    // Only the first eight bytes were replaced.
    assert_eq!(op.payload::<Vcpucontext>().unwrap().ctxt, 0x1234);
    // The largest payload there is.
    op.set_payload(&[0xa5u8; 128]);
    assert_eq!(op.payload::<[u8; 128]>(), Some([0xa5; 128]));
    assert_eq!(op.domain, 1);
}

#[test]
fn getdomaininfo_fields_in_place() {
    let info = Getdomaininfo {
        shared_info_frame: 0x1122_3344,
        cpu_time: 99,
        max_vcpu_id: 1,
        cpupool: 4,
        ..Default::default()
    };
    let b = info.as_bytes();
    assert_eq!((u64_at(b, 48), u64_at(b, 56), u32_at(b, 68), u32_at(b, 92)), (0x1122_3344, 99, 1, 4));
}

#[test]
fn vcpu_context_fields_in_place() {
    let mut c = arch::VcpuGuestContext::new_zeroed();
    c.user_regs.rip = 0x1111;
    c.trap_ctxt[255].address = 0x2222;
    c.ctrlreg[3] = 0x3333;
    c.gs_base_user = 0x4444;
    let b = c.as_bytes();
    assert_eq!(u64_at(b, 520 + 128), 0x1111);
    assert_eq!(u64_at(b, 720 + 255 * 16 + 8), 0x2222);
    assert_eq!(u64_at(b, 4984 + 24), 0x3333);
    assert_eq!(u64_at(b, 5160), 0x4444);
    assert_eq!(arch::VcpuGuestContext::read_from_bytes(b).unwrap(), c);
}

#[test]
fn errno_both_ways() {
    for e in [Errno::EPERM, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::ECONNREFUSED] {
        assert_eq!(Errno::from_ret(e.as_ret()), Some(e));
    }
    assert_eq!(Errno::ENOSYS.as_ret(), -38);
    assert_eq!(Errno::EOPNOTSUPP.as_ret(), -95);
    assert_eq!(Errno::from_ret(0), None);
    assert_eq!(Errno::from_ret(38), None);
    assert_eq!(Errno::from_ret(i64::MIN), None);
}

#[test]
fn frames_and_addresses() {
    assert_eq!(Mfn(5).to_addr(), Some(MachineAddr(0x5000)));
    assert_eq!(Mfn(1 << 52).to_addr(), None);
    assert_eq!(Mfn((1 << 52) - 1).to_addr(), Some(MachineAddr(!0xfff)));
    assert_eq!(Mfn::containing(MachineAddr(0x5fff)), Mfn(5));
    let h = GuestHandle::<u64>::new(0x1000);
    assert_eq!(h.offset(3).addr(), 0x1018);
    assert_eq!(h.offset(u64::MAX).addr(), 0x1000 - 8);
    assert!(GuestHandle::<u8>::new(0).is_null());
}

#[test]
fn the_signature_spells_the_name() {
    let mut s = Vec::new();
    for r in [cpuid::SIGNATURE_EBX, cpuid::SIGNATURE_ECX, cpuid::SIGNATURE_EDX] {
        s.extend_from_slice(&r.to_le_bytes());
    }
    assert_eq!(s, b"XenVMMXenVMM");
    assert_eq!(&cpuid::FORCED_EMULATION_PREFIX[2..], b"xen");
}
