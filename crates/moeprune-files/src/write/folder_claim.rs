//! A folder that is complete and in use.

use std::path::{Path, PathBuf};

use super::claim::{Claim, remove_work};
use crate::Error;

/// In the folder, as long as a process works with it.
const IN_USE: &str = ".moeprune-in-use";

/// A complete folder that no other process claims while this lives. Where files cannot be locked, a lock file says
/// which process it is, as for a [`PartialOutput`](super::PartialOutput).
#[derive(Debug)]
pub struct FolderClaim {
    /// A folder in it.
    work: PathBuf,
    claim: Option<Claim>,
}

impl FolderClaim {
    /// Claims a folder. What a process left that was killed is taken over.
    ///
    /// # Errors
    /// If another process has it, naming that, or it cannot be written to.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let work = folder.join(IN_USE);
        let claim = Some(Claim::make(&work)?);
        Ok(Self { work, claim })
    }
}

impl Drop for FolderClaim {
    fn drop(&mut self) {
        // What stays behind is taken over by the next claim.
        drop(remove_work(&self.work, self.claim.take()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderClaim::take(folder.path()).unwrap();
        let error = FolderClaim::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another moeprune process"), "{error}");
        drop(first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(FolderClaim::take(folder.path()).unwrap());
    }
}
