//! Which file a path leads to, however it is spelled.

use std::{fs::Metadata, path::Path};

/// A file or folder that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity(Inner);

#[cfg(unix)]
type Inner = (u64, u64);
#[cfg(not(unix))]
type Inner = std::path::PathBuf;

impl Identity {
    /// What a path leads to, links followed; `None` if that cannot be looked at.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        Some(Self::new(path, &path.metadata().ok()?))
    }

    #[cfg(unix)]
    pub(crate) fn new(_: &Path, metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self((metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    pub(crate) fn new(path: &Path, _: &Metadata) -> Self {
        Self(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    }
}
