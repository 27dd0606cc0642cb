//! Files that survive a crash.

use std::{
    fs::{self, File},
    path::Path,
};

use crate::Error;

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
///
/// # Errors
/// If the system fails to, as on a full disk.
pub fn sync(path: &Path) -> Result<(), Error> {
    if cfg!(windows) && path.is_dir() {
        return Ok(()); // directories cannot be opened there
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("write to disk", path))
}
