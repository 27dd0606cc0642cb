//! What a pruning works with.

use moeprune_checkpoint::Checkpoint;

use crate::{Execution, Pipeline, Progress};

/// A model, the stages that it is pruned with, where that runs, and what receives its progress.
///
/// Its methods are the steps of a pruning: [`plan`](Self::plan) and [`apply`](Self::apply),
/// and [`prune`](Self::prune) for all of it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Job<'a> {
    /// The model that is pruned.
    pub model: &'a Checkpoint,
    /// The stages.
    pub pipeline: &'a Pipeline,
    /// Where the model runs.
    pub execution: &'a Execution,
    /// What receives the progress, and says whether to stop.
    pub progress: &'a mut dyn Progress,
}
