//! A directory that appears under its name only when it is complete.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use super::auxiliary::{self, CopiedFiles};
use crate::{Checkpoint, Error};

/// In a directory that is being written; the process that writes holds a lock on it.
const MARKER: &str = ".moeprune-partial";

const MARKER_TEXT: &str = "\
moeprune is writing a checkpoint into this directory, or was interrupted while it did.
Unless it is still running, this directory can be deleted; the next run to the same place does so.
";

/// A checkpoint directory in the making.
///
/// Files are written into a hidden sibling of the final place, `.NAME.moeprune-partial`.
/// [`publish`](Self::publish) makes them durable and renames the sibling, so a directory that
/// bears the asked name is complete. Dropped unpublished, it is removed.
///
/// When a run was killed, its sibling stays behind. The next run to the same place removes it if
/// it carries the marker file that this type leaves in it and nobody holds the marker's lock;
/// anything else under that name is left alone and is an error.
#[derive(Debug)]
pub struct OutputDirectory {
    partial: PathBuf,
    out: PathBuf,
    /// Locked while this lives.
    marker: Option<File>,
    published: bool,
}

impl OutputDirectory {
    /// Prepares to write to `out`, whose missing parent directories are made.
    ///
    /// # Errors
    /// If `out` exists, is inside of the source or the source inside of it, or another process is
    /// writing to it.
    pub fn create(out: &Path, source: &Checkpoint) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::Output { path: out.to_owned(), reason });
        let place = real_place(out)?;
        let model = &source.model_directory().real;
        if place.starts_with(model) {
            return bad(format!(
                "is inside of the model {}; choose another place",
                model.display()
            ));
        }
        if model.starts_with(&place) {
            return bad(format!("contains the model {}; choose another place", model.display()));
        }
        if out.symlink_metadata().is_ok() {
            return bad("exists already; remove it or choose another place".to_owned());
        }
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return bad("is no place for a directory".to_owned());
        };
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let partial = parent.join(format!(".{}.moeprune-partial", name.to_string_lossy()));
        remove_leftover(&partial)?;
        fs::create_dir(&partial).map_err(Error::io("create", &partial))?;
        let mut made = Self { partial, out: place, marker: None, published: false };
        let path = made.partial.join(MARKER);
        let mut marker = File::create_new(&path).map_err(Error::io("create", &path))?;
        marker.try_lock().map_err(|e| Error::io("lock", &path)(e.into()))?;
        marker.write_all(MARKER_TEXT.as_bytes()).map_err(Error::io("write", &path))?;
        made.marker = Some(marker);
        Ok(made)
    }

    /// Where to write. The path is not valid any more after [`publish`](Self::publish).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Writes a file of the given name, which must be new.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.partial.join(name);
        let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
        file.write_all(bytes).map_err(Error::io("write", &path))
    }

    /// Copies the files of the model directory that are neither weights nor `config.json`
    /// (tokenizer, generation config, model code, licence), byte for byte, subfolders included.
    ///
    /// Left out, and listed as such, are hidden files and folders, links to folders, and weights
    /// in any format: those of another format or an index of them would still be of the unpruned
    /// model. Links to files are followed where [`Checkpoint::open`] would follow them.
    ///
    /// # Errors
    /// If a file cannot be copied, or is a link out of the model directory.
    pub fn copy_auxiliary(&self, source: &Checkpoint) -> Result<CopiedFiles, Error> {
        auxiliary::copy(source, &self.partial)
    }

    /// Makes everything durable and moves it to its final name.
    ///
    /// # Errors
    /// If that fails, or something has appeared under the name; nothing is left behind then.
    pub fn publish(mut self) -> Result<(), Error> {
        let marker = self.partial.join(MARKER);
        fs::remove_file(&marker).map_err(Error::io("remove", &marker))?;
        sync_tree(&self.partial)?;
        if self.out.symlink_metadata().is_ok() {
            let reason = "has appeared while it was being written; nothing was replaced";
            return Err(Error::Output { path: self.out.clone(), reason: reason.to_owned() });
        }
        fs::rename(&self.partial, &self.out).map_err(Error::io("rename to", &self.out))?;
        self.published = true;
        match self.out.parent() {
            Some(parent) => sync(parent),
            None => Ok(()),
        }
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is there to tell; what stays behind looks unfinished all the same.
            drop(fs::remove_dir_all(&self.partial));
        }
    }
}

/// The absolute path of something that may not exist, symlinks of what exists resolved.
fn real_place(out: &Path) -> Result<PathBuf, Error> {
    let absolute = std::path::absolute(out).map_err(Error::io("find", out))?;
    for existing in absolute.ancestors() {
        let real = match existing.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("find", existing)(e)),
        };
        let rest = absolute.strip_prefix(existing).unwrap_or_else(|_| Path::new(""));
        if rest.components().all(|c| matches!(c, Component::Normal(_))) {
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    let reason = "leads through directories that do not exist; write it without `..`".to_owned();
    Err(Error::Output { path: out.to_owned(), reason })
}

/// Removes what a killed run left, if it is certain to be that.
fn remove_leftover(partial: &Path) -> Result<(), Error> {
    if partial.symlink_metadata().is_err() {
        return Ok(());
    }
    let bad = |reason: String| Err(Error::Output { path: partial.to_owned(), reason });
    let path = partial.join(MARKER);
    let Ok(marker) = File::open(&path) else {
        return bad(format!(
            "is in the way and has no {MARKER}, so it may be somebody's; remove it by hand if not"
        ));
    };
    match marker.try_lock() {
        Ok(()) => fs::remove_dir_all(partial).map_err(Error::io("remove", partial)),
        Err(TryLockError::WouldBlock) => {
            bad("is being written by another moeprune process; wait for it".to_owned())
        }
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

fn sync_tree(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("inspect", &path))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            sync(&path)?;
        }
    }
    sync(dir)
}

fn sync(path: &Path) -> Result<(), Error> {
    if cfg!(windows) && path.is_dir() {
        return Ok(()); // directories cannot be opened there
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("write to disk", path))
}
