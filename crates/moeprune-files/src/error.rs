//! What can go wrong with a file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a file is not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It must not be written there.
    #[error("refusing to write {}: {reason}", path.display())]
    Refused {
        /// The place, as the user wrote it.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The place is none that can be written.
    #[error("cannot write {}: {reason}", path.display())]
    Place {
        /// The place, as the user wrote it.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// An output that is written over a long time cannot be made there.
    #[error("output {}: {reason}", path.display())]
    Output {
        /// The output file or directory.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A name under which no file may be read.
    #[error("{reason}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Which file it is, what is wrong with it and what to do.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {verb} {}: {source}{}", path.display(), full_disk(source))]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn place(path: &Path, reason: impl Into<String>) -> Self {
        Self::Place { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn unreadable(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.into() }
    }

    /// What the system said, or this error within one of that kind.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io { source, .. } => source,
            error => io::Error::other(error),
        }
    }

    pub(crate) fn io(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }
}

fn full_disk(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; make room and run again",
        io::ErrorKind::QuotaExceeded => "; make room within the quota and run again",
        _ => "",
    }
}
