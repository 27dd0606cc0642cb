//! A set of files to read, local or not.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, ReadAt};

/// A set of files under relative names: a model directory, an archive, a repository elsewhere.
///
/// A checkpoint is opened over one, once, and then opens, lists and identifies files by name, from
/// any thread. Names are relative paths with `/` between folders.
///
/// An implementation guarantees that
///
/// * a file that is listed can be opened under its name, or opening says why not;
/// * no name leads to a file outside of the set: neither `..`, nor an absolute path, nor a link, unless the
///   user says that links may ([`Links::Follow`](crate::Links::Follow));
/// * what [`open`](Self::open) returned stays readable as it was, or fails; it never becomes
///   another file.
///
/// ```
/// use std::path::{Path, PathBuf};
///
/// use moeprune_files::{Error, FileEntry, FileIdentity, Files, MemoryFiles, ReadAt};
///
/// /// Files of which some are hidden.
/// #[derive(Debug)]
/// struct Without(&'static str, MemoryFiles);
///
/// impl Files for Without {
///     fn place(&self) -> &Path {
///         self.1.place()
///     }
///
///     fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
///         if name == Path::new(self.0) { Ok(None) } else { self.1.open(name) }
///     }
///
///     fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
///         let mut entries = self.1.list(folder)?;
///         entries.retain(|entry| folder.join(&entry.name) != Path::new(self.0));
///         Ok(entries)
///     }
///
///     fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
///         self.1.identity(name)
///     }
/// }
///
/// let mut files = MemoryFiles::new("example");
/// files.insert("config.json", "{}");
/// files.insert("secret", "?");
/// let files: Box<dyn Files> = Box::new(Without("secret", files));
/// assert!(files.has(Path::new("config.json"))? && !files.has(Path::new("secret"))?);
/// assert_eq!(files.read(Path::new("config.json"), 100)?.as_deref(), Some(&b"{}"[..]));
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of files",
    note = "implement `Files::place`, `open`, `list` and `identity`: what the set is called, a file by its \
            name, the entries of a folder, and what identifies a file"
)]
pub trait Files: fmt::Debug + Send + Sync {
    /// What to call the set in messages: its path as the user wrote it, or its address.
    fn place(&self) -> &Path;

    /// Opens a file; `None` if nothing has that name.
    ///
    /// # Errors
    /// If what has that name is no regular file, leads out of the set, or cannot be opened.
    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error>;

    /// What is in a folder of the set, by name; the empty path is the set itself. Folders are
    /// entries, not walked into.
    ///
    /// # Errors
    /// If it is no folder of the set, or cannot be listed.
    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error>;

    /// What identifies a file at this moment, without reading it.
    ///
    /// # Errors
    /// If there is none, or it cannot be looked at.
    fn identity(&self, name: &Path) -> Result<FileIdentity, Error>;

    /// The folder of this machine that the files are in, without links; `None` if they are
    /// elsewhere. The default says `None`.
    fn local_folder(&self) -> Option<&Path> {
        None
    }

    /// Whether anything has this name, even if it cannot be opened. The default looks into the
    /// list of the folder that the name is in.
    ///
    /// # Errors
    /// If that folder cannot be listed.
    fn has(&self, name: &Path) -> Result<bool, Error> {
        let folder = name.parent().unwrap_or_else(|| Path::new(""));
        let entries = self.list(folder)?;
        Ok(entries.iter().any(|entry| Some(&*entry.name) == name.file_name()))
    }

    /// A file's first bytes, up to `most`; `None` if nothing has that name. A caller that takes no
    /// longer file passes one more than it takes.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if it cannot be read.
    fn read(&self, name: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let bytes = file.read_at(0..most.min(file.len()));
        let bytes = bytes.map_err(Error::io("read", &self.path_of(name)))?;
        Ok(Some(bytes.into_owned()))
    }

    /// What to call a file in messages.
    fn path_of(&self, name: &Path) -> PathBuf {
        self.place().join(name)
    }
}

/// Something in a folder of [`Files`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct FileEntry {
    /// Its name in the folder.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers decide for each what to do")]
pub enum FileKind {
    /// A file, a link to one, or anything else that is no folder.
    File,
    /// A folder of the set.
    Folder,
    /// A link to a folder, which is never walked into.
    LinkToFolder,
}

/// What distinguishes a file from others without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored and compared by the caller")]
pub struct FileIdentity {
    /// Name in the set of files.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was changed last, in nanoseconds since the beginning of 1970; of files that have no
    /// such time, any number that changes with them.
    pub modified: i64,
}
