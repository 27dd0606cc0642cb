//! Which join the files of a part are moved by.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use moeprune_checkpoint::{DividedFiles, DividedPart};
use moeprune_files::write_and_rename;
use serde::{Deserialize, Serialize};

use crate::{Error, Run};

/// There as soon as files of a part may have been moved to where it is joined.
pub(super) const JOINING_FILE: &str = ".moeprune-joining";

/// What that file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joining {
    /// The place of the whole.
    out: PathBuf,
    /// Where it grows.
    folder: PathBuf,
}

impl Joining {
    /// To the place that a run has claimed.
    pub(super) fn to(run: &Run<'_>) -> Self {
        let plain = |path: &Path| PathBuf::from(path.to_string_lossy().into_owned());
        Self { out: plain(run.output.place()), folder: plain(run.folder()) }
    }

    /// What a part says; `None` if it says nothing that can be read.
    pub(super) fn of(part: &Path) -> Result<Option<Self>, Error> {
        let path = part.join(JOINING_FILE);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, "read", e)),
        }
    }

    /// Writes it into the folder of a part.
    pub(super) fn mark(&self, part: &Path) -> Result<(), Error> {
        let path = part.join(JOINING_FILE);
        let text = serde_json::to_vec(self)
            .map_err(|e| Error::Parts(format!("{}: {e}", path.display())))?;
        let unnamed = part.join(format!("{JOINING_FILE}.new"));
        Ok(write_and_rename(&unnamed, &path, |file| file.write_all(&text))?)
    }

    /// Refuses a part that another join has begun with, as long as that one can be continued.
    pub(super) fn check_not_elsewhere(&self, part: &Path) -> Result<(), Error> {
        let Some(begun) = Self::of(part)? else { return Ok(()) };
        if begun == *self || !begun.folder.exists() {
            return Ok(());
        }
        let problem = format!(
            "is being joined to {}: files of it may be in {}; continue that with the same `moeprune join`",
            begun.out.display(),
            begun.folder.display()
        );
        Err(Error::part(part, problem))
    }

    /// Whether a part is whole if what the join has moved counts.
    pub(super) fn has_all_of(&self, files: &DividedFiles, part: DividedPart<'_>) -> bool {
        [&self.folder, &self.out].into_iter().any(|to| files.check(part, Some(to)).is_ok())
    }
}
