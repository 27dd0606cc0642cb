//! What tells whether the files of a model were changed.

use std::{path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{CONFIG_FILE, Checkpoint};
use crate::{Error, index::INDEX_FILE};

/// A file as it was when somebody looked: enough to notice that it was written to since, without
/// reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct FileIdentity {
    /// Name in the model directory.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Time of the last change, in nanoseconds since 1970; 0 where the system does not tell.
    pub modified: u64,
}

impl Checkpoint {
    /// Sizes and times of `config.json`, the index and every shard, in this order.
    ///
    /// # Errors
    /// If a file is gone.
    pub fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        let index = (!self.is_single_file()).then_some(INDEX_FILE);
        let names = [CONFIG_FILE].into_iter().chain(index).chain(self.shard_files());
        names.map(|name| identity(self.dir(), name)).collect()
    }
}

fn identity(dir: &Path, name: &str) -> Result<FileIdentity, Error> {
    let path = dir.join(name);
    let metadata = path.metadata().map_err(Error::io("inspect", &path))?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(FileIdentity {
        name: name.to_owned(),
        bytes: metadata.len(),
        modified: modified.map_or(0, |time| time.as_nanos() as u64),
    })
}
