//! The whole job in one call: observe, plan, apply.

use std::path::Path;

use moeprune_checkpoint::Checkpoint;

use moeprune_core::Plan;
use moeprune_engine::{
    Applied, Calibration, Error as EngineError, Execution, Inputs, Job, Pipeline, Progress, Resume,
    Run,
};

use crate::{Error, Recipe, Report, recipe::CalibrationRecipe, report::SearchReport};

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
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let recipe = Found { recipe, searched: None };
    prune_found(checkpoint, out, calibration, &recipe, pipeline, resume, execution, progress)
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
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let Found { recipe, ref searched } = *found;
    let request = recipe.request(pipeline)?;
    moeprune_engine::check_request(checkpoint.spec(), &request, pipeline)?;
    moeprune_model::check_runnable(checkpoint.spec())?;
    let report = Run::claim(out, checkpoint, resume)?.complete(|run| {
        let calibration = Calibration::read(calibration, checkpoint, recipe)?;
        run.lap("reading calibration text");
        let mut job = Job { model: checkpoint, pipeline, execution, progress: &mut *progress };
        let applied = job.prune(run, &calibration, &request)?;
        let recipe = followed(recipe, &applied, Some(&calibration));
        let mut report = Report::new(checkpoint, &recipe, applied);
        note_total(&report, progress);
        report.search.clone_from(searched);
        report.save(run.folder())?;
        Ok(report)
    })?;
    Ok(report)
}

/// Writes the pruned checkpoint and its report to the place that `run` has claimed.
///
/// # Errors
/// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
/// reading or writing fails. What was done until then is kept if any layer was finished;
/// otherwise nothing is left behind.
pub fn apply(
    checkpoint: &Checkpoint,
    run: Run,
    plan: &Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let report = run.complete(|run| {
        let mut job = Job { model: checkpoint, pipeline, execution, progress: &mut *progress };
        let applied = job.apply(run, plan, inputs)?;
        let recipe = serde_json::from_value(plan.recipe.clone())
            .map_err(|e| EngineError::Plan(format!("its recipe cannot be read: {e}")))?;
        let calibration = match inputs {
            Inputs::Calibration(calibration) => Some(calibration),
            _ => None,
        };
        let report = Report::new(checkpoint, &followed(&recipe, &applied, calibration), applied);
        note_total(&report, progress);
        report.save(run.folder())?;
        Ok(report)
    })?;
    Ok(report)
}

/// A recipe, with what was done in place of what was asked where the two differ.
fn followed(recipe: &Recipe, applied: &Applied, calibration: Option<&Calibration>) -> Recipe {
    let mut followed = recipe.clone();
    if let Some(source) = applied.statistics {
        followed.weights.statistics = source.into();
    }
    if let Some(Calibration { tag, .. }) = calibration {
        followed.calibration = CalibrationRecipe {
            samples: tag.samples as usize,
            sequence_len: tag.sequence_len as usize,
            seed: tag.seed,
        };
    }
    followed
}

fn note_total(report: &Report, progress: &mut dyn Progress) {
    let (asked, got) = (report.sparsity.requested, report.sparsity.achieved.linears);
    if report.promises.is_some() && (asked - got).abs() > 1e-3 {
        progress.note(&format!(
            "note: {:.2} % was asked for in all, the plan as it stands gives {:.2} %",
            100.0 * asked,
            100.0 * got
        ));
    }
}
