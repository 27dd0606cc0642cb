//! A directory of this machine, without being led out of it.

use std::{
    ffi::OsStr,
    fs::{self, DirEntry, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::mapped::{Mapped, Positioned};
use crate::{Error, FileEntry, FileIdentity, FileKind, Files, ReadAt};

/// How the data of files reaches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Access {
    /// The files are mapped: nothing is copied and the system caches what was read. A file that
    /// another program shortens while it is mapped ends this process with a bus error (SIGBUS) at
    /// the next access to the missing part; no program can turn that into an error message.
    #[default]
    MemoryMap,
    /// Each range is read into its own memory. A file that is shortened meanwhile is an
    /// ordinary error. For network file systems, and where the memory that is mapped would count
    /// against a limit.
    Read,
}

/// The files of a directory.
///
/// A symlink may lead to another place in the directory or into the blobs of the Hugging Face
/// cache that the directory is part of, and to no other: a downloaded model must not be able to name
/// files of this machine.
#[derive(Debug, Clone)]
pub struct LocalFiles {
    /// As the user wrote it.
    path: PathBuf,
    /// Without symlinks.
    real: PathBuf,
    /// In the Hugging Face cache, files of a snapshot are symlinks into this folder.
    blobs: Option<PathBuf>,
    access: Access,
}

impl LocalFiles {
    /// The files of a directory, to be read in the given way.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let real = path.canonicalize().map_err(Error::io("open", path))?;
        if !real.is_dir() {
            return Err(Error::unreadable(path, format!("{} is not a directory", path.display())));
        }
        // Of a snapshot, or of a folder in one.
        let snapshots =
            real.ancestors().skip(1).find(|p| p.file_name() == Some(OsStr::new("snapshots")));
        let blobs = snapshots.and_then(Path::parent).map(|repository| repository.join("blobs"));
        let blobs = blobs.filter(|blobs| blobs.is_dir());
        Ok(Self { path: path.to_owned(), real, blobs, access })
    }

    /// One file by its path, wherever links lead: one that the user named, and no model did.
    ///
    /// # Errors
    /// If there is none, it is no regular file, or it cannot be opened.
    pub fn open_file(path: &Path, access: Access) -> Result<Box<dyn ReadAt>, Error> {
        let unread = || Error::io("read", path);
        let real = path.canonicalize().map_err(unread())?;
        let (Some(folder), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(unread()(ErrorKind::IsADirectory.into()));
        };
        let file = Self::open(folder, access)?.open(Path::new(name))?;
        file.ok_or_else(|| unread()(ErrorKind::NotFound.into()))
    }

    /// The regular file behind a path relative to the directory, if there is anything.
    fn file(&self, relative: &Path) -> Result<Option<PathBuf>, Error> {
        let path = self.path.join(relative);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let bad = |reason: String| Err(Error::unreadable(&path, reason));
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) => return bad(format!("{}: {e}", path.display())),
        };
        let in_blobs = self.blobs.is_some() && real.parent() == self.blobs.as_deref();
        if !in_blobs && !real.starts_with(&self.real) {
            return bad(format!(
                "{} is a link to {}, outside of the model directory; copy or hard-link the file \
                 into the directory if it belongs there",
                path.display(),
                real.display()
            ));
        }
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_file() => Ok(Some(path)),
            Ok(_) => bad(format!("{} is not a regular file", path.display())),
            Err(e) => bad(format!("{}: {e}", path.display())),
        }
    }
}

impl Files for LocalFiles {
    fn place(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        let Some(path) = self.file(name)? else { return Ok(None) };
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let metadata = file.metadata().map_err(Error::io("inspect", &path))?;
        Ok(Some(match self.access {
            Access::MemoryMap => {
                let mapped = Mapped::new(&path, &file, &metadata);
                Box::new(mapped.map_err(Error::io("map", &path))?)
            }
            Access::Read => Box::new(Positioned::new(file, &metadata)),
        }))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        let here = self.path.join(folder);
        let within = here.canonicalize().map_err(Error::io("list", &here))?;
        if !within.starts_with(&self.real) {
            let reason = format!("{} is outside of the model directory", here.display());
            return Err(Error::unreadable(&here, reason));
        }
        let mut entries = fs::read_dir(&here)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(Error::io("list", &here))?;
        entries.sort_by_key(DirEntry::file_name);
        let entry = |entry: DirEntry| {
            let kind = entry.file_type().map_err(Error::io("inspect", &entry.path()))?;
            let kind = if kind.is_symlink() && entry.path().is_dir() {
                FileKind::LinkToFolder
            } else if kind.is_dir() {
                FileKind::Folder
            } else {
                FileKind::File
            };
            Ok(FileEntry { name: entry.file_name(), kind })
        };
        entries.into_iter().map(entry).collect()
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        let path = self.path.join(name);
        let metadata = fs::metadata(&path).map_err(Error::io("inspect", &path))?;
        let time = metadata.modified().map_err(Error::io("inspect", &path))?;
        let modified = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(e) => i64::try_from(e.duration().as_nanos()).map_or(i64::MIN, |before| -before),
        };
        let name = name.to_string_lossy().into_owned();
        Ok(FileIdentity { name, bytes: metadata.len(), modified })
    }

    fn local_folder(&self) -> Option<&Path> {
        Some(&self.real)
    }

    fn has(&self, name: &Path) -> Result<bool, Error> {
        Ok(self.path.join(name).symlink_metadata().is_ok())
    }

    /// Read, not mapped, with either access: such files are small.
    fn read(&self, name: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(path) = self.file(name)? else { return Ok(None) };
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        Ok(Some(bytes))
    }
}
