//! The start_info page's contents.

use pv_abi::ids::{Mfn, PAGE_SIZE, Pfn};
use pv_abi::start_info::{SIF_INITDOMAIN, SIF_MOD_START_PFN, SIF_PRIVILEGED, SIF_VIRT_P2M_4TOOLS, StartInfo};
use zerocopy::IntoBytes;

use crate::builder::BuildParams;
use crate::kernel::KernelImage;
use crate::layout::Layout;

/// Dom0's console information follows start_info in its page.
const INFO_OFFSET: usize = size_of::<StartInfo>();

/// The page as bytes.
pub(crate) fn page(
    kernel: &KernelImage<'_>,
    layout: &Layout,
    params: &BuildParams<'_>,
    xenstore: Option<Mfn>,
    console: Option<Mfn>,
) -> [u8; PAGE_SIZE as usize] {
    let mut info = StartInfo {
        nr_pages: layout.nr_pages,
        shared_info: params.shared_info.0,
        flags: flags(layout, params),
        pt_base: layout.va(Pfn(layout.page_tables.start)),
        nr_pt_frames: layout.page_tables.end - layout.page_tables.start,
        mfn_list: layout.p2m_va,
        ..StartInfo::default()
    };
    // Xen's dom0 builder marks the PAE mode in the magic; its domU builder does not.
    put(&mut info.magic, if layout.is_dom0 && kernel.notes().pae { b"xen-3.0-x86_64p" } else { b"xen-3.0-x86_64" });
    put(&mut info.cmd_line, params.cmdline.as_bytes());
    if layout.ramdisk_len != 0 {
        let first = layout.ramdisk.start;
        info.mod_start = if layout.ramdisk_by_pfn { first } else { layout.va(Pfn(first)) };
        info.mod_len = layout.ramdisk_len;
    }
    if let Some(region) = layout.p2m_region() {
        info.first_p2m_pfn = region.start;
        info.nr_p2m_frames = region.end - region.start;
    }
    let mut page = [0; PAGE_SIZE as usize];
    if layout.is_dom0 {
        let room = page.get_mut(INFO_OFFSET..).unwrap_or_default();
        let len = params.dom0_console.len().min(room.len());
        put(room, params.dom0_console);
        info.console0 = INFO_OFFSET as u64 | (len as u64) << 32;
    } else {
        info.store_mfn = xenstore.unwrap_or_default().0;
        info.store_evtchn = params.store_evtchn;
        info.console0 = console.unwrap_or_default().0;
        info.console1 = params.console_evtchn;
    }
    put(&mut page, info.as_bytes());
    page
}

/// Copies as much as fits.
fn put(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

fn flags(layout: &Layout, params: &BuildParams<'_>) -> u32 {
    let mut flags = params.extra_flags;
    flags |= if layout.is_dom0 { SIF_PRIVILEGED | SIF_INITDOMAIN } else { SIF_VIRT_P2M_4TOOLS };
    // Xen's dom0 builder says so only if there is an initrd, its domU builder always.
    if layout.ramdisk_by_pfn && (layout.ramdisk_len != 0 || !layout.is_dom0) {
        flags |= SIF_MOD_START_PFN;
    }
    flags
}
