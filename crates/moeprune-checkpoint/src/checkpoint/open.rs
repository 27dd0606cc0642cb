//! Ways to open a checkpoint.

use std::{path::Path, sync::Arc};

use moeprune_files::{Access, Files, Reading};

use super::Checkpoint;
use crate::{Error, Family, model_directory::ModelDirectory};

impl Checkpoint {
    /// Opens a model of a built-in family, which the `model_type` of its config names.
    ///
    /// # Errors
    /// If a file is missing, damaged or contradicts another; the message names it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, None)
    }

    /// Opens a model as one of the given family, or as [`open`](Self::open) does.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(dir: &Path, family: Option<Family>) -> Result<Self, Error> {
        Self::open_by(dir, family, Access::default())
    }

    /// As [`open_with`](Self::open_with), with a choice of how weights are read: an [`Access`], or a
    /// [`Reading`], which also says whether links are followed out of the directory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(
        dir: &Path,
        family: Option<Family>,
        reading: impl Into<Reading>,
    ) -> Result<Self, Error> {
        Self::of_directory(ModelDirectory::open(dir, reading.into())?, family)
    }

    /// As [`open_with`](Self::open_with), of files that are anywhere: in memory, or elsewhere.
    ///
    /// ```
    /// use std::{path::Path, sync::Arc};
    ///
    /// use moeprune_checkpoint::Checkpoint;
    /// use moeprune_files::{Access, LocalFiles, MemoryFiles};
    ///
    /// # let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    /// let directory = LocalFiles::open(&repository.join("assets/parity/mixtral"), Access::Read)?;
    /// let in_memory = MemoryFiles::copy_of(&directory)?;
    /// let checkpoint = Checkpoint::open_files(Arc::new(in_memory), None)?;
    /// assert_eq!(checkpoint.spec().family, "mixtral");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_files(files: Arc<dyn Files>, family: Option<Family>) -> Result<Self, Error> {
        Self::of_directory(ModelDirectory::new(files), family)
    }
}
