//! What tells that the files of a checkpoint changed.

use std::path::Path;

use moeprune_files::FileIdentity;

use super::{CONFIG_FILE, Checkpoint};
use crate::Error;

impl Checkpoint {
    /// What identifies the files of this checkpoint at this moment: `config.json` and the index, if
    /// there are such, and the weight files in the order of their names.
    ///
    /// Files that are equal to earlier ones in all of this are taken to be the same. A file that
    /// was replaced by one of the same length and time does not show.
    ///
    /// # Errors
    /// If a file is not there any more.
    pub fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        let config = (!self.describes_itself()).then_some(CONFIG_FILE);
        let names = config.into_iter().chain(self.index_file()).chain(self.shard_files());
        let files = self.files();
        names.map(|name| files.identity(Path::new(name)).map_err(Error::in_files(files))).collect()
    }
}
