//! The whole job in one call: observe, plan, apply.

use std::path::Path;

use moeprune_checkpoint::Checkpoint;

use crate::{
    Calibration, Error, Execution, Inputs, Pipeline, Progress, Recipe, Report, Resume, Run,
    apply::apply_plan, calibration::observe_in, plan, plan_exhaustive, report::SearchReport,
    session::RunIdentity, survivors::choose_survivors_in,
};

/// Prunes a checkpoint into `out`: observes it on the calibration text, plans, and applies the
/// plan with statistics from the same text.
///
/// The observation costs one forward pass of the unpruned model. It is made whenever experts go,
/// whatever the similarity: a cluster of two is always a tie, and the tokens routed to each
/// expert decide ties better than the lowest index does.
///
/// The work lies in a hidden sibling of `out` until it is complete, with a journal of what is
/// done. A run that was killed can be continued with [`Resume::Yes`] and gives the bytes that it
/// would have given.
///
/// # Errors
/// As [`observe`](crate::observe), [`plan`](crate::plan) and [`apply`](crate::apply), and what
/// [`Run::claim`] refuses; nothing is left under the name `out` then.
#[expect(clippy::too_many_arguments, reason = "the whole job takes what its three parts take")]
pub fn prune(
    checkpoint: &Checkpoint,
    out: &Path,
    calibration: &Path,
    recipe: &Recipe,
    pipeline: &Pipeline,
    resume: Resume,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let recipe = Found { recipe, searched: None };
    prune_found(checkpoint, out, calibration, &recipe, pipeline, resume, on, progress)
}

/// A recipe, and what the [search](crate::search::search()) found that made it.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Found<'a> {
    /// The recipe to follow.
    pub recipe: &'a Recipe,
    /// What goes into the report.
    pub searched: Option<SearchReport>,
}

/// As [`prune`], with what a search found in the report.
///
/// # Errors
/// As [`prune`].
#[expect(clippy::too_many_arguments, reason = "as many as `prune` takes")]
pub fn prune_found(
    checkpoint: &Checkpoint,
    out: &Path,
    calibration: &Path,
    found: &Found<'_>,
    pipeline: &Pipeline,
    resume: Resume,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let Found { recipe, ref searched } = *found;
    crate::planning::check_request(checkpoint.spec(), recipe, pipeline)?;
    Run::claim(out, checkpoint, resume)?.complete(|run| {
        let calibration = Calibration::read(calibration, checkpoint, recipe)?;
        run.lap("reading calibration text");
        let identity = RunIdentity::new("prune", checkpoint)?
            .with_recipe(recipe, pipeline)?
            .with_calibration(&calibration.tag);
        let on = &on.for_blocks(checkpoint, &calibration.tag, true, progress)?;
        run.begin(&identity.with_execution(on))?;
        let stored = recipe.weights.statistics == crate::recipe::Statistics::Stored;
        let observation = if recipe.experts.sparsity.value() > 0.0 || stored {
            let observation = observe_in(&mut run.session, checkpoint, &calibration, on, progress)?;
            run.lap("observing");
            Some(observation)
        } else {
            None
        };
        let observed = observation.as_ref();
        let plan = if pipeline.experts.needs().calibration {
            plan_exhaustive(checkpoint, &calibration, observed, recipe, pipeline, on, progress)?
        } else {
            plan(checkpoint, observed, recipe, pipeline, progress)?
        };
        let plan = choose_survivors_in(&mut run.session, checkpoint, &plan, pipeline, progress)?;
        run.lap("planning");
        let inputs = match &observation {
            Some(observation) if stored => Inputs::Observation(observation),
            _ => Inputs::Calibration(&calibration),
        };
        let mut report = apply_plan(checkpoint, run, &plan, inputs, pipeline, on, progress)?;
        report.search.clone_from(searched);
        Ok(report)
    })
}
