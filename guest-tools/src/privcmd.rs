//! The kernel's door to the hypervisor, `/dev/xen/privcmd`: hypercalls and mappings of other domains' memory.
//!
//! This is the only module of the tools with `unsafe` in it. What it hands out is safe to use:
//! - [`Buffer`] is memory that the hypervisor can reach: pages from `/dev/xen/hypercall`, which are locked and are not moved
//!   or copied on write while a hypercall uses them;
//! - [`Foreign`] is a mapping of another domain's pages. They may change at any moment, so no reference into them exists:
//!   they are written and read by copying.
//!
//! A structure given to a hypercall may hold the address of another buffer (a "guest handle"). Such addresses come from
//! [`Buffer::addr`] and from nowhere else, and the buffer outlives the call: that is the one rule the callers in
//! [`crate::hypercalls`] keep by hand, since the ABI knows it only as a number.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use pv_abi::ids::{DomId, Mfn, PAGE_SIZE};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `IOCTL_PRIVCMD_HYPERCALL`: {op, five arguments}.
const IOCTL_HYPERCALL: Opcode = 0x305000;
/// `IOCTL_PRIVCMD_MMAPBATCH_V2`.
const IOCTL_MMAP_BATCH: Opcode = 0x205004;
/// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
const IOCTL_MMAP_RESOURCE: Opcode = 0x205007;

const PAGE: usize = PAGE_SIZE as usize;

/// Why the kernel did not let us in.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such device.
    #[error("{0} does not exist: this is no Xen control domain (dom0), or the module xen-privcmd is not loaded")]
    NotDom0(&'static str),
    /// Not root.
    #[error("{0} may be opened by root only: run this as root")]
    NotRoot(&'static str),
    /// Something else.
    #[error("{0} cannot be opened: {1}")]
    Other(&'static str, std::io::Error),
}

/// An ioctl of privcmd with its argument structure.
struct Request<T> {
    opcode: Opcode,
    argument: T,
}

// SAFETY: each of the three opcodes above is used with the structure the kernel's privcmd.h gives it, laid out as repr(C);
// the result is the plain return value.
unsafe impl<T> Ioctl for Request<T> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.argument).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

#[repr(C)]
struct HypercallArgument {
    op: u64,
    arg: [u64; 5],
}

#[repr(C)]
struct MmapBatch {
    num: u32,
    dom: u16,
    addr: u64,
    arr: *const u64,
    err: *mut i32,
}
const _: () = assert!(size_of::<MmapBatch>() == 32);

#[repr(C)]
struct MmapResource {
    dom: u16,
    kind: u32,
    id: u32,
    idx: u32,
    num: u64,
    addr: u64,
}
const _: () = assert!(size_of::<MmapResource>() == 32);

/// Both devices, opened.
#[derive(Debug)]
pub struct Privcmd {
    privcmd: OwnedFd,
    buffers: OwnedFd,
}

impl Privcmd {
    /// Opens the devices. Only root in a control domain can.
    pub fn open() -> Result<Self, OpenError> {
        Ok(Privcmd { privcmd: open("/dev/xen/privcmd")?, buffers: open("/dev/xen/hypercall")? })
    }

    /// Memory of at least `len` bytes that hypercalls can use, zeroed.
    pub fn buffer(&self, len: usize) -> Result<Buffer, Errno> {
        Ok(Buffer { pages: Mapping::new(&self.buffers, len.div_ceil(PAGE).max(1))? })
    }

    /// Makes a hypercall. Addresses among `args`, and in what they point to, are those of live [`Buffer`]s.
    pub fn hypercall(&self, number: usize, args: [u64; 5]) -> Result<i64, Errno> {
        let argument = HypercallArgument { op: number as u64, arg: args };
        // SAFETY: the kernel reads the argument. The hypervisor writes only where the addresses in it say: buffers, whose
        // memory nothing but raw copies ever touches.
        unsafe { ioctl::ioctl(&self.privcmd, Request { opcode: IOCTL_HYPERCALL, argument }) }.map(i64::from)
    }

    /// Maps frames of `domain`, all of them or none.
    pub fn map_foreign(&self, domain: DomId, frames: &[Mfn]) -> Result<Foreign, Errno> {
        let pages = Mapping::new(&self.privcmd, frames.len())?;
        let numbers: Vec<u64> = frames.iter().map(|mfn| mfn.0).collect();
        let mut errors = vec![0i32; frames.len()];
        let argument = MmapBatch {
            num: u32::try_from(frames.len()).map_err(|_| Errno::INVAL)?,
            dom: domain.0,
            addr: pages.addr(),
            arr: numbers.as_ptr(),
            err: errors.as_mut_ptr(),
        };
        // SAFETY: both arrays have `num` elements and outlive the call; `addr` is a fresh mapping of this very device with
        // `num` pages, which is what the kernel asks for.
        unsafe { ioctl::ioctl(&self.privcmd, Request { opcode: IOCTL_MMAP_BATCH, argument }) }?;
        match errors.iter().find(|&&e| e != 0) {
            Some(&error) => Err(Errno::from_raw_os_error(error.abs())),
            None => Ok(Foreign { pages }),
        }
    }

    /// Maps one page of a resource of `domain` (memory_op acquire_resource), such as frame `index` of its grant table.
    pub fn map_resource(&self, domain: DomId, kind: u16, id: u32, index: u32) -> Result<Foreign, Errno> {
        let pages = Mapping::new(&self.privcmd, 1)?;
        let argument = MmapResource { dom: domain.0, kind: kind.into(), id, idx: index, num: 1, addr: pages.addr() };
        // SAFETY: `addr` is a fresh mapping of this device with the one page asked for.
        unsafe { ioctl::ioctl(&self.privcmd, Request { opcode: IOCTL_MMAP_RESOURCE, argument }) }?;
        Ok(Foreign { pages })
    }
}

fn open(path: &'static str) -> Result<OwnedFd, OpenError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(file.into()),
        Err(e) => Err(match e.kind() {
            std::io::ErrorKind::NotFound => OpenError::NotDom0(path),
            std::io::ErrorKind::PermissionDenied => OpenError::NotRoot(path),
            _ => OpenError::Other(path, e),
        }),
    }
}

/// A mapping that goes when this goes.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// A shared, writable mapping of `pages` pages of a device.
    fn new(device: &OwnedFd, pages: usize) -> Result<Self, Errno> {
        let len = pages.checked_mul(PAGE).filter(|&len| len > 0).ok_or(Errno::INVAL)?;
        // SAFETY: the kernel chooses the address, so nothing that is mapped already is touched.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, device, 0)?
        };
        // Its address leaves Rust's sight: the hypervisor will write through it.
        let _ = start.expose_provenance();
        Ok(Mapping { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len })
    }

    fn addr(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// Is `len` bytes at `offset` inside?
    ///
    /// # Panics
    /// If not: an offset is our own arithmetic, never a guest's.
    fn check(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside of the mapping");
    }

    fn write(&self, offset: usize, data: &[u8]) {
        self.check(offset, data.len());
        // SAFETY: inside the mapping (checked); no Rust reference into it exists, so `data` lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.start.as_ptr().add(offset), data.len()) }
    }

    fn zero(&self, offset: usize, len: usize) {
        self.check(offset, len);
        // SAFETY: inside the mapping (checked), and no Rust reference into it exists.
        unsafe { std::ptr::write_bytes(self.start.as_ptr().add(offset), 0, len) }
    }

    fn read(&self, offset: usize, data: &mut [u8]) {
        self.check(offset, data.len());
        // SAFETY: inside the mapping (checked); no Rust reference into it exists, so `data` lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), data.as_mut_ptr(), data.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length, and no reference into it exists.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}

/// Memory for a hypercall's structures and arrays.
#[derive(Debug)]
pub struct Buffer {
    pages: Mapping,
}

impl Buffer {
    /// Its address, as hypercalls are told it.
    pub fn addr(&self) -> u64 {
        self.pages.addr()
    }

    /// Copies a value in.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) {
        self.pages.write(0, value.as_bytes());
    }

    /// Copies a value out.
    pub fn get<T: FromBytes + IntoBytes>(&self) -> T {
        let mut value = T::new_zeroed();
        self.pages.read(0, value.as_mut_bytes());
        value
    }

    /// Copies `count` values out.
    pub fn get_slice<T: FromBytes + IntoBytes + Clone>(&self, count: usize) -> Vec<T> {
        let mut values = vec![T::new_zeroed(); count];
        self.pages.read(0, values.as_mut_slice().as_mut_bytes());
        values
    }
}

/// Pages of another domain.
#[derive(Debug)]
pub struct Foreign {
    pages: Mapping,
}

impl Foreign {
    /// Copies bytes to `offset`, counted from the first page.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.pages.write(offset, data);
    }

    /// Zeroes `len` bytes at `offset`.
    pub fn zero(&mut self, offset: usize, len: usize) {
        self.pages.zero(offset, len);
    }
}
