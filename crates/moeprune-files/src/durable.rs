//! Files that survive a crash.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

use crate::Error;

/// Makes a file, or a directory with all that is in it, durable.
pub(crate) fn sync_tree(path: &Path) -> Result<(), Error> {
    let kind = path.symlink_metadata().map_err(Error::io("inspect", path))?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
            sync_tree(&entry.map_err(Error::io("list", path))?.path())?;
        }
    }
    if kind.is_dir() || kind.is_file() { sync(path) } else { Ok(()) }
}

/// Makes the bytes of a file durable, or the names in a directory, where the file system can.
///
/// # Errors
/// If the system fails to, as on a full disk.
pub fn sync(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return sync_folder(path);
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    sync_file(&file).map_err(Error::io("write to disk", path))
}

/// Not every system can open a folder, and not every file system can make one durable; the files
/// themselves are durable already.
fn sync_folder(path: &Path) -> Result<(), Error> {
    let Ok(folder) = File::open(path) else { return Ok(()) };
    let synced = folder.sync_all();
    // CIFS and others say that what is open cannot be written.
    let passed = synced.or_else(|e| match is_bad_descriptor(&e) {
        true => Ok(()),
        false => unless_unsupported(e),
    });
    passed.map_err(Error::io("write to disk", path))
}

/// Makes the bytes and the length of an open file durable, where its file system can: some in user space
/// (FUSE) refuse, and then nothing better can be had.
///
/// # Errors
/// If the system fails to, as on a full disk.
pub fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all().or_else(unless_unsupported)
}

/// As [`sync_file`], without what is not needed to read the bytes again.
///
/// # Errors
/// As [`sync_file`].
pub fn sync_bytes(file: &File) -> io::Result<()> {
    file.sync_data().or_else(unless_unsupported)
}

/// Passes what says that there is no such operation.
fn unless_unsupported(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    }
}

#[cfg(unix)]
fn is_bad_descriptor(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error())
}

#[cfg(not(unix))]
fn is_bad_descriptor(_error: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_durable_and_what_fails() {
        let check = |kind: ErrorKind, passes: bool| {
            assert_eq!(unless_unsupported(kind.into()).is_ok(), passes, "{kind:?}");
        };
        check(ErrorKind::InvalidInput, true);
        check(ErrorKind::Unsupported, true);
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
            check(kind, false);
        }
    }
}
