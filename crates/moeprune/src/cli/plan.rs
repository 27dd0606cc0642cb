//! `moeprune plan`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_capture::read_observation;
use moeprune_core::Plan;

use super::{CalibrationArgs, FamilyArgs, RecipeArgs, Terminal};
use crate::{Error, Pipeline};

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune plan mixtral-8x7b --expert-sparsity 0.25 --sparsity 0.25 -o plan.json
  moeprune plan mixtral-8x7b --observation mixtral.obs.safetensors --similarity mixed -o plan.json")]
pub(super) struct PlanArgs {
    /// Directory of the model
    model: PathBuf,
    /// What `observe` stored; co-activation needs it, ties are decided better with it
    #[arg(long, value_name = "FILE")]
    observation: Option<PathBuf>,
    /// Where the plan goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(super) fn plan(args: &PlanArgs, terminal: &mut Terminal) -> Result<(), Error> {
    super::check_new(&args.output)?;
    let recipe = args.recipe.resolve(&args.sampling)?;
    let checkpoint = args.family.open_to_stream(&args.model)?;
    let observation = args.observation.as_deref().map(read_observation).transpose()?;
    let pipeline = Pipeline::from_recipe(&recipe);
    let plan = crate::plan(&checkpoint, observation.as_ref(), &recipe, &pipeline, terminal)?;
    write(&plan, &args.output)?;
    let kept: usize = plan.layers.iter().map(|l| l.survivors.len()).sum();
    let before: usize = plan.layers.iter().map(|l| l.experts_before).sum();
    match &plan.unstructured {
        None => line!("keeps {kept} of {before} experts → {}", args.output.display()),
        Some(asked) => line!(
            "keeps {kept} of {before} experts and zeroes {} of what is left → {}",
            super::percent(asked.ratio),
            args.output.display()
        ),
    }
    Ok(())
}

fn write(plan: &Plan, path: &Path) -> Result<(), Error> {
    super::write_whole(path, &super::json(plan)?)
}
