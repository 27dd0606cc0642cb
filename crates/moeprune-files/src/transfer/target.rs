//! The file that is written.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{block::PAGE, way::Means};
use crate::positioned::write_at;

/// The file that is written, and another descriptor of it that goes past the system's cache.
///
/// That is a descriptor of its own, since whether to go past the cache is said of a descriptor and not of a
/// write, and several threads write at a time.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) file: &'a File,
    direct: Option<File>,
    /// Whether the system did not take a write past the cache.
    refused: AtomicBool,
}

impl<'a> Target<'a> {
    pub(super) fn new(file: &'a File, means: Means) -> Self {
        let direct = (means == Means::Direct).then(|| opened_direct(file)).flatten();
        let refused = AtomicBool::new(means == Means::Direct && direct.is_none());
        Self { file, direct, refused }
    }

    /// Whether the system does not do what was wanted of it.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Reserves room for bytes that are written past the cache.
    ///
    /// ext4 writes one block after the other where it has to find room for each, and several at a time into room that
    /// it has. What fails here fails again where it is written.
    pub(super) fn reserve(&self, extents: &[Range<u64>]) {
        if self.direct.is_none() {
            return;
        }
        for extent in extents.iter().filter(|e| e.end - e.start >= 2 * PAGE as u64) {
            if !reserve(self.file, extent) {
                return;
            }
        }
    }

    /// Writes bytes that are in memory as [`Block::at`](super::block::Block::at) places them.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let Some(direct) = self.direct.as_ref().filter(|_| !self.is_refused()) else {
            return write_at(self.file, bytes, at);
        };
        let head = (at.next_multiple_of(PAGE as u64) - at) as usize;
        let (head, rest) = bytes.split_at(head.min(bytes.len()));
        let (pages, tail) = rest.split_at(rest.len() / PAGE * PAGE);
        let pages_at = at + head.len() as u64;
        write_at(self.file, head, at)?;
        if !pages.is_empty() {
            match write_at(direct, pages, pages_at) {
                Err(e) if is_refused(&e) => {
                    self.refuse();
                    write_at(self.file, pages, pages_at)?;
                }
                done_or_failed => done_or_failed?,
            }
        }
        write_at(self.file, tail, pages_at + pages.len() as u64)
    }
}

/// Whether a file system cannot write past the cache, which some say when they are written to.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Whether the file system of a file has an operation for copies within it, so that it may share blocks, or copy
/// where the disks are.
#[cfg(target_os = "linux")]
pub(super) fn file_system_copies(file: &File) -> bool {
    /// ext2, ext3 and ext4; tmpfs.
    const WITHOUT: [u64; 2] = [0xef53, 0x0102_1994];
    rustix::fs::fstatfs(file).is_ok_and(|system| !WITHOUT.contains(&(system.f_type as u64)))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn file_system_copies(_file: &File) -> bool {
    false
}

/// The same file, open for reading or writing as it is, with a position, a read-ahead and flags of its own.
#[cfg(target_os = "linux")]
fn reopened(file: &File, flags: rustix::fs::OFlags) -> Option<File> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{Mode, OFlags, fcntl_getfl, open};
    // Opening what is no file may act on it, or wait.
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let access = fcntl_getfl(file).ok()? & OFlags::RWMODE;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(path, access | flags | OFlags::CLOEXEC, Mode::empty()).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn opened_direct(file: &File) -> Option<File> {
    reopened(file, rustix::fs::OFlags::DIRECT)
}

#[cfg(not(target_os = "linux"))]
fn opened_direct(_file: &File) -> Option<File> {
    None
}

/// Another descriptor of a file that is read: the system reads ahead by descriptor.
#[cfg(target_os = "linux")]
pub(super) fn opened_again(file: &File) -> Option<File> {
    reopened(file, rustix::fs::OFlags::empty())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn opened_again(_file: &File) -> Option<File> {
    None
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, extent: &Range<u64>) -> bool {
    use rustix::fs::{FallocateFlags, fallocate};
    fallocate(file, FallocateFlags::KEEP_SIZE, extent.start, extent.end - extent.start).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _extent: &Range<u64>) -> bool {
    false
}

/// How many bytes were copied within the system, at least one; `None` if these files must be read and written, or
/// the first has ended.
#[cfg(target_os = "linux")]
pub(super) fn copy_within_system(
    (from, mut from_at): (&File, u64),
    (to, mut to_at): (&File, u64),
    bytes: u64,
) -> io::Result<Option<u64>> {
    use rustix::io::Errno;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let copied = rustix::io::retry_on_intr(|| {
        rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), bytes)
    });
    match copied {
        Ok(0) => Ok(None),
        Ok(copied) => Ok(Some(copied as u64)),
        Err(
            Errno::XDEV
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::BADF
            | Errno::PERM
            | Errno::ACCESS
            | Errno::TXTBSY
            | Errno::OVERFLOW,
        ) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn copy_within_system(
    _from: (&File, u64),
    _to: (&File, u64),
    _bytes: u64,
) -> io::Result<Option<u64>> {
    Ok(None)
}
