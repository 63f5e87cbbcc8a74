//! platform_op (xen/platform.h): what dom0's kernel asks of the machine. dom0 only.
#![allow(missing_docs)]

/// `interface_version`; another one is answered with -EACCES.
pub const INTERFACE_VERSION: u32 = 0x0300_0001;

pub const OP_SETTIME32: u32 = 17;
pub const OP_ADD_MEMTYPE: u32 = 31;
pub const OP_DEL_MEMTYPE: u32 = 32;
pub const OP_READ_MEMTYPE: u32 = 33;
pub const OP_MICROCODE_UPDATE: u32 = 35;
pub const OP_PLATFORM_QUIRK: u32 = 39;
pub const OP_GET_CPU_VERSION: u32 = 48;
pub const OP_EFI_RUNTIME_CALL: u32 = 49;
pub const OP_FIRMWARE_INFO: u32 = 50;
pub const OP_ENTER_ACPI_SLEEP: u32 = 51;
pub const OP_CHANGE_FREQ: u32 = 52;
pub const OP_GETIDLETIME: u32 = 53;
pub const OP_SET_PROCESSOR_PMINFO: u32 = 54;
pub const OP_GET_CPUINFO: u32 = 55;
pub const OP_CPU_ONLINE: u32 = 56;
pub const OP_CPU_OFFLINE: u32 = 57;
pub const OP_CPU_HOTADD: u32 = 58;
pub const OP_MEM_HOTADD: u32 = 59;
pub const OP_CORE_PARKING: u32 = 60;
pub const OP_RESOURCE_OP: u32 = 61;
pub const OP_SETTIME64: u32 = 62;
pub const OP_GET_SYMBOL: u32 = 63;

pub const FW_DISK_INFO: u32 = 1;
pub const FW_DISK_MBR_SIGNATURE: u32 = 2;
pub const FW_VBEDDC_INFO: u32 = 3;
pub const FW_EFI_INFO: u32 = 4;
pub const FW_KBD_SHIFT_FLAGS: u32 = 5;
pub const FW_EFI_VERSION: u32 = 0;
pub const FW_EFI_CONFIG_TABLE: u32 = 1;
pub const FW_EFI_VENDOR: u32 = 2;
pub const FW_EFI_MEM_INFO: u32 = 3;
pub const FW_EFI_RT_VERSION: u32 = 4;

pub const PCPU_FLAGS_ONLINE: u32 = 1;
/// No such CPU.
pub const PCPU_FLAGS_INVALID: u32 = 2;

/// enter_acpi_sleep: hardware-reduced ACPI, `val_a` and `val_b` are sleep types.
pub const ACPI_SLEEP_EXTENDED: u32 = 1;

pub const PM_CX: u32 = 0;
pub const PM_PX: u32 = 1;
pub const PM_TX: u32 = 2;
pub const PM_PDC: u32 = 3;

pub const CORE_PARKING_SET: u32 = 1;
pub const CORE_PARKING_GET: u32 = 2;

abi_struct! {
    /// The envelope (`xen_platform_op`).
    pub struct PlatformOp {
        pub cmd: u32 = 0, pub interface_version: u32 = 4,
        /// The union. See [`PlatformOp::payload`].
        pub u: [u64; 16] = 8,
    } size 136;

    /// Wallclock `secs`.`nsecs` (UTC) at hypervisor system time `system_time`, ns.
    pub struct SetTime32 { pub secs: u32 = 0, pub nsecs: u32 = 4, pub system_time: u64 = 8, } size 16;
    /// As [`SetTime32`]; `mbz` must be 0.
    pub struct SetTime64 { pub secs: u64 = 0, pub nsecs: u32 = 8, pub mbz: u32 = 12, pub system_time: u64 = 16, } size 24;
    pub struct AddMemtype { pub mfn: u64 = 0, pub nr_mfns: u64 = 8, pub kind: u32 = 16, pub handle: u32 = 20, pub reg: u32 = 24, pub pad: u32 = 28, } size 32;
    pub struct DelMemtype { pub handle: u32 = 0, pub reg: u32 = 4, } size 8;
    pub struct ReadMemtype { pub reg: u32 = 0, pub pad: u32 = 4, pub mfn: u64 = 8, pub nr_mfns: u64 = 16, pub kind: u32 = 24, pub pad2: u32 = 28, } size 32;
    pub struct MicrocodeUpdate { pub data: u64 = 0, pub length: u32 = 8, pub pad: u32 = 12, } size 16;
    pub struct PlatformQuirk { pub quirk_id: u32 = 0, } size 4;
    /// `u` depends on `function`.
    pub struct EfiRuntimeCall { pub function: u32 = 0, pub misc: u32 = 4, pub status: u64 = 8, pub u: [u64; 5] = 16, } size 56;
    /// `u` depends on `kind` (`FW_*`) and, for EFI, on `index`.
    pub struct FirmwareInfo { pub kind: u32 = 0, pub index: u32 = 4, pub u: [u64; 4] = 8, } size 40;
    /// Union of [`FirmwareInfo`] for [`FW_DISK_INFO`].
    pub struct FwDiskInfo {
        pub device: u8 = 0, pub version: u8 = 1, pub interface_support: u16 = 2, pub legacy_max_cylinder: u16 = 4,
        pub legacy_max_head: u8 = 6, pub legacy_sectors_per_track: u8 = 7, pub edd_params: u64 = 8,
    } size 16;
    /// Union of [`FirmwareInfo`] for [`FW_DISK_MBR_SIGNATURE`].
    pub struct FwMbrSignature { pub device: u8 = 0, pub pad: [u8; 3] = 1, pub mbr_signature: u32 = 4, } size 8;
    /// Union of [`FirmwareInfo`] for [`FW_EFI_INFO`], [`FW_EFI_CONFIG_TABLE`].
    pub struct FwEfiConfigTable { pub addr: u64 = 0, pub nent: u32 = 8, pub pad: u32 = 12, } size 16;
    /// Union of [`FirmwareInfo`] for [`FW_EFI_INFO`], [`FW_EFI_VENDOR`].
    pub struct FwEfiVendor { pub revision: u32 = 0, pub bufsz: u32 = 4, pub name: u64 = 8, } size 16;
    /// Union of [`FirmwareInfo`] for [`FW_EFI_INFO`], [`FW_EFI_MEM_INFO`].
    pub struct FwEfiMem { pub addr: u64 = 0, pub size: u64 = 8, pub attr: u64 = 16, pub kind: u32 = 24, pub pad: u32 = 28, } size 32;
    /// Values for the PM1a and PM1b control registers, and the state (5 is power-off).
    pub struct EnterAcpiSleep { pub val_a: u16 = 0, pub val_b: u16 = 2, pub sleep_state: u32 = 4, pub flags: u32 = 8, } size 12;
    pub struct ChangeFreq { pub flags: u32 = 0, pub cpu: u32 = 4, pub freq: u64 = 8, } size 16;
    pub struct GetIdleTime { pub cpumap_bitmap: u64 = 0, pub cpumap_nr_cpus: u32 = 8, pub pad: u32 = 12, pub idletime: u64 = 16, pub now: u64 = 24, } size 32;
    /// `u` depends on `kind` (`PM_*`).
    pub struct SetProcessorPminfo { pub id: u32 = 0, pub kind: u32 = 4, pub u: [u64; 13] = 8, } size 112;
    /// `xen_cpuid` in; what is known of that CPU out.
    pub struct PcpuInfo { pub xen_cpuid: u32 = 0, pub max_present: u32 = 4, pub flags: u32 = 8, pub apic_id: u32 = 12, pub acpi_id: u32 = 16, } size 20;
    pub struct PcpuVersion { pub xen_cpuid: u32 = 0, pub max_present: u32 = 4, pub vendor_id: [u8; 12] = 8, pub family: u32 = 20, pub model: u32 = 24, pub stepping: u32 = 28, } size 32;
    pub struct CpuOl { pub cpuid: u32 = 0, } size 4;
    pub struct CpuHotadd { pub apic_id: u32 = 0, pub acpi_id: u32 = 4, pub pxm: u32 = 8, } size 12;
    pub struct MemHotadd { pub spfn: u64 = 0, pub epfn: u64 = 8, pub pxm: u32 = 16, pub flags: u32 = 20, } size 24;
    pub struct CoreParking { pub kind: u32 = 0, pub idle_nums: u32 = 4, } size 8;
    pub struct ResourceOp { pub nr_entries: u32 = 0, pub cpu: u32 = 4, pub entries: u64 = 8, } size 16;
    pub struct ResourceEntry { pub cmd_or_ret: i32 = 0, pub rsvd: u32 = 4, pub idx: u64 = 8, pub val: u64 = 16, } size 24;
    pub struct Symdata { pub namelen: u32 = 0, pub symnum: u32 = 4, pub name: u64 = 8, pub address: u64 = 16, pub kind: u8 = 24, pub pad: [u8; 7] = 25, } size 32;
}
union_payload!(PlatformOp);
