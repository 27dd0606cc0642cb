//! What tells that the files of a checkpoint changed.

use std::{fs, path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{CONFIG_FILE, Checkpoint};
use crate::{Error, index::INDEX_FILE};

/// A file as it can be told from others without being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored and compared by the caller")]
pub struct FileIdentity {
    /// Name in the model directory.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was changed last, in nanoseconds since the beginning of 1970.
    pub modified: i64,
}

impl Checkpoint {
    /// What identifies the files of this checkpoint at this moment: `config.json`, the index if
    /// there is one, and the weight files in the order of their names.
    ///
    /// Files that are equal to earlier ones in all of this are taken to be the same. A file that
    /// was replaced by one of the same length and time does not show.
    ///
    /// # Errors
    /// If a file is not there any more.
    pub fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        let index = (!self.is_single_file()).then_some(INDEX_FILE);
        let names = [CONFIG_FILE].into_iter().chain(index).chain(self.shard_files());
        names.map(|name| identity(&self.dir().join(name), name)).collect()
    }
}

fn identity(path: &Path, name: &str) -> Result<FileIdentity, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("inspect", path))?;
    let time = metadata.modified().map_err(Error::io("inspect", path))?;
    let modified = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(e) => i64::try_from(e.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    };
    Ok(FileIdentity { name: name.to_owned(), bytes: metadata.len(), modified })
}
