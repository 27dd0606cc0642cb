//! `moeprune apply`

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use moeprune_capture::read_observation;
use moeprune_checkpoint::OutputDirectory;
use moeprune_core::{Plan, Sparsity, UnstructuredPlan};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CalibrationArgs, FamilyArgs, Terminal, prune::print_report};
use crate::{Calibration, Error, Inputs, PLAN_FORMAT, Pipeline, Recipe, report::StageClock};

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune apply mixtral-8x7b pruned --plan plan.json --calibration c4.json.gz")]
pub(super) struct ApplyArgs {
    /// Directory of the model
    model: PathBuf,
    /// Directory to write; must not exist
    out: PathBuf,
    /// What `plan` wrote
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Statistics of the unpruned model, instead of running calibration text
    #[arg(long, value_name = "FILE", conflicts_with = "calibration")]
    observation: Option<PathBuf>,
    /// Calibration text, run through the pruned layers as they are made
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Write the report here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(super) fn apply(args: &ApplyArgs, terminal: &mut Terminal) -> Result<(), Error> {
    args.json.as_deref().map_or(Ok(()), super::check_folder)?;
    let checkpoint = args.family.open(&args.model)?;
    let output = OutputDirectory::create(&args.out, &checkpoint)?;
    let plan = read_plan(&args.plan)?;
    let mut recipe = Recipe::deserialize(&plan.recipe)
        .map_err(|e| Error::Plan(format!("{}: its recipe: {e}", args.plan.display())))?;
    args.sampling.apply(&mut recipe);
    let mut clock = StageClock::default();
    let calibration = match &args.calibration {
        None => None,
        Some(path) => Some(Calibration::read(path, &checkpoint, &recipe)?),
    };
    let observation = args.observation.as_deref().map(read_observation).transpose()?;
    clock.lap("reading statistics");
    let inputs = match (&calibration, &observation) {
        (Some(calibration), _) => Inputs::Calibration(calibration),
        (None, Some(observation)) => Inputs::Observation(observation),
        (None, None) => Inputs::None,
    };
    let pipeline = Pipeline::from_recipe(&recipe);
    let report = crate::apply(&checkpoint, output, &plan, inputs, &pipeline, clock, terminal)?;
    print_report(&report, &args.out, args.json.as_deref())
}

/// Reads a plan. Whether it fits a model, [`apply`](crate::apply) checks.
///
/// # Errors
/// If the file cannot be read, is too large to be a plan, or is none.
pub fn read_plan(path: &Path) -> Result<Plan, Error> {
    let bad = |reason: String| Error::Plan(format!("{} {reason}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let read = file.take(LONGEST_PLAN + 1).read_to_string(&mut text);
    read.map_err(|e| Error::io(path, "read", e))?;
    if text.len() as u64 > LONGEST_PLAN {
        return Err(bad(format!("is longer than {LONGEST_PLAN} bytes; not a plan")));
    }
    let not_a_plan = |e: serde_json::Error| bad(format!("is not a plan: {e}"));
    let Head { format, recipe } = serde_json::from_str(&text).map_err(not_a_plan)?;
    if format != PLAN_FORMAT {
        return Err(bad(format!("has format {format}, not {PLAN_FORMAT}; make the plan again")));
    }
    let _: Recipe = serde_json::from_str(recipe.get())
        .map_err(|e| bad(format!("is not a plan: its recipe: {e}")))?;
    let plan: Plan = serde_json::from_str(&text).map_err(not_a_plan)?;
    if let Some(UnstructuredPlan { total_sparsity, ratio, layer_ratios }) = &plan.unstructured {
        let mut shares = [total_sparsity, ratio].into_iter().chain(layer_ratios);
        shares
            .try_for_each(|&share| Sparsity::new(share).map(drop))
            .map_err(|e| bad(format!("is not a plan: unstructured: {e}")))?;
    }
    Ok(plan)
}

/// Thousands of experts in hundreds of layers fit.
const LONGEST_PLAN: u64 = 100_000_000;

/// What is looked at first. A recipe becomes a part of a [`Plan`] as JSON of any kind, which takes
/// tens of times the memory of its text, and nests deeper than it looks where JSON stands in a
/// string; so it must be a recipe.
#[derive(Deserialize)]
struct Head<'a> {
    format: u32,
    #[serde(borrow)]
    recipe: &'a RawValue,
}
