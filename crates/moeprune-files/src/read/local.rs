//! A directory of this machine, without being led out of it.

use std::{
    fs::{self, DirEntry, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{
    links::{self, Access, Allowed, Links, Reading},
    mapped::{Mapped, Positioned},
};
use crate::{Error, FileEntry, FileIdentity, FileKind, Files, ReadAt};

/// The files of a directory.
///
/// A symlink may lead to another place in the directory or into the blobs of the Hugging Face
/// cache that the directory is part of, and to no other unless [`Links::Follow`](crate::Links::Follow) says so: a
/// downloaded model must not be able to name files of this machine.
#[derive(Debug, Clone)]
pub struct LocalFiles {
    /// As the user wrote it.
    path: PathBuf,
    /// Without symlinks.
    real: PathBuf,
    allowed: Allowed,
    reading: Reading,
}

impl LocalFiles {
    /// The files of a directory, to be read in the given way: an [`Access`](crate::Access), or a [`Reading`].
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open(path: &Path, reading: impl Into<Reading>) -> Result<Self, Error> {
        let reading = reading.into();
        let real = path.canonicalize().map_err(Error::io("open", path))?;
        if !real.is_dir() {
            return Err(Error::unreadable(path, format!("{} is not a directory", path.display())));
        }
        let allowed = Allowed::of(path, &real, reading.links);
        Ok(Self { path: path.to_owned(), real, allowed, reading })
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

    /// The regular file behind a path relative to the directory, if there is anything: open, and where it is
    /// without links, so that a link that is changed later changes nothing.
    fn file(&self, relative: &Path) -> Result<Option<(File, PathBuf)>, Error> {
        let path = self.path.join(relative);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let bad = |what: String| Error::unreadable(&path, format!("{} {what}", path.display()));
        let real = links::real(&path)?;
        if !self.allowed.has(&real) || !(Allowed::is_plain(relative) || self.is_within(&real)) {
            return Err(bad(format!(
                "is a link to {}, outside of the model directory; if that is meant, pass --follow-links, or \
                 copy or hard-link the file into the directory (a downloaded model must not be able to name \
                 files of this machine)",
                real.display()
            )));
        }
        // What is no file is not opened: a device may act on that.
        let is_file = real.symlink_metadata().map(|metadata| metadata.is_file());
        match is_file.and_then(|is_file| is_file.then(|| open_at_once(&real)).transpose()) {
            Ok(Some(file)) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                Ok(Some((file, real)))
            }
            Ok(_) => Err(bad("is not a regular file".into())),
            Err(e) => Err(Error::io("open", &path)(e)),
        }
    }

    fn is_within(&self, real: &Path) -> bool {
        real.starts_with(&self.real)
    }
}

/// Opens for reading, without waiting for the writer of a FIFO. The path has no links, and must still have none.
#[cfg(unix)]
fn open_at_once(real: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits();
    File::options().read(true).custom_flags(flags.cast_signed()).open(real)
}

#[cfg(not(unix))]
fn open_at_once(real: &Path) -> io::Result<File> {
    File::open(real)
}

impl Files for LocalFiles {
    fn place(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        let Some((file, real)) = self.file(name)? else { return Ok(None) };
        let metadata = file.metadata().map_err(Error::io("inspect", &real))?;
        let mapped = match self.reading.access {
            Access::MemoryMap => Mapped::new(&real, &file, &metadata).ok(),
            Access::Read => None,
        };
        // Not every file system can map its files; all can read them.
        Ok(Some(match mapped {
            Some(mapped) => Box::new(mapped),
            None => Box::new(Positioned::new(file, &metadata)),
        }))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        let here = self.path.join(folder);
        let within = here.canonicalize().map_err(Error::io("list", &here))?;
        let is_followed = self.reading.links == Links::Follow && Allowed::is_plain(folder);
        if !self.is_within(&within) && !is_followed {
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
        let Some((file, _)) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(most).read_to_end(&mut bytes);
        read.map_err(Error::io("read", self.path.join(name)))?;
        Ok(Some(bytes))
    }
}
