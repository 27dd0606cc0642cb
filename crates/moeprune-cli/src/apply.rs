//! `moeprune apply`

use std::path::PathBuf;

use clap::Args;
use moeprune_files::OutputKind;
use serde::Deserialize;

use crate::{
    blend::WeighedFile,
    imatrix::ImatrixCut,
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, ResumeArgs, makes_model},
    prune::print_report,
    repair::{RepairArgs, check_as_planned},
    terminal::Terminal,
    texts::{ChatArgs, reads_texts},
};
use moeprune::{
    CalibrationTexts, Error, Inputs, Job, Recipe, Registry, Run, blend, read_plan,
    recipe::StageChoice,
};

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune apply mixtral-8x7b pruned --plan plan.json --calibration c4.json.gz
  moeprune apply mixtral.gguf pruned.gguf --plan plan.json --imatrix mixtral.imatrix.gguf --imatrix-out pruned.imatrix.gguf")]
pub(crate) struct ApplyArgs {
    /// Directory of the model, or a .gguf file
    model: PathBuf,
    /// Directory to write, missing or empty; if the model is a .gguf file, one that is missing
    out: PathBuf,
    /// What `plan` wrote
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Statistics of the unpruned model, instead of running calibration text; several are weighed
    #[arg(long = "observation", value_name = "FILE[=WEIGHT]", conflicts_with = "calibration")]
    observations: Vec<WeighedFile>,
    /// Calibration text, run through the pruned layers as they are made. A file, a folder or a pattern; may be given
    /// several times, and is one text
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    /// What llama-imatrix collected on the model, to be cut along with a .gguf file
    #[arg(long, value_name = "FILE", requires = "imatrix_out")]
    imatrix: Option<PathBuf>,
    /// Where what is left of --imatrix goes
    #[arg(long, value_name = "FILE", requires = "imatrix")]
    imatrix_out: Option<PathBuf>,
    /// Write the report here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the experts that stay make up for those that go: refused unless the plan says the same
    #[arg(long, value_name = "REPAIR", value_parser = str::parse::<StageChoice>)]
    repair: Option<StageChoice>,
    #[command(flatten)]
    repair_texts: RepairArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(crate) fn apply(
    args: &ApplyArgs,
    registry: &Registry,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    files.reads_all(args.observations.iter().map(|file| &file.path));
    files.reads(&args.plan);
    let texts = args.chat.texts(&args.calibration, &mut files)?;
    reads_texts(&mut files, args.repair_texts.paths());
    files.reads_all(&args.imatrix);
    makes_model(&mut files, &args.out);
    let named = (args.imatrix.as_deref(), args.imatrix_out.as_deref());
    let imatrix = ImatrixCut::of(named, &mut files)?;
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Report)?;
    crate::interrupt::listen_resumable();
    let execution = args.device.open()?;
    let checkpoint = args.family.open_to_stream(&args.model)?.with_whole_hashes(args.resume.rehash);
    if let Some(imatrix) = &imatrix {
        imatrix.check(&checkpoint)?;
    }
    let mut run = Run::claim(&args.out, &checkpoint, args.resume.into())?;
    let plan = read_plan(&args.plan)?;
    let mut recipe = Recipe::deserialize(&plan.recipe)
        .map_err(|e| Error::Plan(format!("{}: its recipe: {e}", args.plan.display())))?;
    check_as_planned(args.repair.as_ref(), &recipe, registry)?;
    if plan.unstructured.is_some() && checkpoint.describes_itself() {
        return Err(Error::Plan(format!(
            "{}: it zeroes weights, which is for safetensors, and {} is {}; make one with --sparsity equal to \
             --expert-sparsity",
            args.plan.display(),
            args.model.display(),
            checkpoint.container().name()
        )));
    }
    args.sampling.apply(&mut recipe);
    let others = &args.repair_texts.others(&recipe);
    let texts = texts.as_ref().map(|texts| CalibrationTexts { text: texts.files(), others });
    let calibration = texts.map(|texts| texts.read(&checkpoint, &recipe, terminal)).transpose()?;
    let domains = args.observations.iter().map(WeighedFile::read).collect::<Result<Vec<_>, _>>()?;
    let observation = blend(&domains)?;
    run.end_step("reading statistics");
    let inputs = match (&calibration, &observation) {
        (Some(calibration), _) => Inputs::Calibration(calibration),
        (None, Some(observation)) => Inputs::Observation(observation),
        (None, None) => Inputs::None,
    };
    let pipeline = registry.pipeline(&recipe)?;
    let mut job =
        Job { model: &checkpoint, pipeline: &pipeline, execution: &execution, progress: terminal };
    let report = moeprune::apply(&mut job, run, &plan, inputs)?;
    if let Some(imatrix) = imatrix {
        imatrix.write(&report)?;
    }
    print_report(&report, &args.out, json.as_ref())
}
