//! `moeprune apply`

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use moeprune_capture::read_observation;
use moeprune_checkpoint::OutputDirectory;
use moeprune_core::Plan;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CalibrationArgs, FamilyArgs, Terminal, prune::print_report};
use crate::{Calibration, Error, Inputs, Pipeline, Recipe, report::StageClock};

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
    let RecipeText { recipe } = serde_json::from_str(&text).map_err(not_a_plan)?;
    let length = recipe.map_or(0, |recipe| recipe.get().len());
    if length > LONGEST_RECIPE {
        return Err(bad(format!(
            "is not a plan: its recipe has {length} bytes, more than the {LONGEST_RECIPE} allowed"
        )));
    }
    serde_json::from_str(&text).map_err(not_a_plan)
}

/// Thousands of experts in hundreds of layers fit.
const LONGEST_PLAN: u64 = 100_000_000;

/// A recipe is read as JSON of any kind, which in memory is tens of times as long as its text.
const LONGEST_RECIPE: usize = 1 << 14;

/// The recipe of a plan as it stands.
#[derive(Deserialize)]
struct RecipeText<'a> {
    #[serde(default, borrow)]
    recipe: Option<&'a RawValue>,
}
