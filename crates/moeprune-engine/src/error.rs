//! What can go wrong while a model is pruned.

use std::{io, path::Path};

use moeprune_core::StageError;

use crate::{ImatrixMismatch, Remedy};

/// An error of the engine, with the stage's own error inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] moeprune_checkpoint::Error),
    /// A file that must not be written, or cannot be.
    #[error(transparent)]
    Files(#[from] moeprune_files::Error),
    /// Running the model.
    #[error(transparent)]
    Model(#[from] moeprune_model::Error),
    /// Calibration text or an observation.
    #[error(transparent)]
    Capture(moeprune_capture::Error),
    /// Text that cannot be read, or is none.
    #[error(transparent)]
    Text(#[from] moeprune_text::Error),
    /// A file that is no imatrix.
    #[error("imatrix {file}: {source}")]
    ReadImatrix {
        /// Which file.
        file: String,
        /// What is wrong with it.
        source: moeprune_gguf::imatrix::ImatrixError,
    },
    /// An imatrix that is not one of the model.
    #[error("imatrix {file}: {problem}")]
    Imatrix {
        /// Which file.
        file: String,
        /// How the two differ.
        problem: Box<ImatrixMismatch>,
    },
    /// Masking weights.
    #[error(transparent)]
    Score(#[from] moeprune_score::Error),
    /// Masking weights on a device.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    DeviceScore(#[from] moeprune_score::cuda::Error),
    /// A value out of range.
    #[error(transparent)]
    Core(#[from] moeprune_core::Error),
    /// A tensor operation.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A stage, built in or not, could not do its work.
    #[error("{stage}{}: {source}", layer.map(|l| format!(" of layer {l}")).unwrap_or_default())]
    Stage {
        /// Which stage.
        stage: &'static str,
        /// Which decoder layer, if it was one.
        layer: Option<usize>,
        /// What it said.
        source: StageError,
    },
    /// A stage broke its contract.
    #[error("{stage} of layer {layer} broke its contract: {problem}")]
    Contract {
        /// Which stage.
        stage: &'static str,
        /// Which decoder layer.
        layer: usize,
        /// What was expected and what it returned.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("cannot {verb} {path}: {source}{}", full_disk(source))]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A plan that does not fit.
    #[error("plan: {0}")]
    Plan(String),
    /// A request that cannot be met.
    #[error("{0}")]
    Request(String),
    /// A request that cannot be met, and one that can.
    #[error("{problem}; {remedy}")]
    Refused {
        /// What is wrong.
        problem: String,
        /// What would work.
        remedy: Remedy,
    },
    /// A device has not the memory that the run needs.
    #[error(
        "the device has {:.1} GB of free memory, and the run needs up to {:.1} GB: {remedy}",
        *free as f64 / 1e9,
        *needed as f64 / 1e9
    )]
    DeviceMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// What would fit.
        remedy: Remedy,
    },
    /// The run was asked to stop ([`Progress::should_stop`](crate::Progress::should_stop)).
    #[error("stopped before the end")]
    Stopped,
    /// A run failed or was stopped when part of its work was done.
    #[error("{error}\n  what is done is kept in {folder}: {}", Remedy::ResumeOrDelete)]
    Kept {
        /// Why it ended.
        error: Box<Self>,
        /// Where the work is.
        folder: String,
    },
    /// Putting parts together failed or was stopped when files of them were moved.
    #[error(
        "{error}\n  {folder} holds weights moved out of the parts, of which there is no other copy: run the same \
         command again to continue, and keep that folder"
    )]
    KeptMoved {
        /// Why it ended.
        error: Box<Self>,
        /// Where the weights are.
        folder: String,
    },
    /// An interrupted run left work that this one would destroy.
    #[error("an interrupted run left finished work in {folder}: {}", Remedy::ResumeOrDelete)]
    Unfinished {
        /// Where the work is.
        folder: String,
    },
    /// An interrupted run that cannot be resumed.
    #[error("cannot resume: {0}")]
    Resume(String),
    /// A folder that holds no part of a model, or not the one that is wanted.
    #[error("{folder}: {problem}")]
    Part {
        /// The folder.
        folder: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Parts that do not make a model together.
    #[error("{0}")]
    Parts(String),
    /// The tokenizer could not be loaded or used.
    #[error("tokenizer {path}: {problem}")]
    Tokenizer {
        /// Which file.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl From<moeprune_capture::Error> for Error {
    fn from(error: moeprune_capture::Error) -> Self {
        match error {
            moeprune_capture::Error::Stopped => Self::Stopped,
            // What a text of this crate says names its file already.
            moeprune_capture::Error::Source { name, source } => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Capture(moeprune_capture::Error::Source { name, source }),
            },
            error => Self::Capture(error),
        }
    }
}

impl Error {
    /// Whether the run was asked to stop: it is no failure then.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::Kept { error, .. } | Self::KeptMoved { error, .. } => error.is_stop(),
            _ => false,
        }
    }

    /// Whether it will be the same each time the run is tried: weights that are not numbers
    /// are in the model.
    pub(crate) fn is_final(&self) -> bool {
        use moeprune_checkpoint::Error::NotFinite;
        if matches!(self, Self::Checkpoint(NotFinite { .. })) {
            return true;
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(NotFinite { .. }) = error.downcast_ref() {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// A request that cannot be met, and what would work.
    #[must_use]
    pub fn refused(problem: impl Into<String>, remedy: Remedy) -> Self {
        Self::Refused { problem: problem.into(), remedy }
    }

    /// What would have worked, if that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Refused { remedy, .. } | Self::DeviceMemory { remedy, .. } => Some(*remedy),
            Self::Kept { .. } | Self::Unfinished { .. } => Some(Remedy::ResumeOrDelete),
            _ => None,
        }
    }

    /// The same for a run whose finished work stays in `folder`.
    #[must_use]
    pub fn kept(self, folder: String) -> Self {
        Self::Kept { error: Box::new(self), folder }
    }

    pub(crate) fn part(folder: &Path, problem: impl Into<String>) -> Self {
        Self::Part { folder: folder.display().to_string(), problem: problem.into() }
    }

    /// A file that could not be read or written: `verb` says what was tried.
    #[must_use]
    pub fn io(path: &Path, verb: &'static str, source: io::Error) -> Self {
        Self::Io { verb, path: path.display().to_string(), source }
    }

    /// What a stage could not do, for `map_err`.
    pub fn stage(
        stage: &'static str,
        layer: impl Into<Option<usize>>,
    ) -> impl FnOnce(StageError) -> Self {
        let layer = layer.into();
        move |source| Self::Stage { stage, layer, source }
    }
}

fn full_disk(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::StorageFull { "; make room and run again" } else { "" }
}
