//! Measuring prunings that are written nowhere.

use moeprune_checkpoint::Checkpoint;
use moeprune_engine::{Execution, Job, Pipeline, Progress};

use crate::Registry;

/// A model of which several prunings are measured, none of them written: what the names in their
/// recipes stand for, where the model runs, and what receives the progress.
///
/// [`compare`](Self::compare) measures given prunings side by side; [`search`](Self::search) looks for
/// the best split of a total.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Study<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// What the names in recipes stand for.
    pub registry: &'a Registry,
    /// Where the model runs.
    pub execution: &'a Execution,
    /// What receives the progress, and says whether to stop.
    pub progress: &'a mut dyn Progress,
}

impl<'a> Study<'a> {
    /// The study of these.
    pub fn new(
        checkpoint: &'a Checkpoint,
        registry: &'a Registry,
        execution: &'a Execution,
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self { checkpoint, registry, execution, progress }
    }

    /// The job of one pruning among those that are measured.
    pub(crate) fn job<'b>(&'b mut self, pipeline: &'b Pipeline) -> Job<'b> {
        let Study { checkpoint, execution, .. } = *self;
        Job { model: checkpoint, pipeline, execution, progress: &mut *self.progress }
    }
}
