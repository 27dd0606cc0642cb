//! An imatrix file.

use std::{io, path::Path};

use moeprune_files::{Access, LocalFiles, ReadAt};
use moeprune_gguf::imatrix::Imatrix;
use sha2::{Digest, Sha256};

use super::ImatrixFile;
use crate::Error;

/// Bytes that are hashed at once.
const CHUNK: u64 = 1 << 20;

impl ImatrixFile {
    /// Reads an imatrix of either form. It is called as its file is, without the folder.
    ///
    /// # Errors
    /// If the file cannot be read or is no imatrix.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unread = |source| Error::io(path, "read", source);
        // The name that a link has is kept; what it leads to is read.
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let file = LocalFiles::open_file(path, Access::Read)?;
        let imatrix = Imatrix::read(&*file)
            .map_err(|source| Error::ReadImatrix { file: path.display().to_string(), source })?;
        Ok(Self { name, sha256: sha256(&*file).map_err(unread)?, imatrix })
    }
}

fn sha256(file: &dyn ReadAt) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < file.len() {
        let end = file.len().min(at + CHUNK);
        hash.update(&*file.read_at(at..end)?);
        at = end;
    }
    Ok(format!("{:x}", hash.finalize()))
}
