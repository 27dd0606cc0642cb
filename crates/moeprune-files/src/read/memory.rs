//! Files in memory.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsString,
    io::{self, ErrorKind},
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::{Error, FileEntry, FileIdentity, FileKind, Files, ReadAt};

/// Files in memory, for tests and for models that are made by a program. They are on no disk, so
/// what works on them works on files that are elsewhere.
///
/// ```
/// use std::path::Path;
///
/// use moeprune_files::{Files, MemoryFiles};
///
/// let mut files = MemoryFiles::new("a model in memory");
/// files.insert("config.json", r#"{"model_type": "mixtral"}"#);
/// let config = files.open(Path::new("config.json"))?.expect("is there");
/// assert_eq!(config.len(), 25);
/// assert!(config.local()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemoryFiles {
    place: PathBuf,
    files: BTreeMap<PathBuf, MemoryFile>,
    /// Files inserted so far.
    inserted: i64,
}

#[derive(Debug, Clone)]
struct MemoryFile {
    bytes: Arc<[u8]>,
    /// Which insertion it came with.
    inserted: i64,
}

impl MemoryFiles {
    /// No files; `place` is what messages call the set.
    pub fn new(place: impl Into<PathBuf>) -> Self {
        Self { place: place.into(), files: BTreeMap::new(), inserted: 0 }
    }

    /// A copy of other files, those in subfolders included.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn copy_of(files: &dyn Files) -> Result<Self, Error> {
        let mut copy = Self::new(files.place());
        copy.take_all(files, Path::new(""))?;
        Ok(copy)
    }

    /// Adds a file, or replaces the one of that name. A name that is not relative, or has `..` in
    /// it, can never be opened.
    pub fn insert(&mut self, name: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.inserted += 1;
        let file = MemoryFile { bytes: bytes.into().into(), inserted: self.inserted };
        self.files.insert(name.into(), file);
    }

    fn take_all(&mut self, files: &dyn Files, folder: &Path) -> Result<(), Error> {
        for FileEntry { name, kind } in files.list(folder)? {
            let name = folder.join(name);
            match kind {
                FileKind::Folder => self.take_all(files, &name)?,
                FileKind::LinkToFolder => {}
                FileKind::File => {
                    if let Some(bytes) = files.read(&name, u64::MAX)? {
                        self.insert(name, bytes);
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&self, name: &Path) -> Result<Option<&MemoryFile>, Error> {
        if !is_inside(name) {
            let path = self.place.join(name);
            let reason = format!("{} is outside of the files", path.display());
            return Err(Error::unreadable(&path, reason));
        }
        Ok(self.files.get(name))
    }

    fn missing(&self, verb: &'static str, name: &Path) -> Error {
        Error::io(verb, &self.place.join(name))(ErrorKind::NotFound.into())
    }
}

impl Files for MemoryFiles {
    fn place(&self) -> &Path {
        &self.place
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        let file = self.file(name)?;
        Ok(file.map(|file| Box::new(Bytes(Arc::clone(&file.bytes))) as Box<dyn ReadAt>))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        let mut entries: BTreeMap<OsString, FileKind> = BTreeMap::new();
        for below in self.files.keys().filter_map(|name| name.strip_prefix(folder).ok()) {
            let mut components = below.components();
            let Some(Component::Normal(name)) = components.next() else { continue };
            let kind = components.next().map_or(FileKind::File, |_| FileKind::Folder);
            match entries.entry(name.to_owned()) {
                Entry::Vacant(entry) => drop(entry.insert(kind)),
                Entry::Occupied(_) => {}
            }
        }
        if entries.is_empty() && !folder.as_os_str().is_empty() {
            return Err(self.missing("list", folder));
        }
        Ok(entries.into_iter().map(|(name, kind)| FileEntry { name, kind }).collect())
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        let file = self.file(name)?.ok_or_else(|| self.missing("inspect", name))?;
        let (bytes, modified) = (file.bytes.len() as u64, file.inserted);
        Ok(FileIdentity { name: name.to_string_lossy().into_owned(), bytes, modified })
    }
}

fn is_inside(name: &Path) -> bool {
    name.components().all(|component| matches!(component, Component::Normal(_)))
}

/// The bytes of a file in memory.
#[derive(Debug)]
struct Bytes(Arc<[u8]>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let length = self.check(&range)?;
        let at = range.start as usize;
        Ok(Cow::Borrowed(&self.0[at..at + length]))
    }
}
