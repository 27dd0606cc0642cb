//! What a pruning works with.

use crate::{Calibration, Error, Execution, Model, Pipeline, Progress, RunKind};

/// A model, the stages that it is pruned with, where that runs, and what receives its progress.
///
/// Its methods are the steps of a pruning: [`observe`](Self::observe), [`plan`](Self::plan) and
/// [`apply`](Self::apply), and [`prune`](Self::prune) for all of it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Job<'a> {
    /// The model that is pruned.
    pub model: &'a dyn Model,
    /// The stages.
    pub pipeline: &'a Pipeline,
    /// Where the model runs.
    pub execution: &'a Execution,
    /// What receives the progress, and says whether to stop.
    pub progress: &'a mut dyn Progress,
}

impl<'a> Job<'a> {
    /// The job of these.
    pub fn new(
        model: &'a dyn Model,
        pipeline: &'a Pipeline,
        execution: &'a Execution,
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self { model, pipeline, execution, progress }
    }

    /// The same job, run elsewhere.
    pub(crate) fn on<'b>(&'b mut self, execution: &'b Execution) -> Job<'b> {
        let Job { model, pipeline, .. } = *self;
        Job { model, pipeline, execution, progress: &mut *self.progress }
    }

    /// Where it runs, set up for calibration blocks of this number and length.
    pub(crate) fn for_blocks(
        &mut self,
        calibration: &Calibration,
        pruning: bool,
    ) -> Result<Execution, Error> {
        let kind = match pruning {
            false => RunKind::Observe,
            true if self.pipeline.weights.needs().hessians => RunKind::Reconstruct,
            true => RunKind::Prune,
        };
        self.execution.for_blocks(self.model, &calibration.tag, kind, self.progress)
    }
}
