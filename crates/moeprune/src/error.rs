//! What can go wrong in a pipeline.

use std::{io, path::Path};

use moeprune_core::StageError;
use moeprune_engine::{Error as EngineError, Remedy};
use moeprune_eval::Error as EvalError;

/// An error of the pipeline, with the cause inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Planning a pruning, carrying it out, or running a model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Evaluating.
    #[error(transparent)]
    Eval(#[from] moeprune_eval::Error),
    /// Asking a server.
    #[error(transparent)]
    Endpoint(#[from] moeprune_endpoint::Error),
    /// A journal of answers that cannot be used.
    #[error(transparent)]
    Journal(#[from] moeprune_endpoint::JournalError),
    /// A file that must not be written, or cannot be.
    #[error(transparent)]
    Files(#[from] moeprune_files::Error),
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
    /// A recipe that cannot be followed.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A plan that does not fit.
    #[error("plan: {0}")]
    Plan(String),
    /// A request that cannot be met.
    #[error("{0}")]
    Request(String),
    /// One of several prunings that are compared cannot be carried out.
    #[error("{name}: {error}")]
    Variant {
        /// What it is called.
        name: String,
        /// Why not.
        error: Box<Self>,
    },
}

macro_rules! from_engine {
    ($($source:ty),+ $(,)?) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::Engine(error.into())
            }
        })+
    };
}

from_engine!(
    moeprune_capture::Error,
    moeprune_checkpoint::Error,
    moeprune_core::Error,
    moeprune_model::Error,
    moeprune_score::Error,
    candle_core::Error,
);

impl Error {
    /// Whether the run was asked to stop: it is no failure then.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_stop(),
            Self::Endpoint(error) => error.is_stop(),
            _ => false,
        }
    }

    /// Whether what was asked for contradicts itself, or lacks something that it needs, so that it was refused
    /// before any work: a recipe that cannot be followed, a repair without text or of weights that none
    /// can be written for, or parts of what is only done in one piece; a task that there is none of.
    #[must_use]
    pub fn is_wrong_usage(&self) -> bool {
        match self {
            Self::Recipe(_) => true,
            Self::Eval(EvalError::UnknownTask { .. } | EvalError::TaskFile { .. }) => true,
            Self::Engine(EngineError::Refused { remedy, .. }) => {
                use Remedy::{Calibration, NoParts, NoRepair, ObservationOrNoParts, Requantise};
                matches!(
                    remedy,
                    Calibration | NoParts | NoRepair | ObservationOrNoParts | Requantise
                )
            }
            Self::Variant { error, .. } => error.is_wrong_usage(),
            _ => false,
        }
    }

    /// Whether what was asked for cannot be done with this model, so that another request may be met.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Recipe(_) | Self::Plan(_) | Self::Request(_) => true,
            Self::Engine(error) => matches!(
                error,
                EngineError::Refused { .. } | EngineError::Request(_) | EngineError::Plan(_)
            ),
            Self::Variant { error, .. } => error.is_refusal(),
            _ => false,
        }
    }

    /// The same for a run whose finished work stays in `folder`.
    #[must_use]
    pub fn kept(self, folder: String) -> Self {
        match self {
            Self::Engine(error) => Self::Engine(error.kept(folder)),
            other => Self::Engine(EngineError::Request(other.to_string()).kept(folder)),
        }
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
        let failed = EngineError::stage(stage, layer);
        move |source| Self::Engine(failed(source))
    }

    pub(crate) fn stopped() -> Self {
        Self::Engine(EngineError::Stopped)
    }
}

fn full_disk(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::StorageFull { "; make room and run again" } else { "" }
}
