//! What can be wrong with a checkpoint, a descriptor, or the place to write to.

use std::{io, path::PathBuf};

use moeprune_files::Files;

/// An error of this crate. Messages name the file and the tensor or key, say what was expected and
/// what was found, and what to do where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A family descriptor that is not one.
    #[error("family descriptor: {reason}")]
    Descriptor {
        /// What is wrong with it.
        reason: String,
    },
    /// `model_type` names no known family.
    #[error(
        "{}: model_type `{model_type}` is not a known family ({known}); to use it anyway, write a \
         family descriptor in TOML and pass it with the model (`--family FILE`); \
         docs/model-support.md in moeprune's repository says how, and the built-in ones are in \
         crates/moeprune-checkpoint/families there",
        path.display()
    )]
    UnknownFamily {
        /// The `config.json`.
        path: PathBuf,
        /// Its model type.
        model_type: String,
        /// The known ones.
        known: String,
    },
    /// `config.json` is not what it should be.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// Which key, what was expected, what was found.
        reason: String,
    },
    /// The directory does not hold one set of safetensors weights.
    #[error("{}: {reason}", dir.display())]
    Weights {
        /// The model directory.
        dir: PathBuf,
        /// What is missing or too much.
        reason: String,
    },
    /// The index of a sharded checkpoint is wrong.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A safetensors file is wrong.
    #[error("{}: {reason}", path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that is missing, too much, or of the wrong shape or type.
    #[error("{}: tensor `{name}`: {reason}", dir.display())]
    Tensor {
        /// The model directory.
        dir: PathBuf,
        /// Name on disk.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Config, router and tensors disagree about the experts.
    #[error("{}: {reason}", dir.display())]
    Experts {
        /// The model directory.
        dir: PathBuf,
        /// Who says what.
        reason: String,
    },
    /// A part that a family has no name for, or that this model lacks.
    #[error("the model has no {part}: {reason}")]
    NoSuchPart {
        /// The part asked for.
        part: String,
        /// Why it is not there.
        reason: String,
    },
    /// A weight that is NaN or infinite.
    #[error(
        "tensor `{name}` holds {value} at {position}; pruning compares weights and cannot use it: \
         download the file again, or repair the checkpoint"
    )]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Row and column, or index in a vector.
        position: String,
        /// What is there.
        value: f32,
    },
    /// Tensors that cannot be sliced or averaged as asked.
    #[error("{operation}: {reason}")]
    Weight {
        /// What was tried.
        operation: &'static str,
        /// Why it cannot be done.
        reason: String,
    },
    /// A place that cannot be written to.
    #[error("output {}: {reason}", path.display())]
    Output {
        /// The output directory or file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// Tensors that do not come as they were announced.
    #[error("writing tensors: {reason}")]
    Order {
        /// What was expected and what came.
        reason: String,
    },
    /// A file that could not be read, or an output that cannot be made.
    #[error(transparent)]
    Files(#[from] moeprune_files::Error),
    /// A value that breaks an invariant of the vocabulary.
    #[error(transparent)]
    Core(#[from] moeprune_core::Error),
}

impl Error {
    pub(crate) fn io(
        action: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (path, action) = (path.into(), action.into());
        move |source| Self::Io { path, action, source }
    }

    /// What is wrong with the files of a model.
    pub(crate) fn in_files(
        files: &dyn Files,
    ) -> impl FnOnce(moeprune_files::Error) -> Self + use<> {
        let dir = files.place().to_owned();
        move |error| match error {
            moeprune_files::Error::Unreadable { reason, .. } => Self::Weights { dir, reason },
            error => Self::Files(error),
        }
    }
}
