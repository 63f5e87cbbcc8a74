//! The operations inside the hypercalls that have any: one line each. To change how far Hospes is with one, edit its
//! status here and run `UPDATE_COVERAGE=1 cargo test -p pv-abi --test coverage`.

use crate::hypercall::{Status, nr};

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every domain, for itself.
    Any,
    /// Every domain for itself, dom0 for others as well.
    Both,
    /// dom0.
    Dom0,
}

/// Who cannot do without an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A stock Linux kernel does not come up without it.
    Boot,
    /// Linux uses it and lives without.
    Linux,
    /// Xen's tools use it.
    Tools,
    /// Nobody we know of.
    Nobody,
}

/// One operation of a hypercall.
#[derive(Clone, Copy, Debug)]
pub struct SubOp {
    /// Its number.
    pub number: u32,
    /// Its name in the ABI.
    pub name: &'static str,
    /// Who may call it.
    pub who: Who,
    /// Who needs it.
    pub need: Need,
    /// How far it is built.
    pub status: Status,
    /// What else there is to say.
    pub note: &'static str,
}

/// The operations of one hypercall.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The hypercall.
    pub hypercall: usize,
    /// Its operations, in rising number.
    pub ops: &'static [SubOp],
}

/// The operations of `hypercall`, if it has any.
pub fn of(hypercall: usize) -> Option<&'static [SubOp]> {
    FAMILIES.iter().find(|f| f.hypercall == hypercall).map(|f| f.ops)
}

/// The name of operation `number` of `hypercall`.
pub fn name(hypercall: usize, number: u32) -> Option<&'static str> {
    of(hypercall)?.iter().find(|o| o.number == number).map(|o| o.name)
}

macro_rules! families {
    ($($hc:ident { $($n:literal $name:ident $who:ident $need:ident $status:ident $note:literal;)* })*) => {
        /// All of them.
        pub const FAMILIES: &[Family] = &[$(Family {
            hypercall: nr::$hc,
            ops: &[$(SubOp {
                number: $n, name: stringify!($name), who: Who::$who, need: Need::$need, status: Status::$status, note: $note,
            }),*],
        }),*];
    };
}

families! {
    MMUEXT_OP {
        0 pin_l1_table Both Boot Implemented "";
        1 pin_l2_table Both Boot Implemented "";
        2 pin_l3_table Both Boot Implemented "";
        3 pin_l4_table Both Boot Implemented "";
        4 unpin_table Both Boot Implemented "";
        5 new_baseptr Any Boot Implemented "";
        6 tlb_flush_local Any Boot Implemented "";
        7 invlpg_local Any Boot Implemented "";
        8 tlb_flush_multi Any Boot Implemented "";
        9 invlpg_multi Any Boot Implemented "";
        10 tlb_flush_all Any Linux Implemented "";
        11 invlpg_all Any Linux Implemented "";
        12 flush_cache Any Nobody Partial "accepted from dom0; nothing is flushed";
        13 set_ldt Any Boot Implemented "";
        15 new_user_baseptr Any Boot Implemented "";
        16 clear_page Any Nobody Implemented "";
        17 copy_page Any Nobody Implemented "";
        18 flush_cache_global Any Nobody Partial "accepted from dom0; nothing is flushed";
        19 mark_super Any Nobody Absent "-EOPNOTSUPP: no superpages in PV";
        20 unmark_super Any Nobody Absent "-EOPNOTSUPP: no superpages in PV";
    }
    PLATFORM_OP {
        17 settime32 Dom0 Linux Implemented "";
        31 add_memtype Dom0 Nobody Absent "";
        32 del_memtype Dom0 Nobody Absent "";
        33 read_memtype Dom0 Linux Implemented "";
        35 microcode_update Dom0 Nobody Absent "";
        39 platform_quirk Dom0 Nobody Absent "";
        48 get_cpu_version Dom0 Nobody Implemented "";
        49 efi_runtime_call Dom0 Linux Absent "";
        50 firmware_info Dom0 Linux Partial "BIOS machines: keyboard flags only";
        51 enter_acpi_sleep Dom0 Linux Partial "S5 only";
        52 change_freq Dom0 Nobody Absent "";
        53 getidletime Dom0 Nobody Absent "";
        54 set_processor_pminfo Dom0 Linux Absent "";
        55 get_cpuinfo Dom0 Linux Implemented "6.12 and later: dom0's topology";
        56 cpu_online Dom0 Linux Partial "";
        57 cpu_offline Dom0 Linux Partial "-EOPNOTSUPP for a CPU that is up";
        58 cpu_hotadd Dom0 Linux Absent "";
        59 mem_hotadd Dom0 Linux Absent "";
        60 core_parking Dom0 Linux Partial "get only";
        61 resource_op Dom0 Nobody Absent "";
        62 settime64 Dom0 Linux Implemented "";
        63 get_symbol Dom0 Linux Absent "";
    }
    MEMORY_OP {
        0 increase_reservation Both Nobody Implemented "";
        1 decrease_reservation Both Linux Implemented "ballooning";
        2 maximum_ram_page Any Tools Implemented "";
        3 current_reservation Both Linux Implemented "";
        4 maximum_reservation Both Linux Implemented "";
        5 machphys_mfn_list Any Tools Implemented "";
        6 populate_physmap Both Tools Implemented "ballooning; building domains";
        7 add_to_physmap Both Nobody Absent "-EACCES for PV domains";
        9 memory_map Any Linux Implemented "";
        10 machine_memory_map Dom0 Boot Implemented "dom0 only";
        11 exchange Any Linux Implemented "swiotlb";
        12 machphys_mapping Any Linux Implemented "";
        13 set_memory_map Both Tools Implemented "";
        14 maximum_gpfn Both Tools Implemented "";
        15 remove_from_physmap Both Nobody Absent "-EACCES for PV domains";
        16 set_pod_target Both Nobody Absent "-EOPNOTSUPP";
        17 get_pod_target Both Nobody Absent "-EOPNOTSUPP";
        18 get_sharing_freed_pages Dom0 Tools Implemented "none are";
        19 get_sharing_shared_pages Dom0 Tools Implemented "none are";
        20 paging Dom0 Nobody Absent "";
        21 access Dom0 Nobody Absent "";
        22 sharing Dom0 Nobody Absent "";
        23 add_to_physmap_batch Both Nobody Absent "-EACCES for PV domains";
        24 claim_pages Dom0 Tools Absent "-ENOSYS, as the tools expect";
        26 get_vnumainfo Any Tools Absent "-EOPNOTSUPP";
        27 reserved_device_memory_map Dom0 Nobody Absent "";
        28 acquire_resource Dom0 Tools Partial "grant tables";
    }
    XEN_VERSION {
        0 version Any Boot Implemented "";
        1 extraversion Any Linux Implemented "";
        2 compile_info Any Linux Implemented "";
        3 capabilities Any Tools Implemented "";
        4 changeset Any Linux Implemented "";
        5 platform_parameters Any Linux Implemented "";
        6 get_features Any Boot Implemented "";
        7 pagesize Any Linux Implemented "";
        8 guest_handle Any Linux Implemented "";
        9 commandline Dom0 Tools Implemented "";
        10 build_id Any Linux Implemented "";
    }
    CONSOLE_IO {
        0 write Any Linux Implemented "";
        1 read Dom0 Boot Implemented "dom0's hvc0";
    }
    GRANT_TABLE_OP {
        0 map_grant_ref Any Linux Implemented "";
        1 unmap_grant_ref Any Linux Implemented "";
        2 setup_table Both Boot Implemented "";
        3 dump_table Dom0 Nobody Absent "";
        4 transfer Any Nobody Absent "each page is refused";
        5 copy Any Linux Implemented "";
        6 query_size Both Linux Implemented "";
        7 unmap_and_replace Any Nobody Absent "-EOPNOTSUPP";
        8 set_version Any Linux Partial "version 1 only";
        9 get_status_frames Both Nobody Absent "-EOPNOTSUPP: version 2";
        10 get_version Both Nobody Implemented "";
        11 swap_grant_ref Any Nobody Absent "-EOPNOTSUPP";
        12 cache_flush Any Nobody Absent "-EOPNOTSUPP";
    }
    VCPU_OP {
        0 initialise Any Boot Implemented "";
        1 up Any Boot Implemented "";
        2 down Any Linux Implemented "";
        3 is_up Any Boot Implemented "";
        4 get_runstate_info Any Linux Implemented "";
        5 register_runstate_memory_area Any Boot Implemented "";
        6 set_periodic_timer Any Nobody Implemented "";
        7 stop_periodic_timer Any Boot Implemented "";
        8 set_singleshot_timer Any Boot Implemented "";
        9 stop_singleshot_timer Any Boot Implemented "";
        10 register_vcpu_info Any Boot Implemented "";
        11 send_nmi Any Linux Implemented "";
        12 get_physid Any Nobody Implemented "of a vCPU that may run on one CPU only";
        13 register_vcpu_time_memory_area Any Linux Implemented "";
    }
    SCHED_OP {
        0 yield Any Linux Implemented "";
        1 block Any Boot Implemented "";
        2 shutdown Any Boot Implemented "";
        3 poll Any Boot Implemented "";
        4 remote_shutdown Dom0 Nobody Implemented "";
        5 shutdown_code Any Nobody Implemented "";
        6 watchdog Any Linux Implemented "";
        7 pin_override Dom0 Linux Implemented "";
    }
    CALLBACK_OP {
        0 register Any Boot Implemented "";
        1 unregister Any Nobody Implemented "";
    }
    EVENT_CHANNEL_OP {
        0 bind_interdomain Any Linux Implemented "";
        1 bind_virq Any Boot Implemented "";
        2 bind_pirq Any Linux Implemented "";
        3 close Any Boot Implemented "";
        4 send Any Boot Implemented "";
        5 status Both Linux Implemented "";
        6 alloc_unbound Both Linux Implemented "";
        7 bind_ipi Any Boot Implemented "";
        8 bind_vcpu Any Boot Implemented "";
        9 unmask Any Boot Implemented "";
        10 reset Both Tools Implemented "";
        11 init_control Any Linux Absent "-ENOSYS: Linux then uses 2-level channels";
        12 expand_array Any Linux Absent "-EOPNOTSUPP";
        13 set_priority Any Linux Absent "";
    }
    PHYSDEV_OP {
        4 irq_unmask_notify Any Nobody Implemented "nothing to do";
        5 irq_status_query Any Linux Implemented "";
        6 set_iopl Any Boot Implemented "";
        7 set_iobitmap Any Linux Implemented "";
        8 apic_read Dom0 Linux Implemented "";
        9 apic_write Dom0 Nobody Absent "-EPERM: IOAPIC entries are the hypervisor's";
        10 alloc_irq_vector Dom0 Linux Implemented "";
        11 free_irq_vector Dom0 Nobody Absent "";
        12 eoi Any Linux Implemented "";
        13 map_pirq Dom0 Linux Partial "GSI, MSI and MSI-X; several messages of plain MSI: -EOPNOTSUPP";
        14 unmap_pirq Dom0 Linux Implemented "";
        15 manage_pci_add Dom0 Linux Implemented "";
        16 manage_pci_remove Dom0 Linux Implemented "";
        17 pirq_eoi_gmfn_v1 Any Nobody Implemented "";
        19 restore_msi Dom0 Linux Implemented "";
        20 manage_pci_add_ext Dom0 Linux Implemented "";
        21 setup_gsi Dom0 Linux Implemented "";
        23 get_free_pirq Any Nobody Implemented "";
        24 pci_mmcfg_reserved Dom0 Linux Implemented "compared with the MCFG";
        25 pci_device_add Dom0 Linux Implemented "";
        26 pci_device_remove Dom0 Linux Implemented "";
        27 restore_msi_ext Dom0 Linux Implemented "";
        28 pirq_eoi_gmfn_v2 Any Linux Implemented "";
        29 dbgp_op Dom0 Linux Implemented "no debug port is used";
        30 prepare_msix Dom0 Linux Implemented "";
        31 release_msix Dom0 Linux Implemented "";
    }
    MCA {
        1 fetch Dom0 Linux Implemented "never has anything";
        2 notifydomain Dom0 Nobody Absent "-EINVAL";
        3 physcpuinfo Dom0 Linux Implemented "CPUs without banks";
        4 msrinject Dom0 Nobody Absent "-EOPNOTSUPP";
        5 mceinject Dom0 Nobody Absent "-EOPNOTSUPP";
        6 inject_v2 Dom0 Nobody Absent "-EOPNOTSUPP";
    }
    SYSCTL {
        1 readconsole Dom0 Tools Implemented "";
        3 physinfo Dom0 Tools Implemented "";
        4 sched_id Dom0 Tools Implemented "";
        5 perfc_op Dom0 Nobody Implemented "";
        6 getdomaininfolist Dom0 Tools Implemented "";
        7 debug_keys Dom0 Nobody Absent "";
        8 getcpuinfo Dom0 Tools Absent "";
        9 availheap Dom0 Nobody Implemented "";
        10 get_pmstat Dom0 Nobody Absent "";
        11 cpu_hotplug Dom0 Nobody Absent "";
        12 pm_op Dom0 Nobody Absent "";
        16 cputopoinfo Dom0 Tools Partial "each CPU a core of its own";
        17 numainfo Dom0 Tools Implemented "one node";
        18 cpupool_op Dom0 Tools Partial "one pool";
        19 scheduler_op Dom0 Tools Partial "nothing to set";
        22 pcitopoinfo Dom0 Tools Partial "nodes are not known";
        25 get_cpu_levelling_caps Dom0 Nobody Absent "";
        26 get_cpu_featureset Dom0 Tools Implemented "";
        29 get_cpu_policy Dom0 Tools Implemented "";
    }
    DOMCTL {
        1 createdomain Dom0 Tools Implemented "";
        2 destroydomain Dom0 Tools Implemented "";
        3 pausedomain Dom0 Tools Implemented "";
        4 unpausedomain Dom0 Tools Implemented "";
        5 getdomaininfo Dom0 Tools Implemented "";
        9 setvcpuaffinity Dom0 Tools Implemented "hard and soft affinity";
        10 shadow_op Dom0 Tools Absent "log-dirty, for live migration";
        11 max_mem Dom0 Tools Implemented "";
        12 setvcpucontext Dom0 Tools Implemented "";
        13 getvcpucontext Dom0 Tools Implemented "";
        14 getvcpuinfo Dom0 Tools Implemented "";
        15 max_vcpus Dom0 Tools Implemented "";
        16 scheduler_op Dom0 Tools Partial "weights and caps as credit2";
        17 setdomainhandle Dom0 Tools Implemented "";
        18 setdebugging Dom0 Nobody Absent "";
        19 irq_permission Dom0 Nobody Absent "";
        20 iomem_permission Dom0 Nobody Absent "";
        21 ioport_permission Dom0 Nobody Absent "";
        22 hypercall_init Dom0 Tools Implemented "";
        24 settimeoffset Dom0 Tools Implemented "";
        25 getvcpuaffinity Dom0 Tools Implemented "";
        27 resumedomain Dom0 Tools Implemented "after a failed migration";
        29 subscribe Dom0 Tools Absent "";
        35 set_address_size Dom0 Tools Implemented "64 only";
        36 get_address_size Dom0 Tools Implemented "";
        37 assign_device Dom0 Nobody Absent "no IOMMU";
        42 set_ext_vcpucontext Dom0 Tools Absent "restore";
        43 get_ext_vcpucontext Dom0 Tools Absent "save";
        46 set_target Dom0 Nobody Absent "";
        59 gettscinfo Dom0 Tools Implemented "";
        60 settscinfo Dom0 Tools Partial "default mode";
        61 getpageframeinfo3 Dom0 Tools Implemented "save";
        62 setvcpuextstate Dom0 Tools Absent "restore";
        63 getvcpuextstate Dom0 Tools Absent "save";
        66 set_virq_handler Dom0 Nobody Absent "";
        68 setnodeaffinity Dom0 Tools Implemented "one node";
        69 getnodeaffinity Dom0 Tools Implemented "one node";
        72 get_vcpu_msrs Dom0 Tools Absent "save";
        73 set_vcpu_msrs Dom0 Tools Absent "restore";
        79 soft_reset Dom0 Nobody Absent "";
        82 get_cpu_policy Dom0 Tools Implemented "";
        83 set_cpu_policy Dom0 Tools Implemented "";
        89 set_llc_colors Dom0 Nobody Absent "-EOPNOTSUPP, as 4.20's tools expect";
    }
}
