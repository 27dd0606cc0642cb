//! Finding files of a model directory without being led out of it.

use std::{
    ffi::OsStr,
    fs,
    path::{Component, Path, PathBuf},
};

use crate::Error;

/// A directory that holds a model.
#[derive(Debug, Clone)]
pub(crate) struct ModelDirectory {
    /// As the user wrote it.
    pub(crate) path: PathBuf,
    /// Without symlinks.
    pub(crate) real: PathBuf,
    /// In the Hugging Face cache, files of a snapshot are symlinks into this folder.
    blobs: Option<PathBuf>,
}

impl ModelDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let real = path.canonicalize().map_err(Error::io("open the model directory", path))?;
        if !real.is_dir() {
            let reason = "is not a directory; expected one with config.json and *.safetensors";
            return Err(Error::Weights { dir: path.to_owned(), reason: reason.to_owned() });
        }
        let snapshots = real.parent().filter(|p| p.file_name() == Some(OsStr::new("snapshots")));
        let blobs = snapshots.and_then(Path::parent).map(|repository| repository.join("blobs"));
        Ok(Self { path: path.to_owned(), real, blobs })
    }

    /// Whether there is anything under this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// The regular file behind a path relative to the directory, if there is anything.
    pub(crate) fn optional_file(&self, relative: &Path) -> Result<Option<PathBuf>, Error> {
        if self.path.join(relative).symlink_metadata().is_err() {
            return Ok(None);
        }
        let dir = self.path.clone();
        self.file(relative).map(Some).map_err(|reason| Error::Weights { dir, reason })
    }

    /// The regular file behind a path relative to the directory.
    ///
    /// A symlink may lead to another place in the directory or into the blobs of the Hugging Face
    /// cache that the directory is part of, nowhere else: a downloaded model must not be able to
    /// name files of this machine.
    pub(crate) fn file(&self, relative: &Path) -> Result<PathBuf, String> {
        let path = self.path.join(relative);
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        let in_blobs = self.blobs.is_some() && real.parent() == self.blobs.as_deref();
        if !in_blobs && !real.starts_with(&self.real) {
            return Err(format!(
                "{} is a link to {}, outside of the model directory; copy or hard-link the file \
                 into the directory if it belongs there",
                path.display(),
                real.display()
            ));
        }
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err(format!("{} is not a regular file", path.display())),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }
}

/// Whether this is the name of a file and nothing more: no folder, no `..`, not absolute.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(c)) if c == OsStr::new(name));
    plain && components.next().is_none() && !name.contains(['/', '\\', '\0'])
}
