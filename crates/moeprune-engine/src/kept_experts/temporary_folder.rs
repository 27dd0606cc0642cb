//! A folder for the repaired parts of a model that is written nowhere.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use tempfile::TempDir;

use crate::Error;

/// What the names of such folders begin with.
const PREFIX: &str = "moeprune-repair-";

/// The file that a living process holds locked.
const LOCK: &str = "lock";

/// A folder that goes when it is dropped. One that a killed process left behind is removed when the next one is
/// made in the same place: its lock went with the process.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    // Closed before the folder goes.
    _lock: Option<File>,
    folder: TempDir,
}

impl TemporaryFolder {
    /// Makes one, and removes those in `parent` whose processes are gone.
    pub(crate) fn new_in(parent: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io(parent, "make a folder in", error);
        for entry in fs::read_dir(parent).map_err(failed)?.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_if_left(&entry.path());
            }
        }
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?;
        // Where files cannot be locked, the folder has no lock, and no other process removes it.
        let lock = lock(folder.path()).ok();
        Ok(Self { _lock: lock, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Makes the lock of a folder. It has its name only when it is locked, so that it is never found unlocked while
/// the process lives.
fn lock(folder: &Path) -> io::Result<File> {
    let unlocked = folder.join("unlocked");
    let file = File::create_new(&unlocked)?;
    file.try_lock()?;
    fs::rename(unlocked, folder.join(LOCK))?;
    Ok(file)
}

/// Removes a folder whose lock no process holds. What cannot be removed, of another user for example, stays.
fn remove_if_left(folder: &Path) {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return };
    if lock.try_lock().is_ok() {
        drop(lock);
        let _ = fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn folders_of_processes_that_are_gone_are_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path();
        let live = TemporaryFolder::new_in(parent).unwrap();
        let TemporaryFolder { _lock: lock, folder } = TemporaryFolder::new_in(parent).unwrap();
        fs::write(folder.path().join("repaired-0001"), "weights").unwrap();
        // As a process leaves it that is killed: the lock goes, the folder stays.
        let left = folder.keep();
        drop(lock);
        // Not of this program, or not locked yet.
        for other in ["moeprune-repair-unlocked", "other"] {
            fs::create_dir(parent.join(other)).unwrap();
        }
        fs::write(parent.join("other").join(LOCK), "").unwrap();
        fs::write(parent.join("moeprune-repair-file"), "").unwrap();
        let next = TemporaryFolder::new_in(parent).unwrap();
        assert!(!left.exists() && live.path().exists() && next.path().exists());
        assert_eq!(names(parent), 5);
        drop((live, next));
        assert_eq!(names(parent), 3);
    }

    #[test]
    fn a_place_that_is_missing_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing");
        let error = TemporaryFolder::new_in(&missing).unwrap_err().to_string();
        assert!(error.contains("make a folder in") && error.contains("missing"), "{error}");
    }
}
