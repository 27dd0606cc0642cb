//! Some files of a set, each under a name of the caller's choice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Error, FileEntry, FileIdentity, FileKind, Files, ReadAt};

/// Some files of another set, which are all that is listed and opened. What else lies beside them is not
/// part of this set, so it has no [folder](Files::local_folder) of its own.
///
/// ```
/// use std::{path::Path, sync::Arc};
///
/// use moeprune_files::{ChosenFiles, Files, MemoryFiles};
///
/// let mut all = MemoryFiles::new("downloads");
/// all.insert("model.gguf", "GGUF");
/// all.insert("model.gguf.report.json", "{}");
/// all.insert("other.gguf", "GGUF");
/// let names = [("model.gguf", "model.gguf"), ("report.json", "model.gguf.report.json")];
/// let model = ChosenFiles::new("downloads/model.gguf", Arc::new(all), names);
/// assert_eq!(model.list(Path::new(""))?.len(), 2);
/// assert!(model.has(Path::new("report.json"))? && !model.has(Path::new("other.gguf"))?);
/// # Ok::<(), moeprune_files::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChosenFiles {
    place: PathBuf,
    files: Arc<dyn Files>,
    /// Names there, by those here.
    names: BTreeMap<PathBuf, PathBuf>,
}

impl ChosenFiles {
    /// The files of `files` with the second names, under the first. Messages call the set `place`. A file
    /// that is not there is not there here either.
    pub fn new<A: Into<PathBuf>, B: Into<PathBuf>>(
        place: impl Into<PathBuf>,
        files: Arc<dyn Files>,
        names: impl IntoIterator<Item = (A, B)>,
    ) -> Self {
        let names = names.into_iter().map(|(here, there)| (here.into(), there.into())).collect();
        Self { place: place.into(), files, names }
    }

    fn missing(&self, name: &Path) -> Error {
        let path = self.path_of(name);
        let reason = format!("{} is not among these files", path.display());
        Error::unreadable(&path, reason)
    }
}

impl Files for ChosenFiles {
    fn place(&self) -> &Path {
        &self.place
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        self.names.get(name).map_or(Ok(None), |there| self.files.open(there))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        if folder != Path::new("") {
            return Err(self.missing(folder));
        }
        let mut entries = Vec::new();
        for (here, there) in &self.names {
            if self.files.has(there)? {
                entries.push(FileEntry { name: here.clone().into(), kind: FileKind::File });
            }
        }
        Ok(entries)
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        let there = self.names.get(name).ok_or_else(|| self.missing(name))?;
        let identity = self.files.identity(there)?;
        Ok(FileIdentity { name: name.to_string_lossy().into_owned(), ..identity })
    }

    fn path_of(&self, name: &Path) -> PathBuf {
        match self.names.get(name) {
            Some(there) => self.files.path_of(there),
            None => self.files.path_of(name),
        }
    }
}
