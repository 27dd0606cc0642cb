//! The whole job within one run: observe, plan, apply.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{Sparsity, StatisticsSource};

use crate::{
    Applied, Calibration, Error, Execution, Inputs, Pipeline, Progress, PruneRequest, Run,
    apply::apply_plan,
    calibration::observe_in,
    plan::{choose_survivors_in, plan, plan_searched},
    session::RunIdentity,
};

/// Observes a model on calibration text, plans, and applies the plan with statistics from the same
/// text. Begins the run, or resumes it.
///
/// The model is observed whenever experts go, whatever the stages: a cluster of two is always a tie,
/// and the tokens routed to each expert decide ties better than the lowest index does.
///
/// # Errors
/// As [`observe`](crate::observe), [`plan()`](crate::plan()) and [`apply`](crate::apply()).
pub fn prune(
    checkpoint: &Checkpoint,
    run: &mut Run,
    calibration: &Calibration,
    request: &PruneRequest,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Applied, Error> {
    let identity = RunIdentity::new("prune", checkpoint)?
        .with_recipe(&request.recipe, pipeline)
        .with_calibration(&calibration.tag);
    let on = &on.for_blocks(checkpoint, &calibration.tag, true, progress)?;
    run.begin(&identity.with_execution(on))?;
    let stored = request.promises.statistics == StatisticsSource::Stored;
    let observation = if request.experts.share > Sparsity::ZERO || stored {
        let observation = observe_in(&mut run.session, checkpoint, calibration, on, progress)?;
        run.lap("observing");
        Some(observation)
    } else {
        None
    };
    let observed = observation.as_ref();
    let plan = if pipeline.experts.needs().calibration {
        plan_searched(checkpoint, calibration, observed, request, pipeline, on, progress)?
    } else {
        plan(checkpoint, observed, request, pipeline, progress)?
    };
    let plan = choose_survivors_in(&mut run.session, checkpoint, &plan, pipeline, progress)?;
    run.lap("planning");
    let inputs = match &observation {
        Some(observation) if stored => Inputs::Observation(observation),
        _ => Inputs::Calibration(calibration),
    };
    apply_plan(checkpoint, run, plan, inputs, pipeline, on, progress)
}
