//! How files of a directory are read, and where links in it may lead.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use crate::Error;

/// How the data of files reaches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Access {
    /// The files are mapped: nothing is copied and the system caches what was read. A file that
    /// another program shortens while it is mapped ends this process with a bus error (SIGBUS) at
    /// the next access to the missing part; no program can turn that into an error message. Where files cannot be
    /// mapped (some file systems in user space; under a limit of addresses), they are read.
    #[default]
    MemoryMap,
    /// Each range is read into its own memory. A file that is shortened meanwhile is an
    /// ordinary error. For network file systems, and where the memory that is mapped would count
    /// against a limit.
    Read,
}

/// Where links in a directory may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "to follow or not")]
pub enum Links {
    /// To another place in the directory, and to the blobs of the Hugging Face cache that it is part of: a
    /// downloaded model must not be able to name files of this machine, which would then be in a
    /// result that may be published.
    #[default]
    Within,
    /// To any file of this machine: the user says that these links are theirs. A name still leads nowhere else by
    /// itself, neither with `..` nor as an absolute path.
    Follow,
}

/// How the files of a directory are read. Made of an [`Access`] alone, links are not followed out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Reading {
    /// How their data reaches memory.
    pub access: Access,
    /// Where links may lead.
    pub links: Links,
}

impl From<Access> for Reading {
    fn from(access: Access) -> Self {
        Self { access, links: Links::Within }
    }
}

/// Folders that links in a directory may lead to.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    /// The directory itself, without links.
    directory: PathBuf,
    /// The blobs of the repository in the Hugging Face cache that the directory is a snapshot of: in a
    /// snapshot, files are links to them. Without links; the folder may itself be one, to another disk.
    blobs: Option<PathBuf>,
    /// The Hugging Face cache, whose other models' blobs may be led to too.
    cache: Option<PathBuf>,
    links: Links,
}

/// What the name of a model's folder in the Hugging Face cache begins with.
const REPOSITORY: &str = "models--";

impl Allowed {
    /// Of a directory, as it was given and without links.
    pub(super) fn of(given: &Path, real: &Path, links: Links) -> Self {
        let absolute = std::path::absolute(given).unwrap_or_else(|_| real.to_owned());
        // The folder of snapshots may be a link too: then only the path that was given is in the cache.
        let repository = repository_of(real).or_else(|| repository_of(&absolute));
        let blobs = repository.and_then(|repository| {
            let blobs = repository.join("blobs");
            let is_link = blobs.symlink_metadata().ok()?.is_symlink();
            (!is_link || is_named_as_model(repository)).then(|| blobs.canonicalize().ok())?
        });
        let cache = repository.filter(|repository| is_named_as_model(repository));
        let cache = cache.and_then(Path::parent).and_then(|cache| cache.canonicalize().ok());
        let blobs = blobs.filter(|blobs| blobs.is_dir());
        Self { directory: real.to_owned(), blobs, cache, links }
    }

    /// Whether a file, given without links, may be read.
    pub(super) fn has(&self, real: &Path) -> bool {
        self.links == Links::Follow
            || real.starts_with(&self.directory)
            || (self.blobs.is_some() && real.parent() == self.blobs.as_deref())
            || real.parent().is_some_and(|folder| self.is_blobs_of_cache(folder))
    }

    /// Whether a folder is that of a model's blobs in the same cache.
    fn is_blobs_of_cache(&self, folder: &Path) -> bool {
        let repository = folder.parent().filter(|_| folder.file_name() == Some("blobs".as_ref()));
        repository.is_some_and(|repository| {
            is_named_as_model(repository)
                && self.cache.is_some()
                && repository.parent() == self.cache.as_deref()
        })
    }

    /// Whether a name leads nowhere but into the directory, links apart.
    pub(super) fn is_plain(name: &Path) -> bool {
        name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    }
}

/// The repository that a folder is a snapshot of, or lies in a snapshot of.
fn repository_of(folder: &Path) -> Option<&Path> {
    let snapshots = folder.ancestors().skip(1);
    let mut snapshots = snapshots.filter(|p| p.file_name() == Some(OsStr::new("snapshots")));
    snapshots.next()?.parent()
}

fn is_named_as_model(repository: &Path) -> bool {
    let name = repository.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(REPOSITORY.as_bytes())
}

/// What a path leads to, without links.
///
/// # Errors
/// In words, if it leads nowhere.
pub(super) fn real(path: &Path) -> Result<PathBuf, Error> {
    let said = |what: String| Error::unreadable(path, format!("{} {what}", path.display()));
    path.canonicalize().map_err(|e| match fs::read_link(path) {
        Ok(target) if e.kind() == ErrorKind::NotFound => {
            said(format!("is a link to {}, which does not exist", target.display()))
        }
        Ok(target) if is_loop(&e) => {
            said(format!("is a link to {}, which leads back to it", target.display()))
        }
        Ok(target) => said(format!("is a link to {}, which cannot be read: {e}", target.display())),
        Err(_) => said(format!("cannot be read: {e}")),
    })
}

#[cfg(unix)]
fn is_loop(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(not(unix))]
fn is_loop(_error: &std::io::Error) -> bool {
    false
}
