//! Bytes that leave the system's cache for the disk.

use std::{fs::File, io, ops::Range};

/// Has the system begin to write bytes of its cache to the disk, and does not wait for that: a disk that is idle until
/// many have gathered loses that time.
#[cfg(target_os = "linux")]
pub(super) fn begin(file: &File, bytes: &Range<u64>) {
    // What fails here fails again where it is waited for.
    let _ = sync_range(file, bytes, libc::SYNC_FILE_RANGE_WRITE);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn begin(_file: &File, _bytes: &Range<u64>) {}

/// Waits until bytes are written. The disk may still hold them in a cache of its own, and what says where they are may not be
/// written: only a sync makes them durable.
///
/// # Errors
/// If the system could not write them.
#[cfg(target_os = "linux")]
pub(super) fn wait(file: &File, extents: &[Range<u64>]) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    for extent in extents {
        match sync_range(file, extent, flags) {
            Err(e) if is_missing(&e) => return crate::durable::sync_bytes(file),
            done_or_failed => done_or_failed?,
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn wait(file: &File, _extents: &[Range<u64>]) -> io::Result<()> {
    crate::durable::sync_bytes(file)
}

/// Whether a system or a file system has no such operation.
#[cfg(target_os = "linux")]
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP | libc::EPERM)
    )
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate has this call in a safe form")]
fn sync_range(file: &File, bytes: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let past_any_file = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let at = i64::try_from(bytes.start).map_err(past_any_file)?;
    let count = i64::try_from(bytes.end - bytes.start).map_err(past_any_file)?;
    // SAFETY: a system call on a descriptor that is open as long as `file` lives; it takes no pointer.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), at, count, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the system forget bytes of a file that are written.
#[cfg(target_os = "linux")]
pub(super) fn forget(file: &File, extents: &[Range<u64>]) {
    use std::num::NonZeroU64;

    use rustix::fs::{Advice, fadvise};
    for extent in extents {
        let bytes = NonZeroU64::new(extent.end - extent.start);
        // Advice: nothing depends on it.
        let _ = fadvise(file, extent.start, bytes, Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn forget(_file: &File, _extents: &[Range<u64>]) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_waited_for_is_an_error() {
        let (pipe, _write_end) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
        let refused = sync_range(&pipe, &(0..1), libc::SYNC_FILE_RANGE_WRITE).unwrap_err();
        assert!(is_missing(&refused), "{refused}");
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"some").unwrap();
        begin(&file, &(0..4));
        wait(&file, &[0..2, 2..4]).unwrap();
        assert!(sync_range(&file, &(0..u64::MAX), 0).is_err());
    }
}
