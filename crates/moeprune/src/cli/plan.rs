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
    /// Also choose among three or more alike experts, by reading them; otherwise `apply` does
    #[arg(long)]
    read_experts: bool,
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
    let mut plan = crate::plan(&checkpoint, observation.as_ref(), &recipe, &pipeline, terminal)?;
    if args.read_experts {
        plan = crate::choose_survivors(&checkpoint, &plan, &pipeline, terminal)?;
    }
    write(&plan, &args.output)?;
    let kept: usize = plan.layers.iter().map(|l| l.experts_after()).sum();
    let before: usize = plan.layers.iter().map(|l| l.experts_before).sum();
    match &plan.unstructured {
        None => line!("keeps {kept} of {before} experts → {}", args.output.display()),
        Some(asked) => line!(
            "keeps {kept} of {before} experts and zeroes {} of what is left → {}",
            super::percent(asked.ratio),
            args.output.display()
        ),
    }
    let open = plan.layers.iter().filter(|layer| layer.is_open()).count();
    if open > 0 {
        line!(
            "in {open} of {} layers, which of three or more alike experts stays is decided when \
             the plan is applied; --read-experts decides at once",
            plan.layers.len()
        );
    }
    Ok(())
}

fn write(plan: &Plan, path: &Path) -> Result<(), Error> {
    super::write_whole(path, &super::json(plan)?)
}
