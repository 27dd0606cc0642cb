//! From a model and a recipe to a plan.

use moeprune_core::{ModelSpec, Plan};
use moeprune_engine::{Job, Pipeline, PlanInputs};

use crate::{Error, Recipe};

/// Decides which experts go and how sparse the rest becomes, as a recipe asks. A pure function of its
/// arguments: the same model, inputs, recipe and stages give the same plan. As
/// [`Job::plan`] with the recipe's [request](Recipe::request).
///
/// # Errors
/// If the recipe contradicts itself, or as [`Job::plan`].
pub fn plan<'i>(
    job: &mut Job<'_>,
    recipe: &Recipe,
    inputs: impl Into<PlanInputs<'i>>,
) -> Result<Plan, Error> {
    Ok(job.plan(&recipe.request(job.pipeline)?, inputs)?)
}

/// Refuses what cannot work before anything is read or run: an expert share that leaves fewer
/// experts than a token is routed to, or a total that contradicts it.
///
/// # Errors
/// [`Error::Recipe`], or an error of the engine with what would work.
pub fn check_request(spec: &ModelSpec, recipe: &Recipe, pipeline: &Pipeline) -> Result<(), Error> {
    Ok(moeprune_engine::check_request(spec, &recipe.request(pipeline)?, pipeline)?)
}
