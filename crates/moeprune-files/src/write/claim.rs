//! One process at a time in the hidden folder that an output grows in.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

use super::{
    lock::{Attempt, LockFile},
    names::{CONTENT, LOCK, MARKER, STATE},
    remove::remove,
};
use crate::Error;

const MARKER_TEXT: &str = "\
moeprune is writing into this directory, or was interrupted while it did.
Unless it is still running, this directory can be deleted; a run that was interrupted cannot be
resumed then.
";

/// Before the number of the process, in the last line of the marker.
const PROCESS: &str = "process ";

const MARKER_LIMIT: u64 = 4096;

/// How a file is locked.
pub(super) type TryLock = fn(&File) -> Result<(), TryLockError>;

/// A hidden folder that no other process works in while this lives.
#[derive(Debug)]
pub(super) struct Claim {
    /// Locked, unless there is a lock file.
    marker: File,
    lock: Option<LockFile>,
}

impl Claim {
    /// Makes the hidden folder, or takes over the one that is there, and locks its marker.
    pub(super) fn make(work: &Path) -> Result<Self, Error> {
        Self::make_by(work, File::try_lock)
    }

    pub(super) fn make_by(work: &Path, try_lock: TryLock) -> Result<Self, Error> {
        // Another process may be removing the directory; it takes a few system calls.
        for _ in 0..100 {
            let made = match fs::create_dir(work) {
                Ok(()) => true,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
                Err(e) => return Err(Error::io("create", work)(e)),
            };
            match Self::of(work, try_lock) {
                Ok(Some(claim)) => return Ok(claim),
                Ok(None) => {}
                Err(e) => {
                    if made && !is_held(&e) {
                        drop(remove_work(work, None));
                    }
                    return Err(e);
                }
            }
        }
        let reason = "appears and disappears; another moeprune process may be at it".to_owned();
        Err(Error::Output { path: work.to_owned(), reason })
    }

    /// Locks the marker of a hidden folder and writes this process into it; `None` if the folder was
    /// removed meanwhile.
    pub(super) fn of(work: &Path, try_lock: TryLock) -> Result<Option<Self>, Error> {
        let path = work.join(MARKER);
        let Some(mut marker) = open_marker(work, &path)? else { return Ok(None) };
        let other = |e| Error::io("lock", work)(e);
        let lock = match try_lock(&marker) {
            Ok(()) => match LockFile::other_holder(work).map_err(other)? {
                Some(by) => return Err(held(work, &format!(" ({by})"))),
                None => None,
            },
            Err(TryLockError::WouldBlock) => {
                let by = owner(&mut marker).map_or_else(String::new, |by| format!(" ({by})"));
                return Err(held(work, &by));
            }
            // Lustre, some NFS and FUSE have no such locks.
            Err(TryLockError::Error(_)) => match LockFile::take(work) {
                Ok(Attempt::Taken(lock)) => Some(lock),
                Ok(Attempt::Held(by)) => return Err(held(work, &format!(" ({by})"))),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(other(e)),
            },
        };
        if !is_at(&marker, &path) {
            return Ok(None);
        }
        let text = format!("{MARKER_TEXT}{PROCESS}{}\n", std::process::id());
        // Not emptied first: on a full disk there would be no way back.
        marker
            .rewind()
            .and_then(|()| marker.write_all(text.as_bytes()))
            .and_then(|()| marker.set_len(text.len() as u64))
            .map_err(Error::io("write", &path))?;
        Ok(Some(Self { marker, lock }))
    }

    /// Closes the marker and removes the lock file, if there is one.
    pub(super) fn release(self) {
        let Self { marker, lock } = self;
        drop((lock, marker));
    }
}

fn held(work: &Path, by: &str) -> Error {
    let reason = format!("is being written by another moeprune process{by}; wait for it");
    Error::Output { path: work.to_owned(), reason }
}

/// Whether the folder is another process's.
fn is_held(error: &Error) -> bool {
    matches!(error, Error::Output { .. })
}

/// Opens the marker, or makes it in an empty directory; `None` if the directory changes
/// meanwhile.
fn open_marker(work: &Path, path: &Path) -> Result<Option<File>, Error> {
    let in_the_way = || {
        let reason = format!(
            "is in the way and has no {MARKER}, so it may belong to another program; remove it by hand if not"
        );
        Err(Error::Output { path: work.to_owned(), reason })
    };
    match work.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return in_the_way(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("inspect", work)(e)),
    }
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return in_the_way();
    }
    let mut options = File::options();
    options.read(true).write(true);
    match options.open(path) {
        Ok(marker) => return Ok(Some(marker)),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("open", path)(e)),
    }
    match fs::read_dir(work).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        // The marker may have been made since.
        Ok(false) if path.symlink_metadata().is_ok() => return Ok(None),
        Ok(false) => return in_the_way(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("list", work)(e)),
    }
    match options.create_new(true).open(path) {
        Ok(marker) => Ok(Some(marker)),
        Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(Error::io("create", path)(e)),
    }
}

/// The last line of a marker, if it can be read and says which process it is.
fn owner(marker: &mut File) -> Option<String> {
    let mut text = String::new();
    marker.take(MARKER_LIMIT).read_to_string(&mut text).ok()?;
    let line = text.lines().last()?;
    let number = line.strip_prefix(PROCESS)?;
    number.parse::<u32>().is_ok().then(|| line.to_owned())
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (Ok(file), Ok(found)) = (file.metadata(), path.symlink_metadata()) else {
            return false;
        };
        (file.dev(), file.ino()) == (found.dev(), found.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.symlink_metadata().is_ok()
    }
}

/// Deletes a hidden folder; its marker goes last, so that what is left by an interruption is known to
/// be a leftover.
pub(super) fn remove_work(work: &Path, claim: Option<Claim>) -> Result<(), Error> {
    for name in [CONTENT, STATE] {
        let path = work.join(name);
        if path.symlink_metadata().is_ok() {
            remove(&path)?;
        }
    }
    let others = fs::read_dir(work).into_iter().flatten().flatten();
    for other in others.filter(|e| e.file_name() != MARKER && e.file_name() != LOCK) {
        remove(&other.path())?;
    }
    if cfg!(windows) {
        claim.into_iter().for_each(Claim::release); // open files cannot be deleted there
        return remove(work);
    }
    let removed = remove(work);
    claim.into_iter().for_each(Claim::release);
    // On NFS an open file that is deleted stays under another name until it is closed.
    removed.or_else(|_| remove(work))
}

/// Whether a marker can be locked, for a folder that another process may work in.
pub(super) fn try_claim(work: &Path) -> Option<Claim> {
    Claim::of(work, File::try_lock).ok().flatten()
}

/// Removes what a process left that had published and was stopped before it could clean up, unless another works
/// there.
pub(super) fn remove_finished(work: &Path) {
    let is_gone = |name| work.join(name).symlink_metadata().is_err();
    if !is_gone(MARKER)
        && is_gone(CONTENT)
        && let Some(claim) = try_claim(work)
    {
        drop(remove_work(work, Some(claim)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsupported(_: &File) -> Result<(), TryLockError> {
        Err(TryLockError::Error(ErrorKind::Unsupported.into()))
    }

    fn no_locks(_: &File) -> Result<(), TryLockError> {
        // As Linux numbers it: no locks available.
        Err(TryLockError::Error(std::io::Error::from_raw_os_error(37)))
    }

    #[test]
    fn without_locks_there_is_a_lock_file() {
        for fails in [unsupported as TryLock, no_locks] {
            let folder = tempfile::tempdir().unwrap();
            let work = folder.path().join("work");
            let first = Claim::make_by(&work, fails).unwrap();
            // Whether the next one has locks or not.
            for next in [fails, File::try_lock as TryLock] {
                let error = Claim::make_by(&work, next).unwrap_err().to_string();
                let process = format!("another moeprune process (process {}", std::process::id());
                assert!(error.contains(&process), "{error}");
            }
            first.release();
            let second = Claim::make_by(&work, File::try_lock).unwrap();
            let error = Claim::make_by(&work, File::try_lock).unwrap_err().to_string();
            assert!(error.contains("wait for it"), "{error}");
            remove_work(&work, Some(second)).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
