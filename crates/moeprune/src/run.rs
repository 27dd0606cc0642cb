//! The whole job in one call: observe, plan, apply.

use std::path::Path;

use moeprune_checkpoint::{Checkpoint, OutputDirectory};

use crate::{
    Calibration, Error, Inputs, Pipeline, Progress, Recipe, Report, apply, observe, plan,
    report::StageClock,
};

/// Prunes a checkpoint into `out`: observes it on the calibration text, plans, and applies the
/// plan with statistics from the same text.
///
/// The observation costs one forward pass of the unpruned model. It is made whenever experts go,
/// whatever the similarity: a cluster of two is always a tie, and the tokens routed to each
/// expert decide ties better than the lowest index does.
///
/// # Errors
/// As [`observe`], [`plan`] and [`apply`]; nothing is left under the name `out` then.
pub fn prune(
    checkpoint: &Checkpoint,
    out: &Path,
    calibration: &Path,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    crate::planning::check_request(checkpoint.spec(), recipe)?;
    let output = OutputDirectory::create(out, checkpoint)?;
    let mut clock = StageClock::default();
    let calibration = Calibration::read(calibration, checkpoint, recipe)?;
    clock.lap("reading calibration text");
    let stored = recipe.weights.statistics == crate::recipe::Statistics::Stored;
    let observation = if recipe.experts.sparsity.value() > 0.0 || stored {
        let observation = observe(checkpoint, &calibration, progress)?;
        clock.lap("observing");
        Some(observation)
    } else {
        None
    };
    let plan = plan(checkpoint, observation.as_ref(), recipe, pipeline, progress)?;
    clock.lap("planning");
    let inputs = match &observation {
        Some(observation) if stored => Inputs::Observation(observation),
        _ => Inputs::Calibration(&calibration),
    };
    apply(checkpoint, output, &plan, inputs, pipeline, clock, progress)
}
