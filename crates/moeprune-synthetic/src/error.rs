//! What can go wrong, each with what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why no checkpoint was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model has the name.
    #[error("no model called {name} is known; these are: {}", crate::Published::ALL.iter().map(|m| m.name()).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The name given.
        name: String,
    },
    /// A width cannot be divided.
    #[error(
        "scale {scale} does not divide the widths of {model} into whole ones, and its heads into heads of \
         at least {narrowest}; these do: {works}"
    )]
    Scale {
        /// The value given.
        scale: usize,
        /// The published model.
        model: &'static str,
        /// Width of the narrowest head.
        narrowest: usize,
        /// The scales that are possible.
        works: String,
    },
    /// The family has no model of such sizes.
    #[error(
        "{model} cannot be reduced so: {problem}; choose another scale or other numbers of layers or experts"
    )]
    Reduced {
        /// The published model.
        model: &'static str,
        /// What a reader of the reduced model says.
        problem: String,
    },
    /// Too few of something.
    #[error("{got} {what}: there must be at least {least}, {because}")]
    TooFew {
        /// What there are too few of.
        what: &'static str,
        /// The value given.
        got: usize,
        /// The least that is possible.
        least: usize,
        /// Why.
        because: &'static str,
    },
    /// Something has the name already.
    #[error("{} exists; remove it or choose another name", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// No folder can have the name.
    #[error("{} is no name for a folder; give one that can be created", path.display())]
    Name {
        /// The name.
        path: PathBuf,
    },
    /// The disk is too small.
    #[error(
        "{} has {free} bytes free, but the checkpoint takes {needed}; choose another disk, fewer \
         layers, fewer experts or a larger scale", dir.display()
    )]
    Room {
        /// The folder it was to be written in.
        dir: PathBuf,
        /// What is free, less what is left free.
        free: u64,
        /// What it takes.
        needed: u64,
    },
    /// A file could not be written.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What is built in about a published model is not as it should be: a bug.
    #[error("what is built in about {model} is damaged ({problem}); please report it")]
    BuiltIn {
        /// Name of the model.
        model: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { verb, path: path.to_owned(), source }
    }
}
