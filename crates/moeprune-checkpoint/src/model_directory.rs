//! The files of a model, and what to call them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moeprune_files::{Files, LocalFiles, Reading};

use crate::{Error, container::files_of_model};

/// The files of a model.
#[derive(Debug, Clone)]
pub(crate) struct ModelDirectory {
    /// What messages call it: a directory as the user wrote it.
    pub(crate) path: PathBuf,
    files: Arc<dyn Files>,
    /// Whether all bytes of its files are hashed to know them again.
    pub(crate) whole_hashes: bool,
}

impl ModelDirectory {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        Self { path: files.place().to_owned(), files, whole_hashes: false }
    }

    /// Opens a directory of this machine, or a file with those that belong to it.
    pub(crate) fn open(path: &Path, reading: Reading) -> Result<Self, Error> {
        if let Some(files) = files_of_model(path, reading)? {
            return Ok(Self { path: path.to_owned(), ..Self::new(Arc::new(files)) });
        }
        let opened = LocalFiles::open(path, reading).map_err(|error| match error {
            moeprune_files::Error::Io { source, .. } => {
                Error::io("open the model directory", path)(source)
            }
            _ => {
                let reason = "is not a directory; expected one with config.json and *.safetensors, or a .gguf file";
                Error::Weights { dir: path.to_owned(), reason: reason.to_owned() }
            }
        });
        Ok(Self::new(Arc::new(opened?)))
    }

    pub(crate) fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// A file's first bytes, up to `most`, if there is anything of that name.
    pub(crate) fn read(&self, name: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        self.files.read(name, most).map_err(Error::in_files(self.files()))
    }
}
