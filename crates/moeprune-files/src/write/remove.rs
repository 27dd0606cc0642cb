//! Removing what an output grew in.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use crate::Error;

/// Deletes a file or a folder that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let is_dir = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(ignore_missing).map_err(Error::io("remove", path))
}

fn ignore_missing(e: io::Error) -> io::Result<()> {
    if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) }
}
