//! Loop devices: a raw file as a block device.
//!
//! A loop device made here is cleared by the kernel when nobody has it open any more (autoclear). So it lives as long as the
//! [`Loop`] or the back end that has opened it meanwhile, and it goes away by itself, however the domain ends.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};

/// `LOOP_CTL_GET_FREE` (linux/loop.h): tells the number of a free device.
const IOCTL_GET_FREE: Opcode = 0x4c82;
/// `LOOP_CONFIGURE`: file and settings in one go.
const IOCTL_CONFIGURE: Opcode = 0x4c0a;
const FLAG_READ_ONLY: u32 = 1;
const FLAG_AUTOCLEAR: u32 = 4;
/// Somebody else may take the free device before us.
const TRIES: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: Name,
    crypt_name: Name,
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<Info>() == 232);

/// A name of the file, for people; cut to its length.
#[repr(C)]
struct Name([u8; 64]);

impl Default for Name {
    fn default() -> Self {
        Name([0; 64])
    }
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Default)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<Config>() == 304);

/// An ioctl of the loop driver, with the structure it reads or without one.
struct Request<'a> {
    opcode: Opcode,
    config: Option<&'a mut Config>,
}

// SAFETY: GET_FREE takes no argument and is used without one; CONFIGURE reads a `struct loop_config`, which `Config` is laid
// out as. Both tell their result as the plain return value.
unsafe impl Ioctl for Request<'_> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.config.as_mut().map_or(std::ptr::null_mut(), |config| (&raw mut **config).cast())
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

fn request(device: &File, opcode: Opcode, config: Option<&mut Config>) -> Result<i32, Errno> {
    // SAFETY: see the implementation of `Ioctl`; the structure outlives the call.
    unsafe { ioctl::ioctl(device, Request { opcode, config }) }
}

/// A loop device, kept open.
#[derive(Debug)]
pub struct Loop {
    /// Its path, such as `/dev/loop0`.
    pub path: PathBuf,
    _device: File,
}

impl Loop {
    /// Makes one of an open file. `path` is the file's, for those who list loop devices.
    pub fn attach(file: &File, path: &Path, writable: bool) -> std::io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut config = Config { fd: file.as_raw_fd() as u32, ..Config::default() };
        config.info.flags = FLAG_AUTOCLEAR | if writable { 0 } else { FLAG_READ_ONLY };
        // All but the last byte, which stays NUL.
        for (to, from) in config.info.file_name.0.iter_mut().take(63).zip(path.as_os_str().as_bytes()) {
            *to = *from;
        }
        for _ in 0..TRIES {
            let number = request(&control, IOCTL_GET_FREE, None)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(writable).open(&path)?;
            match request(&device, IOCTL_CONFIGURE, Some(&mut config)) {
                Ok(_) => {
                    return Ok(Loop { path, _device: device });
                }
                Err(Errno::BUSY) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Errno::BUSY.into())
    }
}

/// The loop device that has a file, if one has.
pub fn of_file(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let backing = std::fs::read(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.strip_suffix(b"\n").unwrap_or(&backing) == path.as_os_str().as_bytes() {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}
