//! A file of text.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    detect::{ReadOptions, detect},
    error::Error,
    format::Format,
    records::Records,
};

/// A file of text whose format is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    path: PathBuf,
    format: Format,
}

impl TextFile {
    /// Opens a file and finds out what it is from its content, under any name. Reads its beginning only.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, is no regular file (it is read more than once), or holds something else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// Opens a file that is read as `options` say.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl Into<PathBuf>, options: &ReadOptions) -> Result<Self, Error> {
        let path = path.into();
        let metadata =
            path.metadata().map_err(|source| Error::Read { path: path.clone(), source })?;
        if !metadata.is_file() {
            return Err(Error::UnknownFormat {
                path,
                got: "a pipe, a device or a folder".to_owned(),
                remedy: "the text is read more than once; write it to a file first".to_owned(),
            });
        }
        let format = detect(&path, options)?;
        Ok(Self { path, format })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Its records from the first on.
    ///
    /// # Errors
    /// If the file cannot be opened. What is wrong with a record is the iterator's to say.
    pub fn records(&self) -> Result<Records<'_>, Error> {
        Records::open(&self.path, &self.format)
    }

    /// SHA-256 in hexadecimal of the bytes on disk, packed if they are. Reads the whole file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sha256(&self) -> Result<String, Error> {
        let read = || -> io::Result<_> {
            let mut hash = Sha256::new();
            io::copy(&mut File::open(&self.path)?, &mut hash)?;
            Ok(hash.finalize())
        };
        let hash = read().map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(format!("{hash:x}"))
    }
}
