//! Names that never stand for half a file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::Path,
};

use tempfile::NamedTempFile;

use crate::{Error, durable::sync_file};

/// Writes a file that appears under its name only when it is whole and durable. A file that has
/// that name is replaced; the caller decides whether it may be.
///
/// Until then it is in the same folder under a new hidden name, and is removed if
/// something fails.
///
/// # Errors
/// If it cannot be written, or has no name.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    if path.file_name().is_none() {
        return Err(Error::io("write", path)(ErrorKind::InvalidFilename.into()));
    }
    let unfinished = unfinished_beside(path)?;
    fill(unfinished.as_file(), path, write)?;
    unfinished.persist(path).map_err(|e| Error::io("rename to", path)(e.error))?;
    sync_names(folder_of(path));
    Ok(())
}

/// As [`write_whole`], under a given name first, and with the names in the folder left for the
/// caller to make durable. What has that first name is overwritten.
///
/// # Errors
/// If it cannot be written.
pub fn write_and_rename(
    unnamed: &Path,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let unfinished = Unfinished(unnamed);
    write_durably(unnamed, write)?;
    fs::rename(unnamed, path).map_err(Error::io("rename to", path))?;
    std::mem::forget(unfinished);
    Ok(())
}

/// Removes the file when dropped.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Whether it is there or not, it is of no use any more.
        let _ = fs::remove_file(self.0);
    }
}

/// Writes a file and waits until it is durable.
fn write_durably(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    fill(&File::create(path).map_err(Error::io("create", path))?, path, write)
}

/// Writes into an empty file and waits until it is durable. `path` is what errors name.
pub(crate) fn fill(
    file: &File,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    write(&mut file).map_err(Error::io("write", path))?;
    let file = file.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?;
    sync_file(file).map_err(Error::io("write to disk", path))
}

/// Gives a file or directory a name that nothing has; fails with [`ErrorKind::AlreadyExists`] if
/// something does.
///
/// # Errors
/// If it cannot be renamed.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
            renamed => return Ok(renamed?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Makes the names in a folder durable. Not every system can open a folder; the files themselves
/// are durable already.
pub(crate) fn sync_names(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The folder that a path names a file in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A new file in the folder of `path`, under a hidden name that nothing had: a name that can be guessed could be
/// taken by another process, or by a link. Removed when dropped.
pub(crate) fn unfinished_beside(path: &Path) -> Result<NamedTempFile, Error> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".moeprune-").suffix(".unfinished");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any file that is created: the process's mask takes away from it.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(Error::io("create a file in", folder))
}
