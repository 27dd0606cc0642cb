//! One weight file of a checkpoint, open for reading.

use std::{
    borrow::Cow,
    fs::File,
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
};

use moeprune_files::{Files, ReadAt};

use crate::Error;

/// An open weight file.
#[derive(Debug)]
pub struct WeightFile {
    name: String,
    path: PathBuf,
    data_start: u64,
    bytes: Box<dyn ReadAt>,
}

impl WeightFile {
    /// Opens a file; `None` if nothing has that name.
    ///
    /// # Errors
    /// If it is no regular file, leads out of the model, or cannot be opened.
    pub fn open(files: &dyn Files, name: &str) -> Result<Option<Self>, Error> {
        let Some(bytes) = files.open(Path::new(name)).map_err(Error::in_files(files))? else {
            return Ok(None);
        };
        let path = files.path_of(Path::new(name));
        Ok(Some(Self { name: name.to_owned(), path, data_start: 0, bytes }))
    }

    /// The file with its header known to end where the data begins.
    #[must_use]
    pub fn with_data_at(self, data_start: u64) -> Self {
        Self { data_start, ..self }
    }

    /// Its name among the files of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to call it in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "its emptiness interests no caller")]
    pub fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Bytes behind the header.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.len().saturating_sub(self.data_start)
    }

    /// Bytes of a range of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        self.bytes.read_at(range).map_err(Error::io("read", &self.path))
    }

    /// Fills `bytes` with those of the file from `at` on.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_into(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.bytes.read_into(at, bytes).map_err(Error::io("read", &self.path))
    }

    /// The file of this machine that it is, for reading at given places; `None` if it is elsewhere.
    pub(crate) fn local(&self) -> Result<Option<File>, Error> {
        self.bytes.local().map_err(|e| match e.kind() {
            ErrorKind::Other => Error::Shard { path: self.path.clone(), reason: e.to_string() },
            _ => Error::io("open", &self.path)(e),
        })
    }
}
