//! Files that survive a crash, and names that never stand for half a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use crate::Error;

/// Writes a file under one name and gives it its own when it is complete and durable, replacing
/// what bears that.
pub(super) fn write_and_rename(bytes: &[u8], unnamed: &Path, path: &Path) -> Result<(), Error> {
    let mut file = File::create(unnamed).map_err(Error::io("create", unnamed))?;
    file.write_all(bytes).map_err(Error::io("write", unnamed))?;
    file.sync_all().map_err(Error::io("write to disk", unnamed))?;
    fs::rename(unnamed, path).map_err(Error::io("rename to", path))
}

/// Makes a file, or a directory with all that is in it, durable.
pub(super) fn sync_tree(path: &Path) -> Result<(), Error> {
    let kind = path.symlink_metadata().map_err(Error::io("inspect", path))?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
            sync_tree(&entry.map_err(Error::io("list", path))?.path())?;
        }
    }
    if kind.is_dir() || kind.is_file() { sync(path) } else { Ok(()) }
}

/// Makes the bytes of a file durable, or the names in a directory.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    if cfg!(windows) && path.is_dir() {
        return Ok(()); // directories cannot be opened there
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("write to disk", path))
}

/// Gives a file or directory a name that nothing has; fails with [`io::ErrorKind::AlreadyExists`]
/// if something does.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
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
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}
