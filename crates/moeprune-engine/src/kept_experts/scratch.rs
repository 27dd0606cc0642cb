//! Numbers in a file of a run's state, at known places.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::Error;

/// A file that is written and read at any place, by several threads one after the other.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    file: Mutex<File>,
}

impl Scratch {
    /// An empty file; one that is there is of a run that died.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Self::open_with(path, &options)
    }

    /// A file that is there.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, OpenOptions::new().read(true))
    }

    fn open_with(path: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let file = options.open(path).map_err(|e| Error::io(path, "open", e))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Writes bytes from byte `at` on.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(bytes))
            .map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Reads bytes from byte `at` on.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|e| Error::io(&self.path, "read", e))
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        moeprune_files::sync_file(&file).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Removes the file.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let Self { path, file } = self;
        drop(file);
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))
    }
}
