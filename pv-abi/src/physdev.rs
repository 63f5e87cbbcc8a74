//! physdev_op (xen/physdev.h).
#![allow(missing_docs)]

pub const OP_IRQ_UNMASK_NOTIFY: u64 = 4;
pub const OP_IRQ_STATUS_QUERY: u64 = 5;
pub const OP_SET_IOPL: u64 = 6;
pub const OP_SET_IOBITMAP: u64 = 7;
pub const OP_APIC_READ: u64 = 8;
pub const OP_APIC_WRITE: u64 = 9;
pub const OP_ALLOC_IRQ_VECTOR: u64 = 10;
pub const OP_FREE_IRQ_VECTOR: u64 = 11;
pub const OP_EOI: u64 = 12;
pub const OP_MAP_PIRQ: u64 = 13;
pub const OP_UNMAP_PIRQ: u64 = 14;
pub const OP_MANAGE_PCI_ADD: u64 = 15;
pub const OP_MANAGE_PCI_REMOVE: u64 = 16;
pub const OP_PIRQ_EOI_GMFN_V1: u64 = 17;
pub const OP_RESTORE_MSI: u64 = 19;
pub const OP_MANAGE_PCI_ADD_EXT: u64 = 20;
pub const OP_SETUP_GSI: u64 = 21;
pub const OP_GET_FREE_PIRQ: u64 = 23;
pub const OP_PCI_MMCFG_RESERVED: u64 = 24;
pub const OP_PCI_DEVICE_ADD: u64 = 25;
pub const OP_PCI_DEVICE_REMOVE: u64 = 26;
pub const OP_RESTORE_MSI_EXT: u64 = 27;
pub const OP_PIRQ_EOI_GMFN_V2: u64 = 28;
pub const OP_DBGP_OP: u64 = 29;
pub const OP_PREPARE_MSIX: u64 = 30;
pub const OP_RELEASE_MSIX: u64 = 31;

pub const IRQSTAT_NEEDS_EOI: u32 = 1;
pub const IRQSTAT_SHARED: u32 = 2;

pub const MAP_PIRQ_TYPE_MSI: u32 = 0;
pub const MAP_PIRQ_TYPE_GSI: u32 = 1;
pub const MAP_PIRQ_TYPE_UNKNOWN: u32 = 2;
pub const MAP_PIRQ_TYPE_MSI_SEG: u32 = 3;
pub const MAP_PIRQ_TYPE_MULTI_MSI: u32 = 4;

abi_struct! {
    pub struct Eoi { pub irq: u32 = 0, } size 4;
    pub struct IrqStatusQuery { pub irq: u32 = 0, pub flags: u32 = 4, } size 8;
    pub struct SetIopl { pub iopl: u32 = 0, } size 4;
    pub struct SetIobitmap { pub bitmap: u64 = 0, pub nr_ports: u32 = 8, pub pad: u32 = 12, } size 16;
    pub struct Apic { pub apic_physbase: u64 = 0, pub reg: u32 = 8, pub value: u32 = 12, } size 16;
    pub struct IrqOp { pub irq: u32 = 0, pub vector: u32 = 4, } size 8;
    pub struct MapPirq { pub domid: u16 = 0, pub pad: u16 = 2, pub kind: u32 = 4, pub index: i32 = 8, pub pirq: i32 = 12, pub bus: i32 = 16, pub devfn: i32 = 20, pub entry_nr: i32 = 24, pub pad2: u32 = 28, pub table_base: u64 = 32, } size 40;
    pub struct UnmapPirq { pub domid: u16 = 0, pub pad: u16 = 2, pub pirq: i32 = 4, } size 8;
    pub struct SetupGsi { pub gsi: i32 = 0, pub triggering: u8 = 4, pub polarity: u8 = 5, pub pad: u16 = 6, } size 8;
    pub struct PirqEoiGmfn { pub gmfn: u64 = 0, } size 8;
    pub struct PciDevice { pub seg: u16 = 0, pub bus: u8 = 2, pub devfn: u8 = 3, } size 4;
    /// Also the beginning of manage_pci_add_ext.
    pub struct ManagePci { pub bus: u8 = 0, pub devfn: u8 = 1, } size 2;
    pub struct PciMmcfgReserved { pub address: u64 = 0, pub segment: u16 = 8, pub start_bus: u8 = 10, pub end_bus: u8 = 11, pub flags: u32 = 12, } size 16;
    pub struct GetFreePirq { pub kind: i32 = 0, pub pirq: u32 = 4, } size 8;
}
