//! What can go wrong in a pipeline.

use std::{io, path::Path};

use moeprune_core::StageError;

/// An error of the pipeline, with the stage's own error inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] moeprune_checkpoint::Error),
    /// Running the model.
    #[error(transparent)]
    Model(#[from] moeprune_model::Error),
    /// Calibration text or an observation.
    #[error(transparent)]
    Capture(#[from] moeprune_capture::Error),
    /// Masking weights.
    #[error(transparent)]
    Score(#[from] moeprune_score::Error),
    /// Evaluating.
    #[error(transparent)]
    Eval(#[from] moeprune_eval::Error),
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
    /// A recipe that cannot be followed.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A plan that does not fit.
    #[error("plan: {0}")]
    Plan(String),
    /// A request that cannot be met.
    #[error("{0}")]
    Request(String),
    /// The tokenizer could not be loaded or used.
    #[error("tokenizer {path}: {problem}")]
    Tokenizer {
        /// Which file.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, verb: &'static str, source: io::Error) -> Self {
        Self::Io { verb, path: path.display().to_string(), source }
    }

    pub(crate) fn stage(
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
