//! From a model and a recipe to a plan.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ModelSpec, Observation, Plan};
use moeprune_engine::{Calibration, Execution, Job, Pipeline, PlanInputs, Progress};

use crate::{Error, Recipe};

/// Decides which experts go and how sparse the rest becomes. A pure function of its arguments:
/// the same model, observation, recipe and stages give the same plan.
///
/// Reads headers and routers, nothing else. Where choosing a cluster's survivor takes reading
/// experts ([`ExpertSelector::reads_experts`](moeprune_core::ExpertSelector::reads_experts): by
/// default where a cluster has three or more), the layer's survivors are left open, for
/// [`choose_survivors`](crate::choose_survivors) or [`apply`](crate::apply()).
///
/// # Errors
/// If the recipe contradicts itself or does not fit the model (top-k above the experts left, a
/// total that cannot be reached), if an observation is needed and missing or of another model, or
/// if a stage fails.
pub fn plan(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Plan, Error> {
    let request = recipe.request(pipeline)?;
    let execution = &Execution::cpu();
    Ok(Job { model: checkpoint, pipeline, execution, progress }.plan(&request, observation)?)
}

/// As [`plan`], for the criterion that tries every subset of a layer's experts on what the layer
/// makes of calibration text (NAEE; Lu et al., arXiv 2402.14800). Runs the model once, and each
/// layer's experts on all tokens.
///
/// # Errors
/// As [`plan`]; if there are more subsets than the recipe allows, or the budget is not uniform.
pub fn plan_exhaustive(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    observation: Option<&Observation>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Plan, Error> {
    let request = recipe.request(pipeline)?;
    let mut job = Job { model: checkpoint, pipeline, execution, progress };
    let inputs = PlanInputs { observation, calibration: Some(calibration) };
    Ok(job.plan(&request, inputs)?)
}

/// Refuses what cannot work before anything is read or run: an expert share that leaves fewer
/// experts than a token is routed to, or a total that contradicts it.
///
/// # Errors
/// [`Error::Recipe`], or an error of the engine with what would work.
pub fn check_request(spec: &ModelSpec, recipe: &Recipe, pipeline: &Pipeline) -> Result<(), Error> {
    Ok(moeprune_engine::check_request(spec, &recipe.request(pipeline)?, pipeline)?)
}
